//! What may begin, and what is refused in which words.

use super::*;
use crate::plan::tests::stage::{Stage, failure, labels, release};
use crate::{Amount, Fault, HostState, RolloutState};

fn push(stage: &Stage, selector: Option<&str>, version: &str) -> Result<Started, Refusal> {
    let selector = selector.map(|selector| selector.parse().unwrap());
    let platforms = BTreeSet::new();
    let push = Push { selector, release: release("clock", version), platforms, policy: Policy::push() };
    push.start(&stage.fleet, &stage.rollouts, stage.next_id())
}

fn back(stage: &Stage, to: Option<&str>) -> Result<Started, Refusal> {
    let to = to.map(|to| to.parse().unwrap());
    let rollback = Rollback { plugin: "clock".to_owned(), selector: None, to, policy: Policy::rollback() };
    rollback.start(&stage.fleet, &stage.rollouts, stage.next_id(), BTreeSet::new())
}

fn target(started: Result<Started, Refusal>) -> Option<String> {
    match started.unwrap() {
        Started::Start(change) => change.rollout.spec.to.map(|to| to.version.to_string()),
        Started::NothingToDo(key) => panic!("nothing to do for {key:?}"),
    }
}

fn zones() -> Stage {
    let mut stage = Stage::with_hosts(4);
    for (host, zone) in [("h0", "a"), ("h1", "a"), ("h2", "b"), ("h3", "b")] {
        stage.host(host).labels = labels(&[("zone", zone)]);
    }
    stage
}

#[test]
fn the_first_push_has_to_say_for_which_hosts() {
    let stage = Stage::with_hosts(2);
    assert_eq!(push(&stage, None, "1.0.0").unwrap_err().code(), "ASSIGNMENT_MISSING");
    let Started::Start(change) = push(&stage, Some("all"), "1.0.0").unwrap() else { panic!() };
    assert!(change.assignment.is_some_and(|assignment| assignment.key.selector.is_all()));
}

#[test]
fn a_later_push_needs_no_hosts_if_there_is_one_assignment() {
    let stage = Stage::running("1.0.0", 2);
    let Started::Start(change) = push(&stage, None, "1.1.0").unwrap() else { panic!() };
    assert_eq!(
        (change.assignment, change.rollout.spec.from.unwrap().version.to_string()),
        (None, "1.0.0".to_owned())
    );
}

#[test]
fn several_assignments_without_hosts_are_listed() {
    let mut stage = zones();
    stage.push_to("zone=a", "1.0.0");
    stage.push_to("zone=b", "1.0.0");
    let refusal = push(&stage, None, "1.1.0").unwrap_err();
    assert_eq!(refusal.code(), "ASSIGNMENT_AMBIGUOUS");
    assert_eq!(refusal.to_string(), "clock has 2 assignments: zone=a; zone=b");
}

#[test]
fn an_overlap_names_both_and_a_host() {
    let mut stage = zones();
    stage.push_to("zone=a", "1.0.0");
    let refusal = push(&stage, Some("name in (h1,h3)"), "1.0.0").unwrap_err();
    assert_eq!(refusal.code(), "ASSIGNMENT_OVERLAP");
    assert_eq!(
        refusal.to_string(),
        "`name in (h1,h3)` and the assignment `zone=a` of clock both match host h1"
    );
    assert!(push(&stage, Some("zone=b"), "1.0.0").is_ok());
}

#[test]
fn a_selector_that_matches_nobody_makes_no_assignment() {
    let stage = zones();
    assert_eq!(push(&stage, Some("zone=c"), "1.0.0").unwrap_err().code(), "NO_HOSTS_MATCH");
}

#[test]
fn one_rollout_of_an_assignment_at_a_time() {
    let mut stage = Stage::with_hosts(2);
    stage.push("1.0.0", Policy::push());
    let refusal = push(&stage, None, "1.1.0").unwrap_err();
    assert_eq!(refusal.to_string(), "r-000001 (clock 1.0.0, RUNNING) holds this assignment");
    assert_eq!(refusal.code(), "ROLLOUT_IN_PROGRESS");
    assert_eq!(back(&stage, None).unwrap_err().code(), "ROLLOUT_IN_PROGRESS");
}

#[test]
fn pushing_what_runs_is_nothing_to_do_unless_hosts_stray() {
    let mut stage = Stage::running("1.0.0", 4);
    assert!(matches!(push(&stage, None, "1.0.0"), Ok(Started::NothingToDo(_))));
    stage.disconnect("h0");
    assert!(matches!(push(&stage, None, "1.0.0"), Ok(Started::NothingToDo(_))));
    stage.join("h9");
    stage.fail(RolloutId(1), "h9", HostState::Rejected, failure(HostState::Loading, Fault::Release));
    assert!(matches!(push(&stage, None, "1.0.0"), Ok(Started::Start(_))));
}

