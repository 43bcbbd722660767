//! What crosses the border, and what is made of what doesn't fit.

use fleetswap_proto::v1;
use fleetswap_rollout as core;

use super::*;

fn release() -> core::Release {
    let version = "1.2.0".parse().unwrap();
    core::Release { plugin: "clock".to_owned(), version, revision: 2, id: "ab".repeat(32) }
}

fn row(attempt: u32, target: Option<core::Release>) -> core::Desired {
    core::Desired {
        target,
        rollout: Some(core::RolloutId(7)),
        attempt,
        rollback: false,
        min_healthy_ms: 1,
        healthy_deadline_ms: 2,
        generation: core::Generation { epoch: 1, n: 3 },
    }
}

fn told(row: core::Desired) -> v1::DesiredPlugin {
    let plugin = core::HostPlugin { desired: Some(row), reported: None };
    let plugins = [("clock".to_owned(), plugin), ("unknown".to_owned(), core::HostPlugin::default())].into();
    let host = core::Host { plugins, ..core::Host::default() };
    let mut state = desired_state(&host, fleetswap_trust::Versions::default());
    assert_eq!(state.plugins.len(), 1, "a plugin that the host was never told about is not named");
    state.plugins.remove(0)
}

#[test]
fn an_offer_names_its_rollout_and_a_steady_state_does_not() {
    assert_eq!(told(row(1, Some(release()))).rollout_id, "r-000007");
    assert_eq!(told(row(0, Some(release()))).rollout_id, "");
}

#[test]
fn nothing_to_run_is_said_in_words() {
    let target = told(row(1, None)).target;
    assert_eq!(target, Some(v1::desired_plugin::Target::Nothing(v1::Nothing {})));
}

#[test]
fn a_rule_that_is_not_given_has_its_default() {
    let push = |policy| v1::PushRequest { manifest: Vec::new(), policy, ..v1::PushRequest::default() };
    assert!(super::push(&push(None)).is_err(), "there is no manifest");
    let bare = rollback(&v1::RollbackRequest::default()).unwrap();
    assert_eq!((bare.policy, bare.to), (core::Policy::rollback(), None));
    let policy = Some(v1::Policy { max_parallel: 3, min_healthy_ms: 4, healthy_deadline_ms: 5 });
    let given = rollback(&v1::RollbackRequest { policy, ..v1::RollbackRequest::default() }).unwrap().policy;
    assert_eq!(
        (given.max_parallel, given.min_healthy_ms, given.healthy_deadline_ms),
        (core::Amount::Count(3), 4, 5)
    );
}

#[test]
fn a_failure_without_a_fault_counts_against_the_release() {
    let failure = Some(v1::Failure::default());
    let state = v1::HostState::Rejected.into();
    let trial = Some(v1::TrialStatus {
        failure,
        state,
        rollout_id: "r-000007".to_owned(),
        ..v1::TrialStatus::default()
    });
    let status = Some(v1::PluginStatus { trial, ..v1::PluginStatus::default() });
    let answer = report(v1::Report { status, ..v1::Report::default() });
    let trial = answer.said.reported.trial.unwrap();
    assert_eq!(trial.rollout, Some(core::RolloutId(7)));
    assert_eq!(trial.failure.unwrap().fault, core::Fault::Release);
}

#[test]
fn what_is_stored_of_a_report_reads_back() {
    let active = v1::Release {
        plugin: "clock".to_owned(),
        version: "1.2.0".to_owned(),
        revision: 2,
        release_id: "ab".repeat(32),
    };
    let status =
        v1::PluginStatus { plugin: "clock".to_owned(), active: Some(active), ..v1::PluginStatus::default() };
    let said = report(v1::Report { status: Some(status), ..v1::Report::default() }).said;
    let row = crate::store::ReportedRow {
        host_id: uuid::Uuid::nil(),
        plugin: said.plugin.clone(),
        key: crate::store::ReportKey::default(),
        active: None,
        status: said.status,
    };
    assert_eq!(said_of_row(&row).unwrap().reported, said.reported);
    assert_eq!(said.reported.active, Some(release()));
    let broken = crate::store::ReportedRow { status: vec![0xff], ..row };
    assert!(said_of_row(&broken).is_none());
}

#[test]
fn a_wrong_selector_or_version_says_what_fits() {
    let request = v1::RollbackRequest { selector: "zone".to_owned(), ..v1::RollbackRequest::default() };
    let error = rollback(&request).unwrap_err();
    assert_eq!(
        (error.code.as_ref(), error.what.as_str()),
        ("SELECTOR_INVALID", "`zone` does not select hosts")
    );
    let request = v1::RollbackRequest { to_version: "one".to_owned(), ..v1::RollbackRequest::default() };
    assert_eq!(rollback(&request).unwrap_err().code, "REQUEST_INVALID");
}
