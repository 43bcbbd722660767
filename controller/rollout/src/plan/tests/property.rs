//! Any fleet, any order of reports: limits hold, verdicts hold, every rollout ends. And the checker that says so is
//! itself shown to find planners that are broken on purpose.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::world::{Planner, Step, walk};
use crate::{Amount, Elapsed, Fault, Fleet, Plan, Policy, Rollout, WaveName, plan};

fn step() -> impl Strategy<Value = Step> {
    let host = 0..16_usize;
    let fault = prop_oneof![
        2 => Just(Fault::Release),
        2 => Just(Fault::Host),
        2 => Just(Fault::Link),
        1 => Just(Fault::Trust),
        2 => Just(Fault::Interrupted),
    ];
    let amount = prop_oneof![(1..6_u32).prop_map(Amount::Count), (0..=100_u8).prop_map(Amount::Percent)];
    let policy = amount.prop_map(|max_parallel| Policy { max_parallel, ..Policy::push() });
    prop_oneof![
        2 => host.clone().prop_map(Step::Connect),
        2 => host.clone().prop_map(Step::Disconnect),
        8 => host.clone().prop_map(Step::Deliver),
        24 => host.clone().prop_map(Step::Advance),
        2 => (host.clone(), fault).prop_map(|(host, fault)| Step::Fail(host, fault)),
        1 => (host.clone(), prop::option::of(0..40_u64)).prop_map(|(host, back)| Step::Hold(host, back)),
        1 => host.clone().prop_map(Step::Release),
        16 => host.prop_map(Step::Report),
        2 => (0..400_000_u64).prop_map(Step::Pass),
        3 => (0..2_usize, 0..40_u64, policy).prop_map(|(plugin, version, policy)| Step::Push(plugin, version, policy)),
        1 => (0..2_usize).prop_map(Step::Rollback),
        1 => Just(Step::Join),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn limits_and_verdicts_hold_and_every_rollout_ends_when_hosts_answer(
        hosts in 0..12_usize,
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let done = walk(hosts, steps, plan).and_then(|mut world| world.answer_until_done());
        prop_assert_eq!(done, Ok(()));
    }

    #[test]
    fn every_rollout_ends_by_its_deadlines_when_hosts_fall_silent(
        hosts in 0..12_usize,
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let done = walk(hosts, steps, plan).and_then(|mut world| world.stay_silent_until_done());
        prop_assert_eq!(done, Ok(()));
    }
}

/// Counts one host more than may be on trial.
fn one_too_many(fleet: &Fleet, rollouts: &[Rollout], now: Elapsed) -> Plan {
    let mut wrong = rollouts.to_vec();
    for rollout in &mut wrong {
        let limit = rollout.spec.policy.max_parallel.of(fleet.hosts.len());
        rollout.spec.policy.max_parallel = Amount::Count(u32::try_from(limit).unwrap() + 1);
    }
    plan(fleet, &wrong, now)
}

/// Takes every fault for the host's.
fn blind_to_verdicts(fleet: &Fleet, rollouts: &[Rollout], now: Elapsed) -> Plan {
    let mut fleet = fleet.clone();
    let plugins = fleet.hosts.values_mut().flat_map(|host| host.plugins.values_mut());
    let trials = plugins.filter_map(|plugin| plugin.reported.as_mut()?.trial.as_mut());
    for failure in trials.filter_map(|trial| trial.failure.as_mut()) {
        failure.fault = Fault::Host;
    }
    let mut rollouts = rollouts.to_vec();
    let members = rollouts.iter_mut().flat_map(|rollout| rollout.members.values_mut());
    for failure in members.filter_map(|member| member.failure.as_mut()) {
        failure.fault = Fault::Host;
    }
    let mut plan = plan(&fleet, &rollouts, now);
    for failure in plan.members.iter_mut().filter_map(|change| change.member.failure.as_mut()) {
        failure.fault = Fault::Release;
    }
    plan
}

/// Plans each rollout as if it were alone.
fn offers_to_the_busy(fleet: &Fleet, rollouts: &[Rollout], now: Elapsed) -> Plan {
    let mut whole = Plan::default();
    for rollout in rollouts {
        let plan = plan(fleet, std::slice::from_ref(rollout), now);
        whole.members.extend(plan.members);
        whole.progress.extend(plan.progress);
        whole.desired.extend(plan.desired);
        whole.assignments.extend(plan.assignments);
        whole.generations.extend(plan.generations);
        whole.waiting.extend(plan.waiting);
    }
    whole
}

/// Lets everyone go at once, as if there were no canary.
fn no_canary(fleet: &Fleet, rollouts: &[Rollout], now: Elapsed) -> Plan {
    let mut wrong = rollouts.to_vec();
    for rollout in &mut wrong {
        rollout.spec.policy.canary = None;
        rollout.progress.waves.iter_mut().for_each(|wave| wave.name = WaveName::Rest);
    }
    plan(fleet, &wrong, now)
}

#[test]
fn the_checker_finds_each_planner_that_is_broken_on_purpose() {
    let broken: [(Planner, &str); 4] = [
        (one_too_many, "hosts on trial, more than"),
        (blind_to_verdicts, "after its verdict"),
        (offers_to_the_busy, "has open offers of"),
        (no_canary, "before the canary has committed"),
    ];
    for (planner, words) in broken {
        let mut runner = TestRunner::deterministic();
        let runs = (prop::collection::vec(step(), 150), 3..12_usize);
        let found = (0..200).any(|_| {
            let (steps, hosts) = runs.new_tree(&mut runner).unwrap().current();
            walk(hosts, steps, planner).is_err_and(|wrong| wrong.contains(words))
        });
        assert!(found, "no run shows `{words}`");
    }
}
