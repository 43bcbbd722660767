//! The life of a plugin, told event by event.

use super::host::{Cut, Host, STEPS, installed, offer, problem, release};
use crate::{BUSY_TRIES_MAX, Fact, Fault, Outcome, Proof, Serve, ServiceStatus, Stage, Target, Task};

#[test]
fn a_release_is_fetched_verified_probed_switched_and_committed() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    for stage in STEPS {
        host.run_to(stage);
        assert_eq!(host.active(), Some(release(1)), "{stage:?}");
    }
    assert_eq!(host.run_honestly(), Stage::Committed);
    let status = host.plugin.status();
    assert_eq!((status.active, status.previous), (Some(release(2)), Some(release(1))));
    let trial = status.trial.unwrap();
    assert_eq!((trial.pause_us, trial.proof), (7, Some(Proof::Calls)));
}

#[test]
fn a_release_that_fails_a_probe_is_rejected_and_denied() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    host.run_to(Stage::Probing);
    host.fail(Fault::Release, "PROBE_FAILED");
    assert_eq!((host.stage(), host.active()), (Stage::Rejected, Some(release(1))));
    let failure = host.plugin.status().trial.unwrap().failure.unwrap();
    assert_eq!((failure.stage, failure.next.as_str()), (Stage::Probing, "stays on 1.0.0"));
    host.tell(3, 2);
    assert_eq!((host.stage(), host.code().as_str()), (Stage::Rejected, "RELEASE_DENIED"));
}

#[test]
fn a_bad_sign_in_probation_goes_back() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    host.run_to(Stage::Probation);
    host.feed(Fact::Died(release(2).id, problem(Fault::Release, "WORKER_DIED")));
    assert_eq!(host.stage(), Stage::RollingBack);
    let Task::GoBack { swap, planned: false } = host.plugin.work().trial else { panic!("no way back") };
    assert_eq!((swap.from, swap.to), (Some(installed(2)), Some(installed(1))));
    assert_eq!(host.run_honestly(), Stage::RolledBack);
    assert_eq!(host.plugin.work().serve, Serve::Run(release(1).id));
}

#[test]
fn a_first_install_that_fails_leaves_nothing_and_is_rejected_only_if_nobody_was_answered() {
    for (at, verdict) in [(Stage::Probing, Stage::Rejected), (Stage::Probation, Stage::RolledBack)] {
        let mut host = Host::new();
        host.tell(1, 1);
        host.run_to(at);
        host.fail(Fault::Release, "HEALTH_FAILED");
        assert_eq!(host.run_honestly(), verdict);
        assert_eq!(host.plugin.work().serve, Serve::Nothing);
        assert_eq!(host.plugin.status().trial.unwrap().failure.unwrap().next, "nothing runs");
    }
}

#[test]
fn a_way_back_that_breaks_off_ends_the_trial_and_the_old_release_is_started_anew() {
    let mut host = Host { clumsy: true, ..Host::running(&[2]) };
    host.tell(2, 4);
    host.run_to(Stage::Probation);
    host.fail(Fault::Release, "HEALTH_FAILED");
    assert_eq!((host.run_honestly(), host.code().as_str()), (Stage::RolledBack, "HEALTH_FAILED"));
    assert_eq!(
        host.plugin.status().trial.unwrap().lost,
        "what came after the last saved state: the way back broke off"
    );
    assert!(matches!(host.plugin.work().serve, Serve::Start { release: it, .. } if it.release == release(2)));
}

#[test]
fn a_switch_whose_giving_up_breaks_off_ends_without_blame() {
    let mut host = Host { clumsy: true, ..paused(|task| matches!(task, Task::Activate(_))) };
    host.fail(Fault::Host, "SWAP_BUSY");
    assert_eq!((host.run_honestly(), host.code().as_str()), (Stage::Rejected, "SWAP_BUSY"));
    assert!(matches!(host.plugin.work().serve, Serve::Start { .. }));
    assert!(host.plugin.status().denied.is_empty());
}

