//! `controller push`: from a file to a fleet that runs it, or that went back.

use fleetswap_inspect::{Descriptor, Diff, Standing, compare};
use fleetswap_proto::{
    Explained,
    v1::{Assignment, GetAssignmentRequest, Policy, PushRequest, PushResponse},
};
use semver::Version;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    args::{Pace, PushArgs},
    client::Client,
    diff,
    exit::{Exit, Failure},
    follow::{self, Follow},
    json as views,
    output::Output,
    release::{self, Draft},
    text,
};

/// Pushes a release: lint, describe, check, compare, refuse or go on, sign, upload, start, follow.
pub(super) async fn run(args: &PushArgs, output: &Output) -> Result<Exit, Failure> {
    // Where nothing is to be signed none is needed, but one that is named has to be one.
    let named =
        args.release.publisher_dir.is_some().then(|| release::publisher(&args.release)).transpose()?;
    let artifacts = release::prepare(&args.release).await?;
    let client = Client::connect(&args.remote.controller).await?;
    let draft = Draft::assemble(&args.release, artifacts, &client).await?;
    output.line(&headline(&draft));
    let comparison = compare_with_running(args, &draft, &client).await?;
    if let Some(comparison) = &comparison {
        output.line(&diff::text(&comparison.from, &draft.manifest.version, &comparison.diff));
        if !comparison.is_down(&draft) {
            comparison.check(args, &draft)?;
        }
    }
    let diff = comparison.as_ref().map(|comparison| diff::json(&comparison.diff, comparison.standing));
    let diff = diff.unwrap_or(Value::Null);
    // The server's checks come before anything is signed or stored, so that a refused push leaves nothing behind.
    let rehearsal = ask(args, &draft, &client, true).await?;
    // To an older version the server's answer is the better advice; what it lets through is checked like any other.
    if let Some(comparison) = comparison.filter(|comparison| comparison.is_down(&draft)) {
        comparison.check(args, &draft)?;
    }
    if rehearsal.nothing_to_do {
        let words =
            format!("{} {} already runs there; nothing to do", args.release.name, args.release.version);
        output.result(&words, json!({ "rollout": null, "nothing_to_do": true, "diff": diff }));
        return Ok(Exit::Ok);
    }
    let publisher = match draft.is_published() {
        true => None,
        false => Some(named.map_or_else(|| release::publisher(&args.release), Ok)?),
    };
    if args.dry_run {
        let plan = rehearsal.plan.unwrap_or_default();
        let object =
            json!({ "rollout": null, "nothing_to_do": false, "diff": diff, "plan": views::plan(&plan) });
        output.result(&text::plan(&plan), object);
        return Ok(Exit::Ok);
    }
    if let Some(publisher) = publisher {
        draft.publish(&publisher, &client).await?;
    }
    start(args, &draft, &client, output, diff).await
}

async fn start(
    args: &PushArgs,
    draft: &Draft,
    client: &Client,
    output: &Output,
    diff: Value,
) -> Result<Exit, Failure> {
    let response = ask(args, draft, client, false).await?;
    let rollout = response.rollout.ok_or_else(|| follow::no_rollout(client))?;
    if args.detach {
        let words = format!(
            "{} goes on; follow it with `controller status {} --watch`",
            rollout.rollout_id, rollout.rollout_id
        );
        output.result(
            &words,
            json!({ "rollout": views::rollout(&rollout), "nothing_to_do": false, "diff": diff }),
        );
        return Ok(Exit::Ok);
    }
    let follow = Follow { client, output, wait: args.wait.wait_timeout, each_update: false };
    let ended = follow.until_it_ends(rollout).await?;
    follow.finish(&ended, json!({ "nothing_to_do": false, "diff": diff }))
}

async fn ask(
    args: &PushArgs,
    draft: &Draft,
    client: &Client,
    dry_run: bool,
) -> Result<PushResponse, Failure> {
    let request = PushRequest {
        request_id: Uuid::new_v4().to_string(),
        plugin: args.release.name.clone(),
        selector: args.hosts.clone().unwrap_or_default(),
        manifest: draft.manifest.canonical(),
        policy: Some(policy(&args.pace)),
        reason: args.reason.clone(),
        actor: actor(),
        dry_run,
    };
    client
        .resend(|| {
            let (mut operator, request) = (client.operator(), request.clone());
            async move { operator.push(request).await }
        })
        .await
}

/// The policy that the arguments name; 0 leaves a value to the controller.
pub(super) fn policy(pace: &Pace) -> Policy {
    let milliseconds = |time: Option<std::time::Duration>| {
        time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    };
    Policy {
        max_parallel: pace.max_parallel.unwrap_or_default(),
        min_healthy_ms: milliseconds(pace.min_healthy_time),
        healthy_deadline_ms: milliseconds(pace.healthy_deadline),
    }
}

