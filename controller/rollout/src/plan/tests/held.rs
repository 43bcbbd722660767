//! Hosts that an operator there holds, and hosts in safe mode.

use super::*;
use crate::SkipReason;

fn held(stage: &Stage, rollout: RolloutId, name: &str) -> Option<SkipReason> {
    let member = stage.member(rollout, name);
    member.skip.filter(|_| member.state == HostState::Skipped && member.failure.is_none())
}

fn for_reason() -> Option<SkipReason> {
    Some(SkipReason::Held("INC-7".to_owned()))
}

#[test]
fn a_held_host_is_skipped_with_its_reason_and_the_rollout_succeeds_without_it() {
    let mut stage = Stage::running("1.0.0", 3);
    stage.hold("h1", Some("INC-7"));
    let id = stage.push("1.1.0", Policy::push());
    assert_eq!(held(&stage, id, "h1"), for_reason());
    stage.finish(id);
    assert_eq!((stage.state(id), stage.committed(id)), (RolloutState::Succeeded, 2));
    assert_eq!((stage.member(id, "h1").attempt, stage.told("h1")), (0, "1.0.0".to_owned()));
}

#[test]
fn a_released_host_gets_what_it_missed() {
    let mut stage = Stage::running("1.0.0", 2);
    stage.hold("h1", Some("INC-7"));
    let id = stage.push("1.1.0", Policy::push());
    stage.finish(id);
    stage.hold("h1", None);
    assert_eq!((stage.open(id), stage.told("h1")), (vec!["h1".to_owned()], "1.1.0".to_owned()));
    stage.commit(id, "h1");
    assert_eq!(stage.committed(id), 2);
}

#[test]
fn a_host_that_is_held_before_its_trial_begins_keeps_nobody_waiting_and_is_no_failure() {
    for has_heard in [false, true] {
        let mut stage = Stage::running("1.0.0", 3);
        let id = stage.push("1.1.0", Policy::push());
        let canary = stage.open(id)[0].clone();
        if has_heard {
            stage.progress(id, &canary, HostState::Offered);
        }
        stage.hold(&canary, Some("INC-7"));
        assert_eq!(held(&stage, id, &canary), for_reason());
        assert_eq!(stage.told(&canary), "1.0.0");
        let next = stage.open(id);
        assert!(next.len() == 1 && next[0] != canary, "another canary");
        stage.finish(id);
        assert_eq!(stage.state(id), RolloutState::Succeeded);
        stage.hold(&canary, None);
        stage.commit(id, &canary);
        assert_eq!((stage.committed(id), stage.member(id, &canary).attempt), (3, 2));
    }
}

#[test]
fn a_trial_that_callers_notice_ends_by_its_own_verdict_though_it_is_held() {
    let mut stage = Stage::running("1.0.0", 2);
    let id = stage.push("1.1.0", Policy::push());
    let canary = stage.open(id)[0].clone();
    stage.progress(id, &canary, HostState::Probation);
    stage.hold(&canary, Some("INC-7"));
    assert_eq!(stage.member(id, &canary).state, HostState::Probation);
    stage.commit(id, &canary);
    assert_eq!(stage.member(id, &canary).state, HostState::Committed);
}

#[test]
fn a_release_that_an_operator_takes_back_from_probation_condemns_nothing() {
    let mut stage = Stage::running("1.0.0", 2);
    let id = stage.push("1.1.0", Policy::push());
    let canary = stage.open(id)[0].clone();
    stage.progress(id, &canary, HostState::Probation);
    let taken_back =
        Failure { code: Failure::HELD_LOCALLY.to_owned(), ..failure(HostState::Probation, Fault::Withdrawn) };
    stage.host(&canary).plugins.get_mut("clock").unwrap().reported.as_mut().unwrap().held =
        Some("INC-7".to_owned());
    stage.fail(id, &canary, HostState::RolledBack, taken_back);
    assert_eq!(held(&stage, id, &canary), for_reason());
    stage.finish(id);
    assert_eq!(stage.state(id), RolloutState::Succeeded);
}

#[test]
fn a_host_that_went_back_after_its_commit_is_skipped_and_comes_again_when_it_is_released() {
    let mut stage = Stage::running("1.0.0", 2);
    let id = stage.push("1.1.0", Policy::push());
    stage.finish(id);
    stage.host("h0").plugins.get_mut("clock").unwrap().reported.as_mut().unwrap().held =
        Some("INC-7".to_owned());
    stage.run_by_itself("h0", "1.0.0");
    assert_eq!((held(&stage, id, "h0"), stage.told("h0")), (for_reason(), "1.0.0".to_owned()));
    stage.hold("h0", None);
    stage.commit(id, "h0");
    assert_eq!((stage.committed(id), stage.told("h0")), (2, "1.1.0".to_owned()));
}

#[test]
fn a_rollback_passes_a_held_host_over_as_well() {
    let mut stage = Stage::running("1.0.0", 2);
    let push = stage.push("1.1.0", Policy::push());
    stage.finish(push);
    stage.hold("h0", Some("INC-7"));
    let back = stage.rollback(None);
    assert_eq!(held(&stage, back, "h0"), for_reason());
    stage.finish(back);
    assert_eq!((stage.state(back), stage.told("h0")), (RolloutState::Succeeded, "1.1.0".to_owned()));
}

#[test]
fn a_rollout_that_no_host_takes_fails_and_says_why() {
    let mut stage = Stage::running("1.0.0", 1);
    stage.hold("h0", Some("INC-7"));
    let id = stage.push("1.1.0", Policy::push());
    assert_eq!((stage.state(id), stage.release()), (RolloutState::Failed, Some("1.0.0".to_owned())));
    let failed = stage.rollout(id).progress.failed.clone().unwrap().failure;
    assert_eq!((failed.code.as_str(), failed.fault), (Failure::HELD_LOCALLY, Fault::Host));
    assert!(failed.message.ends_with("held there: INC-7"), "{}", failed.message);
}

#[test]
fn a_host_in_safe_mode_is_skipped_until_it_is_back() {
    let mut stage = Stage::running("1.0.0", 2);
    let id = stage.push("1.1.0", Policy::push());
    let canary = stage.open(id)[0].clone();
    stage.host(&canary).safe_mode = true;
    stage.progress(id, &canary, HostState::Fetching);
    assert_eq!(held(&stage, id, &canary), Some(SkipReason::SafeMode));
    stage.finish(id);
    assert_eq!(stage.state(id), RolloutState::Succeeded);
    stage.host(&canary).safe_mode = false;
    stage.settle();
    assert_eq!(stage.open(id), [canary]);
}
