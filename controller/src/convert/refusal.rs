//! Why the planner does not begin what an operator asked for, in words with a way out.

use fleetswap_proto::Explained;
use fleetswap_rollout::Refusal;
use semver::Version;

use crate::explain;

/// Targets of a rollback that an error lists, newest first.
const TARGETS_SHOWN: usize = 10;

/// A refusal as an operator reads it.
pub(crate) fn refusal(refusal: &Refusal) -> Explained {
    let what = refusal.to_string();
    let (why, fix) = why_and_fix(refusal);
    Explained::new(refusal.code(), what, why, fix)
}

fn said(why: &str, fix: String) -> (String, String) {
    (why.to_owned(), fix)
}

fn why_and_fix(refusal: &Refusal) -> (String, String) {
    match refusal {
        Refusal::HostsRequired { .. }
        | Refusal::Ambiguous { .. }
        | Refusal::Unknown { .. }
        | Refusal::Overlap { .. }
        | Refusal::NoHostsMatch { .. } => no_assignment(refusal),
        Refusal::InProgress { rollout, .. } => said(
            "an assignment has one rollout at a time",
            format!("wait until {rollout} has ended: controller status --watch"),
        ),
        Refusal::Downgrade { plugin, version, committed, selector, .. } => {
            let back = explain::rollback_command(plugin, selector, Some(version));
            said(
                "hosts take a lower version by a rollback alone, and no flag changes that",
                format!(
                    "if {version} succeeded there before: {back}; if not, build it under a version above {committed} \
                     and push that"
                ),
            )
        }
        Refusal::Denied { .. } => said(
            "a host never loads a release again that failed on it, so there is nobody to offer it to",
            "correct the plugin and push it under a new version; if it is innocent, push it with another probe or \
             config, which makes a new revision"
                .to_owned(),
        ),
        Refusal::NoTarget { plugin, .. } => said(
            "a rollback goes to a release that succeeded there before the present one and was not rolled back since",
            format!(
                "push a higher version that does what you want; what happened there: controller history {plugin}"
            ),
        ),
        Refusal::TargetUnknown { known, .. } if known.is_empty() => said(
            "no release has succeeded there yet",
            "leave --to away to undo a failed first push".to_owned(),
        ),
        Refusal::TargetUnknown { plugin, version, known, .. } => said(
            "a rollback goes to a release that succeeded there and was not rolled back since",
            other_ways(plugin, version, known),
        ),
        Refusal::Policy(_) => said(
            "with these rules no host could commit in time",
            "change --max-parallel, --min-healthy-time or --healthy-deadline".to_owned(),
        ),
    }
}

/// The hosts that are meant are not those of one assignment.
fn no_assignment(refusal: &Refusal) -> (String, String) {
    match refusal {
        Refusal::HostsRequired { .. } => said(
            "the first push of a plugin makes its assignment",
            "add --hosts all, or --hosts SELECTOR".to_owned(),
        ),
        Refusal::Ambiguous { selectors, .. } => said(
            "each assignment has its own hosts and release",
            format!("name one: --hosts '{}'", selectors.first().map_or("SELECTOR", String::as_str)),
        ),
        Refusal::Unknown { known, .. } if known.is_empty() => {
            said("it was never pushed", "list what there is: controller status".to_owned())
        }
        Refusal::Unknown { known, .. } => {
            (format!("its assignments are: {}", known.join("; ")), "name one of them with --hosts".to_owned())
        }
        Refusal::Overlap { other, .. } => said(
            "a host runs one release of a plugin, so it can have one assignment of it",
            format!("push with --hosts '{other}', or select hosts that it does not match"),
        ),
        // What is left is `NoHostsMatch`.
        _ => said(
            "a selector without hosts is most often a typing error",
            "look at names and labels: controller host list -o json; `all` also waits for hosts to come"
                .to_owned(),
        ),
    }
}

/// What can be done instead of a rollback to a version that is no target. `known` are the targets, newest first.
fn other_ways(plugin: &str, version: &str, known: &[String]) -> String {
    let mut targets: Vec<&str> = Vec::new();
    for target in known {
        if targets.len() < TARGETS_SHOWN && !targets.contains(&target.as_str()) {
            targets.push(target);
        }
    }
    let parse = |version: &str| Version::parse(version).ok();
    let is_above = known.first().is_some_and(|present| parse(version) > parse(present));
    let otherwise = if is_above {
        format!("or push {version}, with a canary")
    } else {
        format!("or build what you want under a version above {} and push that", targets[0])
    };
    let targets = targets.join(", ");
    format!(
        "choose one of these with --to: {targets}; {otherwise}; what happened there: controller history {plugin}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_target(version: &str, known: &[&str]) -> Explained {
        refusal(&Refusal::TargetUnknown {
            plugin: "clock".to_owned(),
            selector: "all".to_owned(),
            version: version.to_owned(),
            known: known.iter().map(|version| (*version).to_owned()).collect(),
        })
    }

    #[test]
    fn whoever_names_no_target_is_told_the_targets_and_the_rule() {
        let rolled_back = no_target("1.2.0", &["1.1.0", "1.0.0", "1.0.0"]);
        assert!(rolled_back.why.ends_with("succeeded there and was not rolled back since"));
        assert_eq!(
            rolled_back.fix,
            "choose one of these with --to: 1.1.0, 1.0.0; or push 1.2.0, with a canary; what happened there: controller \
             history clock"
        );
        let never = no_target("0.9.0", &["1.1.0"]);
        assert!(never.fix.contains("or build what you want under a version above 1.1.0 and push that"));
        assert_eq!(no_target("1.0.0", &[]).fix, "leave --to away to undo a failed first push");
    }

    #[test]
    fn a_push_of_an_older_version_is_pointed_to_the_rollback_that_means_it() {
        let error = refusal(&Refusal::Downgrade {
            plugin: "clock".to_owned(),
            version: "1.0.0".to_owned(),
            committed: "1.2.0".to_owned(),
            host: "h1".to_owned(),
            selector: "zone=a".to_owned(),
        });
        let command = "controller rollback clock --hosts 'zone=a' --to 1.0.0 --reason TEXT";
        assert!(error.fix.contains(command), "{error}");
        assert!(error.fix.contains("a version above 1.2.0"), "{error}");
    }
}
