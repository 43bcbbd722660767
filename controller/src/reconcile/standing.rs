//! How an assignment stands: how many hosts run its release, and what is wrong where they do not.

use fleetswap_proto::v1;
use fleetswap_rollout::{
    Assignment, Failure, Fault, Host, HostId, HostState, Member, Release, Rollout, RolloutState, SkipReason,
    Trigger,
};
use jiff::Timestamp;
use prost::Message;

use super::world::World;
use crate::{convert, explain};

/// Hosts that are listed; the others are only counted.
const DEVIATIONS_MAX: usize = 100;

/// What the page of the failure's code is about.
const MEND_HOST: &str = "mend that host as the page of the code says";
/// Another release is needed.
const PUSH_OTHER: &str = "correct the plugin and push it under a new version; if the release is innocent, push it with another \
                          --probe or --config, which makes a new revision";
/// Its root or its clock is wrong.
const MEND_TRUST: &str = "see that `trust_root` in its config is this fleet's (`controller init` printed it) and that its clock \
                          is right, and restart its agent";
/// It has gone back although nobody told it.
const PUSH_AGAIN: &str =
    "when that host is mended, push the same release again: only hosts that lack it are asked";
/// Code of a host whose agent starts no plugin.
const SAFE_MODE: &str = "AGENT_SAFE_MODE";
/// Code of a host that runs another release than its assignment's.
const NOT_ON_RELEASE: &str = "NOT_ON_RELEASE";

/// One assignment.
pub(super) fn of(world: &World, assignment: &Assignment) -> v1::AssignmentStatus {
    let (fleet, key) = (&world.fleet, &assignment.key);
    let count = |hosts: usize| u32::try_from(hosts).unwrap_or(u32::MAX);
    let online = || fleet.members(key).filter(|(_, host)| host.online);
    let is_up = |id: &HostId| service(world, id, &key.plugin) != v1::ServiceState::Down;
    let runs =
        |host: &Host| assignment.release().is_some() && active(host, assignment) == assignment.release();
    let mut deviations: Vec<v1::Deviation> =
        fleet.members(key).filter_map(|(id, host)| deviation(world, assignment, (id, host))).collect();
    deviations.sort_by(|one, other| one.host.cmp(&other.host));
    let deviating = count(deviations.len());
    deviations.truncate(DEVIATIONS_MAX);
    v1::AssignmentStatus {
        plugin: key.plugin.clone(),
        selector: key.selector.to_string(),
        release: assignment.release().map(convert::release),
        hosts: count(fleet.members(key).count()),
        hosts_online: count(online().count()),
        hosts_on_release: count(online().filter(|(id, host)| runs(host) && is_up(id)).count()),
        deviations,
        deviating,
    }
}

/// What is wrong with a host; `None`: nothing, it is on its way, or it is offline and nobody holds it.
fn deviation(world: &World, assignment: &Assignment, host: (&HostId, &Host)) -> Option<v1::Deviation> {
    let (id, host) = host;
    let plugin = &assignment.key.plugin;
    if let Some(said) = taken_over(world, plugin, (id, host)) {
        return Some(said);
    }
    if !host.online {
        return None;
    }
    if service(world, id, plugin) == v1::ServiceState::Down {
        let what = format!("{plugin} is down there: its worker died again and again");
        let fix = format!("see `agent logs {plugin}` there; push a release that works, or roll back");
        return Some(said(host, "PLUGIN_DOWN", what, fix));
    }
    let mut rollouts = world.rollouts.iter().filter(|rollout| rollout.spec.key == assignment.key);
    let is_settled = rollouts.all(|rollout| rollout.progress.state.has_ended()) && !on_trial(host, plugin);
    if !is_settled {
        return None;
    }
    let Some(release) = assignment.release() else {
        let left = left_there(world, assignment, (host, None));
        return left.or_else(|| never_got_it(world, assignment, (id, host)));
    };
    if active(host, assignment) == Some(release) {
        return None;
    }
    if let Some(code) = host.denies(release) {
        let what = format!("it refuses {release}, which failed there with {code}");
        return Some(said(host, code, what, PUSH_OTHER));
    }
    let by = world.rollouts.iter().filter(|rollout| brought(rollout, assignment, release));
    let by = by.max_by_key(|rollout| rollout.spec.id);
    let member = by.and_then(|by| by.members.get(id));
    let waits = |member: &Member| member.state.is_open() || member.state == HostState::Pending;
    if member.is_some_and(waits) && !by.is_some_and(|by| by.progress.is_halted()) {
        return None;
    }
    let newest = newest(world, assignment).filter(|it| it.progress.state == RolloutState::Failed);
    let known = newest.into_iter().chain(by).find_map(|rollout| late(world, rollout, (id, host)));
    known.or_else(|| left_there(world, assignment, (host, by))).or_else(|| fell_back(release, host, plugin))
}

