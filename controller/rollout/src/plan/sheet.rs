//! What a plan has decided so far, over all rollouts.

use std::collections::BTreeMap;

use super::{DesiredChange, Draft, MemberChange, Plan, ProgressChange};
use crate::{
    Assignment, AssignmentKey, Desired, Elapsed, Fleet, Generation, HostId, RolloutId, RolloutState,
    SkipReason, Waiting,
};

/// The decisions that reach beyond one rollout.
pub(super) struct Sheet<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) now: Elapsed,
    desired: BTreeMap<(HostId, String), Desired>,
    assignments: BTreeMap<AssignmentKey, Assignment>,
    busy: BTreeMap<HostId, RolloutId>,
    claimed: BTreeMap<(HostId, String), RolloutId>,
    waiting: BTreeMap<RolloutId, Vec<Waiting>>,
    next_timer: Option<Elapsed>,
}

impl<'a> Sheet<'a> {
    pub(super) fn new(fleet: &'a Fleet, now: Elapsed) -> Self {
        Self {
            fleet,
            now,
            desired: BTreeMap::new(),
            assignments: BTreeMap::new(),
            busy: BTreeMap::new(),
            claimed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_timer: None,
        }
    }

    /// What a host is to be told about a plugin, by what was decided so far.
    pub(super) fn desired(&self, host: &HostId, plugin: &str) -> Option<&Desired> {
        let decided = self.desired.get(&(host.clone(), plugin.to_owned()));
        decided.or_else(|| self.fleet.hosts.get(host)?.desired(plugin))
    }

    /// Tells a host something new. Everything that one plan tells a host has the same generation.
    pub(super) fn tell(&mut self, host: &HostId, plugin: &str, row: Desired) {
        let generation = self.next_generation(host);
        self.desired.insert((host.clone(), plugin.to_owned()), Desired { generation, ..row });
    }

    /// The generation of what this plan tells a host.
    pub(super) fn next_generation(&self, host: &HostId) -> Generation {
        let told = self.fleet.hosts.get(host).map(|host| host.generation).unwrap_or_default();
        told.next(self.fleet.epoch)
    }

    /// Takes note of the hosts that have an open offer.
    pub(super) fn note_busy(&mut self, draft: &Draft<'_>) {
        for (host, _) in draft.members().filter(|(_, member)| member.state.is_open()) {
            self.busy.insert(host.clone(), draft.base.spec.id);
        }
    }

    /// The rollout for which a host is on trial.
    pub(super) fn busy(&self, host: &HostId) -> Option<RolloutId> {
        self.busy.get(host).copied()
    }

    pub(super) fn take(&mut self, host: &HostId, rollout: RolloutId) {
        self.busy.insert(host.clone(), rollout);
    }

    /// Takes note of hosts that need no offer of a rollout, unless it has just failed: they run its release already, and
    /// an earlier rollout must not take them elsewhere.
    pub(super) fn claim(&mut self, draft: &Draft<'_>) {
        if draft.progress.state == RolloutState::Failed {
            return;
        }
        let spec = &draft.base.spec;
        let settled = draft.members().filter(|(_, member)| member.skip == Some(SkipReason::AlreadyInstalled));
        for (host, _) in settled {
            self.claimed.insert((host.clone(), spec.key.plugin.clone()), spec.id);
        }
    }

    /// The later rollout that put, or wants, a host where it is.
    pub(super) fn later_than(&self, rollout: RolloutId, host: &HostId, plugin: &str) -> Option<RolloutId> {
        let told_by = self.desired(host, plugin).and_then(|row| row.rollout);
        let claimed_by = self.claimed.get(&(host.clone(), plugin.to_owned())).copied();
        told_by.max(claimed_by).filter(|by| *by > rollout)
    }

    pub(super) fn is_online(&self, host: &HostId) -> bool {
        self.fleet.hosts.get(host).is_some_and(|host| host.online)
    }

    /// The host's name, for people.
    pub(super) fn name(&self, host: &HostId) -> String {
        self.fleet.hosts.get(host).map_or_else(|| host.to_string(), |host| host.name.clone())
    }

    pub(super) fn wait(&mut self, rollout: RolloutId, reason: Waiting) {
        self.waiting.entry(rollout).or_default().push(reason);
    }

    /// Asks for a plan at `due` at the latest.
    pub(super) fn wake(&mut self, due: Elapsed) {
        self.next_timer = Some(self.next_timer.map_or(due, |timer| timer.min(due)));
    }

    pub(super) fn assign(&mut self, assignment: Assignment) {
        self.assignments.insert(assignment.key.clone(), assignment);
    }

    /// Only rows that differ from what is stored.
    pub(super) fn into_plan(self, drafts: Vec<Draft<'_>>) -> Plan {
        let mut plan = Plan { waiting: self.waiting, next_timer: self.next_timer, ..Plan::default() };
        for ((host, plugin), desired) in self.desired {
            plan.generations.insert(host.clone(), desired.generation);
            plan.desired.push(DesiredChange { host, plugin, desired });
        }
        plan.assignments = self.assignments.into_values().collect();
        for draft in drafts {
            let rollout = draft.base.spec.id;
            if draft.progress != draft.base.progress {
                plan.progress.push(ProgressChange { rollout, progress: draft.progress });
            }
            for (host, member) in draft.changed {
                if draft.base.members.get(&host) != Some(&member) {
                    plan.members.push(MemberChange { rollout, host, member });
                }
            }
        }
        plan
    }
}