#[test]
fn a_release_whose_files_are_gone_gives_way_to_the_one_before_without_blame() {
    let gone = || problem(Fault::Host, "RELEASE_FILES_MISSING");
    let mut host = Host::running(&[1, 2]);
    host.feed(Fact::StartFailed(release(2).id, gone()));
    assert_eq!(host.active(), Some(release(2)), "nobody said that the one before is here");
    host.feed(Fact::FilesLost(release(2).id, gone()));
    assert_eq!((host.active(), host.plugin.status().previous), (Some(release(1)), None));
    assert_eq!((host.stage(), host.code().as_str()), (Stage::RolledBack, "RELEASE_FILES_MISSING"));
    assert!(host.plugin.status().denied.is_empty());
    host.feed(Fact::FilesLost(release(1).id, gone()));
    assert_eq!((host.active(), host.plugin.status().service), (Some(release(1)), ServiceStatus::Restarting));
}

#[test]
fn an_offer_that_the_host_has_no_room_for_is_rejected_without_blame_and_a_removal_is_done() {
    let full = || problem(Fault::Host, "TOO_MANY_PLUGINS");
    let mut host = Host::new();
    host.tell(1, 1);
    host.plugin = host.plugin.clone().refused(full());
    assert_eq!((host.stage(), host.code().as_str()), (Stage::Rejected, "TOO_MANY_PLUGINS"));
    assert_eq!(host.plugin.work().trial, Task::Idle);
    host.feed(Fact::Told(offer(2, Target::Nothing)));
    host.plugin = host.plugin.clone().refused(full());
    assert_eq!(host.stage(), Stage::Committed);
}

#[test]
fn what_was_rolled_back_is_nothing_to_return_to() {
    let mut host = Host::running(&[1, 2]);
    host.tell_back(3, 1);
    assert_eq!((host.run_honestly(), host.plugin.status().previous), (Stage::Committed, None));
    for _ in 0..3 {
        host.feed(Fact::Died(release(1).id, problem(Fault::Release, "WORKER_DIED")));
        host.feed(Fact::Ready(release(1).id));
    }
    assert_eq!(host.active(), Some(release(1)), "not the release that was left on purpose");
}

#[test]
fn a_previous_release_that_is_pushed_again_and_fails_is_nothing_to_return_to_any_more() {
    let mut host = Host::running(&[1]);
    let mut revision = installed(2);
    revision.release.version = release(1).version;
    host.feed(Fact::Told(offer(2, Target::Release(revision.release.clone()))));
    host.run_to(Stage::Verifying);
    host.outcome(Outcome::Verified(revision));
    assert_eq!(host.run_honestly(), Stage::Committed);
    assert_eq!(host.plugin.status().previous, Some(release(1)));
    host.tell(3, 1);
    host.run_to(Stage::Probing);
    host.fail(Fault::Release, "PROBE_FAILED");
    assert_eq!((host.stage(), host.plugin.status().previous), (Stage::Rejected, None));
    assert_eq!(host.plugin.status().denied.len(), 1);
}

#[test]
fn the_previous_release_returns_at_once() {
    let mut host = Host::running(&[1, 2]);
    host.tell_back(3, 1);
    host.feed(Fact::SlotGranted);
    assert!(matches!(host.plugin.work().trial, Task::Prepare(_)));
    assert_eq!(host.run_honestly(), Stage::Committed);
    let status = host.plugin.status();
    assert_eq!((status.active, status.previous), (Some(release(1)), None));
    assert_eq!(status.trial.unwrap().proof, Some(Proof::Before));
}

#[test]
fn a_lower_version_needs_an_offer_marked_rollback() {
    let mut host = Host::running(&[1, 2, 3]);
    host.tell(4, 1);
    assert_eq!((host.stage(), host.code().as_str()), (Stage::Rejected, "DOWNGRADE_REFUSED"));
    assert_eq!(host.fault(), Some(Fault::Trust));
    let mut back = offer(5, Target::Release(release(1)));
    back.rollback = true;
    host.feed(Fact::Told(back));
    assert_eq!(host.run_honestly(), Stage::Committed);
}