/// Who does this, for the history. Until operators have identities it is only what the system says.
pub(super) fn actor() -> String {
    let names = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    actor_of(names)
}

/// The first name that says anything.
fn actor_of(names: impl Iterator<Item = String>) -> String {
    let mut plain = names.map(|name| name.chars().filter(|c| !c.is_control()).take(64).collect::<String>());
    plain.find(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// The comparison with the release that the assignment runs.
struct Comparison {
    from: Version,
    diff: Diff,
    standing: Standing,
}

impl Comparison {
    /// Whether the push goes to an older version than the one that runs.
    fn is_down(&self, draft: &Draft) -> bool {
        draft.manifest.version < self.from
    }

    fn check(&self, args: &PushArgs, draft: &Draft) -> Result<(), Failure> {
        let name = format!("{} {}", args.release.name, args.release.version);
        let with_diff =
            |error: Explained| Failure::from(error).with_diff(diff::json(&self.diff, self.standing));
        if self.standing == Standing::RefusedBreaking && !args.allow_breaking {
            let what = format!("{name} breaks callers of {}", self.from);
            let why = format!("its number promises that it does not: {}", diff::breaking_words(&self.diff));
            let fix = format!(
                "release it as {}.0.0, or push with --allow-breaking",
                draft.manifest.version.major + 1
            );
            return Err(with_diff(Explained::new("STRUCTURE_BREAKING", what, why, fix)));
        }
        if self.diff.one_way() && !args.allow_one_way {
            let what = format!("{name} can't give its state back to {}", self.from);
            let why = "it writes no state version that the running release reads, so a rollback would lose the state";
            let fix = "let it write the older version as well, or push with --allow-one-way";
            return Err(with_diff(Explained::new("STATE_ONE_WAY", what, why, fix)));
        }
        Ok(())
    }
}

async fn compare_with_running(
    args: &PushArgs,
    draft: &Draft,
    client: &Client,
) -> Result<Option<Comparison>, Failure> {
    let request = GetAssignmentRequest {
        plugin: args.release.name.clone(),
        selector: args.hosts.clone().unwrap_or_default(),
    };
    let response =
        client.operator().get_assignment(request).await.map_err(|status| client.failure(&status))?;
    let assignments = response.into_inner().assignments;
    // None, or several without --hosts: the server refuses these in its own words.
    let [assignment] = &*assignments else { return Ok(None) };
    comparison(draft, assignment)
}

/// The first platform that both have decides: descriptors of one version differ only in what they can't tell.
fn comparison(draft: &Draft, assignment: &Assignment) -> Result<Option<Comparison>, Failure> {
    let Some(release) = &assignment.release else { return Ok(None) };
    let pair = draft.artifacts.iter().find_map(|artifact| {
        assignment.descriptors.get(artifact.platform.as_str()).map(|old| (old, &artifact.descriptor))
    });
    let Some((old, new)) = pair else { return Ok(None) };
    let unreadable = |why: String| {
        let what = format!("the running release of {} can't be compared with", release.plugin);
        let fix = "use the controller command line of the same version as the server";
        Failure::from(Explained::new("CONTROLLER_FAILED", what, why, fix))
    };
    let old = Descriptor::parse(old).map_err(|error| unreadable(error.to_string()))?;
    let from = Version::parse(&release.version).map_err(|error| unreadable(error.to_string()))?;
    let diff = compare(&old, new);
    let standing = diff.verdict_under(&from, &draft.manifest.version);
    Ok(Some(Comparison { from, diff, standing }))
}

fn headline(draft: &Draft) -> String {
    let manifest = &draft.manifest;
    let artifacts = draft.artifacts.iter().map(|artifact| {
        let sha256 = fleetswap_trust::Digest::of(&artifact.bytes).to_string();
        format!(
            "{}  {}  sha256 {}…",
            artifact.platform,
            text::bytes(artifact.bytes.len() as u64),
            &sha256[..12]
        )
    });
    let artifacts: Vec<String> = artifacts.collect();
    format!(
        "{} {} revision {}  {}",
        manifest.plugin,
        manifest.version,
        manifest.revision,
        artifacts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_no_name_is_unknown() {
        let actor = |names: &[&str]| actor_of(names.iter().map(|name| (*name).to_owned()));
        assert_eq!(actor(&["", "ci"]), "ci");
        assert_eq!(actor(&["c\ni"]), "ci");
        assert_eq!(actor(&["", ""]), "unknown");
    }
}
