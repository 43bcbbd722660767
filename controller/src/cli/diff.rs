//! `controller diff`: what changed between two published versions, and whether callers would notice.

use fleetswap_inspect::{Descriptor, Diff, Standing, compare, diff::Verdict};
use fleetswap_proto::{Explained, v1::GetReleaseResponse};
use semver::Version;
use serde_json::{Value, json};

use super::{
    args::DiffArgs,
    client::Client,
    exit::{Exit, Failure},
    output::Output,
    release,
};

/// Compares two versions; exit 0 whenever it could.
pub(super) async fn run(args: &DiffArgs, output: &Output) -> Result<Exit, Failure> {
    let client = Client::connect(&args.remote.controller).await?;
    let old = release::release(&client, &args.name, &args.old).await?;
    let new = release::release(&client, &args.name, &args.new).await?;
    let (old, new) = common(args, &old, &new)?;
    let diff = compare(&old, &new);
    let standing = diff.verdict_under(&args.old, &args.new);
    output.result(&text(&args.old, &args.new, &diff), json!({ "diff": json(&diff, standing) }));
    Ok(Exit::Ok)
}

/// The descriptors of the first platform that both versions were built for.
fn common(
    args: &DiffArgs,
    old: &GetReleaseResponse,
    new: &GetReleaseResponse,
) -> Result<(Descriptor, Descriptor), Failure> {
    let mut platforms: Vec<&String> =
        old.descriptors.keys().filter(|platform| new.descriptors.contains_key(*platform)).collect();
    platforms.sort();
    let what = || format!("{} {} and {} can't be compared", args.name, args.old, args.new);
    let Some(platform) = platforms.first() else {
        let fix = "publish both for one common platform";
        return Err(Explained::new("NO_COMMON_PLATFORM", what(), "they share no platform", fix).into());
    };
    let parse = |release: &GetReleaseResponse| {
        Descriptor::parse(&release.descriptors[*platform]).map_err(|error| {
            let fix = "use the controller command line of the same version as the server";
            Failure::from(Explained::new("CONTROLLER_FAILED", what(), error.to_string(), fix))
        })
    };
    Ok((parse(old)?, parse(new)?))
}

/// The comparison for people.
pub(super) fn text(from: &Version, to: &Version, diff: &Diff) -> String {
    if diff.is_empty() {
        return format!("compared with {from}: same structure");
    }
    let mut lines = vec![verdict(from, to, diff)];
    lines.extend(diff.changes().iter().map(|change| {
        let mark = match change.verdict {
            Verdict::Compatible => '+',
            Verdict::Breaking => '!',
        };
        format!("  {mark} {}", change.text)
    }));
    if diff.one_way() {
        lines.push(format!("  ! one-way: {from} can't read the state that {to} writes"));
    }
    lines.join("\n")
}

/// The rules for numbers are rules for the way up, so on the way down only callers are spoken of.
fn verdict(from: &Version, to: &Version, diff: &Diff) -> String {
    if to < from {
        let outcome = if diff.is_breaking() { "may break" } else { "won't notice" };
        return format!("{to} is older: read as going down from {from} to {to}, callers of {from} {outcome}");
    }
    let verdict = match diff.verdict_under(from, to) {
        Standing::Acceptable => "callers won't notice",
        Standing::RefusedBreaking => "BREAKING under a number that promises compatibility",
        Standing::BreakingUnderMajor => "breaking, as the new major number says",
    };
    format!("compared with {from}: {verdict}")
}

/// The comparison for programs.
pub(super) fn json(diff: &Diff, standing: Standing) -> Value {
    json!({
        "verdict": standing,
        "breaking": diff.is_breaking(),
        "one_way": diff.one_way(),
        "changes": diff.changes(),
    })
}

/// The breaking changes in one line.
pub(super) fn breaking_words(diff: &Diff) -> String {
    let breaking = diff.changes().iter().filter(|change| change.verdict == Verdict::Breaking);
    breaking.map(|change| change.text.as_str()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(version: &str, functions: &[&str]) -> Descriptor {
        let functions: Vec<Value> = functions
            .iter()
            .map(|name| {
                json!({ "name": name, "input": null, "output": null, "idempotent": true, "probe_safe": true, "raw": true })
            })
            .collect();
        let whole = json!({
            "format": 1, "name": "clock", "version": version, "concurrency": 1, "functions": functions,
            "state": { "writes": [], "reads": [] }, "background": false, "needs": [], "config": null,
        });
        Descriptor::parse(whole.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_way_down_is_not_measured_by_the_promise_of_a_higher_number() {
        let [old, new] = ["1.0.0", "1.2.0"].map(|version| Version::parse(version).unwrap());
        let (few, many) = (descriptor("1.0.0", &["time"]), descriptor("1.2.0", &["time", "zone"]));
        let up = text(&old, &new, &compare(&few, &many));
        assert!(up.starts_with("compared with 1.0.0: callers won't notice\n"), "{up}");
        let down = text(&new, &old, &compare(&many, &few));
        let head = "1.0.0 is older: read as going down from 1.2.0 to 1.0.0, callers of 1.2.0 may break\n";
        assert!(down.starts_with(head), "{down}");
    }
}
