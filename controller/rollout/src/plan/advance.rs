//! Offers of an unfinished rollout, within its limits; and its end.

use super::{Draft, Sheet};
use crate::{
    Assignment, FailedHost, Failure, HostId, HostState, Member, RolloutState, SkipReason, Trigger, Waiting,
    WaveName, WaveState,
};

/// Makes the offers that are due, ends the rollout if nothing is left to do, and otherwise says why it waits.
pub(super) fn advance(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>) {
    if draft.progress.is_halted() {
        return end_halted(draft, sheet);
    }
    for wave in 0..draft.progress.waves.len() {
        let is_done = match draft.progress.waves[wave].name {
            WaveName::Canary => canary(draft, sheet, wave),
            WaveName::Rest => rest(draft, sheet, wave),
        };
        if !is_done {
            break;
        }
    }
    if draft.open() == 0 && draft.candidates(sheet).is_empty() {
        end(draft, sheet);
    }
    if !draft.progress.state.has_ended() {
        note_offline(draft, sheet);
    }
}

/// Offers the canary its release. True if the canary has committed.
fn canary(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>, wave: usize) -> bool {
    let all = draft.count(Member::counts);
    let size = draft.base.spec.policy.canary.map_or(0, |amount| amount.of(all));
    let committed = draft.count(|member| draft.is_canary(member) && member.state == HostState::Committed);
    if committed >= size {
        draft.set_wave(wave, WaveState::Done);
        return true;
    }
    let open = draft.count(|member| draft.is_canary(member) && member.state.is_open());
    offer(draft, sheet, wave, size.saturating_sub(committed + open));
    let canary = draft.members().find(|(_, member)| draft.is_canary(member) && member.state.is_open());
    if let Some((host, member)) = canary {
        let (name, online) = (sheet.name(host), sheet.is_online(host));
        let reason = Waiting::Canary { host: host.clone(), name, state: member.state, online };
        sheet.wait(draft.base.spec.id, reason);
    }
    false
}

/// Offers all others the release, as many at once as may be. True if nothing of it is open or to come now.
fn rest(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>, wave: usize) -> bool {
    let limit = draft.base.spec.policy.max_parallel.of(draft.count(Member::counts));
    let room = limit.saturating_sub(draft.open());
    let is_full = offer(draft, sheet, wave, room);
    let (open, pending) = (draft.open(), draft.candidates(sheet).len());
    let id = draft.base.spec.id;
    if is_full {
        sheet.wait(id, Waiting::MaxParallel { open, limit, pending });
    } else if open > 0 {
        sheet.wait(id, Waiting::Trials { open });
    }
    open == 0 && pending == 0
}

/// Offers the release to at most `room` hosts that are free. True if hosts were left out for want of room.
pub(super) fn offer(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>, wave: usize, room: usize) -> bool {
    let mut busy: Vec<HostId> = Vec::new();
    let mut free: Vec<HostId> = Vec::new();
    for host in draft.candidates(sheet) {
        if sheet.busy(&host).is_some() { busy.push(host) } else { free.push(host) }
    }
    for host in free.iter().take(room) {
        draft.offer(sheet, host, wave);
        draft.set_wave(wave, WaveState::Running);
        if draft.progress.state == RolloutState::Pending {
            draft.progress.state = RolloutState::Running;
        }
    }
    let is_full = free.len() > room;
    if let Some((host, other)) = busy.first().and_then(|host| Some((host, sheet.busy(host)?)))
        && !is_full
        && room > 0
    {
        let reason =
            Waiting::HostBusy { host: host.clone(), name: sheet.name(host), other, hosts: busy.len() };
        sheet.wait(draft.base.spec.id, reason);
    }
    is_full
}

/// A halted rollout has FAILED as soon as no offer is open.
fn end_halted(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>) {
    match draft.open() {
        0 => draft.progress.state = RolloutState::Failed,
        open => sheet.wait(draft.base.spec.id, Waiting::TrialsEnding { open }),
    }
}

/// Nothing is open and nobody is there to be offered it: the rollout ends, unless it has not really begun.
fn end(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>) {
    let pending = draft.count(|member| member.state == HostState::Pending);
    if sheet.fleet.returning && pending > 0 {
        return sheet.wait(draft.base.spec.id, Waiting::HostsReturning { hosts: pending });
    }
    let has_it = |member: &Member| {
        member.state == HostState::Committed || member.skip == Some(SkipReason::AlreadyInstalled)
    };
    let failed = draft.members().filter(|(_, member)| member.state.has_failed());
    let first = failed.min_by_key(|(_, member)| (member.offered_elapsed_ms, member.order));
    let first = first.and_then(|(host, member)| Some((host.clone(), member.failure.clone()?)));
    if let Some((host, failure)) = first {
        return fail(draft, FailedHost { host: Some(host), failure });
    }
    if draft.count(has_it) > 0 {
        return succeed(draft, sheet);
    }
    if pending > 0 {
        return sheet.wait(draft.base.spec.id, Waiting::NobodyOnline { hosts: pending });
    }
    if let Some(failed) = denied_there(draft) {
        return fail(draft, failed);
    }
    if let Some(failed) = held_there(draft) {
        return fail(draft, failed);
    }
    if draft.count(|member| matches!(member.skip, Some(SkipReason::Platform(_)))) > 0 {
        return fail(draft, FailedHost { host: None, failure: Failure::no_host_fits() });
    }
    sheet.wait(draft.base.spec.id, Waiting::NoHostMatches);
}

/// A host that would have been asked, had the release not failed there before.
fn denied_there(draft: &Draft<'_>) -> Option<FailedHost> {
    draft.members().find_map(|(host, member)| {
        let Some(SkipReason::Denied(code)) = &member.skip else { return None };
        Some(FailedHost { host: Some(host.clone()), failure: Failure::denied(code) })
    })
}

/// A host that would have been asked, were it not held: a release that nobody has tried is no assignment's.
fn held_there(draft: &Draft<'_>) -> Option<FailedHost> {
    draft.members().find_map(|(host, member)| {
        let reason =
            member.skip.as_ref().filter(|skip| matches!(skip, SkipReason::Held(_) | SkipReason::SafeMode))?;
        Some(FailedHost { host: Some(host.clone()), failure: Failure::held(reason) })
    })
}

fn fail(draft: &mut Draft<'_>, failed: FailedHost) {
    draft.progress.failed = Some(failed);
    draft.progress.state = RolloutState::Failed;
    end_waves(draft);
}

fn succeed(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>) {
    draft.progress.state = RolloutState::Succeeded;
    end_waves(draft);
    let spec = &draft.base.spec;
    let fresh = || Assignment { key: spec.key.clone(), history: Vec::new() };
    let before = sheet.fleet.assignments.get(&spec.key).cloned().unwrap_or_else(fresh);
    let after = before.moved(spec.to.as_ref(), spec.trigger == Trigger::Rollback);
    if after != before {
        sheet.assign(after);
    }
}

fn end_waves(draft: &mut Draft<'_>) {
    for wave in &mut draft.progress.waves {
        wave.state = WaveState::Done;
    }
}

/// Offline hosts are said, though nothing waits for them.
pub(super) fn note_offline(draft: &Draft<'_>, sheet: &mut Sheet<'_>) {
    let away =
        draft.members().filter(|(host, member)| member.state == HostState::Pending && !sheet.is_online(host));
    let hosts = away.count();
    if hosts > 0 && draft.progress.state != RolloutState::Pending {
        sheet.wait(draft.base.spec.id, Waiting::HostsOffline { hosts });
    }
}