#[test]
fn a_floor_counts_from_its_commit_and_spares_the_way_back() {
    let mut host = Host::running(&[1, 2]);
    let mut raised = installed(3);
    raised.floor = Some(raised.release.version.clone());
    host.tell(3, 3);
    host.run_to(Stage::Verifying);
    host.outcome(Outcome::Verified(raised));
    host.run_to(Stage::Probation);
    assert_eq!(host.run_honestly(), Stage::Committed);
    let mut below = offer(4, Target::Release(release(1)));
    below.rollback = true;
    host.feed(Fact::Told(below));
    assert_eq!(host.code(), "BELOW_FLOOR");
    host.tell_back(5, 2);
    assert_eq!((host.run_honestly(), host.active()), (Stage::Committed, Some(release(2))));
}

#[test]
fn a_push_of_the_release_that_was_rolled_back_has_its_whole_trial() {
    let mut host = Host::running(&[1, 2]);
    host.tell_back(3, 1);
    assert_eq!(host.run_honestly(), Stage::Committed);
    host.tell(4, 2);
    host.feed(Fact::SlotGranted);
    assert!(matches!(host.plugin.work().trial, Task::Fetch { .. }));
    host.run_to(Stage::Probation);
    assert_eq!((host.run_honestly(), host.active()), (Stage::Committed, Some(release(2))));
    assert_eq!(host.plugin.status().trial.unwrap().proof, Some(Proof::Calls));
}

#[test]
fn a_newer_assignment_cancels_what_is_before_the_switch_and_waits_after_it() {
    for stage in STEPS {
        let mut host = Host::running(&[1]);
        host.tell(2, 2);
        host.run_to(stage);
        if stage == Stage::Switching {
            // What is made beside the old release can still be thrown away.
            assert!(matches!(host.plugin.work().trial, Task::Prepare(_)) && host.step_honestly());
        }
        host.tell(3, 3);
        let cancelled = !matches!(stage, Stage::Switching | Stage::Probation);
        assert_eq!(matches!(host.plugin.work().trial, Task::AwaitSlot), cancelled, "{stage:?}");
        assert_eq!((host.run_honestly(), host.active()), (Stage::Committed, Some(release(3))));
        let previous = if cancelled { 1 } else { 2 };
        assert_eq!(host.plugin.status().previous, Some(release(previous)), "{stage:?}");
    }
}

#[test]
fn what_runs_told_again_takes_a_release_back_from_probation_without_blame() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    host.run_to(Stage::Probation);
    host.tell(3, 1);
    assert_eq!((host.stage(), host.fault()), (Stage::RollingBack, Some(Fault::Withdrawn)));
    host.run_honestly();
    assert_eq!(host.active(), Some(release(1)));
    assert!(host.plugin.status().denied.is_empty());
}

#[test]
fn a_removal_leaves_nothing_and_can_undo_a_first_install() {
    let mut host = Host::running(&[1]);
    host.feed(Fact::Told(offer(2, Target::Nothing)));
    assert_eq!((host.run_honestly(), host.active()), (Stage::Committed, None));
    host.tell(3, 1);
    host.run_to(Stage::Probation);
    host.feed(Fact::Told(offer(4, Target::Nothing)));
    assert_eq!(host.stage(), Stage::RollingBack);
    host.run_honestly();
    assert_eq!(host.plugin.status().service, ServiceStatus::Empty);
}

#[test]
fn a_busy_switch_is_tried_again_and_then_given_up_without_blame() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    for _ in 0..BUSY_TRIES_MAX {
        host.run_to(Stage::Switching);
        if matches!(host.plugin.work().trial, Task::Wait) {
            host.step_honestly();
        }
        host.fail(Fault::Host, "SWAP_BUSY");
        assert_eq!(host.plugin.work().serve, Serve::Run(release(1).id));
    }
    host.step_honestly();
    host.fail(Fault::Host, "SWAP_BUSY");
    assert_eq!((host.stage(), host.fault()), (Stage::Rejected, Some(Fault::Host)));
    assert!(host.plugin.status().denied.is_empty());
}

