//! What a plan does, step by step, with hosts that are played by hand.

mod checker;
mod held;
mod property;
pub(crate) mod stage;
mod world;

use std::collections::BTreeSet;

use super::*;
use crate::{Amount, Failure, Fault, HostState, Policy, RolloutState, Selector, Trigger, WaveState};
use stage::{Stage, failure};

#[test]
fn the_canary_goes_first_and_the_rest_follow_within_max_parallel() {
    let mut stage = Stage::with_hosts(5);
    let id = stage.push("1.0.0", Policy { max_parallel: Amount::Count(2), ..Policy::push() });
    let canary = stage.open(id);
    assert_eq!(canary.len(), 1);
    assert_eq!(
        stage.waits(id),
        [format!("the canary {} is OFFERED; the others follow when it has committed", canary[0])]
    );
    stage.commit_all_open(id);
    assert_eq!(stage.open(id).len(), 2);
    assert_eq!(stage.waits(id), ["2 on trial, max_parallel is 2; 2 more to go"]);
    stage.commit_all_open(id);
    assert_eq!(stage.waits(id), ["2 hosts on trial, none to follow"]);
    stage.commit_all_open(id);
    assert_eq!(stage.state(id), RolloutState::Succeeded);
    assert!(stage.rollout(id).progress.waves.iter().all(|wave| wave.state == WaveState::Done));
    assert_eq!(stage.release(), Some("1.0.0".to_owned()));
}

#[test]
fn a_bad_canary_ends_the_rollout_and_nobody_else_is_offered_it() {
    let mut stage = Stage::running("1.0.0", 5);
    let id = stage.push("1.1.0", Policy::push());
    let canary = stage.open(id)[0].clone();
    stage.fail(id, &canary, HostState::Rejected, failure(HostState::Probing, Fault::Release));
    assert_eq!(stage.state(id), RolloutState::Failed);
    assert_eq!(stage.offered(id), std::slice::from_ref(&canary));
    assert_eq!(stage.told(&canary), "1.0.0");
    assert_eq!(stage.release(), Some("1.0.0".to_owned()));
    let failed = stage.rollout(id).progress.failed.clone().unwrap();
    assert_eq!((failed.host.unwrap().0, failed.failure.fault), (canary, Fault::Release));
}

#[test]
fn a_release_fault_in_the_rest_withdraws_open_offers_and_keeps_what_committed() {
    let mut stage = Stage::running("1.0.0", 6);
    let id = stage.push("1.1.0", Policy { max_parallel: Amount::Count(3), ..Policy::push() });
    let canary = stage.open(id)[0].clone();
    stage.commit_all_open(id);
    let open = stage.open(id);
    stage.fail(id, &open[0], HostState::RolledBack, failure(HostState::Probation, Fault::Release));
    assert_eq!(stage.state(id), RolloutState::Running);
    assert_eq!(stage.waits(id), ["it has failed; 2 hosts have still to go back"]);
    assert_eq!(stage.told(&open[1]), "1.0.0");
    stage.fail(id, &open[1], HostState::Rejected, failure(HostState::Fetching, Fault::Withdrawn));
    stage.acknowledge(&open[2]);
    assert_eq!(stage.state(id), RolloutState::Failed);
    assert_eq!(stage.told(&canary), "1.1.0");
    assert_eq!(stage.offered(id).len(), 4);
    assert_eq!(stage.rollout(id).progress.waves[1].state, WaveState::Halted);
}

#[test]
fn a_commit_that_crosses_the_withdrawal_counts() {
    let mut stage = Stage::running("1.0.0", 4);
    let id = stage.push("1.1.0", Policy { max_parallel: Amount::Count(2), ..Policy::push() });
    stage.commit_all_open(id);
    let open = stage.open(id);
    stage.fail(id, &open[0], HostState::Rejected, failure(HostState::Probing, Fault::Release));
    assert_eq!(stage.told(&open[1]), "1.0.0");
    stage.commit(id, &open[1]);
    assert_eq!(stage.told(&open[1]), "1.1.0");
    assert_eq!(stage.state(id), RolloutState::Failed);
}

