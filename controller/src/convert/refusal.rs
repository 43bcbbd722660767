//! Why the planner does not begin what an operator asked for, in words with a way out.

use fleetswap_proto::Explained;
use fleetswap_rollout::Refusal;

/// A refusal as an operator reads it.
pub(crate) fn refusal(refusal: &Refusal) -> Explained {
    let what = refusal.to_string();
    let (why, fix) = why_and_fix(refusal);
    Explained::new(refusal.code(), what, why, fix)
}

fn why_and_fix(refusal: &Refusal) -> (String, String) {
    let said = |why: &str, fix: String| (why.to_owned(), fix);
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
            said("it was never pushed", "list what there is: controller plugin list".to_owned())
        }
        Refusal::Unknown { known, .. } => {
            (format!("its assignments are: {}", known.join("; ")), "name one of them with --hosts".to_owned())
        }
        Refusal::Overlap { other, .. } => said(
            "a host runs one release of a plugin, so it can have one assignment of it",
            format!("push with --hosts '{other}', or select hosts that it does not match"),
        ),
        Refusal::NoHostsMatch { .. } => said(
            "a selector without hosts is most often a typing error",
            "look at names and labels: controller host list; `all` also waits for hosts to come".to_owned(),
        ),
        Refusal::InProgress { rollout, .. } => said(
            "an assignment has one rollout at a time",
            format!("wait until {rollout} has ended: controller status --watch"),
        ),
        Refusal::Downgrade { plugin, .. } => said(
            "hosts go below a version that they run only by a rollback",
            format!("go back: controller rollback {plugin} --reason TEXT"),
        ),
        Refusal::Denied { .. } => said(
            "a host never loads a release again that failed on it, so there is nobody to offer it to",
            "correct the plugin and push it under a new version; if it is innocent, push it with another probe or \
             config, which makes a new revision"
                .to_owned(),
        ),
        Refusal::NoTarget { plugin, .. } => said(
            "a rollback goes to the release that succeeded before the present one",
            format!("push the version that you want: controller push {plugin} --version V --artifact FILE"),
        ),
        Refusal::TargetUnknown { known, .. } if known.is_empty() => said(
            "no release has succeeded there yet",
            "leave --to away to undo a failed first push".to_owned(),
        ),
        Refusal::TargetUnknown { known, .. } => (
            "a rollback goes to a release that succeeded there".to_owned(),
            format!("choose one of: {}; or push the version", known.join(", ")),
        ),
        Refusal::Policy(_) => said(
            "with these rules no host could commit in time",
            "change --max-parallel, --min-healthy-time or --healthy-deadline".to_owned(),
        ),
    }
}
