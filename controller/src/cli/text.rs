//! The same facts as the JSON, for people: what happened, where, why, and what to type next.

use std::collections::BTreeMap;

use fleetswap_proto::v1::{
    AssignmentStatus, Deviation, Failure, GetStatusResponse, Host, HostState, Plan, PublishedRelease,
    Release, Rollout, RolloutHost, RolloutState, ServiceState,
};
use jiff::Timestamp;

use super::{
    json::{bare, fault},
    table::table,
};
use crate::explain;

/// Names of hosts that one line lists before it only counts.
const NAMES_MAX: usize = 10;
/// Why a host that has the release already was not offered it.
const HAS_IT: &str = "runs it already";

/// The line that names a rollout and its state.
pub(super) fn headline(rollout: &Rollout) -> String {
    format!("{} {} {}  {}", rollout.rollout_id, rollout.plugin, versions(rollout), state(rollout))
}

/// One host has moved on.
pub(super) fn host_change(rollout: &Rollout, host: &RolloutHost) -> String {
    let wave = rollout.waves.get(host.wave as usize).map_or("-", |wave| wave.name.as_str());
    let mut line = format!(
        "{} {} {} {}",
        rollout.rollout_id,
        wave,
        host.host,
        bare(host.state().as_str_name(), "HOST_STATE_")
    );
    if host.state() == HostState::Committed {
        line.push_str(&format!(" ({}, swap pause {} µs)", proof(&host.proven_by), host.swap_pause_us));
        if !host.state_lost.is_empty() {
            line.push_str(&format!("; state lost: {}", host.state_lost));
        }
    }
    if let Some(failure) = &host.failure {
        line.push_str(&format!(": {} in {}", failure.code, failed_state(failure)));
    }
    if !host.skip_reason.is_empty() {
        line.push_str(&format!(": {}", host.skip_reason));
    }
    line
}

/// How a rollout ended, with the failure and the way back.
pub(super) fn ending(rollout: &Rollout) -> String {
    let count = |state: HostState| rollout.hosts.iter().filter(|host| host.state() == state).count();
    let committed = count(HostState::Committed);
    let mut lines = Vec::new();
    if let Some(failure) = &rollout.failure {
        lines.push(failure_record(&rollout.failed_host, failure));
    }
    let waiting = count(HostState::Pending);
    let tried = rollout.hosts.iter().filter(|host| host.attempt > 0).count();
    let mut summary = format!(
        "{} {}: {} {} on {committed} of {} hosts, tried on {tried}",
        rollout.rollout_id,
        state(rollout),
        rollout.plugin,
        version(rollout.to.as_ref()),
        rollout.hosts.len()
    );
    if waiting > 0 && rollout.state() == RolloutState::Succeeded {
        summary.push_str(&format!("; {waiting} offline, they follow when they return"));
    }
    let skipped = skipped(rollout);
    if !skipped.is_empty() {
        summary.push_str(&format!("; {skipped}"));
    }
    lines.push(summary);
    lines.extend(next_step(rollout).map(|(to, command)| format!("{to}: {command}")));
    lines.join("\n")
}

/// Hosts that had no offer, and why; by name, unless they have the release already.
fn skipped(rollout: &Rollout) -> String {
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for host in rollout.hosts.iter().filter(|host| host.state() == HostState::Skipped) {
        reasons.entry(&host.skip_reason).or_default().push(host.host.clone());
    }
    let each = reasons.iter().map(|(reason, hosts)| {
        let named = if *reason == HAS_IT { String::new() } else { format!(": {}", names(hosts)) };
        format!("{} skipped ({reason}){named}", hosts.len())
    });
    each.collect::<Vec<_>>().join("; ")
}

/// The command that takes the hosts that committed back.
pub(super) fn way_back(rollout: &Rollout) -> String {
    explain::rollback_command(&rollout.plugin, &rollout.selector, None)
}

/// What can be done about a rollout that has just ended without success and has left hosts on its release.
pub(super) fn next_step(rollout: &Rollout) -> Option<(&'static str, String)> {
    let left = rollout.hosts.iter().any(|host| host.state() == HostState::Committed);
    let needed = left && rollout.state().has_ended() && rollout.state() != RolloutState::Succeeded;
    let to = if rollout.trigger == "rollback" { "to go on with it" } else { "to go back there" };
    needed.then(|| (to, way_back(rollout)))
}