/// Each further try could end its worker, and with it the state.
#[test]
fn an_old_release_that_can_not_give_its_state_away_is_asked_for_it_once() {
    for code in ["SAVE_STATE_FAILED", "DEACTIVATE_FAILED", "WORKER_DIED"] {
        let mut host = paused(|task| matches!(task, Task::Pause(_)));
        host.fail(Fault::Host, code);
        assert_eq!((host.stage(), host.code().as_str()), (Stage::Rejected, code));
        assert_eq!((host.fault(), host.active()), (Some(Fault::Host), Some(release(2))));
        assert!(host.plugin.status().denied.is_empty());
    }
}

#[test]
fn a_slow_link_is_tried_until_the_deadline() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    host.feed(Fact::SlotGranted);
    for _ in 0..100 {
        let Task::Fetch { at, .. } = host.plugin.work().trial else { break };
        host.now = host.now.max(at);
        host.fail(Fault::Link, "LINK_DOWN");
    }
    assert_eq!((host.stage(), host.fault()), (Stage::Rejected, Some(Fault::Link)));
}

#[test]
fn a_release_that_hangs_while_loading_meets_the_deadline() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    host.run_to(Stage::Loading);
    host.now = host.plugin.wakes_at().unwrap();
    host.feed(Fact::TimePassed);
    assert_eq!((host.code().as_str(), host.fault()), ("HEALTHY_DEADLINE", Some(Fault::Release)));
}

#[test]
fn three_deaths_return_to_the_previous_release_and_three_more_are_the_end() {
    let mut host = Host::running(&[1, 2]);
    let crash = |host: &mut Host, n| {
        host.now = host.now.after(1_000);
        host.feed(Fact::Died(release(n).id, problem(Fault::Release, "WORKER_DIED")));
    };
    for _ in 0..2 {
        crash(&mut host, 2);
        assert_eq!(host.plugin.status().service, ServiceStatus::Restarting);
        host.feed(Fact::Ready(release(2).id));
    }
    crash(&mut host, 2);
    assert_eq!((host.active(), host.plugin.status().previous), (Some(release(1)), None));
    assert_eq!((host.stage(), host.code().as_str()), (Stage::RolledBack, "CRASH_LOOP"));
    for _ in 0..3 {
        host.feed(Fact::Ready(release(1).id));
        crash(&mut host, 1);
    }
    assert_eq!((host.active(), host.plugin.status().service), (Some(release(1)), ServiceStatus::Down));
    host.feed(Fact::Ready(release(1).id));
    assert_eq!(host.plugin.status().service, ServiceStatus::Serving);
    crash(&mut host, 1);
    assert_eq!(host.plugin.status().service, ServiceStatus::Down);
    host.now = host.now.after(60_000);
    host.feed(Fact::Ready(release(1).id));
    crash(&mut host, 1);
    assert_eq!(host.plugin.status().service, ServiceStatus::Restarting);
}

#[test]
fn deaths_far_apart_are_only_restarts() {
    let mut host = Host::running(&[1, 2]);
    for _ in 0..10 {
        host.now = host.now.after(31_000);
        host.feed(Fact::Died(release(2).id, problem(Fault::Release, "WORKER_DIED")));
        host.feed(Fact::Ready(release(2).id));
    }
    assert_eq!((host.active(), host.plugin.status().service), (Some(release(2)), ServiceStatus::Serving));
}

#[test]
fn a_host_without_descriptors_does_not_give_a_release_up() {
    let mut host = Host::running(&[1, 2]);
    host.feed(Fact::Died(release(2).id, problem(Fault::Release, "WORKER_DIED")));
    for _ in 0..20 {
        host.feed(Fact::StartFailed(release(2).id, problem(Fault::Host, "TOO_MANY_FILES")));
    }
    assert_eq!((host.active(), host.plugin.status().service), (Some(release(2)), ServiceStatus::Restarting));
}

