//! The agents' stream: its order, its refusals, and who wins.

use std::{fs, path::Path};

use fleetswap_proto::{HOST_ID_KEY, HOST_NAME_KEY, v1};
use tonic::{Code, metadata::MetadataMap};
use v1::{connect_request::Message as In, connect_response::Message as Out};

use super::world::{Agent, World, code, names};
use crate::api::agent_fields::tests::{good_hello, good_report};

async fn greeted(world: &World, name: &str) -> Agent {
    let mut agent = world.agent(name).await;
    agent.say(In::Hello(good_hello())).await;
    assert!(matches!(agent.hear().await, Ok(Some(Out::Welcome(_)))));
    agent
}

#[tokio::test]
async fn a_hello_is_welcomed_and_the_newest_desired_state_follows() {
    let world = World::start().await;
    let desired = |n| v1::DesiredState {
        generation: Some(v1::Generation { epoch: 1, n }),
        ..v1::DesiredState::default()
    };
    world.fleet.desired.send_replace(Some(desired(1)));
    let mut agent = greeted(&world, "host-1").await;
    assert_eq!(agent.hear().await.unwrap(), Some(Out::Desired(desired(1))));
    world.fleet.desired.send_replace(Some(desired(2)));
    assert_eq!(agent.hear().await.unwrap(), Some(Out::Desired(desired(2))));
}

#[tokio::test]
async fn a_report_is_acknowledged_after_the_fleet_took_it_and_a_heartbeat_is_not() {
    let world = World::start().await;
    let mut agent = greeted(&world, "host-1").await;
    agent.say(In::Heartbeat(v1::Heartbeat {})).await;
    agent.say(In::Report(good_report(7))).await;
    assert_eq!(agent.hear().await.unwrap(), Some(Out::Ack(v1::ReportAck { sequence: 7 })));
    assert_eq!(world.fleet.heard()[1..], ["heartbeat of host-1", "report 7 of host-1"]);
    drop(agent);
    world.fleet.wait_until_heard("session 1 gone").await;
}

#[tokio::test]
async fn the_newest_stream_of_a_host_wins() {
    let world = World::start().await;
    let mut first = greeted(&world, "host-1").await;
    let mut second = greeted(&world, "host-1").await;
    assert_eq!(first.end().await, "SESSION_REPLACED");
    world.fleet.wait_until_heard("session 1 gone").await;
    second.say(In::Report(good_report(1))).await;
    assert_eq!(second.hear().await.unwrap(), Some(Out::Ack(v1::ReportAck { sequence: 1 })));
}

#[tokio::test]
async fn what_breaks_the_order_or_a_bound_ends_the_stream_with_its_reason() {
    let world = World::start().await;
    let mut silent = world.agent("host-1").await;
    silent.say(In::Report(good_report(1))).await;
    assert_eq!(silent.end().await, "REQUEST_INVALID");

    let mut twice = greeted(&world, "host-1").await;
    twice.say(In::Hello(good_hello())).await;
    assert_eq!(twice.end().await, "REQUEST_INVALID");

    let mut unknown = greeted(&world, "host-1").await;
    unknown.outbound.send(v1::ConnectRequest { message: None }).await.unwrap();
    assert_eq!(unknown.end().await, "REQUEST_INVALID");

    let mut old = world.agent("host-1").await;
    old.say(In::Hello(v1::Hello { protocol: 0, ..good_hello() })).await;
    assert_eq!(old.end().await, "PROTOCOL_MISMATCH");

    let mut wrong = greeted(&world, "host-1").await;
    wrong.say(In::Report(v1::Report { status: None, ..good_report(1) })).await;
    assert_eq!(wrong.end().await, "REQUEST_INVALID");

    let mut huge = world.agent("host-1").await;
    huge.say(In::Hello(v1::Hello { agent_version: "x".repeat(5_000_000), ..good_hello() })).await;
    assert_eq!(huge.end().await, "REQUEST_TOO_LARGE");
    assert!(!world.fleet.heard().iter().any(|line| line.starts_with("report")));
}

