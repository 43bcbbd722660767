//! What the planner knows, in the words of the wire.

use std::collections::BTreeMap;

use fleetswap_proto::{PROTOCOL, v1};
use fleetswap_rollout as core;
use fleetswap_trust::Versions;
use prost::Message;

use crate::{
    api::HEARTBEAT_SECONDS,
    store::{HostRow, ReportedRow},
};

/// Everything that the view of a rollout is made from.
pub(crate) struct RolloutView<'a> {
    /// The rollout.
    pub(crate) rollout: &'a core::Rollout,
    /// Who asked for it.
    pub(crate) actor: &'a str,
    /// Why.
    pub(crate) reason: &'a str,
    /// Unix milliseconds.
    pub(crate) created_ms: u64,
    /// Unix milliseconds.
    pub(crate) ended_ms: Option<u64>,
    /// Why it does not go on now.
    pub(crate) waiting: Vec<String>,
    /// Names and connectivity.
    pub(crate) fleet: &'a core::Fleet,
}

/// Everything that the view of a host is made from.
pub(crate) struct HostView<'a> {
    /// Its row.
    pub(crate) row: &'a HostRow,
    /// What it last said.
    pub(crate) reported: &'a BTreeMap<String, ReportedRow>,
    /// Whether it has a stream.
    pub(crate) online: bool,
    /// No plugin is started there.
    pub(crate) safe_mode: bool,
    /// Unix milliseconds; 0: not since the controller started.
    pub(crate) last_seen_ms: u64,
}

/// Everything that the view of an assignment is made from.
#[derive(Clone, Copy)]
pub(crate) struct AssignmentView<'a> {
    /// The assignment.
    pub(crate) assignment: &'a core::Assignment,
    /// Hosts and what they run.
    pub(crate) fleet: &'a core::Fleet,
}

/// The answer to a hello.
pub(crate) fn welcome(epoch: u64) -> v1::Welcome {
    v1::Welcome {
        protocol: PROTOCOL,
        controller_version: env!("CARGO_PKG_VERSION").to_owned(),
        features: Vec::new(),
        epoch,
        heartbeat_seconds: HEARTBEAT_SECONDS,
    }
}

/// What a host should run: every row that it has.
pub(crate) fn desired_state(host: &core::Host, versions: Versions) -> v1::DesiredState {
    let rows = host.plugins.iter().filter_map(|(plugin, state)| Some((plugin, state.desired.as_ref()?)));
    v1::DesiredState {
        generation: Some(generation(host.generation)),
        metadata: Some(metadata(versions)),
        plugins: rows.map(|(plugin, row)| desired_plugin(plugin, row)).collect(),
    }
}

fn desired_plugin(plugin: &str, row: &core::Desired) -> v1::DesiredPlugin {
    use v1::desired_plugin::Target;
    let target = match &row.target {
        Some(target) => Target::Release(release(target)),
        None => Target::Nothing(v1::Nothing {}),
    };
    let offer = row.rollout.filter(|_| row.attempt > 0);
    v1::DesiredPlugin {
        plugin: plugin.to_owned(),
        target: Some(target),
        rollout_id: offer.map(|rollout| rollout.to_string()).unwrap_or_default(),
        attempt: row.attempt,
        rollback: row.rollback,
        min_healthy_ms: row.min_healthy_ms,
        healthy_deadline_ms: row.healthy_deadline_ms,
    }
}

fn metadata(versions: Versions) -> v1::MetadataVersions {
    let Versions { root, timestamp, snapshot, targets } = versions;
    v1::MetadataVersions { root, timestamp, snapshot, targets }
}

fn generation(generation: core::Generation) -> v1::Generation {
    v1::Generation { epoch: generation.epoch, n: generation.n }
}

/// A release.
pub(crate) fn release(release: &core::Release) -> v1::Release {
    v1::Release {
        plugin: release.plugin.clone(),
        version: release.version.to_string(),
        revision: release.revision,
        release_id: release.id.clone(),
    }
}

