//! What an operator on the host orders, told event by event.

use super::host::{Cut, Host, installed, offer, order, problem, release};
use crate::{
    Fact, Fault, LocalOverride, Outcome, OverrideKind, Plugin, Serve, ServiceStatus, Stage, Target, Task,
};

fn kind(host: &Host) -> OverrideKind {
    host.plugin.local_override().expect("an override").kind.clone()
}

fn is_rolled_back(host: &Host) -> bool {
    matches!(kind(host), OverrideKind::RolledBack { .. })
}

fn die(host: &mut Host, n: u8) {
    host.feed(Fact::Died(release(n).id, problem(Fault::Release, "WORKER_DIED")));
}

#[test]
fn a_held_host_hears_what_it_is_told_and_begins_when_it_is_released() {
    let mut host = Host::running(&[1]);
    host.hold();
    host.tell(5, 2);
    host.tell(6, 3);
    assert_eq!((host.run_honestly(), host.active()), (Stage::Offered, Some(release(1))));
    assert_eq!((host.plugin.generation().n, host.plugin.work().trial), (6, Task::Idle));
    host.feed(Fact::Released);
    assert_eq!((host.run_honestly(), host.active()), (Stage::Committed, Some(release(3))));
}

#[test]
fn a_hold_calls_off_a_trial_that_callers_have_not_noticed_and_it_begins_anew_later_without_blame() {
    for at in [Stage::Fetching, Stage::Verifying, Stage::Loading, Stage::Probing, Stage::Switching] {
        let mut host = Host::running(&[1]);
        host.tell(2, 2);
        host.run_to(at);
        host.hold();
        assert_eq!((host.stage(), host.plugin.trial()), (Stage::Offered, None), "{at:?}");
        assert_eq!(host.plugin.work().serve, Serve::Run(release(1).id));
        host.feed(Fact::Released);
        assert_eq!((host.run_honestly(), host.active()), (Stage::Committed, Some(release(2))));
        assert!(host.plugin.status().denied.is_empty());
    }
}

#[test]
fn a_trial_that_answers_callers_ends_by_its_own_verdict_when_it_is_held() {
    for good in [true, false] {
        let mut host = Host::running(&[1]);
        host.tell(2, 2);
        host.run_to(Stage::Probation);
        host.hold();
        if good {
            // Without the hold this takes it back.
            host.tell(3, 1);
        } else {
            host.fail(Fault::Release, "HEALTH_FAILED");
        }
        let end = if good { (Stage::Offered, 2) } else { (Stage::RolledBack, 1) };
        assert_eq!((host.run_honestly(), host.active()), (end.0, Some(release(end.1))));
    }
}

#[test]
fn a_rollback_hands_callers_over_to_the_previous_release_and_holds_it_there() {
    let mut host = Host::running(&[1, 2]);
    host.tell(5, 3);
    host.run_to(Stage::Probing);
    host.order_back();
    assert!(matches!(host.plugin.work().trial, Task::Prepare(it) if it.release == release(1)));
    assert!(host.plugin.is_on_local_way_back());
    host.run_honestly();
    assert!(is_rolled_back(&host));
    assert_eq!((host.active(), host.plugin.status().previous), (Some(release(1)), None));
    host.tell(6, 2);
    assert_eq!((host.run_honestly(), host.active()), (Stage::Offered, Some(release(1))));
    host.feed(Fact::Released);
    assert_eq!((host.run_honestly(), host.active()), (Stage::Committed, Some(release(2))));
}

#[test]
fn a_rollback_takes_a_release_on_probation_back_at_once_without_blame() {
    let mut host = Host::running(&[1, 2]);
    host.tell(5, 3);
    host.run_to(Stage::Probation);
    host.order_back();
    assert!(matches!(host.plugin.work().trial, Task::GoBack { planned: true, .. }));
    assert_eq!((host.run_honestly(), host.code().as_str()), (Stage::RolledBack, "HELD_LOCALLY"));
    assert_eq!((host.fault(), host.active()), (Some(Fault::Withdrawn), Some(release(2))));
    assert!(is_rolled_back(&host) && host.plugin.status().denied.is_empty());
    assert_eq!(host.plugin.status().previous, Some(release(1)), "that one was not touched");
}

#[test]
fn a_rollback_that_is_ordered_in_the_pause_waits_for_its_end() {
    let mut host = Host::running(&[2]);
    host.tell(2, 4);
    host.run_to(Stage::Switching);
    host.outcome(Outcome::Prepared);
    assert!(host.plugin.is_in_the_pause());
    host.order_back();
    assert!(matches!(host.plugin.work().trial, Task::Pause(_)));
    host.run_honestly();
    assert!(is_rolled_back(&host));
    assert_eq!((host.active(), host.stage()), (Some(release(2)), Stage::RolledBack));
}

#[test]
fn where_nobody_answers_the_previous_release_is_committed_at_once() {
    let mut host = Host::running(&[1, 2]);
    die(&mut host, 2);
    host.order_back();
    assert!(is_rolled_back(&host) && host.plugin.trial().is_none());
    let Serve::Start { release: started, down: false, .. } = host.plugin.work().serve else {
        panic!("no start")
    };
    assert_eq!(started.release, release(1));
}