#[test]
fn a_rollback_goes_to_the_release_before_and_then_further() {
    let mut stage = Stage::running("1.0.0", 1);
    for version in ["1.1.0", "1.2.0"] {
        let id = stage.push(version, Policy::push());
        stage.finish(id);
    }
    assert_eq!(target(back(&stage, None)), Some("1.1.0".to_owned()));
    assert_eq!(target(back(&stage, Some("1.0.0"))), Some("1.0.0".to_owned()));
    let id = stage.rollback(None);
    stage.finish(id);
    assert_eq!(target(back(&stage, None)), Some("1.0.0".to_owned()));
    let id = stage.rollback(None);
    stage.finish(id);
    assert_eq!(back(&stage, None).unwrap_err().code(), "ROLLBACK_NO_TARGET");
}

#[test]
fn a_rollback_to_a_version_that_never_succeeded_is_refused() {
    let stage = Stage::running("1.0.0", 1);
    let refusal = back(&stage, Some("9.9.9")).unwrap_err();
    assert_eq!(refusal.to_string(), "clock 9.9.9 is not in the history of `all`");
    assert_eq!(refusal.code(), "ROLLBACK_TARGET_UNKNOWN");
    assert!(matches!(back(&stage, Some("1.0.0")), Ok(Started::NothingToDo(_))));
}

#[test]
fn after_a_failed_rollout_a_rollback_moves_back_the_hosts_that_committed() {
    let mut stage = Stage::running("1.0.0", 3);
    let id = stage.push("1.1.0", Policy { max_parallel: Amount::Count(1), ..Policy::push() });
    let canary = stage.open(id)[0].clone();
    stage.commit_all_open(id);
    let next = stage.open(id)[0].clone();
    stage.fail(id, &next, HostState::Rejected, failure(HostState::Probing, Fault::Release));
    assert_eq!(target(back(&stage, None)), Some("1.0.0".to_owned()));
    assert_eq!(push(&stage, None, "1.0.0").unwrap_err().code(), "PUSH_DOWNGRADE");
    let id = stage.rollback(None);
    assert_eq!(stage.open(id), [canary]);
    stage.finish(id);
    assert!(matches!(push(&stage, None, "1.0.0"), Ok(Started::NothingToDo(_))));
}

#[test]
fn a_rollback_of_what_was_never_pushed_is_refused() {
    assert_eq!(back(&Stage::with_hosts(1), None).unwrap_err().code(), "ASSIGNMENT_UNKNOWN");
}

#[test]
fn rules_that_cant_work_are_refused() {
    let stage = Stage::with_hosts(1);
    let policy = Policy { min_healthy_ms: 400_000, ..Policy::push() };
    let push =
        Push { selector: None, release: release("clock", "1.0.0"), platforms: BTreeSet::new(), policy };
    let refusal = push.start(&stage.fleet, &stage.rollouts, RolloutId(1)).unwrap_err();
    assert_eq!(refusal.code(), "POLICY_INVALID");
}

#[test]
fn a_dry_run_shows_each_wave_and_who_is_left_out() {
    let mut stage = Stage::with_hosts(4);
    stage.host("h0").platform = "riscv64-linux-gnu".to_owned();
    stage.disconnect("h1");
    let platforms = BTreeSet::from([crate::plan::tests::stage::PLATFORM.to_owned()]);
    let push = Push {
        selector: Some(Selector::all()),
        release: release("clock", "1.0.0"),
        platforms,
        policy: Policy::push(),
    };
    let Started::Start(change) = push.start(&stage.fleet, &stage.rollouts, RolloutId(1)).unwrap() else {
        panic!()
    };
    let preview = crate::preview(&stage.fleet, &change.rollout);
    let sizes: Vec<_> = preview.waves.iter().map(|wave| (wave.name.to_string(), wave.hosts.len())).collect();
    assert_eq!(sizes, [("canary".to_owned(), 1), ("rest".to_owned(), 1)]);
    assert_eq!(preview.offline.len() + preview.skipped.len(), 2);
    let id = stage.push("1.0.0", Policy::push());
    assert_eq!(stage.open(id), [preview.waves[0].hosts[0].0.clone()]);
}