#[test]
fn a_host_fault_in_the_rest_stops_nobody_but_the_rollout_has_failed() {
    let mut stage = Stage::with_hosts(4);
    let id = stage.push("1.0.0", Policy { max_parallel: Amount::Count(1), ..Policy::push() });
    stage.commit_all_open(id);
    let full = stage.open(id)[0].clone();
    stage.fail(id, &full, HostState::Rejected, failure(HostState::Fetching, Fault::Host));
    assert_eq!(stage.state(id), RolloutState::Running);
    stage.commit_all_open(id);
    stage.commit_all_open(id);
    assert_eq!(stage.state(id), RolloutState::Failed);
    assert_eq!(stage.committed(id), 3);
    assert_eq!(stage.release(), None);
}

#[test]
fn a_host_that_trusts_something_else_keeps_no_other_host_from_going_back() {
    let mut stage = Stage::running("1.0.0", 4);
    let up = stage.push("1.1.0", Policy::push());
    stage.finish(up);
    let back = stage.rollback(None);
    let bad = stage.open(back)[0].clone();
    stage.fail(back, &bad, HostState::Rejected, failure(HostState::Verifying, Fault::Trust));
    stage.finish(back);
    assert_eq!((stage.state(back), stage.committed(back)), (RolloutState::Failed, 3));
}

#[test]
fn any_failure_of_the_canary_stops_the_rollout() {
    for fault in [Fault::Host, Fault::Link, Fault::Trust, Fault::Release] {
        let mut stage = Stage::with_hosts(3);
        let id = stage.push("1.0.0", Policy::push());
        let canary = stage.open(id)[0].clone();
        stage.fail(id, &canary, HostState::Rejected, failure(HostState::Verifying, fault));
        assert_eq!((stage.state(id), stage.offered(id).len()), (RolloutState::Failed, 1), "{fault}");
    }
}

#[test]
fn an_interrupted_trial_has_one_more_turn() {
    let mut stage = Stage::with_hosts(2);
    let id = stage.push("1.0.0", Policy::push());
    let canary = stage.open(id)[0].clone();
    stage.fail(id, &canary, HostState::Rejected, failure(HostState::Probing, Fault::Interrupted));
    assert_eq!((stage.open(id), stage.member(id, &canary).attempt), (vec![canary.clone()], 2));
    stage.fail(id, &canary, HostState::Rejected, failure(HostState::Probing, Fault::Interrupted));
    assert_eq!(stage.state(id), RolloutState::Failed);
}

#[test]
fn a_host_that_was_offline_is_left_out_and_gets_it_on_return() {
    let mut stage = Stage::with_hosts(3);
    stage.disconnect("h1");
    let id = stage.push("1.0.0", Policy { max_parallel: Amount::Count(3), ..Policy::push() });
    stage.commit_all_open(id);
    stage.commit_all_open(id);
    assert_eq!(stage.state(id), RolloutState::Succeeded);
    assert_eq!(stage.member(id, "h1").state, HostState::Pending);
    assert_eq!(stage.waits(id), ["1 host is offline and gets it on return; nothing waits for that"]);
    stage.connect("h1");
    assert_eq!(stage.open(id), ["h1"]);
    stage.commit_all_open(id);
    assert_eq!((stage.committed(id), stage.waits(id).len()), (3, 0));
}

#[test]
fn just_after_a_start_no_rollout_ends_without_hosts_that_may_be_on_their_way() {
    let mut stage = Stage::with_hosts(3);
    stage.fleet.returning = true;
    stage.disconnect("h1");
    let id = stage.push("1.0.0", Policy { max_parallel: Amount::Count(3), ..Policy::push() });
    stage.commit_all_open(id);
    stage.commit_all_open(id);
    assert_eq!(stage.state(id), RolloutState::Running);
    assert_eq!(stage.waits(id)[0], "the controller has just started; 1 host has not connected again yet");
    stage.fleet.returning = false;
    stage.settle();
    assert_eq!(stage.state(id), RolloutState::Succeeded);
}

