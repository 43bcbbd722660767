//! Hosts that take nothing: an operator there holds the plugin, or the agent is in safe mode. They are passed over, and get
//! what they missed when they come late.

use super::{Draft, Role};
use crate::{Failure, Host, HostState, Member, SkipReason, Trial};

/// A host in a rollout that is out of it from now on: it has not begun what it was offered, an operator there has taken it
/// back, or has left it after its commit. `None`: it goes on, or its own verdict counts.
pub(super) fn passed_over(draft: &Draft<'_>, member: &Member, host: &Host) -> Option<Member> {
    let plugin = &draft.base.spec.key.plugin;
    let skip = host.takes_nothing(plugin)?;
    let is_out = match member.state {
        HostState::Committed => draft.role == Role::CatchUp && has_left(draft, host, &skip),
        HostState::Skipped | HostState::Pending | HostState::Rejected | HostState::RolledBack => false,
        HostState::Lost => false,
        HostState::Offered
        | HostState::Fetching
        | HostState::Verifying
        | HostState::Loading
        | HostState::Probing
        | HostState::Switching
        | HostState::Probation
        | HostState::RollingBack => ends_open_offer(draft, member, host),
    };
    let skipped = Member { state: HostState::Skipped, failure: None, withdrawn: false, ..member.clone() };
    is_out.then_some(Member { skip: Some(skip), ..skipped })
}

/// It had committed, and an operator there has gone back. While the rollout goes on, its commit counts: it has shown that
/// the release can be taken.
fn has_left(draft: &Draft<'_>, host: &Host, skip: &SkipReason) -> bool {
    let spec = &draft.base.spec;
    let reported = host.reported(&spec.key.plugin);
    let elsewhere = reported.is_some_and(|it| !it.on_trial() && it.active != spec.to);
    matches!(skip, SkipReason::Held(_)) && elsewhere
}

/// A host that has left a rollout which succeeds in this very plan.
pub(super) fn left(draft: &Draft<'_>, member: &Member, host: &Host) -> Option<Member> {
    let skip = host.takes_nothing(&draft.base.spec.key.plugin)?;
    let is_out = member.state == HostState::Committed && has_left(draft, host, &skip);
    is_out.then(|| Member { state: HostState::Skipped, skip: Some(skip), ..member.clone() })
}

fn ends_open_offer(draft: &Draft<'_>, member: &Member, host: &Host) -> bool {
    let spec = &draft.base.spec;
    let Some(reported) = host.reported(&spec.key.plugin) else { return true };
    let is_ours = |trial: &&Trial| trial.rollout == Some(spec.id) && trial.attempt == member.attempt;
    match reported.trial.as_ref().filter(is_ours) {
        Some(trial) => match trial.state {
            HostState::Offered | HostState::Pending => true,
            // Nothing was loaded yet, and no worker will be before the agent's next start.
            HostState::Fetching | HostState::Verifying => host.safe_mode,
            HostState::Rejected | HostState::RolledBack => {
                trial.failure.as_ref().is_some_and(Failure::is_taken_back_locally)
            }
            // It has gone back before it could say that it had committed.
            HostState::Committed => reported.active != spec.to,
            // What callers notice ends by its own verdict, and so does what was loaded when the agent ended.
            HostState::Loading | HostState::Probing | HostState::Switching | HostState::Probation => false,
            HostState::RollingBack | HostState::Lost | HostState::Skipped => false,
        },
        // It has not heard of the offer, or runs what it was offered.
        None => reported.active != spec.to,
    }
}
