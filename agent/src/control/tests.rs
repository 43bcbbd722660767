//! The two questions that the control socket answers.

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
        keeper: crate::keeper::testing(),
        standing: watch::channel(standing).1,
        link: watch::channel(link).1,
        logs: Logs::default(),
    }
}

async fn get(path: &str) -> (u16, Vec<u8>) {
    let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
    let service = TowerToHyperService::new(router(sources()));
    let response = hyper::service::Service::call(&service, request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
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
