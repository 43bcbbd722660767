//! One good hello and report, and what one wrong field does to each.

use std::collections::HashMap;

use super::*;

/// A hello that passes.
pub(in crate::api) fn good_hello() -> v1::Hello {
    v1::Hello {
        protocol: PROTOCOL,
        agent_version: "0.1.0".to_owned(),
        session: "6f1d2a53-2f6e-4d5e-9f62-0d6a4fbb1c11".to_owned(),
        facts: Some(v1::HostFacts { platform: "x86_64-linux-gnu".to_owned(), ..v1::HostFacts::default() }),
        plugins: vec![good_status()],
        ..v1::Hello::default()
    }
}

/// A report that passes.
pub(in crate::api) fn good_report(sequence: u64) -> v1::Report {
    let generation = Some(v1::Generation { epoch: 1, n: 1 });
    v1::Report { sequence, generation, status: Some(good_status()) }
}

fn good_status() -> v1::PluginStatus {
    let release = v1::Release {
        plugin: "clock".to_owned(),
        version: "1.0.0".to_owned(),
        revision: 1,
        release_id: "ab".repeat(32),
    };
    v1::PluginStatus {
        plugin: "clock".to_owned(),
        service: v1::ServiceState::Serving.into(),
        active: Some(release.clone()),
        trial: Some(v1::TrialStatus {
            rollout_id: "r-000001".to_owned(),
            attempt: 1,
            candidate: Some(release.clone()),
            state: v1::HostState::Rejected.into(),
            failure: Some(v1::Failure {
                failed_state: v1::HostState::Probing.into(),
                fault: v1::Fault::Release.into(),
                code: "PROBE_FAILED".to_owned(),
                log_tail: "line\u{1b}[0m\n".to_owned(),
                ..v1::Failure::default()
            }),
            ..v1::TrialStatus::default()
        }),
        denied: vec![v1::Denied { release: Some(release.clone()), ..v1::Denied::default() }],
        local_override: Some(v1::LocalOverride {
            kind: v1::LocalOverrideKind::RolledBack.into(),
            reason: "it is slow".to_owned(),
            by: "alice".to_owned(),
            since_ms: 7,
            from: Some(release),
        }),
        ..v1::PluginStatus::default()
    }
}

fn refused(result: Result<(), Explained>, field: &str) {
    let error = result.expect_err(field);
    assert_eq!(error.code, "REQUEST_INVALID", "{field}");
    assert!(error.what.contains(&format!("`{field}`")), "{field}: {}", error.what);
    assert!(!error.why.is_empty() && !error.fix.is_empty(), "{field}");
}

#[test]
fn a_good_hello_and_a_good_report_pass() {
    hello(&good_hello()).unwrap();
    report(&good_report(1)).unwrap();
}

#[test]
fn another_protocol_is_said_plainly() {
    let error = hello(&v1::Hello { protocol: 9, ..good_hello() }).unwrap_err();
    assert_eq!(error.code, "PROTOCOL_MISMATCH");
}

#[test]
fn each_wrong_field_of_a_hello_is_named() {
    type Spoil = fn(&mut v1::Hello);
    let long = || "x".repeat(100_000);
    let labels = |count: usize| (0..count).map(|i| (i.to_string(), String::new())).collect::<HashMap<_, _>>();
    let cases: [(&str, Spoil); 11] = [
        ("hello.agent_version", |hello| hello.agent_version.clear()),
        ("hello.agent_version", |hello| hello.agent_version = "new".to_owned()),
        ("hello.session", |hello| hello.session.clear()),
        ("hello.session", |hello| hello.session = "1".to_owned()),
        ("hello.features", |hello| hello.features = vec!["x".to_owned(); 65]),
        ("hello.highest.n", |hello| hello.highest = Some(v1::Generation { epoch: 1, n: u64::MAX })),
        ("hello.metadata", |hello| {
            hello.metadata = Some(v1::MetadataVersions { root: u64::MAX, ..<_>::default() })
        }),
        ("hello.audit_head.sha256", |hello| {
            hello.audit_head = Some(v1::AuditHead { sequence: 1, sha256: "zz".to_owned() });
        }),
        ("hello.facts", |hello| hello.facts = None),
        ("hello.plugins", |hello| hello.plugins = vec![good_status(), good_status()]),
        ("hello.plugins", |hello| hello.plugins = vec![good_status(); 257]),
    ];
    for (field, spoil) in cases {
        let mut spoilt = good_hello();
        spoil(&mut spoilt);
        refused(hello(&spoilt), field);
    }
    refused(hello(&v1::Hello { labels: labels(65), ..good_hello() }), "hello.labels");
    let labels = HashMap::from([("rack".to_owned(), long())]);
    refused(hello(&v1::Hello { labels, ..good_hello() }), "hello.labels");
}

#[test]
fn each_wrong_field_of_a_report_is_named() {
    type Spoil = fn(&mut v1::Report, &mut v1::PluginStatus);
    let cases: [(&str, Spoil); 10] = [
        ("report.sequence", |report, _| report.sequence = 0),
        ("report.sequence", |report, _| report.sequence = u64::MAX),
        ("report.generation", |report, _| report.generation = None),
        ("report.status.plugin", |_, status| status.plugin = "../etc".to_owned()),
        ("report.status.service", |_, status| status.service = 0),
        ("report.status.service", |_, status| status.service = 99),
        ("report.status.active.release_id", |_, status| {
            status.active = Some(v1::Release {
                release_id: "AB".repeat(32),
                ..status.active.clone().unwrap_or_default()
            });
        }),
        ("report.status.denied", |_, status| status.denied = vec![v1::Denied::default(); 257]),
        ("report.status.denied.release", |_, status| status.denied = vec![v1::Denied::default()]),
        ("report.status.previous.plugin", |_, status| status.previous = Some(v1::Release::default())),
    ];
    for (field, spoil) in cases {
        let (mut spoilt, mut status) = (good_report(1), good_status());
        spoil(&mut spoilt, &mut status);
        refused(report(&v1::Report { status: Some(status), ..spoilt }), field);
    }
    refused(report(&v1::Report { status: None, ..good_report(1) }), "report.status");
}

#[test]
fn each_wrong_field_of_a_failure_is_named() {
    type Spoil = fn(&mut v1::TrialStatus, &mut v1::Failure);
    let cases: [(&str, Spoil); 7] = [
        ("trial.state", |trial, _| trial.state = 15),
        ("trial.rollout_id", |trial, _| trial.rollout_id = "x".repeat(257)),
        ("trial.failure.fault", |_, failure| failure.fault = 0),
        ("trial.failure.failed_state", |_, failure| failure.failed_state = -1),
        ("trial.failure.code", |_, failure| failure.code.clear()),
        ("trial.failure.log_tail", |_, failure| failure.log_tail = "x".repeat(LOG_TAIL_MAX + 1)),
        ("trial.failure.got", |_, failure| failure.got = "x".repeat(PROBE_MAX + 1)),
    ];
    let (trial, failure) = (good_status().trial.unwrap(), good_status().trial.unwrap().failure.unwrap());
    for (field, spoil) in cases {
        let (mut trial, mut failure) = (trial.clone(), failure.clone());
        spoil(&mut trial, &mut failure);
        let status = v1::PluginStatus {
            trial: Some(v1::TrialStatus { failure: Some(failure), ..trial }),
            ..good_status()
        };
        refused(
            report(&v1::Report { status: Some(status), ..good_report(1) }),
            &format!("report.status.{field}"),
        );
    }
}