#[test]
fn a_release_that_failed_on_every_host_that_lacks_it_is_refused_with_one_of_them() {
    let mut stage = Stage::running("1.0.0", 2);
    stage.deny("h0", "1.1.0");
    assert!(push(&stage, None, "1.1.0").is_ok(), "h1 can still be asked");
    stage.deny("h1", "1.1.0");
    let refusal = push(&stage, None, "1.1.0").unwrap_err();
    assert_eq!(refusal.code(), "RELEASE_DENIED");
    assert_eq!(
        refusal.to_string(),
        "clock 1.1.0 failed before on each host that lacks it, on h0 with CRASHED"
    );
    assert!(matches!(push(&stage, None, "1.0.0"), Ok(Started::NothingToDo(_))));
}

#[test]
fn a_push_of_the_same_release_reaches_a_host_that_has_gone_back_by_itself() {
    let mut stage = Stage::running("1.0.0", 2);
    let up = stage.push("1.1.0", Policy::push());
    stage.finish(up);
    assert!(matches!(push(&stage, None, "1.1.0"), Ok(Started::NothingToDo(_))));
    stage.run_by_itself("h0", "1.0.0");
    let again = stage.push("1.1.0", Policy::push());
    assert_eq!(stage.offered(again), ["h0"]);
    stage.finish(again);
    stage.run_by_itself("h0", "1.0.0");
    stage.deny("h0", "1.1.0");
    assert!(matches!(push(&stage, None, "1.1.0"), Ok(Started::NothingToDo(_))), "nobody is left to ask");
}

#[test]
fn a_rollback_leaves_the_present_release_also_where_a_late_host_has_failed_it() {
    let mut stage = Stage::running("1.0.0", 2);
    let up = stage.push("1.1.0", Policy::push());
    stage.finish(up);
    stage.join("h7");
    stage.fail(up, "h7", HostState::Rejected, failure(HostState::Probing, Fault::Release));
    assert_eq!(target(back(&stage, None)), Some("1.0.0".to_owned()));
}

#[test]
fn a_rollback_that_failed_halfway_is_gone_on_with_by_the_next_one() {
    let mut stage = Stage::running("1.0.0", 4);
    let up = stage.push("1.1.0", Policy::push());
    stage.finish(up);
    let halfway = stage.rollback(None);
    let open = stage.open(halfway)[0].clone();
    stage.fail(halfway, &open, HostState::Rejected, failure(HostState::Loading, Fault::Host));
    stage.finish(halfway);
    assert_eq!(stage.state(halfway), RolloutState::Failed);
    assert_eq!(target(back(&stage, None)), Some("1.0.0".to_owned()));
}

#[test]
fn a_push_that_failed_after_half_a_rollback_does_not_turn_the_rollback_round() {
    let mut stage = Stage::running("1.0.0", 3);
    let up = stage.push("1.1.0", Policy::push());
    stage.finish(up);
    let halfway = stage.rollback(None);
    let open = stage.open(halfway)[0].clone();
    stage.commit(halfway, &open);
    let bad = stage.open(halfway)[0].clone();
    stage.fail(halfway, &bad, HostState::Rejected, failure(HostState::Loading, Fault::Release));
    for name in stage.open(halfway) {
        stage.acknowledge(&name);
    }
    assert_eq!(stage.state(halfway), RolloutState::Failed);
    let next = stage.push("1.2.0", Policy::push());
    let canary = stage.open(next)[0].clone();
    stage.fail(next, &canary, HostState::Rejected, failure(HostState::Probing, Fault::Release));
    assert_eq!(stage.state(next), RolloutState::Failed);
    assert_eq!(target(back(&stage, None)), Some("1.0.0".to_owned()));
}

#[test]
fn a_rollback_that_failed_and_of_which_nothing_is_left_is_over() {
    let mut stage = Stage::running("0.9.0", 2);
    for version in ["1.0.0", "1.1.0"] {
        let up = stage.push(version, Policy::push());
        if version == "1.0.0" {
            stage.finish(up);
            continue;
        }
        let canary = stage.open(up)[0].clone();
        stage.commit(up, &canary);
        let next = stage.open(up)[0].clone();
        stage.fail(up, &next, HostState::Rejected, failure(HostState::Probing, Fault::Release));
        let undo = stage.rollback(None);
        stage.disconnect(&canary);
        stage.pass(Policy::HEALTHY_DEADLINE_MS);
        assert_eq!(stage.state(undo), RolloutState::Failed);
        stage.connect_with(&canary, |stage| stage.report_commit(undo, &canary));
    }
    assert_eq!(target(back(&stage, None)), Some("0.9.0".to_owned()));
}