/// An operator on the host has the last word there.
fn taken_over(world: &World, plugin: &str, (id, host): (&HostId, &Host)) -> Option<v1::Deviation> {
    if host.online && host.safe_mode {
        let what = "its agent runs with --safe: no plugin is started there, and callers get 503".to_owned();
        return Some(said(
            host,
            SAFE_MODE,
            what,
            "when that host is mended, restart its agent without --safe",
        ));
    }
    let status = status(world, id, plugin)?;
    let held = status.local_override.as_ref()?;
    let version = |release: &Option<v1::Release>| {
        release.as_ref().map_or_else(|| "nothing".to_owned(), |release| release.version.clone())
    };
    let runs = version(&status.active);
    let how = match held.kind() {
        v1::LocalOverrideKind::RolledBack => {
            format!("was rolled back from {} to {runs}", version(&held.from))
        }
        v1::LocalOverrideKind::RollingBack => format!("goes back from {}", version(&held.from)),
        v1::LocalOverrideKind::Hold | v1::LocalOverrideKind::Unspecified => format!("is held on {runs}"),
    };
    let down = if status.service() == v1::ServiceState::Down { ", and is down" } else { "" };
    let away = if host.online { "" } else { " (the host is offline)" };
    let since = i64::try_from(held.since_ms).ok().and_then(|ms| Timestamp::from_second(ms / 1000).ok());
    let since = since.map_or_else(|| "an unknown time".to_owned(), |time| time.to_string());
    let what = format!("{plugin} {how} there by {} since {since}: {}{down}{away}", held.by, held.reason);
    let fix = format!("when that is settled, on that host: agent release {plugin} --reason TEXT");
    Some(said(host, Failure::HELD_LOCALLY, what, fix))
}

/// Why a host did not get the release from the rollout that offers it.
fn late(world: &World, rollout: &Rollout, host: (&HostId, &Host)) -> Option<v1::Deviation> {
    let (id, host) = host;
    let (member, release) = (rollout.members.get(id)?, rollout.spec.to.as_ref()?);
    if let Some(failure) = member.failure.as_ref().filter(|_| member.state.has_failed()) {
        let what = format!(
            "{release} ended there as {} in {}: {}",
            member.state, failure.failed_state, failure.message
        );
        return Some(said(host, &failure.code, what, after(failure, rollout)));
    }
    if let Some(SkipReason::Platform(_)) = &member.skip {
        let what = format!("{release} is not built for its platform, {}", host.platform);
        return Some(said(host, Failure::NO_HOST_FITS, what, "push it with an --artifact for that platform"));
    }
    let stopped = rollout.progress.failed.as_ref().filter(|_| member.state == HostState::Pending)?;
    let (code, there) =
        (&stopped.failure.code, stopped.host.as_ref().and_then(|id| world.fleet.hosts.get(id)));
    let there = there.map_or("another host", |host| host.name.as_str());
    let what = format!("{release} is not offered there, since it failed with {code} on {there}");
    Some(said(host, code, what, after(&stopped.failure, rollout)))
}

