//! What is kept of a state between runs.

use super::host::{Cut, Host, installed, offer, release};
use crate::{
    Beginning, Carry, Fact, Fault, Installed, OnDisk, SavedState, Stage, StateVersions, Target, Task, Until,
};

fn saved(version: u32, whole: bool) -> SavedState {
    SavedState { saved_by: "2.0.0".into(), version, whole, age_ms: 2_001, until: Until::ThisStart }
}

/// Release `n` with these state versions.
fn with(n: u8, writes: &[u32], reads: &[u32]) -> Installed {
    Installed { state: StateVersions { writes: writes.to_vec(), reads: reads.to_vec() }, ..installed(n) }
}

#[test]
fn a_state_that_nothing_ran_after_is_taken_over_whole() {
    assert_eq!(installed(2).beginning(Some(&saved(1, true))), Beginning::With { lost: String::new() });
}

#[test]
fn a_checkpoint_is_taken_over_and_what_came_after_it_is_told_with_its_age() {
    let Beginning::With { lost } = installed(2).beginning(Some(&saved(1, false))) else {
        panic!("not taken")
    };
    assert!(lost.contains("that of a checkpoint, 3 s before this start"), "{lost}");
    let died = SavedState { until: Until::ItsEnd, ..saved(1, false) };
    let Beginning::With { lost } = installed(2).beginning(Some(&died)) else { panic!("not taken") };
    assert!(lost.ends_with("3 s before its end"), "{lost}");
}

#[test]
fn a_state_that_the_release_does_not_read_or_that_was_never_saved_is_told_as_lost() {
    let Beginning::Without { lost } = installed(2).beginning(Some(&saved(7, true))) else { panic!("taken") };
    assert!(lost.contains("2.0.0 saved it in state version 7, and 2.0.0 reads [1]"), "{lost}");
    assert!(matches!(installed(2).beginning(None), Beginning::Without { .. }));
    assert_eq!(installed(1).beginning(None), Beginning::Anew, "it has none");
}

#[test]
fn a_committed_release_is_kept_in_the_highest_version_that_it_reads_again() {
    let mut host = Host::running(&[2]);
    assert_eq!(host.plugin.keeps(&with(2, &[1, 2], &[1, 2])), Carry::Version(1), "as the record has it");
    assert_eq!(host.plugin.may_checkpoint(), Some((release(2).id, 1)));
    host.feed(Fact::Died(release(2).id, super::host::problem(Fault::Release, "WORKER_DIED")));
    assert_eq!(host.plugin.may_checkpoint(), None, "nobody answers");
    assert_eq!(Host::running(&[1]).plugin.may_checkpoint(), None, "there is no state");
}

#[test]
fn on_probation_the_state_is_kept_for_the_old_release_which_a_start_runs_first() {
    let mut host = Host::running(&[2]);
    host.tell(2, 4);
    host.run_to(Stage::Probation);
    assert_eq!(host.plugin.keeps(&with(4, &[1, 2], &[1, 2])), Carry::Version(1));
    assert!(matches!(host.plugin.keeps(&with(4, &[2], &[1, 2])), Carry::Lost(_)), "it would not read it");
    host.cut(Cut::CleanStop);
    assert_eq!(host.active(), Some(release(2)));
}

#[test]
fn the_first_release_on_probation_keeps_its_state_for_its_own_next_trial() {
    let mut host = Host::new();
    host.tell(1, 2);
    host.run_to(Stage::Probation);
    assert_eq!(host.plugin.keeps(&installed(2)), Carry::Version(1));
    host.cut(Cut::CleanStop);
    assert_eq!(host.plugin.state_on_disk(), OnDisk::Kept);
}

#[test]
fn no_checkpoint_is_taken_during_a_trial() {
    let mut host = Host::running(&[2]);
    host.tell(2, 4);
    for stage in super::host::STEPS {
        host.run_to(stage);
        assert_eq!(host.plugin.may_checkpoint(), None, "{stage:?}");
    }
    assert_eq!(host.run_honestly(), Stage::Committed);
    assert_eq!(host.plugin.may_checkpoint(), Some((release(4).id, 1)));
}

#[test]
fn an_end_waits_while_the_state_is_between_two_releases_and_only_then() {
    let mut host = Host::running(&[2]);
    host.tell(2, 4);
    while host.plugin.work().trial != Task::Idle {
        let between = matches!(
            host.plugin.work().trial,
            Task::Pause(_) | Task::Restore(_) | Task::Activate(_) | Task::Move(_)
        );
        // On disk all of these are one, from the moment before the gate closes.
        assert_eq!(host.plugin.is_between_releases(), between, "{:?}", host.plugin.work().trial);
        host.step_honestly();
    }
    host.tell(3, 6);
    host.run_to(Stage::Probation);
    host.fail(Fault::Release, "HEALTH_FAILED");
    assert!(host.plugin.is_between_releases(), "on the way back");
}

#[test]
fn a_removed_plugins_state_goes_and_that_of_one_without_state_is_kept_aside() {
    let mut host = Host::running(&[2]);
    assert_eq!(host.plugin.state_on_disk(), OnDisk::Kept);
    host.tell(2, 3);
    host.run_to(Stage::Probation);
    assert_eq!(host.plugin.state_on_disk(), OnDisk::Kept, "the old release may take it back");
    assert_eq!(host.run_honestly(), Stage::Committed);
    assert_eq!(host.plugin.state_on_disk(), OnDisk::Aside);
    host.feed(Fact::Told(offer(3, Target::Nothing)));
    assert_eq!(host.plugin.state_on_disk(), OnDisk::Aside, "not yet");
    host.run_honestly();
    assert_eq!(host.plugin.state_on_disk(), OnDisk::Gone);
}

#[test]
fn what_a_start_lost_is_told_until_another_release_is_committed_and_has_a_bound() {
    let mut host = Host::running(&[2]);
    host.feed(Fact::StateLost(release(4).id, "of another".into()));
    assert_eq!(host.plugin.status().lost, "");
    host.feed(Fact::StateLost(release(2).id, "é".repeat(crate::TEXT_MAX)));
    assert!(host.plugin.status().lost.len() <= crate::TEXT_MAX);
    host.feed(Fact::StateLost(release(2).id, "its state".into()));
    host.cut(Cut::CleanStop);
    assert_eq!(host.plugin.status().lost, "its state");
    host.tell(2, 4);
    host.run_honestly();
    assert_eq!(host.plugin.status().lost, "");
}

#[test]
fn what_a_start_loses_during_a_trial_is_told_by_the_verdict_however_often_the_switch_was_tried() {
    for fails in [false, true] {
        let mut host = Host::running(&[2]);
        host.tell(2, 4);
        for _ in 0..2 {
            while !matches!(host.plugin.work().trial, Task::Pause(_)) {
                assert!(host.step_honestly());
            }
            host.fail(Fault::Host, "SAVE_STATE_FAILED");
            host.feed(Fact::Died(release(2).id, super::host::problem(Fault::Release, "WORKER_DIED")));
            host.feed(Fact::StateLost(release(2).id, "what came after".into()));
            host.feed(Fact::Ready(release(2).id));
        }
        if fails {
            host.run_to(Stage::Probation);
            host.fail(Fault::Release, "HEALTH_FAILED");
        }
        host.run_honestly();
        assert_eq!(host.plugin.status().trial.unwrap().lost, "what came after", "it fails: {fails}");
        host.tell(3, 6);
        host.run_honestly();
        assert_eq!(host.plugin.status().trial.unwrap().lost, "", "once");
    }
}