/// A failure record: what was checked, what came, what happened next.
pub(super) fn failure_record(host: &str, failure: &Failure) -> String {
    let mut lines = vec![
        format!("{host} failed in {}: {}", failed_state(failure), failure.code),
        format!("  fault   {}", fault(failure.fault())),
    ];
    let tries = if failure.tries > 0 { failure.tries.to_string() } else { String::new() };
    let parts = [
        ("what", &failure.message),
        ("check", &failure.check),
        ("got", &failure.got),
        ("wanted", &failure.wanted),
        ("tries", &tries),
        ("next", &failure.next),
    ];
    lines.extend(
        parts.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| format!("  {name:7} {text}")),
    );
    lines.extend(failure.log_tail.lines().map(|line| format!("  log     | {line}")));
    lines.push(format!("  page    docs/errors/{}.md", failure.code));
    lines.join("\n")
}

/// One rollout with its waves and hosts, failures first.
pub(super) fn rollout(rollout: &Rollout) -> String {
    let mut lines = vec![headline(rollout)];
    for wave in &rollout.waves {
        let state = bare(wave.state().as_str_name(), "WAVE_STATE_");
        lines.push(format!("  wave {:8} {state:8} {}/{} committed", wave.name, wave.committed, wave.hosts));
    }
    let mut hosts: Vec<&RolloutHost> = rollout.hosts.iter().collect();
    hosts.sort_by_key(|host| (host.failure.is_none(), host.host.clone()));
    for host in hosts {
        let online = if host.online { "" } else { "  offline" };
        lines.push(format!("  {}{online}", host_change(rollout, host)));
    }
    lines.extend(rollout.waiting.iter().map(|reason| format!("  waits: {reason}")));
    if let Some(failure) = &rollout.failure {
        lines.push(failure_record(&rollout.failed_host, failure));
    }
    lines.join("\n")
}

/// From where to where a plan goes.
fn moves(plan: &Plan) -> String {
    let plugin = plan.to.as_ref().or(plan.from.as_ref()).map_or("-", |release| release.plugin.as_str());
    let to = plan.to.as_ref().map_or_else(|| "nothing".to_owned(), |to| version(Some(to)));
    match &plan.from {
        Some(from) => format!("{plugin} {} → {to}", version(Some(from))),
        None => format!("{plugin} {to}"),
    }
}

/// The plan of a dry run.
pub(super) fn plan(plan: &Plan) -> String {
    let mut lines = vec![format!("plan (dry run; nothing was changed): {}", moves(plan))];
    lines.extend(plan.waves.iter().map(|wave| format!("  wave {:8} {}", wave.name, names(&wave.hosts))));
    lines.push(format!("  to send   {}", bytes(plan.bytes)));
    if !plan.offline.is_empty() {
        lines.push(format!("  offline   {}: they follow when they return", names(&plan.offline)));
    }
    lines.join("\n")
}

/// The state of the fleet.
pub(super) fn status(status: &GetStatusResponse) -> String {
    let mut lines = Vec::new();
    if status.dev_trust {
        lines.push("DEV TRUST".to_owned());
    }
    if !status.store_behind.is_empty() {
        lines.push(format!("STORE BEHIND ITS HOSTS, nothing is sent: {}", status.store_behind));
    }
    lines.push(format!("hosts {} of {} online", status.hosts_online, status.hosts_known));
    let rows: Vec<[String; 5]> = status
        .assignments
        .iter()
        .map(|assignment| {
            [
                assignment.plugin.clone(),
                assignment.selector.clone(),
                version(assignment.release.as_ref()),
                format!("{}/{}", assignment.hosts_on_release, assignment.hosts_online),
                assignment.hosts.to_string(),
            ]
        })
        .collect();
    lines.push(table(["PLUGIN", "HOSTS", "RELEASE", "RUN IT/ONLINE", "MATCHED"], &rows));
    lines.extend(status.assignments.iter().flat_map(deviations));
    lines.extend(status.unfinished.iter().map(rollout));
    lines.join("\n")
}

