//! Hosts that come late to a rollout that has succeeded: they were offline, joined, or match its selector since.
//!
//! They form a standing wave under the rollout's own `max_parallel`. A fault of the release on one of them stops the
//! wave until the next push: whoever is left keeps what it runs.

use super::{Draft, Sheet, advance, observe, skip_reason};
use crate::{Member, SkipReason, Waiting};

pub(super) fn catch_up(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>) {
    late_comers(draft, sheet);
    let id = draft.base.spec.id;
    if draft.progress.is_halted() {
        return say_stopped(draft, sheet);
    }
    let limit = draft.base.spec.policy.max_parallel.of(draft.count(Member::counts));
    let room = limit.saturating_sub(draft.open());
    let (state, waves) = (draft.progress.state, draft.progress.waves.clone());
    let is_full = advance::offer(draft, sheet, draft.rest(), room);
    (draft.progress.state, draft.progress.waves) = (state, waves);
    if is_full {
        let (open, pending) = (draft.open(), draft.candidates(sheet).len());
        sheet.wait(id, Waiting::MaxParallel { open, limit, pending });
    }
    advance::note_offline(draft, sheet);
}

/// Looks at every host that has not been offered the release by this rollout.
fn late_comers(draft: &mut Draft<'_>, sheet: &mut Sheet<'_>) {
    let (fleet, spec) = (sheet.fleet, &draft.base.spec);
    for (id, host) in &fleet.hosts {
        let Some(member) = observe::waiting_member(draft, id) else { continue };
        let plugin = &spec.key.plugin;
        let skip = match sheet.later_than(spec.id, id, plugin) {
            Some(by) => Some(SkipReason::Moved(by)),
            None => skip_reason(fleet, spec, host, sheet.desired(id, plugin)),
        };
        let is_no_member = matches!(skip, Some(SkipReason::NoLongerMatches | SkipReason::Moved(_)));
        if is_no_member && draft.member(id).is_none() {
            continue;
        }
        draft.settle(sheet, id, member, skip);
    }
}

/// Nobody else is offered it, and whoever waits for it is told why.
fn say_stopped(draft: &Draft<'_>, sheet: &mut Sheet<'_>) {
    let hosts = draft.candidates(sheet).len();
    let host = draft.progress.failed.as_ref().and_then(|failed| failed.host.clone());
    if let Some(host) = host.filter(|_| hosts > 0) {
        let name = sheet.name(&host);
        sheet.wait(draft.base.spec.id, Waiting::CatchUpStopped { host, name, hosts });
    }
}
