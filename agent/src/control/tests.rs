//! The questions that the control socket answers.

use std::collections::BTreeMap;

use axum::body::Body;
use fleetswap_proto::v1;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper_util::service::TowerToHyperService;

use super::*;
use crate::calls::{Answer, CallFailure, CallRequest, PluginInfo};

struct NoCalls;

impl Calls for NoCalls {
    fn call(&self, _: CallRequest) -> BoxFuture<'_, Answer> {
        Box::pin(async { Answer { tag: None, outcome: Err(CallFailure::Stopping) } })
    }

    fn plugins(&self) -> Vec<PluginInfo> {
        let functions = vec!["time".to_owned()];
        let (release_id, version) = (String::new(), String::new());
        vec![PluginInfo {
            plugin: "clock".to_owned(),
            service: "SERVING",
            release_id,
            version,
            functions,
            worker_pid: Some(7),
        }]
    }
}

fn clock() -> v1::PluginStatus {
    let release = |version: &str| v1::Release {
        plugin: "clock".to_owned(),
        version: version.to_owned(),
        revision: 1,
        release_id: "ab".repeat(32),
    };
    let failure = v1::Failure {
        failed_state: v1::HostState::Probing.into(),
        fault: v1::Fault::Release.into(),
        code: "PROBE_FAILED".to_owned(),
        ..v1::Failure::default()
    };
    let trial = v1::TrialStatus {
        candidate: Some(release("1.1.0")),
        state: v1::HostState::Rejected.into(),
        failure: Some(failure),
        ..v1::TrialStatus::default()
    };
    v1::PluginStatus {
        plugin: "clock".to_owned(),
        service: v1::ServiceState::Serving.into(),
        active: Some(release("1.0.0")),
        trial: Some(trial),
        ..v1::PluginStatus::default()
    }
}

fn sources() -> Sources {
    let plugins = BTreeMap::from([("clock".to_owned(), clock())]);
    let highest = v1::Generation { epoch: 1, n: 7 };
    let standing = Standing { highest, plugins, ..Standing::default() };
    let link = LinkState { last_error: "no connection".to_owned(), ..LinkState::default() };
    Sources {
        name: "host-1".to_owned(),
        host_id: "id".to_owned(),
        controller: "127.0.0.1:7443".to_owned(),
        calls: Arc::new(NoCalls),
        orders: Orders::default(),
        keeper: crate::keeper::testing(),
        standing: watch::channel(standing).1,
        link: watch::channel(link).1,
        sandbox: Told { level: "strict".to_owned(), ..Told::default() },
        logs: Logs::default(),
        stop: CancellationToken::new(),
    }
}

async fn get(path: &str) -> (u16, Vec<u8>) {
    let response = asked(sources(), path).await;
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn asked(sources: Sources, path: &str) -> axum::response::Response {
    let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
    let service = TowerToHyperService::new(router(sources));
    hyper::service::Service::call(&service, request).await.unwrap()
}

#[tokio::test]
async fn the_status_tells_of_link_plugins_and_the_last_trial() {
    let (code, body) = get("/status").await;
    let status: Status = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, status.schema, status.generation.n), (200, 1, 7));
    assert_eq!(
        (status.controller.connected, status.controller.last_error.as_str()),
        (false, "no connection")
    );
    assert_eq!(status.sandbox.level, "strict");
    let plugin = &status.plugins[0];
    assert_eq!((plugin.service.as_str(), plugin.functions.as_slice()), ("SERVING", &["time".to_owned()][..]));
    assert_eq!(plugin.active.as_ref().unwrap().version, "1.0.0");
    let trial = plugin.trial.as_ref().unwrap();
    let failure = trial.failure.as_ref().unwrap();
    assert_eq!((trial.state.as_str(), failure.failed_state.as_str()), ("REJECTED", "PROBING"));
    assert_eq!((failure.fault.as_str(), failure.code.as_str()), ("release", "PROBE_FAILED"));
}

#[tokio::test]
async fn logs_of_a_silent_plugin_are_empty_and_of_an_unknown_one_an_error() {
    let (code, body) = get("/logs/clock").await;
    let reply: LogReply = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, reply.lines.len()), (200, 0));
    let (code, body) = get("/logs/colck").await;
    let reply: ErrorReply = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, reply.error.code.as_ref()), (404, "UNKNOWN_PLUGIN"));
}

#[tokio::test]
async fn a_follower_is_told_what_was_what_comes_and_that_the_agent_stops() {
    let sources = sources();
    let release = fleetswap_update::Release {
        plugin: "clock".to_owned(),
        version: semver::Version::new(1, 0, 0),
        revision: 1,
        id: fleetswap_update::ReleaseId::new([7; 32]),
    };
    for text in ["one", "two"] {
        sources.logs.note("clock", release.id, text.to_owned());
    }
    let response = asked(sources.clone(), "/logs/clock?follow=true&lines=1").await;
    sources.logs.note("clock", release.id, "three".to_owned());
    sources.stop.cancel();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let events: Vec<Event> =
        body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let texts: Vec<&str> = events
        .iter()
        .filter_map(|event| if let Event::Line(line) = event { Some(&*line.text) } else { None })
        .collect();
    assert_eq!(
        (events.first(), events.last()),
        (Some(&Event::Following { known: true }), Some(&Event::Stopping))
    );
    assert_eq!((texts, events.len()), (vec!["two", "three"], 4));
}

#[tokio::test]
async fn a_plugin_that_is_still_to_come_can_be_followed_but_not_by_everybody() {
    let sources = sources();
    let mut all = Vec::new();
    for _ in 0..crate::logs::FOLLOWERS_MAX {
        let response = asked(sources.clone(), "/logs/later?follow=true").await;
        assert_eq!(response.status().as_u16(), 200);
        all.push(response);
    }
    let refused = asked(sources.clone(), "/logs/later?follow=true").await;
    assert_eq!(refused.status().as_u16(), 429);
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    let reply: ErrorReply = serde_json::from_slice(&body).unwrap();
    assert_eq!(reply.error.code, "TOO_MANY_FOLLOWERS");
    drop(all);
    assert_eq!(asked(sources, "/logs/later?follow=true").await.status().as_u16(), 200);
}