/// Hosts that are not as they should be, each with what to do.
fn deviations(assignment: &AssignmentStatus) -> Vec<String> {
    let line = |it: &Deviation| {
        format!("{} on {}: {}: {}\n  next    {}", assignment.plugin, it.host, it.code, it.what, it.fix)
    };
    let shown = assignment.deviations.iter().take(NAMES_MAX);
    let mut lines: Vec<String> = shown.map(line).collect();
    let more = (assignment.deviating as usize).saturating_sub(lines.len());
    if more > 0 {
        lines.push(format!("{}: {more} more hosts are not as they should be", assignment.plugin));
    }
    lines
}

/// Rollouts, newest first.
pub(super) fn history(rollouts: &[Rollout]) -> String {
    let rows: Vec<[String; 9]> = rollouts
        .iter()
        .map(|rollout| {
            let committed: u32 = rollout.waves.iter().map(|wave| wave.committed).sum();
            let hosts: u32 = rollout.waves.iter().map(|wave| wave.hosts).sum();
            [
                rollout.rollout_id.clone(),
                rollout.plugin.clone(),
                versions(rollout),
                state(rollout).to_owned(),
                format!("{committed}/{hosts}"),
                when(rollout.created_ms),
                rollout.trigger.clone(),
                or_dash(&rollout.actor).to_owned(),
                or_dash(&rollout.reason).to_owned(),
            ]
        })
        .collect();
    table(["ID", "PLUGIN", "VERSION", "OUTCOME", "HOSTS", "STARTED", "TRIGGER", "BY", "REASON"], &rows)
}

/// Hosts and what they run.
pub(super) fn hosts(hosts: &[Host]) -> String {
    let rows: Vec<[String; 5]> = hosts
        .iter()
        .map(|host| {
            let plugins: Vec<String> = host
                .plugins
                .iter()
                .map(|status| {
                    let up = matches!(status.service(), ServiceState::Serving | ServiceState::Empty);
                    let state = bare(status.service().as_str_name(), "SERVICE_STATE_");
                    let state = if up || host.safe_mode { String::new() } else { format!(" {state}") };
                    let held = if status.local_override.is_some() { " HELD" } else { "" };
                    format!("{} {}{state}{held}", status.plugin, version(status.active.as_ref()))
                })
                .collect();
            let facts = host.facts.clone().unwrap_or_default();
            [
                host.name.clone(),
                match (host.online, host.safe_mode) {
                    (true, true) => "SAFE MODE",
                    (true, false) => "ONLINE",
                    (false, _) => "OFFLINE",
                }
                .to_owned(),
                facts.platform,
                or_dash(&facts.sandbox).to_owned(),
                plugins.join(", "),
            ]
        })
        .collect();
    table(["HOST", "LINK", "PLATFORM", "SANDBOX", "RUNS"], &rows)
}

/// Published releases.
pub(super) fn plugins(releases: &[PublishedRelease]) -> String {
    let rows: Vec<[String; 6]> = releases
        .iter()
        .map(|published| {
            let release = published.release.clone().unwrap_or_default();
            [
                release.plugin,
                release.version,
                release.revision.to_string(),
                release.release_id.chars().take(12).collect(),
                published.platforms.join(","),
                published.hosts.to_string(),
            ]
        })
        .collect();
    table(["PLUGIN", "VERSION", "REV", "RELEASE", "PLATFORMS", "HOSTS"], &rows)
}

/// A size in words.
pub(super) fn bytes(count: u64) -> String {
    const KIB: u64 = 1024;
    match count {
        0..KIB => format!("{count} B"),
        KIB..1_048_576 => format!("{} KiB", count.div_ceil(KIB)),
        _ => format!("{} MiB", count.div_ceil(KIB * KIB)),
    }
}

/// Why a host believes in its release; the words of `TrialStatus.proven_by`.
fn proof(proven_by: &str) -> String {
    match proven_by {
        "before" => "was committed there before".to_owned(),
        "unchanged" => "the same files as before".to_owned(),
        "health" => "proven by its health".to_owned(),
        other => format!("proven by {}", or_dash(other)),
    }
}