#[test]
fn without_a_release_before_it_there_is_no_way_back() {
    let mut host = Host::running(&[1]);
    let before = host.plugin.clone();
    host.order_back();
    assert_eq!((&host.plugin, host.plugin.way_back()), (&before, None));
    let mut first = Host::new();
    first.tell(1, 1);
    first.run_to(Stage::Probation);
    first.order_back();
    assert_eq!((first.plugin.local_override(), first.stage()), (None, Stage::Probation));
}

#[test]
fn a_rollback_that_fails_holds_what_runs_and_is_not_tried_for_ever() {
    let mut host = Host::running(&[1, 2]);
    host.order_back();
    host.fail(Fault::Release, "LOAD_CANNOT_OPEN");
    host.run_honestly();
    assert_eq!((kind(&host), host.active()), (OverrideKind::Hold, Some(release(2))));
    assert_eq!(host.code(), "LOAD_CANNOT_OPEN");
    assert!(host.plugin.status().denied.is_empty(), "a way back blames nobody");
}

#[test]
fn a_rollback_that_is_cut_is_done_by_the_next_start() {
    for how in [Cut::Kill, Cut::CleanStop, Cut::Reboot] {
        for steps in 0..5 {
            let mut host = Host::running(&[2, 4]);
            host.order_back();
            for _ in 0..steps {
                host.step_honestly();
            }
            host.cut(how);
            assert!(is_rolled_back(&host), "{how:?} after {steps} steps");
            host.run_honestly();
            assert_eq!(host.active(), Some(release(2)));
        }
    }
}

#[test]
fn a_crash_loop_returns_to_the_previous_release_under_a_hold_as_well() {
    let mut host = Host::running(&[1, 2]);
    host.hold();
    for _ in 0..3 {
        die(&mut host, 2);
        host.feed(Fact::Ready(release(2).id));
    }
    assert_eq!((host.active(), kind(&host)), (Some(release(1)), OverrideKind::Hold));
}

#[test]
fn an_order_is_kept_over_every_end_of_the_agent() {
    for how in [Cut::Kill, Cut::CleanStop, Cut::Reboot] {
        let mut host = Host::running(&[1]);
        host.hold();
        let held = host.plugin.local_override().cloned();
        host.cut(how);
        assert_eq!(host.plugin.local_override().cloned(), held);
    }
}

#[test]
fn the_same_order_changes_nothing_and_another_reason_takes_its_place() {
    let mut host = Host::running(&[1, 2]);
    host.order_back();
    host.run_honestly();
    let before = host.plugin.clone();
    host.order_back();
    let later = crate::Order { at_ms: 99, ..order("it is slow") };
    host.feed(Fact::OrderedBack { order: later, at_rest: false });
    assert_eq!(host.plugin, before);
    host.feed(Fact::Held { order: order("for the audit"), at_rest: false });
    assert!(is_rolled_back(&host), "a hold does not hide where the host stands");
    assert_eq!(host.plugin.local_override().unwrap().order.reason, "for the audit");
}

#[test]
fn at_rest_a_rollback_changes_the_record_alone_and_leaves_a_loaded_trial_to_its_judge() {
    let mut host = Host::running(&[1, 2]);
    host.feed(Fact::OrderedBack { order: order("boot loop"), at_rest: true });
    assert!(is_rolled_back(&host) && host.active() == Some(release(1)));
    let mut host = Host::running(&[1, 2]);
    host.tell(5, 3);
    host.run_to(Stage::Loading);
    host.feed(Fact::OrderedBack { order: order("boot loop"), at_rest: true });
    assert_eq!(host.stage(), Stage::Loading);
    host.cut(Cut::Kill);
    assert_eq!(host.plugin.status().denied[0].release, release(3), "the kill is its verdict");
    assert!(is_rolled_back(&host) && host.active() == Some(release(1)));
}

#[test]
fn a_removal_waits_as_well() {
    let mut host = Host::running(&[1]);
    host.hold();
    host.feed(Fact::Told(offer(5, Target::Nothing)));
    host.feed(Fact::SlotGranted);
    assert_eq!((host.active(), host.plugin.status().service), (Some(release(1)), ServiceStatus::Serving));
}

#[test]
fn an_offer_of_what_runs_is_met_though_it_is_held() {
    let mut host = Host::running(&[1]);
    host.hold();
    host.tell(5, 1);
    assert_eq!(
        (host.stage(), host.plugin.status().trial.unwrap().rollout.as_str()),
        (Stage::Committed, "r-000005")
    );
}

#[test]
fn a_record_from_before_overrides_is_read_and_one_with_an_override_has_a_newer_format() {
    let mut host = Host::running(&[1]);
    let text = serde_json::to_string(&host.plugin).unwrap();
    assert!(!text.contains("local_override"), "an older agent reads it as ever");
    let read: Plugin = serde_json::from_str(&text).unwrap();
    assert_eq!((&read, read.record_format()), (&host.plugin, 1));
    host.hold();
    let held = LocalOverride { kind: OverrideKind::Hold, order: order("hands off") };
    assert_eq!(
        (host.plugin.local_override(), host.plugin.record_format()),
        (Some(&held), crate::RECORD_FORMAT)
    );
    assert_eq!(installed(1).release, release(1));
}