#[test]
fn with_nobody_online_it_waits_and_says_so() {
    let mut stage = Stage::with_hosts(2);
    stage.disconnect("h0");
    stage.disconnect("h1");
    let id = stage.push("1.0.0", Policy::push());
    assert_eq!(stage.state(id), RolloutState::Pending);
    assert_eq!(stage.waits(id), ["2 hosts match, none online; it begins when one connects"]);
    stage.connect("h1");
    assert_eq!((stage.state(id), stage.open(id)), (RolloutState::Running, vec!["h1".to_owned()]));
}

#[test]
fn with_no_hosts_at_all_it_waits_and_says_so() {
    let mut stage = Stage::with_hosts(0);
    let id = stage.push("1.0.0", Policy::push());
    assert_eq!(stage.waits(id), ["no known host matches the selector; it begins when one joins"]);
    stage.join("h9");
    assert_eq!(stage.open(id), ["h9"]);
}

#[test]
fn silence_is_the_links_fault_before_loading_and_the_releases_from_then_on() {
    for (state, fault) in [
        (HostState::Offered, Fault::Link),
        (HostState::Fetching, Fault::Link),
        (HostState::Verifying, Fault::Link),
        (HostState::Loading, Fault::Release),
        (HostState::Probing, Fault::Release),
        (HostState::Switching, Fault::Release),
        (HostState::Probation, Fault::Release),
        (HostState::RollingBack, Fault::Release),
    ] {
        let mut stage = Stage::with_hosts(1);
        let id = stage.push("1.0.0", Policy::push());
        stage.progress(id, "h0", state);
        stage.disconnect("h0");
        stage.pass(Policy::HEALTHY_DEADLINE_MS - 1);
        assert_eq!(stage.member(id, "h0").state, state);
        stage.pass(1);
        let lost = stage.member(id, "h0");
        assert_eq!((lost.state, lost.failure.unwrap().fault), (HostState::Lost, fault), "{state}");
        assert_eq!(stage.state(id), RolloutState::Failed);
    }
}

#[test]
fn a_connected_host_has_a_moment_longer_to_answer() {
    let mut stage = Stage::with_hosts(1);
    let id = stage.push("1.0.0", Policy::push());
    stage.pass(Policy::HEALTHY_DEADLINE_MS);
    assert_eq!(stage.member(id, "h0").state, HostState::Offered);
    stage.pass(Policy::MIN_HEALTHY_MS + ANSWER_GRACE_MS);
    assert_eq!(stage.member(id, "h0").state, HostState::Lost);
}

#[test]
fn a_lost_host_that_returns_healthy_corrects_the_count_and_resumes_nothing() {
    let mut stage = Stage::running("1.0.0", 3);
    let id = stage.push("1.1.0", Policy::push());
    let canary = stage.open(id)[0].clone();
    stage.progress(id, &canary, HostState::Probation);
    stage.disconnect(&canary);
    stage.pass(Policy::HEALTHY_DEADLINE_MS);
    assert_eq!((stage.state(id), stage.told(&canary)), (RolloutState::Failed, "1.0.0".to_owned()));
    stage.connect_with(&canary, |stage| stage.report_commit(id, &canary));
    assert_eq!(stage.member(id, &canary).state, HostState::Committed);
    assert_eq!(stage.told(&canary), "1.1.0");
    assert_eq!((stage.state(id), stage.offered(id).len()), (RolloutState::Failed, 1));
}

#[test]
fn a_late_comer_that_was_lost_before_loading_tries_again() {
    let mut stage = Stage::running("1.0.0", 2);
    let id = RolloutId(1);
    stage.join("h7");
    assert_eq!(stage.open(id), ["h7"]);
    stage.disconnect("h7");
    stage.pass(Policy::HEALTHY_DEADLINE_MS);
    assert_eq!(stage.member(id, "h7").state, HostState::Pending);
    stage.connect("h7");
    assert_eq!((stage.open(id), stage.member(id, "h7").attempt), (vec!["h7".to_owned()], 2));
}