fn versions(rollout: &Rollout) -> String {
    let to = version(rollout.to.as_ref());
    let from = rollout.from.as_ref().map(|from| version(Some(from)));
    from.map_or_else(|| to.clone(), |from| format!("{from} → {to}"))
}

/// A version, with its revision where that is not the first.
fn version(release: Option<&Release>) -> String {
    release.map_or_else(
        || "-".to_owned(),
        |release| match release.revision {
            0 | 1 => release.version.clone(),
            revision => format!("{}-r{revision}", release.version),
        },
    )
}

fn state(rollout: &Rollout) -> &'static str {
    bare(rollout.state().as_str_name(), "ROLLOUT_STATE_")
}

fn failed_state(failure: &Failure) -> &'static str {
    bare(failure.failed_state().as_str_name(), "HOST_STATE_")
}

fn names(hosts: &[String]) -> String {
    let shown = hosts[..hosts.len().min(NAMES_MAX)].join(", ");
    if hosts.len() > NAMES_MAX { format!("{shown} and {} more", hosts.len() - NAMES_MAX) } else { shown }
}

fn when(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    seconds.map_or_else(|| "-".to_owned(), |time| time.to_string())
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_rollout_ends_with_the_way_back_of_the_hosts_that_committed() {
        let host =
            |state: HostState| RolloutHost { state: state.into(), attempt: 1, ..RolloutHost::default() };
        let rollout = Rollout {
            plugin: "clock".to_owned(),
            state: RolloutState::Failed.into(),
            hosts: vec![host(HostState::Committed), host(HostState::Rejected)],
            ..Rollout::default()
        };
        assert!(ending(&rollout).ends_with("to go back there: controller rollback clock --reason TEXT"));
        let of_some = Rollout { selector: "zone=a".to_owned(), ..rollout };
        assert!(ending(&of_some).ends_with("controller rollback clock --hosts 'zone=a' --reason TEXT"));
    }

    #[test]
    fn hosts_that_needed_no_offer_are_counted_apart() {
        let state = HostState::Skipped.into();
        let host = RolloutHost { state, skip_reason: "runs it already".to_owned(), ..RolloutHost::default() };
        let rollout = Rollout { hosts: vec![host.clone(), host], ..Rollout::default() };
        assert!(ending(&rollout).ends_with("; 2 skipped (runs it already)"), "{}", ending(&rollout));
    }

    #[test]
    fn a_revision_is_told_where_it_is_not_the_first() {
        let release =
            |version: &str, revision| Release { version: version.to_owned(), revision, ..Release::default() };
        let rollout = Rollout {
            rollout_id: "r-000002".to_owned(),
            plugin: "clock".to_owned(),
            from: Some(release("1.2.0", 1)),
            to: Some(release("1.2.0", 2)),
            ..Rollout::default()
        };
        assert!(history(std::slice::from_ref(&rollout)).contains("1.2.0 → 1.2.0-r2"));
        assert!(headline(&rollout).starts_with("r-000002 clock 1.2.0 → 1.2.0-r2  "));
        assert!(ending(&rollout).contains("clock 1.2.0-r2 on 0 of 0 hosts"));
    }

    #[test]
    fn a_commit_says_what_speaks_for_it() {
        let said = |proven_by: &str| {
            let (state, proven_by) = (HostState::Committed.into(), proven_by.to_owned());
            host_change(&Rollout::default(), &RolloutHost { state, proven_by, ..RolloutHost::default() })
        };
        assert!(said("health").contains("(proven by its health, "));
        assert!(said("probes").contains("(proven by probes, "));
        assert!(said("before").contains("(was committed there before, "));
    }

    #[test]
    fn long_lists_of_hosts_are_counted() {
        let hosts: Vec<String> = (0..12).map(|n| format!("h{n}")).collect();
        assert!(names(&hosts).ends_with("h9 and 2 more"));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([bytes(1023), bytes(1024), bytes(1_048_576)], ["1023 B", "1 KiB", "1 MiB"]);
    }
}
