//! One rollout while it is planned: what is stored, and what changes on top.

use std::collections::BTreeMap;

use super::Sheet;
use crate::{
    Assignment, Desired, Fleet, HostId, HostState, Member, Progress, Rollout, RolloutState, SkipReason,
    WaveName, WaveState,
};

/// What a rollout is to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It goes on.
    Unfinished,
    /// It put the assignment where it is: hosts that come late get its release by it.
    CatchUp,
    /// It has ended; only a lost host may still correct its count.
    Past,
}

pub(super) struct Draft<'a> {
    pub(super) base: &'a Rollout,
    pub(super) role: Role,
    pub(super) progress: Progress,
    pub(super) changed: BTreeMap<HostId, Member>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(fleet: &Fleet, rollouts: &[Rollout], base: &'a Rollout) -> Self {
        let role = role(fleet, rollouts, base);
        Self { base, role, progress: base.progress.clone(), changed: BTreeMap::new() }
    }

    pub(super) fn member(&self, host: &HostId) -> Option<&Member> {
        self.changed.get(host).or_else(|| self.base.members.get(host))
    }

    /// All hosts, newcomers included.
    pub(super) fn members(&self) -> impl Iterator<Item = (&HostId, &Member)> {
        let stored =
            self.base.members.iter().map(|(host, member)| (host, self.changed.get(host).unwrap_or(member)));
        stored.chain(self.changed.iter().filter(|(host, _)| !self.base.members.contains_key(host)))
    }

    /// Hosts in one state or a few.
    pub(super) fn count(&self, is_such: impl Fn(&Member) -> bool) -> usize {
        self.members().filter(|(_, member)| is_such(member)).count()
    }

    /// Hosts with an open offer.
    pub(super) fn open(&self) -> usize {
        self.count(|member| member.state.is_open())
    }

    /// Index of the last wave, in which everyone is who isn't a canary.
    pub(super) fn rest(&self) -> usize {
        self.progress.waves.len().saturating_sub(1)
    }

    /// Whether a host was chosen as canary.
    pub(super) fn is_canary(&self, member: &Member) -> bool {
        let wave = usize::try_from(member.wave).ok().and_then(|wave| self.progress.waves.get(wave));
        member.attempt > 0 && wave.is_some_and(|wave| wave.name == WaveName::Canary)
    }

    pub(super) fn set_wave(&mut self, wave: usize, state: WaveState) {
        if let Some(wave) = self.progress.waves.get_mut(wave) {
            wave.state = state;
        }
    }

    /// Hosts whose turn can come now (PENDING and online), in order; with those that are busy elsewhere left in.
    pub(super) fn candidates(&self, sheet: &Sheet<'_>) -> Vec<HostId> {
        let ready = self
            .members()
            .filter(|(host, member)| member.state == HostState::Pending && sheet.is_online(host));
        let mut ready: Vec<(u64, &HostId)> = ready.map(|(host, member)| (member.order, host)).collect();
        ready.sort();
        ready.into_iter().map(|(_, host)| host.clone()).collect()
    }

    /// Offers the release to a host.
    pub(super) fn offer(&mut self, sheet: &mut Sheet<'_>, host: &HostId, wave: usize) {
        let Some(member) = self.member(host).cloned() else { return };
        let (spec, policy) = (&self.base.spec, &self.base.spec.policy);
        let plugin = &spec.key.plugin;
        let before = sheet.desired(host, plugin).cloned();
        let active = sheet.fleet.hosts.get(host).and_then(|host| host.reported(plugin)?.active.clone());
        let attempt = member.attempt.saturating_add(1);
        let row = Desired {
            target: spec.to.clone(),
            rollout: Some(spec.id),
            attempt,
            rollback: spec.trigger == crate::Trigger::Rollback,
            min_healthy_ms: policy.min_healthy_ms,
            healthy_deadline_ms: policy.healthy_deadline_ms,
            generation: sheet.next_generation(host),
        };
        let back = before.unwrap_or_else(|| Desired { target: active, rollout: None, ..row.clone() });
        let offered = Member {
            wave: u32::try_from(wave).unwrap_or(u32::MAX),
            state: HostState::Offered,
            skip: None,
            attempt,
            offered_elapsed_ms: Some(sheet.now),
            offered_generation: row.generation,
            back: Some(Desired { attempt: 0, rollback: true, ..back }),
            withdrawn: false,
            failure: None,
            ..member
        };
        sheet.tell(host, plugin, row);
        sheet.take(host, self.base.spec.id);
        sheet.wake(sheet.now.plus(policy.healthy_deadline_ms));
        self.changed.insert(host.clone(), offered);
    }

    /// Puts back into force what a host was told before the offer, unless something newer was said meanwhile.
    pub(super) fn restore(&self, sheet: &mut Sheet<'_>, host: &HostId, member: &Member) {
        let plugin = &self.base.spec.key.plugin;
        let is_ours = sheet
            .desired(host, plugin)
            .is_some_and(|row| row.rollout == Some(self.base.spec.id) && row.attempt == member.attempt);
        if let Some(back) = member.back.clone().filter(|_| is_ours) {
            sheet.tell(host, plugin, back);
        }
    }

    /// Sees to it that a host that runs the release is told to keep it, unless something newer was said.
    pub(super) fn keep(&self, sheet: &mut Sheet<'_>, host: &HostId) {
        let spec = &self.base.spec;
        let row = sheet.desired(host, &spec.key.plugin);
        if row.is_some_and(|row| row.target == spec.to || row.rollout > Some(spec.id)) {
            return;
        }
        let row = Desired {
            target: spec.to.clone(),
            rollout: Some(spec.id),
            attempt: 0,
            rollback: true,
            min_healthy_ms: spec.policy.min_healthy_ms,
            healthy_deadline_ms: spec.policy.healthy_deadline_ms,
            generation: sheet.next_generation(host),
        };
        sheet.tell(host, &spec.key.plugin, row);
    }

    /// A host that has not been offered anything: PENDING, or SKIPPED with a reason, as things are now.
    pub(super) fn settle(
        &mut self,
        sheet: &mut Sheet<'_>,
        host: &HostId,
        member: Member,
        skip: Option<SkipReason>,
    ) {
        let state = if skip.is_some() { HostState::Skipped } else { HostState::Pending };
        if skip == Some(SkipReason::AlreadyInstalled) {
            self.keep(sheet, host);
        }
        if member.state != state || member.skip != skip || self.member(host).is_none() {
            self.changed.insert(host.clone(), Member { state, skip, ..member });
        }
    }
}

fn role(fleet: &Fleet, rollouts: &[Rollout], rollout: &Rollout) -> Role {
    let (spec, state) = (&rollout.spec, rollout.progress.state);
    if !state.has_ended() {
        return Role::Unfinished;
    }
    let is_newer = |other: &Rollout| {
        other.spec.key == spec.key
            && other.progress.state == RolloutState::Succeeded
            && other.spec.id > spec.id
    };
    let release = fleet.assignments.get(&spec.key).and_then(Assignment::release);
    let put_it_there = state == RolloutState::Succeeded && release == spec.to.as_ref();
    if put_it_there && !rollouts.iter().any(is_newer) { Role::CatchUp } else { Role::Past }
}
