//! What hosts have answered, whose deadline has passed, and what that means for the rollout.

use super::{ANSWER_GRACE_MS, Draft, Role, Sheet, held, skip_reason};
use crate::{
    Elapsed, FailedHost, Failure, Fault, Host, HostId, HostState, Member, Reported, RolloutState, SkipReason,
    Spec, Trial, WaveState, order,
};

/// How long a connected host may take to go back, in milliseconds: it waits for a moment that costs no call.
const WAY_BACK_MAX_MS: u64 = 180_000;
/// Attempts that a host has at a release if it was interrupted each time.
const INTERRUPTED_ATTEMPTS: u32 = 2;

/// Takes in what hosts with an open offer, or lost ones, have said since.
pub(super) fn answers(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>) {
    let base = draft.base;
    for (id, member) in &base.members {
        let host = sheet.fleet.hosts.get(id);
        if let Some(passed_over) = host.and_then(|host| held::passed_over(draft, member, host)) {
            draft.restore(sheet, id, &passed_over);
            draft.changed.insert(id.clone(), passed_over);
            continue;
        }
        if !member.state.is_open() && member.state != HostState::Lost {
            continue;
        }
        let told = answered(&base.spec, member, host).unwrap_or_else(|| member.clone());
        let seen = lost_if_due(&base.spec, told, host, sheet);
        let seen = retried(draft, seen);
        if seen == *member {
            continue;
        }
        if seen.state == HostState::Committed {
            draft.keep(sheet, id);
        } else if !seen.state.is_open() {
            draft.restore(sheet, id, &seen);
        }
        draft.changed.insert(id.clone(), seen);
    }
}

/// Hosts that have left a rollout which has just succeeded: its end is no reason to wait for another plan.
pub(super) fn gone_back(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>) {
    let left = draft.members().filter_map(|(id, member)| {
        let host = sheet.fleet.hosts.get(id)?;
        Some((id.clone(), held::left(draft, member, host)?))
    });
    let left: Vec<(HostId, Member)> = left.collect();
    for (id, member) in left {
        draft.restore(sheet, &id, &member);
        draft.changed.insert(id, member);
    }
}

/// An offer is taken back as well where the host has been told something else since: another rollout has learned that
/// the host runs its release.
pub(super) fn overruled(draft: &mut Draft<'_>, sheet: &Sheet<'_>) {
    let spec = &draft.base.spec;
    let stands = |host: &HostId, member: &Member| {
        let row = sheet.desired(host, &spec.key.plugin);
        row.is_some_and(|row| row.rollout == Some(spec.id) && row.attempt == member.attempt)
    };
    let open = draft.members().filter(|(_, member)| member.state.is_open() && !member.withdrawn);
    let overruled = open.filter(|(host, member)| !stands(host, member));
    let overruled: Vec<_> = overruled.map(|(host, member)| (host.clone(), member.clone())).collect();
    for (host, member) in overruled {
        draft.changed.insert(host, Member { withdrawn: true, ..member });
    }
}

/// The member as the host's report shows it; `None`: the report says nothing about this offer.
fn answered(spec: &Spec, member: &Member, host: Option<&Host>) -> Option<Member> {
    let reported = host?.reported(&spec.key.plugin)?;
    let is_ours = |trial: &&Trial| trial.rollout == Some(spec.id) && trial.attempt == member.attempt;
    if let Some(trial) = reported.trial.as_ref().filter(is_ours) {
        let has_left = trial.state == HostState::Committed && reported.active != spec.to;
        return if has_left { left(member) } else { tried(member, trial) };
    }
    let is_there = reported.active == spec.to && !reported.on_trial();
    if is_there && reported.generation >= member.offered_generation && !member.withdrawn {
        return Some(closed(member, HostState::Committed, None));
    }
    let knows = knows_of_withdrawal(spec, member, host?, reported);
    (knows && !is_there && member.state.is_open())
        .then(|| closed(member, HostState::Rejected, Some(Failure::withdrawn(member.state))))
}

/// Whether the host has accepted the generation that took the offer back.
fn knows_of_withdrawal(spec: &Spec, member: &Member, host: &Host, reported: &Reported) -> bool {
    let row = host.desired(&spec.key.plugin);
    member.withdrawn && row.is_some_and(|row| reported.generation >= row.generation)
}

fn tried(member: &Member, trial: &Trial) -> Option<Member> {
    let details = |member: Member| Member {
        swap_pause_us: trial.swap_pause_us,
        proven_by: trial.proven_by.clone(),
        state_lost: trial.state_lost.clone(),
        ..member
    };
    match trial.state {
        HostState::Committed => Some(details(closed(member, HostState::Committed, None))),
        HostState::Rejected if trial.failure.as_ref().is_some_and(Failure::is_denial) => {
            // Its deny-list is news to the planner; it says nothing about the release that was not said before.
            let skip = Some(SkipReason::Denied(Failure::RELEASE_DENIED.to_owned()));
            Some(Member { skip, ..closed(member, HostState::Skipped, None) })
        }
        HostState::Rejected | HostState::RolledBack => {
            let failure = trial.failure.clone().unwrap_or_else(|| Failure::unexplained(member.state));
            Some(details(closed(member, trial.state, Some(failure))))
        }
        HostState::Offered
        | HostState::Fetching
        | HostState::Verifying
        | HostState::Loading
        | HostState::Probing
        | HostState::Switching
        | HostState::Probation
        | HostState::RollingBack => {
            // A lost host that still tries stays lost until it has a verdict.
            member.state.is_open().then(|| Member { state: trial.state, ..member.clone() })
        }
        HostState::Pending | HostState::Lost | HostState::Skipped => None,
    }
}