#[test]
fn an_unchanged_part_is_adopted_without_a_swap() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    host.run_to(Stage::Verifying);
    let mut same = installed(2);
    same.part = installed(1).part;
    host.outcome(Outcome::Verified(same));
    assert_eq!((host.stage(), host.active()), (Stage::Committed, Some(release(2))));
    assert_eq!(host.plugin.status().trial.unwrap().proof, Some(Proof::Unchanged));
    assert_eq!(host.plugin.work().serve, Serve::Run(release(2).id));
}

#[test]
fn what_already_runs_is_committed_for_a_new_rollout_at_once() {
    let mut host = Host::running(&[1]);
    host.tell(2, 1);
    let trial = host.plugin.status().trial.unwrap();
    assert_eq!((trial.rollout.as_str(), trial.stage), ("r-000002", Stage::Committed));
    assert_eq!(host.plugin.work().trial, Task::Idle);
}

#[test]
fn the_same_offer_told_again_begins_nothing_and_the_next_attempt_does() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    host.run_to(Stage::Probing);
    host.fail(Fault::Host, "TOO_MANY_FILES");
    let mut again = offer(3, Target::Release(release(2)));
    again.rollout = "r-000002".into();
    host.feed(Fact::Told(again.clone()));
    assert_eq!((host.stage(), host.plugin.work().trial), (Stage::Rejected, Task::Idle));
    again.attempt = 2;
    host.feed(Fact::Told(again));
    assert_eq!(host.run_honestly(), Stage::Committed);
}

#[test]
fn a_killed_way_back_is_done_again_and_blames_nobody() {
    let mut host = Host::running(&[1, 2]);
    host.tell_back(3, 1);
    host.feed(Fact::SlotGranted);
    host.cut(Cut::Kill);
    assert_eq!((host.run_honestly(), host.active()), (Stage::Committed, Some(release(1))));
    assert!(host.plugin.status().denied.is_empty());
}

#[test]
fn a_trial_that_is_interrupted_begins_anew_once_and_then_ends_without_blame() {
    for cut in [Cut::CleanStop, Cut::Reboot] {
        let mut host = Host::running(&[1]);
        host.tell(2, 2);
        host.run_to(Stage::Probation);
        host.cut(cut);
        assert_eq!(host.stage(), Stage::Fetching, "{cut:?}");
        host.run_to(Stage::Probing);
        host.cut(cut);
        assert_eq!((host.stage(), host.fault()), (Stage::Rejected, Some(Fault::Interrupted)));
        assert!(host.plugin.status().denied.is_empty());
    }
}

#[test]
fn probation_is_not_over_before_its_time() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    host.run_to(Stage::Probation);
    host.outcome(Outcome::Proven(Proof::Calls));
    assert_eq!((host.stage(), host.active()), (Stage::Probation, Some(release(1))));
}

#[test]
fn another_releases_death_is_nobodys() {
    let mut host = Host::running(&[1, 2]);
    let before = host.plugin.clone();
    host.feed(Fact::Died(release(1).id, problem(Fault::Release, "WORKER_DIED")));
    host.feed(Fact::Died(release(7).id, problem(Fault::Release, "WORKER_DIED")));
    assert_eq!(host.plugin, before);
}

#[test]
fn a_switch_is_written_before_the_gate_closes_and_not_again_before_the_pointer_moved() {
    let mut host = Host::running(&[1]);
    host.tell(2, 2);
    let mut written = Vec::new();
    let mut disk = host.disk.clone();
    while host.step_honestly() {
        if host.disk != disk {
            written.push(host.plugin.work().trial);
            disk = host.disk.clone();
        }
    }
    let switching: Vec<_> = written
        .iter()
        .filter(|task| !matches!(task, Task::Fetch { .. } | Task::Verify(_) | Task::Load(_) | Task::Probe(_)))
        .collect();
    assert!(
        matches!(switching[..], [Task::Prepare(_), Task::Pause(_), Task::Watch { .. }, Task::Idle]),
        "{switching:?}"
    );
}

/// Whether a task is the one that is meant.
type At = fn(&Task) -> bool;

/// A stateful release that was replaced up to the moment of this task.
fn paused(wanted: At) -> Host {
    let mut host = Host::running(&[2]);
    host.tell(2, 4);
    while !wanted(&host.plugin.work().trial) {
        assert!(host.step_honestly());
    }
    host
}