#[test]
fn a_release_that_fails_on_a_late_comer_is_offered_to_no_further_one() {
    let mut stage = Stage::running("1.0.0", 2);
    let id = RolloutId(1);
    stage.join("h7");
    stage.fail(id, "h7", HostState::Rejected, failure(HostState::Loading, Fault::Release));
    stage.join("h8");
    assert_eq!(stage.open(id), Vec::<String>::new());
    assert_eq!(stage.waits(id), ["it failed on h7, which came late; 1 host is not offered it"]);
    assert_eq!(stage.state(id), RolloutState::Succeeded);
}

#[test]
fn a_late_comer_that_trusts_something_else_keeps_nobody_from_the_release() {
    let mut stage = Stage::running("1.0.0", 2);
    let id = RolloutId(1);
    stage.join("h7");
    stage.fail(id, "h7", HostState::Rejected, failure(HostState::Verifying, Fault::Trust));
    stage.join("h8");
    assert_eq!((stage.open(id), stage.waits(id)), (vec!["h8".to_owned()], Vec::new()));
    stage.commit(id, "h8");
    assert_eq!((stage.told("h8"), stage.told("h7")), ("1.0.0".to_owned(), "nothing".to_owned()));
    let again = stage.push("1.0.0", Policy::push());
    assert_eq!(stage.offered(again), ["h7"], "once it is mended, a push of the same release reaches it");
}

#[test]
fn a_host_on_which_the_release_has_failed_is_passed_over_and_the_others_get_it() {
    let mut stage = Stage::running("1.0.0", 3);
    let first = stage.push("1.1.0", Policy::push());
    let canary = stage.open(first)[0].clone();
    stage.fail(first, &canary, HostState::Rejected, failure(HostState::Probing, Fault::Release));
    stage.deny(&canary, "1.1.0");
    let again = stage.push("1.1.0", Policy::push());
    stage.finish(again);
    assert_eq!((stage.state(again), stage.committed(again)), (RolloutState::Succeeded, 2));
    let member = stage.member(again, &canary);
    assert_eq!(
        (member.attempt, member.skip.unwrap().to_string()),
        (0, "failed there before: CRASHED".into())
    );
    assert_eq!(stage.told(&canary), "1.0.0");
}

#[test]
fn a_host_that_refuses_what_it_was_not_known_to_deny_is_passed_over_and_not_asked_again() {
    let mut stage = Stage::running("1.0.0", 3);
    let id = stage.push("1.1.0", Policy::push());
    let canary = stage.open(id)[0].clone();
    let denial = Failure { code: "RELEASE_DENIED".into(), ..failure(HostState::Verifying, Fault::Release) };
    stage.fail(id, &canary, HostState::Rejected, denial);
    assert_eq!(stage.member(id, &canary).state, HostState::Skipped);
    stage.finish(id);
    assert_eq!((stage.state(id), stage.committed(id)), (RolloutState::Succeeded, 2));
    assert_eq!((stage.member(id, &canary).attempt, stage.told(&canary)), (1, "1.0.0".to_owned()));
}

#[test]
fn a_connected_host_has_the_time_to_wait_for_a_moment_to_go_back() {
    let mut stage = Stage::running("1.0.0", 2);
    let id = stage.push("1.1.0", Policy::push());
    let canary = stage.open(id)[0].clone();
    stage.progress(id, &canary, HostState::RollingBack);
    stage.pass(Policy::HEALTHY_DEADLINE_MS + Policy::MIN_HEALTHY_MS + ANSWER_GRACE_MS);
    assert_eq!(stage.member(id, &canary).state, HostState::RollingBack);
    stage.pass(180_000);
    assert_eq!(stage.member(id, &canary).state, HostState::Lost);
}

#[test]
fn a_rollout_whose_last_candidates_turn_out_to_deny_it_has_failed() {
    let mut stage = Stage::running("1.0.0", 2);
    stage.disconnect("h0");
    stage.disconnect("h1");
    let id = stage.push("1.1.0", Policy::push());
    stage.connect_with("h0", |stage| stage.deny("h0", "1.1.0"));
    assert_eq!(stage.waits(id), ["1 host matches, none online; it begins when one connects"]);
    stage.connect_with("h1", |stage| stage.deny("h1", "1.1.0"));
    assert_eq!((stage.state(id), stage.offered(id).len()), (RolloutState::Failed, 0));
    let failed = stage.rollout(id).progress.failed.clone().unwrap();
    assert_eq!((failed.failure.code.as_str(), failed.failure.fault), ("RELEASE_DENIED", Fault::Release));
}