/// A host that committed and has gone back before it could say so.
fn left(member: &Member) -> Option<Member> {
    let failure = if member.withdrawn { Failure::withdrawn(member.state) } else { Failure::fell_back() };
    member.state.is_open().then(|| closed(member, HostState::RolledBack, Some(failure)))
}

fn closed(member: &Member, state: HostState, failure: Option<Failure>) -> Member {
    Member { state, failure, withdrawn: false, ..member.clone() }
}

/// A host that has not answered by its deadline is LOST.
fn lost_if_due(spec: &Spec, member: Member, host: Option<&Host>, sheet: &mut Sheet<'_>) -> Member {
    let Some(offered) = member.offered_elapsed_ms.filter(|_| member.state.is_open()) else { return member };
    let due = deadline(spec, offered, member.state, host);
    if sheet.now < due {
        sheet.wake(due);
        return member;
    }
    let failure = Failure::lost(member.state, spec.policy.healthy_deadline_ms);
    closed(&member, HostState::Lost, Some(failure))
}

/// A connected host ends its trial by its own clock: it switches by the deadline, and commits after its probation.
fn deadline(spec: &Spec, offered: Elapsed, state: HostState, host: Option<&Host>) -> Elapsed {
    let due = offered.plus(spec.policy.healthy_deadline_ms);
    if !host.is_some_and(|host| host.online) {
        return due;
    }
    let way_back = if state == HostState::RollingBack { WAY_BACK_MAX_MS } else { 0 };
    due.plus(spec.policy.min_healthy_ms).plus(way_back).plus(ANSWER_GRACE_MS)
}

/// A failure without a verdict gives the host another turn: once if it was interrupted, and, when it came late to a
/// rollout that has succeeded, each time that its offer was taken back, or it was lost before anything was loaded.
fn retried(draft: &Draft<'_>, member: Member) -> Member {
    let Some(fault) =
        member.failure.as_ref().filter(|_| member.state.has_failed()).map(|failure| failure.fault)
    else {
        return member;
    };
    let may = match draft.role {
        Role::Unfinished => {
            let has_turns = member.attempt < INTERRUPTED_ATTEMPTS && !draft.progress.is_halted();
            fault == Fault::Interrupted && has_turns
        }
        Role::CatchUp => {
            fault == Fault::Withdrawn || (fault == Fault::Link && member.state == HostState::Lost)
        }
        Role::Past => false,
    };
    let wave = u32::try_from(draft.rest()).unwrap_or(u32::MAX);
    if may { Member { state: HostState::Pending, wave, ..member } } else { member }
}

/// Takes in hosts that joined, and looks again at those that have not been offered anything.
pub(super) fn newcomers(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>) {
    let (fleet, spec) = (sheet.fleet, &draft.base.spec);
    for (id, host) in &fleet.hosts {
        let Some(member) = waiting_member(draft, id) else { continue };
        let skip = skip_reason(fleet, spec, host, sheet.desired(id, &spec.key.plugin));
        if skip == Some(SkipReason::NoLongerMatches) && draft.member(id).is_none() {
            continue;
        }
        draft.settle(sheet, id, member, skip);
    }
}

/// The host's row if it is not yet there, PENDING, or SKIPPED.
pub(super) fn waiting_member(draft: &Draft<'_>, id: &HostId) -> Option<Member> {
    let Some(member) = draft.member(id) else {
        let wave = u32::try_from(draft.rest()).unwrap_or(u32::MAX);
        return Some(Member::joining(order(draft.base.spec.id, id), wave));
    };
    // One that has refused it once would do so again.
    let has_refused = member.attempt > 0 && matches!(member.skip, Some(SkipReason::Denied(_)));
    let waits = matches!(member.state, HostState::Pending | HostState::Skipped) && !has_refused;
    waits.then(|| member.clone())
}

/// Stops the rollout at the first failure that stops it, and takes open offers back. In one that has succeeded, that
/// is the wave of those who came late.
pub(super) fn verdict(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>) {
    if !draft.progress.is_halted() {
        let mut stops: Vec<_> = draft.members().filter(|(_, member)| stops(draft, member)).collect();
        stops.sort_by_key(|(_, member)| (member.offered_elapsed_ms, member.order));
        let Some((host, member)) = stops.first() else { return };
        let Some(failure) = member.failure.clone() else { return };
        let (host, wave) = (Some((*host).clone()), usize::try_from(member.wave).unwrap_or(usize::MAX));
        draft.progress.failed = Some(FailedHost { host, failure });
        if draft.role == Role::Unfinished {
            draft.progress.state = RolloutState::Running;
        }
        draft.set_wave(wave, WaveState::Halted);
    }
    let open = draft.members().filter(|(_, member)| member.state.is_open() && !member.withdrawn);
    let open: Vec<(HostId, Member)> = open.map(|(host, member)| (host.clone(), member.clone())).collect();
    for (host, member) in open {
        draft.restore(sheet, &host, &member);
        draft.changed.insert(host, Member { withdrawn: true, ..member });
    }
}

/// Whether a host's failure stops the rollout.
fn stops(draft: &Draft<'_>, member: &Member) -> bool {
    let Some(failure) = member.failure.as_ref().filter(|_| member.state.has_failed()) else { return false };
    match failure.fault {
        Fault::Release => true,
        // Nobody but the canary has shown yet that the release can be taken.
        Fault::Trust | Fault::Host | Fault::Link | Fault::Interrupted | Fault::Withdrawn => {
            draft.is_canary(member)
        }
    }
}