#[test]
fn a_candidate_that_would_cost_a_call_gives_way_and_is_tried_again() {
    let steps: [At; 2] = [|task| matches!(task, Task::Restore(_)), |task| matches!(task, Task::Activate(_))];
    for step in steps {
        let mut host = paused(step);
        host.fail(Fault::Host, "SWAP_BUSY");
        assert!(matches!(host.plugin.work().trial, Task::GoBack { planned: true, .. }));
        assert_eq!(host.stage(), Stage::Switching, "no verdict yet");
        host.outcome(Outcome::WentBack { answers: true, lost: String::new() });
        assert_eq!(host.plugin.work().trial, Task::Wait);
        assert_eq!(host.plugin.work().serve, Serve::Run(release(2).id));
        assert_eq!((host.run_honestly(), host.active()), (Stage::Committed, Some(release(4))));
    }
}

#[test]
fn a_candidate_that_always_costs_a_call_is_given_up_without_blame() {
    let mut host = paused(|task| matches!(task, Task::Restore(_)));
    for _ in 0..=BUSY_TRIES_MAX {
        while !matches!(host.plugin.work().trial, Task::Restore(_)) {
            assert!(host.step_honestly());
        }
        host.fail(Fault::Host, "SWAP_BUSY");
    }
    assert_eq!((host.run_honestly(), host.code().as_str()), (Stage::Rejected, "SWAP_BUSY"));
    assert_eq!((host.fault(), host.active()), (Some(Fault::Host), Some(release(2))));
    assert!(host.plugin.status().denied.is_empty());
}

#[test]
fn an_old_release_that_does_not_wake_ends_the_trial_and_is_started_again() {
    let mut host = paused(|task| matches!(task, Task::Activate(_)));
    host.fail(Fault::Host, "SWAP_BUSY");
    host.outcome(Outcome::WentBack { answers: false, lost: "the state".into() });
    assert_eq!((host.stage(), host.code().as_str()), (Stage::Rejected, "SWAP_BUSY"));
    assert_eq!(host.plugin.status().trial.unwrap().lost, "the state");
    assert!(matches!(host.plugin.work().serve, Serve::Start { .. }));
}

#[test]
fn a_release_that_fails_to_take_the_state_over_is_not_tried_again() {
    let mut host = paused(|task| matches!(task, Task::Restore(_)));
    host.fail(Fault::Release, "RESTORE_STATE_FAILED");
    assert_eq!(host.run_honestly(), Stage::Rejected);
    assert_eq!(host.plugin.status().denied.len(), 1);
}

#[test]
fn a_kill_counts_as_if_a_caller_was_answered_once_the_gate_may_have_closed() {
    let cases: [(At, Stage); 3] = [
        (|task| matches!(task, Task::Prepare(_)), Stage::Rejected),
        (|task| matches!(task, Task::Pause(_)), Stage::RolledBack),
        (|task| matches!(task, Task::Move(_)), Stage::RolledBack),
    ];
    for (at, verdict) in cases {
        let mut host = paused(at);
        host.cut(Cut::Kill);
        assert_eq!((host.stage(), host.active()), (verdict, Some(release(2))));
    }
}

#[test]
fn a_way_back_whose_gate_may_have_closed_is_done_after_a_kill() {
    let mut host = Host::running(&[1, 2]);
    host.tell_back(3, 1);
    while !matches!(host.plugin.work().trial, Task::Pause(_)) {
        assert!(host.step_honestly());
    }
    host.cut(Cut::Kill);
    assert_eq!((host.stage(), host.active()), (Stage::Committed, Some(release(1))));
}

#[test]
fn a_newer_assignment_cancels_a_switch_that_is_only_prepared() {
    let mut host = paused(|task| matches!(task, Task::Prepare(_)));
    host.tell(3, 6);
    assert_eq!((host.run_honestly(), host.active()), (Stage::Committed, Some(release(6))));
    assert_eq!(host.plugin.status().previous, Some(release(2)));
}