#[test]
fn a_late_comer_during_a_rollout_gets_the_last_release_that_succeeded() {
    let mut stage = Stage::running("1.0.0", 3);
    let id = stage.push("1.1.0", Policy::push());
    stage.join("h7");
    assert_eq!(stage.open(RolloutId(1)), ["h7"]);
    stage.commit_all_open(RolloutId(1));
    stage.finish(id);
    assert_eq!((stage.state(id), stage.told("h7")), (RolloutState::Succeeded, "1.1.0".to_owned()));
}

#[test]
fn hosts_that_committed_in_a_failed_rollout_are_not_caught_up() {
    let mut stage = Stage::running("1.0.0", 3);
    let id = stage.push("1.1.0", Policy::push());
    let canary = stage.open(id)[0].clone();
    stage.commit_all_open(id);
    let next = stage.open(id)[0].clone();
    stage.fail(id, &next, HostState::Rejected, failure(HostState::Probing, Fault::Release));
    stage.reconnect(&canary);
    assert_eq!((stage.state(id), stage.told(&canary)), (RolloutState::Failed, "1.1.0".to_owned()));
    assert!(stage.open(RolloutId(1)).is_empty());
}

#[test]
fn a_late_comer_is_not_taken_away_from_where_a_newer_rollout_wants_it() {
    let mut stage = Stage::running("1.0.0", 1);
    stage.join("h7");
    let up = stage.push("1.1.0", Policy::push());
    stage.disconnect("h7");
    stage.finish(up);
    assert_eq!((stage.state(up), stage.open(RolloutId(1))), (RolloutState::Succeeded, vec!["h7".to_owned()]));
    let back = stage.rollback(None);
    stage.connect_with("h7", |stage| stage.report_commit(RolloutId(1), "h7"));
    assert_eq!((stage.told("h7"), stage.open(up)), ("1.0.0".to_owned(), Vec::new()));
    stage.finish(back);
    assert_eq!((stage.state(back), stage.release()), (RolloutState::Succeeded, Some("1.0.0".to_owned())));
}

#[test]
fn an_offer_to_a_host_that_turns_out_to_run_something_else_is_taken_back() {
    let mut stage = Stage::running("1.0.0", 1);
    stage.disconnect("h0");
    let up = stage.push("1.1.0", Policy::push());
    stage.join("h7");
    stage.progress(up, "h7", HostState::Verifying);
    stage.pass(Policy::HEALTHY_DEADLINE_MS + Policy::MIN_HEALTHY_MS + ANSWER_GRACE_MS);
    assert_eq!((stage.state(up), stage.open(RolloutId(1))), (RolloutState::Failed, vec!["h7".to_owned()]));
    stage.commit(up, "h7");
    assert_eq!((stage.told("h7"), stage.member(up, "h7").state), ("1.1.0".to_owned(), HostState::Committed));
    stage.acknowledge("h7");
    assert_eq!(stage.open(RolloutId(1)), Vec::<String>::new());
}

#[test]
fn two_rollouts_never_try_one_host_at_once() {
    let mut stage = Stage::with_hosts(1);
    let first = stage.push("1.0.0", Policy::push());
    let second = stage.push_plugin("other", "3.0.0", Policy::push());
    assert_eq!(stage.open(first), ["h0"]);
    assert_eq!(stage.waits(second), ["h0 is on trial for r-000001; one trial a host at a time"]);
    stage.commit_all_open(first);
    assert_eq!(stage.open(second), ["h0"]);
}

