//! One look at the whole fleet, and everything that has to change.
//!
//! In order: what hosts have answered, and whose deadline has passed ([`observe`]); verdicts, which withdraw open
//! offers; new offers and ends of unfinished rollouts ([`advance`]); late comers ([`catch_up`]).

mod advance;
mod catch_up;
mod draft;
mod held;
mod observe;
mod sheet;

use std::collections::BTreeMap;

use crate::{
    Assignment, Desired, Elapsed, Fleet, Generation, Host, HostId, Member, Progress, Release, Rollout,
    RolloutId, RolloutState, SkipReason, Spec, Waiting,
};
use draft::{Draft, Role};
use sheet::Sheet;

/// How long a connected host's verdict may travel, in milliseconds, after its own clock has ended the trial.
pub(crate) const ANSWER_GRACE_MS: u64 = 5_000;

/// Everything that has to change: whole new rows, to be stored in one transaction before anything is sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Hosts in rollouts.
    pub members: Vec<MemberChange>,
    /// Rollouts and their waves.
    pub progress: Vec<ProgressChange>,
    /// Assignments whose release changes, since a rollout has succeeded.
    pub assignments: Vec<Assignment>,
    /// What hosts should run. An attempt above 0 whose generation is the row's own is an offer.
    pub desired: Vec<DesiredChange>,
    /// The new generation of each host that is told something.
    pub generations: BTreeMap<HostId, Generation>,
    /// Why each unfinished rollout does not go on now; also of the last succeeded ones, if hosts still come to them.
    pub waiting: BTreeMap<RolloutId, Vec<Waiting>>,
    /// When to plan again although nothing has changed.
    pub next_timer: Option<Elapsed>,
}

/// A new row of a host in a rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberChange {
    /// The rollout.
    pub rollout: RolloutId,
    /// The host.
    pub host: HostId,
    /// The whole row.
    pub member: Member,
}

/// A rollout that goes on, or ends.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressChange {
    /// The rollout.
    pub rollout: RolloutId,
    /// The whole of it.
    pub progress: Progress,
}

/// A new row of what a host should run.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredChange {
    /// The host.
    pub host: HostId,
    /// The plugin.
    pub plugin: String,
    /// The whole row.
    pub desired: Desired,
}

impl Plan {
    /// Whether nothing has to be stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
            && self.progress.is_empty()
            && self.assignments.is_empty()
            && self.desired.is_empty()
            && self.generations.is_empty()
    }

    /// Does to a fleet and its rollouts in memory what the store does to its rows.
    pub fn apply(&self, fleet: &mut Fleet, rollouts: &mut [Rollout]) {
        for change in &self.desired {
            if let Some(host) = fleet.hosts.get_mut(&change.host) {
                let plugin = host.plugins.entry(change.plugin.clone()).or_default();
                plugin.desired = Some(change.desired.clone());
            }
        }
        for (id, generation) in &self.generations {
            if let Some(host) = fleet.hosts.get_mut(id) {
                host.generation = *generation;
            }
        }
        for assignment in &self.assignments {
            fleet.assignments.insert(assignment.key.clone(), assignment.clone());
        }
        for rollout in rollouts {
            let id = rollout.spec.id;
            if let Some(change) = self.progress.iter().find(|change| change.rollout == id) {
                rollout.progress = change.progress.clone();
            }
            for change in self.members.iter().filter(|change| change.rollout == id) {
                rollout.members.insert(change.host.clone(), change.member.clone());
            }
        }
    }
}

/// Plans. `rollouts` are the unfinished ones, and of each assignment the newest one and the newest that succeeded;
/// more do no harm. `now` is the time that the controller has been listening, which never goes back.
#[must_use]
pub fn plan(fleet: &Fleet, rollouts: &[Rollout], now: Elapsed) -> Plan {
    let mut sheet = Sheet::new(fleet, now);
    let mut drafts: Vec<Draft<'_>> =
        rollouts.iter().map(|rollout| Draft::new(fleet, rollouts, rollout)).collect();
    drafts.sort_by_key(|draft| draft.base.spec.id);
    for draft in &mut drafts {
        observe::answers(draft, &mut sheet);
    }
    for draft in &mut drafts {
        observe::overruled(draft, &sheet);
    }
    for draft in drafts.iter_mut().filter(|draft| draft.role == Role::Unfinished) {
        observe::newcomers(draft, &mut sheet);
    }
    for draft in drafts.iter_mut().filter(|draft| draft.role != Role::Past) {
        observe::verdict(draft, &mut sheet);
    }
    for draft in &drafts {
        sheet.note_busy(draft);
    }
    for draft in drafts.iter_mut().filter(|draft| draft.role == Role::Unfinished) {
        advance::advance(draft, &mut sheet);
        if draft.progress.state == RolloutState::Succeeded {
            observe::gone_back(draft, &mut sheet);
        }
        sheet.claim(draft);
    }
    for draft in drafts.iter_mut().filter(|draft| draft.role == Role::CatchUp) {
        catch_up::catch_up(draft, &mut sheet);
    }
    sheet.into_plan(drafts)
}

/// Why a host is not to be offered a release; `None`: it is.
pub(crate) fn skip_reason(
    fleet: &Fleet,
    spec: &Spec,
    host: &Host,
    desired: Option<&Desired>,
) -> Option<SkipReason> {
    if !fleet.belongs(host, &spec.key) {
        return Some(SkipReason::NoLongerMatches);
    }
    if !spec.platforms.is_empty() && !spec.platforms.contains(&host.platform) {
        return Some(SkipReason::Platform(host.platform.clone()));
    }
    if host.safe_mode {
        return Some(SkipReason::SafeMode);
    }
    if runs(host, &spec.key.plugin, spec.to.as_ref(), desired) {
        return Some(SkipReason::AlreadyInstalled);
    }
    if let Some(held) = host.takes_nothing(&spec.key.plugin) {
        return Some(held);
    }
    spec.to.as_ref().and_then(|to| host.denies(to)).map(|code| SkipReason::Denied(code.to_owned()))
}

/// Whether a host runs `to`, and nothing on the way would change that.
fn runs(host: &Host, plugin: &str, to: Option<&Release>, desired: Option<&Desired>) -> bool {
    let reported = host.reported(plugin);
    let active = reported.and_then(|reported| reported.active.as_ref());
    let is_settled = !reported.is_some_and(crate::Reported::on_trial);
    let is_told_otherwise = desired.is_some_and(|desired| desired.target.as_ref() != to);
    active == to && is_settled && (host.online || !is_told_otherwise)
}

#[cfg(test)]
pub(crate) mod tests;
