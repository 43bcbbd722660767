//! A second opinion: knows what must never happen, and nothing of how the planner avoids it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Amount, Assignment, Fault, Fleet, Host, HostId, HostState, Member, Plan, Rollout, RolloutId,
    RolloutState, SkipReason, Spec,
};

/// Looks at the world before and after each plan.
#[derive(Default)]
pub(crate) struct Checker {
    /// Rollouts on which a verdict has fallen.
    stopped: BTreeSet<RolloutId>,
}

impl Checker {
    /// What is wrong, in words.
    pub(crate) fn check(
        &mut self,
        fleet_before: &Fleet,
        before: &[Rollout],
        fleet: &Fleet,
        after: &[Rollout],
    ) -> Result<(), String> {
        one_offer_a_host(after)?;
        generations_grow(fleet_before, fleet)?;
        for (was, rollout) in before.iter().zip(after) {
            self.verdict_holds(was, rollout)?;
            limits_hold(fleet, was, rollout)?;
            commits_are_reported(fleet, was, rollout)?;
            if rollout.progress.state.has_ended() && !was.progress.state.has_ended() {
                ends_settled(fleet, rollout)?;
            }
        }
        releases_change_by_success(fleet_before, fleet, before, after)
    }

    /// After a failing verdict no further host gets an offer.
    fn verdict_holds(&mut self, was: &Rollout, rollout: &Rollout) -> Result<(), String> {
        let id = rollout.spec.id;
        if let Some((host, _)) = new_offers(was, rollout).next()
            && self.stopped.contains(&id)
        {
            return Err(format!("{id} made an offer to {host} after its verdict"));
        }
        if rollout.members.values().any(condemns) {
            self.stopped.insert(id);
        }
        Ok(())
    }
}

fn condemns(member: &Member) -> bool {
    let fault = member.failure.as_ref().map(|failure| failure.fault);
    member.state.has_failed() && fault == Some(Fault::Release)
}

fn new_offers<'a>(was: &'a Rollout, rollout: &'a Rollout) -> impl Iterator<Item = (&'a HostId, &'a Member)> {
    let attempts = |host| was.members.get(host).map_or(0, |member: &Member| member.attempt);
    rollout.members.iter().filter(move |(host, member)| member.attempt > attempts(*host))
}

fn one_offer_a_host(rollouts: &[Rollout]) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for rollout in rollouts {
        for (host, _) in rollout.members.iter().filter(|(_, member)| member.state.is_open()) {
            if let Some(other) = seen.insert(host, rollout.spec.id) {
                return Err(format!("{host} has open offers of {other} and {}", rollout.spec.id));
            }
        }
    }
    Ok(())
}

fn generations_grow(before: &Fleet, after: &Fleet) -> Result<(), String> {
    for (id, host) in &after.hosts {
        let was = &before.hosts[id];
        for (plugin, row) in &host.plugins {
            let told = was.plugins.get(plugin).and_then(|plugin| plugin.desired.as_ref());
            let Some(desired) = row.desired.as_ref().filter(|desired| Some(*desired) != told) else {
                continue;
            };
            if host.generation <= was.generation || desired.generation != host.generation {
                return Err(format!("{id} was told something new without a new generation"));
            }
        }
    }
    Ok(())
}

fn limits_hold(fleet: &Fleet, was: &Rollout, rollout: &Rollout) -> Result<(), String> {
    let (id, spec) = (rollout.spec.id, &rollout.spec);
    if new_offers(was, rollout).next().is_none() {
        return Ok(());
    }
    if let Some((host, _)) = new_offers(was, rollout).find(|(host, _)| !fleet.hosts[host].online) {
        return Err(format!("{id} made an offer to {host}, which is offline"));
    }
    if let Some((host, _)) = new_offers(was, rollout).find(|(host, _)| denies(&fleet.hosts[*host], spec)) {
        return Err(format!("{id} made an offer to {host}, on which its release has failed"));
    }
    let fits = |host: &&Host| {
        spec.key.selector.matches(&host.labels, &host.name)
            && (spec.platforms.is_empty() || spec.platforms.contains(&host.platform))
    };
    let hosts = u64::try_from(fleet.hosts.values().filter(fits).count()).unwrap();
    let limit = match spec.policy.max_parallel {
        Amount::Count(count) => u64::from(count),
        Amount::Percent(percent) => 1.max((hosts * u64::from(percent)).div_ceil(100)),
    };
    let open = rollout.members.values().filter(|member| member.state.is_open()).count();
    if u64::try_from(open).unwrap() > limit {
        return Err(format!("{id} has {open} of {hosts} hosts on trial, more than {limit}"));
    }
    let is_proven = rollout.members.values().any(|member| member.state == HostState::Committed);
    if spec.policy.canary.is_some() && !is_proven && !was.progress.state.has_ended() && open > 1 {
        return Err(format!("{id} has {open} hosts on trial before the canary has committed"));
    }
    Ok(())
}