/// A rollout with its waves and hosts.
pub(crate) fn rollout(view: &RolloutView<'_>) -> v1::Rollout {
    let core::Rollout { spec, progress, members } = view.rollout;
    let mut hosts: Vec<_> = members.iter().collect();
    hosts.sort_by_key(|(id, member)| (member.wave, member.order, (*id).clone()));
    let failed = progress.failed.as_ref();
    let failed_host = failed.and_then(|failed| failed.host.as_ref()).map(|host| name(view.fleet, host));
    v1::Rollout {
        rollout_id: spec.id.to_string(),
        plugin: spec.key.plugin.clone(),
        selector: spec.key.selector.to_string(),
        from: spec.from.as_ref().map(release),
        to: spec.to.as_ref().map(release),
        state: rollout_state(progress.state).into(),
        trigger: spec.trigger.to_string(),
        actor: view.actor.to_owned(),
        reason: view.reason.to_owned(),
        created_ms: view.created_ms,
        ended_ms: view.ended_ms.unwrap_or(0),
        policy: Some(policy(view)),
        waves: waves(view.rollout),
        hosts: hosts.into_iter().map(|(id, member)| rollout_host(view.fleet, id, member)).collect(),
        waiting: view.waiting.clone(),
        failure: failed.map(|failed| failure(&failed.failure)),
        failed_host: failed_host.unwrap_or_default(),
    }
}

/// The rules as they are applied: shares are shown as what they come to.
fn policy(view: &RolloutView<'_>) -> v1::Policy {
    let core::Policy { max_parallel, min_healthy_ms, healthy_deadline_ms, .. } = view.rollout.spec.policy;
    let counted = view.rollout.members.values().filter(|member| member.counts()).count();
    let matching = view.fleet.members(&view.rollout.spec.key).count();
    let hosts = if view.rollout.members.is_empty() { matching } else { counted };
    let max_parallel = u32::try_from(max_parallel.of(hosts)).unwrap_or(u32::MAX);
    v1::Policy { max_parallel, min_healthy_ms, healthy_deadline_ms }
}

fn waves(rollout: &core::Rollout) -> Vec<v1::Wave> {
    let wave = |(index, wave): (usize, &core::Wave)| {
        let is_in = |member: &&core::Member| {
            usize::try_from(member.wave) == Ok(index) && member.state != core::HostState::Skipped
        };
        let count = |is_such: &dyn Fn(&core::Member) -> bool| {
            let hosts = rollout.members.values().filter(is_in).filter(|member| is_such(member)).count();
            u32::try_from(hosts).unwrap_or(u32::MAX)
        };
        v1::Wave {
            name: wave.name.to_string(),
            state: wave_state(wave.state).into(),
            hosts: count(&|_| true),
            committed: count(&|member| member.state == core::HostState::Committed),
        }
    };
    rollout.progress.waves.iter().enumerate().map(wave).collect()
}

fn rollout_host(fleet: &core::Fleet, id: &core::HostId, member: &core::Member) -> v1::RolloutHost {
    v1::RolloutHost {
        host: name(fleet, id),
        wave: member.wave,
        state: host_state(member.state).into(),
        online: fleet.hosts.get(id).is_some_and(|host| host.online),
        attempt: member.attempt,
        failure: member.failure.as_ref().map(failure),
        skip_reason: member.skip.as_ref().map(ToString::to_string).unwrap_or_default(),
        swap_pause_us: member.swap_pause_us,
        proven_by: member.proven_by.clone(),
        state_lost: member.state_lost.clone(),
    }
}

/// A host's name; its id if it is not known any more.
fn name(fleet: &core::Fleet, id: &core::HostId) -> String {
    fleet.hosts.get(id).map_or_else(|| id.to_string(), |host| host.name.clone())
}

fn failure(failure: &core::Failure) -> v1::Failure {
    let fault = match failure.fault {
        core::Fault::Release => v1::Fault::Release,
        core::Fault::Host => v1::Fault::Host,
        core::Fault::Link => v1::Fault::Link,
        core::Fault::Trust => v1::Fault::Trust,
        core::Fault::Interrupted => v1::Fault::Interrupted,
        core::Fault::Withdrawn => v1::Fault::Withdrawn,
    };
    v1::Failure {
        failed_state: host_state(failure.failed_state).into(),
        fault: fault.into(),
        code: failure.code.clone(),
        check: failure.check.clone(),
        got: failure.got.clone(),
        wanted: failure.wanted.clone(),
        tries: failure.tries,
        message: failure.message.clone(),
        log_tail: failure.log_tail.clone(),
        next: failure.next.clone(),
    }
}

fn host_state(state: core::HostState) -> v1::HostState {
    match state {
        core::HostState::Pending => v1::HostState::Pending,
        core::HostState::Offered => v1::HostState::Offered,
        core::HostState::Fetching => v1::HostState::Fetching,
        core::HostState::Verifying => v1::HostState::Verifying,
        core::HostState::Loading => v1::HostState::Loading,
        core::HostState::Probing => v1::HostState::Probing,
        core::HostState::Switching => v1::HostState::Switching,
        core::HostState::Probation => v1::HostState::Probation,
        core::HostState::Committed => v1::HostState::Committed,
        core::HostState::RollingBack => v1::HostState::RollingBack,
        core::HostState::RolledBack => v1::HostState::RolledBack,
        core::HostState::Rejected => v1::HostState::Rejected,
        core::HostState::Lost => v1::HostState::Lost,
        core::HostState::Skipped => v1::HostState::Skipped,
    }
}