#[tokio::test]
async fn a_value_that_this_controller_does_not_know_ends_the_stream_and_is_named() {
    type Spoil = fn(&mut v1::PluginStatus);
    let cases: [(&str, Spoil); 5] = [
        ("service", |status| status.service = 99),
        ("trial.state", |status| status.trial.as_mut().unwrap().state = 99),
        ("trial.state", |status| status.trial.as_mut().unwrap().state = 0),
        ("trial.failure.fault", |status| failure(status).fault = 99),
        ("trial.failure.failed_state", |status| failure(status).failed_state = 99),
    ];
    let world = World::start().await;
    let (good, report) = (good_hello(), good_report(1));
    for (field, spoil) in cases {
        let mut hello = good.clone();
        spoil(&mut hello.plugins[0]);
        let mut agent = world.agent("host-1").await;
        agent.say(In::Hello(hello)).await;
        names(&format!("hello.plugins.{field}"), &agent.refusal().await.unwrap());

        let mut report = report.clone();
        spoil(report.status.as_mut().unwrap());
        let mut agent = greeted(&world, "host-1").await;
        agent.say(In::Report(report)).await;
        names(&format!("report.status.{field}"), &agent.refusal().await.unwrap());
    }
    assert!(!world.fleet.heard().iter().any(|line| line.starts_with("report")));
}

fn failure(status: &mut v1::PluginStatus) -> &mut v1::Failure {
    status.trial.as_mut().unwrap().failure.as_mut().unwrap()
}

#[tokio::test]
async fn an_id_that_is_missing_or_too_long_ends_the_stream_and_is_named() {
    let world = World::start().await;
    for session in [String::new(), "1".to_owned(), "x".repeat(200)] {
        let mut agent = world.agent("host-1").await;
        agent.say(In::Hello(v1::Hello { session, ..good_hello() })).await;
        names("hello.session", &agent.refusal().await.unwrap());
    }
    let release_id = |release_id: &str| {
        let mut report = good_report(1);
        let active = report.status.as_mut().unwrap().active.as_mut().unwrap();
        active.release_id = release_id.to_owned();
        report
    };
    for report in [release_id(""), release_id("abc"), release_id(&"a".repeat(2000))] {
        let mut agent = greeted(&world, "host-1").await;
        agent.say(In::Report(report)).await;
        names("report.status.active.release_id", &agent.refusal().await.unwrap());
    }
}

#[tokio::test]
async fn an_agent_that_says_nothing_is_let_go() {
    let world = World::start().await;
    let mut agent = world.agent("host-1").await;
    // Only the server's own deadline may pass, so this waits without one.
    tokio::time::pause();
    assert_eq!(code(&agent.inbound.message().await.unwrap_err()), "AGENT_SILENT");
}

#[tokio::test]
async fn a_stream_without_a_valid_identity_is_refused() {
    let world = World::start().await;
    let (id, name) = ("7c5f3c1e-54ad-4b8c-9a39-0f6a3f8c2d10", "host-1");
    let long = "x".repeat(129);
    let cases = [
        ("", name),
        ("7", name),
        ("00000000-0000-0000-0000-000000000000", name),
        (id, ""),
        (id, "a b"),
        (id, "../host"),
        (id, long.as_str()),
    ];
    for (id, name) in cases {
        let mut metadata = MetadataMap::new();
        metadata.insert(HOST_ID_KEY, id.parse().unwrap());
        metadata.insert(HOST_NAME_KEY, name.parse().unwrap());
        let status = world.agent_with(metadata).await.map(drop).unwrap_err();
        assert_eq!(code(&status), "HOST_IDENTITY_INVALID", "{id:?} {name:?}");
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    let status = world.agent_with(MetadataMap::new()).await.map(drop).unwrap_err();
    assert_eq!(code(&status), "HOST_IDENTITY_INVALID");
}

#[test]
fn identity_is_read_in_one_place_only() {
    let mut readers = Vec::new();
    search(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut readers);
    assert_eq!(readers, ["identity.rs"]);
}

/// The files that name the metadata keys or read a connection's metadata, tests aside.
fn search(folder: &Path, readers: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if name != "tests" {
                search(&path, readers);
            }
        } else if name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            if ["HOST_ID_KEY", "HOST_NAME_KEY", "fleetswap-host-"].iter().any(|key| text.contains(key)) {
                readers.push(name);
            }
        }
    }
}