fn denies(host: &Host, spec: &Spec) -> bool {
    let reported = host.plugins.get(&spec.key.plugin).and_then(|row| row.reported.as_ref());
    reported.is_some_and(|it| it.denied.iter().any(|denied| Some(&denied.release) == spec.to.as_ref()))
}

/// No host counts as committed that did not say so.
fn commits_are_reported(fleet: &Fleet, was: &Rollout, rollout: &Rollout) -> Result<(), String> {
    for (host, _) in rollout.members.iter().filter(|(_, member)| member.state == HostState::Committed) {
        let is_new = was.members.get(host).is_none_or(|member| member.state != HostState::Committed);
        let reported =
            fleet.hosts[host].plugins.get(&rollout.spec.key.plugin).and_then(|row| row.reported.as_ref());
        if is_new && reported.and_then(|reported| reported.active.as_ref()) != rollout.spec.to.as_ref() {
            return Err(format!("{host} counts as committed in {} without saying so", rollout.spec.id));
        }
    }
    Ok(())
}

/// An ended rollout leaves no offer open, and nobody who failed is told to run its release.
fn ends_settled(fleet: &Fleet, rollout: &Rollout) -> Result<(), String> {
    let id = rollout.spec.id;
    for (host, member) in &rollout.members {
        if member.state.is_open() {
            return Err(format!("{id} ended while {host} is {}", member.state));
        }
        let row = fleet.hosts[host]
            .plugins
            .get(&rollout.spec.key.plugin)
            .and_then(|plugin| plugin.desired.as_ref());
        let is_offered = row.is_some_and(|row| row.rollout == Some(id) && row.attempt > 0);
        if member.state.has_failed() && is_offered {
            return Err(format!("{host} is {} and still told to try {id}", member.state));
        }
        let had_it = member.skip == Some(SkipReason::AlreadyInstalled);
        let has_succeeded = rollout.progress.state == RolloutState::Succeeded;
        let has_it = member.state == HostState::Committed || (had_it && has_succeeded);
        if has_it && row.is_some_and(|row| row.target != rollout.spec.to) {
            return Err(format!("{host} runs the release of {id} and is told otherwise"));
        }
    }
    Ok(())
}

fn releases_change_by_success(
    fleet_before: &Fleet,
    fleet: &Fleet,
    before: &[Rollout],
    after: &[Rollout],
) -> Result<(), String> {
    for (key, assignment) in &fleet.assignments {
        let was = fleet_before.assignments.get(key).and_then(Assignment::release);
        let has_succeeded = before.iter().zip(after).any(|(was, now)| {
            now.spec.key == *key
                && was.progress.state != RolloutState::Succeeded
                && now.progress.state == RolloutState::Succeeded
                && now.spec.to.as_ref() == assignment.release()
        });
        if assignment.release() != was && !has_succeeded {
            return Err(format!("the release of {} changed without a success", key.plugin));
        }
    }
    Ok(())
}

/// Every unfinished rollout says why it waits.
pub(crate) fn reasons_are_given(plan: &Plan, rollouts: &[Rollout]) -> Result<(), String> {
    let silent = |rollout: &&Rollout| {
        !rollout.progress.state.has_ended() && plan.waiting.get(&rollout.spec.id).is_none_or(Vec::is_empty)
    };
    match rollouts.iter().find(silent) {
        Some(rollout) => Err(format!("{} waits without a reason", rollout.spec.id)),
        None => Ok(()),
    }
}