/// A host that runs what a rollout of this or of another assignment has left there since the release `by` came.
fn left_there(
    world: &World,
    assignment: &Assignment,
    (host, by): (&Host, Option<&Rollout>),
) -> Option<v1::Deviation> {
    let (runs, key) = (active(host, assignment)?, &assignment.key);
    let told = host.plugins.get(&key.plugin)?.desired.as_ref()?;
    let left = told.rollout.filter(|_| told.target.as_ref() == Some(runs))?;
    if by.is_some_and(|by| left <= by.spec.id) {
        return None;
    }
    let has_failed = newest(world, assignment).is_some_and(|it| it.progress.state == RolloutState::Failed);
    // While the newest rollout has FAILED, a rollback settles that by itself.
    let to = assignment.release().filter(|_| !has_failed).map(|release| release.version.to_string());
    let command = explain::rollback_command(&key.plugin, &key.selector.to_string(), to.as_deref());
    let what = format!("it runs {runs}, which {left} has left there");
    Some(said(host, NOT_ON_RELEASE, what, format!("settle it: {command}")))
}

/// A host on which the first release of the assignment has failed.
fn never_got_it(world: &World, assignment: &Assignment, host: (&HostId, &Host)) -> Option<v1::Deviation> {
    late(world, newest(world, assignment)?, host)
}

fn newest<'a>(world: &'a World, assignment: &Assignment) -> Option<&'a Rollout> {
    let of_key = world.rollouts.iter().filter(|rollout| rollout.spec.key == assignment.key);
    of_key.max_by_key(|rollout| rollout.spec.id)
}

/// What to do about a failure in this rollout.
fn after(failure: &Failure, rollout: &Rollout) -> String {
    let again = match rollout.spec.trigger {
        Trigger::Push => "push the same release again: only hosts that lack it are asked".to_owned(),
        Trigger::Rollback => {
            let (key, to) = (&rollout.spec.key, rollout.spec.to.as_ref().map(|to| to.version.to_string()));
            explain::rollback_command(&key.plugin, &key.selector.to_string(), to.as_deref())
        }
    };
    match failure.fault {
        Fault::Trust => format!("{MEND_TRUST}; then {again}"),
        Fault::Release => PUSH_OTHER.to_owned(),
        Fault::Host | Fault::Link | Fault::Interrupted | Fault::Withdrawn => {
            format!("{MEND_HOST}; then {again}")
        }
    }
}

/// A host that ran the release and has gone back by itself, as its last report says.
fn fell_back(release: &Release, host: &Host, plugin: &str) -> Option<v1::Deviation> {
    let reported = host.plugins.get(plugin)?.reported.as_ref().filter(|_| host.runs_other_than(release))?;
    let runs = reported.active.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
    let failure = reported.trial.as_ref().and_then(|trial| trial.failure.as_ref());
    let code = failure.map_or(Failure::FELL_BACK, |failure| &*failure.code);
    let why = failure.map_or("", |failure| &*failure.message);
    Some(said(host, code, format!("it runs {runs} and not {release}: {why}"), PUSH_AGAIN))
}

fn said(host: &Host, code: &str, what: String, fix: impl Into<String>) -> v1::Deviation {
    v1::Deviation { host: host.name.clone(), code: code.to_owned(), what, fix: fix.into() }
}

fn brought(rollout: &Rollout, assignment: &Assignment, release: &Release) -> bool {
    let (spec, state) = (&rollout.spec, rollout.progress.state);
    spec.key == assignment.key && state == RolloutState::Succeeded && spec.to.as_ref() == Some(release)
}

fn active<'a>(host: &'a Host, assignment: &Assignment) -> Option<&'a Release> {
    host.plugins.get(&assignment.key.plugin)?.reported.as_ref()?.active.as_ref()
}

fn on_trial(host: &Host, plugin: &str) -> bool {
    let reported = host.plugins.get(plugin).and_then(|plugin| plugin.reported.as_ref());
    reported.is_some_and(fleetswap_rollout::Reported::on_trial)
}

/// Whether callers are answered, as the host said last.
fn service(world: &World, host: &HostId, plugin: &str) -> v1::ServiceState {
    status(world, host, plugin).map_or(v1::ServiceState::Unspecified, |status| status.service())
}

/// What the host said last.
fn status(world: &World, host: &HostId, plugin: &str) -> Option<v1::PluginStatus> {
    let row = world.hosts.get(host).and_then(|entry| entry.reported.get(plugin))?;
    v1::PluginStatus::decode(row.status.as_slice()).ok()
}