#[test]
fn a_rollback_has_no_canary_and_marks_its_offers() {
    let mut stage = Stage::running("1.0.0", 8);
    let up = stage.push("1.1.0", Policy { max_parallel: Amount::Count(8), ..Policy::push() });
    stage.finish(up);
    let id = stage.rollback(None);
    assert_eq!(stage.rollout(id).spec.trigger, Trigger::Rollback);
    assert_eq!(stage.open(id).len(), 2);
    assert!(stage.open(id).iter().all(|host| stage.row(host).rollback));
    stage.finish(id);
    assert_eq!((stage.state(id), stage.release()), (RolloutState::Succeeded, Some("1.0.0".to_owned())));
}

#[test]
fn a_failed_first_install_goes_back_to_nothing() {
    let mut stage = Stage::with_hosts(3);
    let id = stage.push("1.0.0", Policy::push());
    stage.commit_all_open(id);
    let next = stage.open(id)[0].clone();
    stage.fail(id, &next, HostState::Rejected, failure(HostState::Probing, Fault::Release));
    let back = stage.rollback(None);
    assert_eq!(stage.open(back).len(), 1);
    stage.finish(back);
    assert_eq!((stage.state(back), stage.release()), (RolloutState::Succeeded, None));
}

#[test]
fn hosts_of_another_platform_are_skipped_and_alone_they_end_it() {
    let mut stage = Stage::with_hosts(2);
    stage.host("h0").platform = "riscv64-linux-gnu".to_owned();
    let id = stage.push("1.0.0", Policy::push());
    assert_eq!(stage.open(id), ["h1"]);
    assert_eq!(
        stage.member(id, "h0").skip.unwrap().to_string(),
        "the release is not built for riscv64-linux-gnu"
    );
    let mut stage = Stage::with_hosts(1);
    stage.host("h0").platform = "riscv64-linux-gnu".to_owned();
    let id = stage.push("1.0.0", Policy::push());
    assert_eq!(stage.state(id), RolloutState::Failed);
    assert_eq!(stage.rollout(id).progress.failed.clone().unwrap().failure.code, "NO_HOST_FITS");
}

#[test]
fn pushing_again_after_a_failure_only_moves_hosts_that_lack_it() {
    let mut stage = Stage::with_hosts(4);
    let id = stage.push("1.0.0", Policy::push());
    stage.commit_all_open(id);
    let full = stage.open(id)[0].clone();
    stage.fail(id, &full, HostState::Rejected, failure(HostState::Fetching, Fault::Host));
    stage.finish(id);
    let again = stage.push("1.0.0", Policy::push());
    assert_eq!(stage.open(again), std::slice::from_ref(&full));
    stage.finish(again);
    assert_eq!((stage.state(again), stage.offered(again)), (RolloutState::Succeeded, vec![full]));
}

#[test]
fn a_host_that_matches_two_assignments_belongs_to_the_first() {
    let mut stage = Stage::with_hosts(2);
    stage.host("h0").labels.insert("zone".to_owned(), "a".to_owned());
    stage.host("h1").labels.insert("rack".to_owned(), "7".to_owned());
    stage.push_to("zone=a", "1.0.0");
    stage.push_to("rack=7", "2.0.0");
    stage.host("h0").labels.insert("rack".to_owned(), "7".to_owned());
    stage.settle();
    let keys: Vec<_> = stage.fleet.assignments.keys().cloned().collect();
    assert_eq!(keys[0].selector, "rack=7".parse::<Selector>().unwrap());
    let of = |key| stage.fleet.members(key).map(|(id, _)| id.0.clone()).collect::<BTreeSet<_>>();
    assert_eq!(of(&keys[0]), BTreeSet::from(["h0".to_owned(), "h1".to_owned()]));
    assert!(of(&keys[1]).is_empty());
}

#[test]
fn everything_that_one_plan_tells_a_host_has_one_generation_and_the_next_is_greater() {
    let mut stage = Stage::running("1.0.0", 1);
    let before = stage.host("h0").generation;
    let id = stage.push("1.1.0", Policy::push());
    let offered = stage.row("h0").generation;
    assert!(offered > before);
    stage.fail(id, "h0", HostState::Rejected, failure(HostState::Probing, Fault::Release));
    assert!(stage.row("h0").generation > offered);
    assert_eq!(stage.row("h0").generation, stage.host("h0").generation);
}