fn rollout_state(state: core::RolloutState) -> v1::RolloutState {
    match state {
        core::RolloutState::Pending => v1::RolloutState::Pending,
        core::RolloutState::Running => v1::RolloutState::Running,
        core::RolloutState::Paused => v1::RolloutState::Paused,
        core::RolloutState::RollingBack => v1::RolloutState::RollingBack,
        core::RolloutState::Succeeded => v1::RolloutState::Succeeded,
        core::RolloutState::Failed => v1::RolloutState::Failed,
        core::RolloutState::Aborted => v1::RolloutState::Aborted,
        core::RolloutState::RolledBack => v1::RolloutState::RolledBack,
        core::RolloutState::Superseded => v1::RolloutState::Superseded,
    }
}

fn wave_state(state: core::WaveState) -> v1::WaveState {
    match state {
        core::WaveState::Pending => v1::WaveState::Pending,
        core::WaveState::Running => v1::WaveState::Running,
        core::WaveState::Soaking => v1::WaveState::Soaking,
        core::WaveState::Done => v1::WaveState::Done,
        core::WaveState::Halted => v1::WaveState::Halted,
    }
}

/// The answer to a push or rollback.
pub(crate) type PushAnswer = v1::PushResponse;

/// The assignment runs the release already.
pub(crate) fn nothing_to_do() -> PushAnswer {
    v1::PushResponse { nothing_to_do: true, ..v1::PushResponse::default() }
}

/// A rollout that begins, or (without one) only what it would do.
pub(crate) fn begun(begun: Option<&RolloutView<'_>>, plan: PlanView<'_>) -> PushAnswer {
    v1::PushResponse { rollout: begun.map(rollout), plan: Some(self::plan(plan)), nothing_to_do: false }
}

/// Everything that the view of a plan is made from.
#[derive(Clone, Copy)]
pub(crate) struct PlanView<'a> {
    /// Names.
    pub(crate) fleet: &'a core::Fleet,
    /// Who is in which wave.
    pub(crate) preview: &'a core::Preview,
    /// To be sent over all hosts.
    pub(crate) bytes: u64,
    /// From where to where.
    pub(crate) spec: &'a core::Spec,
}

/// What a push would do.
fn plan(view: PlanView<'_>) -> v1::Plan {
    let PlanView { fleet, preview, bytes, spec } = view;
    let names = |hosts: &[core::HostId]| hosts.iter().map(|host| name(fleet, host)).collect();
    let wave =
        |wave: &core::PreviewWave| v1::PlannedWave { name: wave.name.to_string(), hosts: names(&wave.hosts) };
    let mut offline: Vec<String> = names(&preview.offline);
    offline.sort();
    let (from, to) = (spec.from.as_ref().map(release), spec.to.as_ref().map(release));
    v1::Plan { waves: preview.waves.iter().map(wave).collect(), bytes, offline, from, to }
}

/// A host with everything that it last said.
pub(crate) fn host(view: &HostView<'_>) -> v1::Host {
    let HostRow { host_id, name, labels, facts, generation, .. } = view.row;
    // What this build can't read is left out.
    let statuses =
        view.reported.values().filter_map(|row| v1::PluginStatus::decode(row.status.as_slice()).ok());
    v1::Host {
        host_id: host_id.to_string(),
        name: name.clone(),
        online: view.online,
        last_seen_ms: view.last_seen_ms,
        agent_version: facts.agent_version.clone(),
        facts: Some(v1::HostFacts {
            platform: facts.platform.clone(),
            kernel: facts.kernel.clone(),
            glibc: facts.glibc.clone(),
            sandbox: facts.sandbox.clone(),
            boot_id: facts.boot_id.clone(),
        }),
        labels: labels.clone().into_iter().collect(),
        plugins: statuses.collect(),
        generation: Some(v1::Generation { epoch: generation.epoch, n: generation.n }),
        safe_mode: view.safe_mode,
    }
}

/// An assignment without its manifest.
pub(crate) fn assignment(view: AssignmentView<'_>) -> v1::Assignment {
    let key = &view.assignment.key;
    v1::Assignment {
        plugin: key.plugin.clone(),
        selector: key.selector.to_string(),
        release: view.assignment.release().map(release),
        hosts: u32::try_from(view.fleet.members(key).count()).unwrap_or(u32::MAX),
        ..v1::Assignment::default()
    }
}
