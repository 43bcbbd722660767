//! Every way that a call can end: its status, its body, its headers.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use super::*;
use crate::calls::ReleaseTag;

/// Answers every call alike and keeps what it was asked.
struct Fixed {
    outcome: Mutex<Option<Result<Bytes, CallFailure>>>,
    asked: Mutex<Option<CallRequest>>,
}

impl Calls for Fixed {
    fn call(&self, request: CallRequest) -> BoxFuture<'_, Answer> {
        *self.asked.lock().unwrap() = Some(request);
        let outcome = self.outcome.lock().unwrap().take();
        Box::pin(async {
            let Some(outcome) = outcome else { return std::future::pending().await };
            let tag = ReleaseTag { release_id: "ab12".to_owned(), version: "1.2.0".to_owned() };
            Answer { tag: Some(Arc::new(tag)), outcome }
        })
    }

    fn plugins(&self) -> Vec<PluginInfo> {
        let functions = vec!["time".to_owned()];
        let (release_id, version) = ("ab12".to_owned(), "1.2.0".to_owned());
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

/// A front whose calls all end like this; without an outcome they never end.
fn front(outcome: Option<Result<Bytes, CallFailure>>) -> (Door, Arc<Fixed>, Arc<Metrics>) {
    let fixed = Arc::new(Fixed { outcome: Mutex::new(outcome), asked: Mutex::new(None) });
    let metrics = Arc::new(Metrics::new());
    (Door::open(fixed.clone(), metrics.clone()), fixed, metrics)
}

async fn send(door: Door, request: Request) -> (StatusCode, axum::http::HeaderMap, Bytes) {
    let response = door.call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes())
}

fn post_call(path: &str, body: impl Into<Body>) -> Request {
    Request::post(path).body(body.into()).unwrap()
}

async fn failing(failure: CallFailure) -> (u16, axum::http::HeaderMap, Value) {
    let (router, ..) = front(Some(Err(failure)));
    let (status, headers, body) = send(router, post_call("/v1/call/clock/time", "{}")).await;
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    (status.as_u16(), headers, body["error"].take())
}

#[tokio::test]
async fn an_output_comes_with_the_release_that_made_it() {
    let (router, fixed, metrics) = front(Some(Ok(Bytes::from_static(b"{\"text\":\"now\"}"))));
    let mut request = post_call("/v1/call/clock/time", "{\"unix_seconds\":0}");
    request.headers_mut().insert(TIMEOUT_HEADER, "2s".parse().unwrap());
    let (status, headers, body) = send(router, request).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"{\"text\":\"now\"}"[..]));
    assert_eq!(headers[RELEASE_HEADER], "ab12");
    assert_eq!(headers[VERSION_HEADER], "1.2.0");
    assert_eq!(headers["content-type"], "application/json");
    let asked = fixed.asked.lock().unwrap().clone().unwrap();
    assert_eq!((asked.plugin.as_str(), asked.function.as_str()), ("clock", "time"));
    assert_eq!(&asked.input[..], b"{\"unix_seconds\":0}");
    assert!(asked.timeout <= Duration::from_secs(2) && asked.timeout > Duration::from_secs(1));
    assert!(metrics.text().unwrap().contains("plugin=\"clock\",outcome=\"OK\""));
}

#[tokio::test]
async fn raw_output_is_not_called_json() {
    let (router, ..) = front(Some(Ok(Bytes::from_static(b"\xff\x00"))));
    let (_, headers, body) = send(router, post_call("/v1/call/checksum/sum", "x")).await;
    assert_eq!(
        (headers["content-type"].as_bytes(), &body[..]),
        (&b"application/octet-stream"[..], &b"\xff\x00"[..])
    );
}

#[tokio::test]
async fn every_failure_has_its_status_and_code() {
    let retry_after = Duration::from_millis(2_100);
    let died = CallFailure::WorkerDied { executed: "unknown" };
    let cases = [
        (CallFailure::UnknownPlugin("x".into()), 404, "UNKNOWN_PLUGIN"),
        (CallFailure::UnknownFunction("x".into()), 404, "UNKNOWN_FUNCTION"),
        (CallFailure::BadInput { field: "a.b".into(), message: "m".into() }, 400, "BAD_INPUT"),
        (CallFailure::Plugin { code: "OUT_OF_RANGE".into(), message: "m".into() }, 422, "PLUGIN_ERROR"),
        (CallFailure::TooLarge { what: "input", limit: 1 }, 413, "BODY_TOO_LARGE"),
        (CallFailure::TooLarge { what: "output", limit: 1 }, 500, "OUTPUT_TOO_LARGE"),
        (CallFailure::QueueFull, 429, "QUEUE_FULL"),
        (CallFailure::Panic("oh".into()), 500, "PLUGIN_PANICKED"),
        (died, 503, "WORKER_DIED"),
        (CallFailure::Down { retry_after }, 503, "PLUGIN_DOWN"),
        (CallFailure::Stopping, 503, "AGENT_STOPPING"),
        (CallFailure::SafeMode, 503, "AGENT_SAFE_MODE"),
        (CallFailure::Deadline, 504, "DEADLINE_EXCEEDED"),
    ];
    for (failure, status, code) in cases {
        let (got, headers, error) = failing(failure).await;
        assert_eq!((got, &error["code"]), (status, &json!(code)));
        assert!(!error["message"].as_str().unwrap().is_empty());
        let never_ran = status == 503 && code != "WORKER_DIED";
        assert_eq!(headers.contains_key("retry-after"), never_ran, "{code}");
        assert_eq!(headers[RELEASE_HEADER], "ab12");
    }
}

#[tokio::test]
async fn a_failure_says_what_the_caller_can_use() {
    let (.., bad) =
        failing(CallFailure::BadInput { field: "unix_seconds".into(), message: "a number".into() }).await;
    assert_eq!(bad, json!({"code": "BAD_INPUT", "field": "unix_seconds", "message": "a number"}));
    let (.., died) = failing(CallFailure::WorkerDied { executed: "unknown" }).await;
    assert_eq!(died["executed"], "unknown");
    let (.., own) =
        failing(CallFailure::Plugin { code: "OUT_OF_RANGE".into(), message: "too late".into() }).await;
    assert_eq!(own, json!({"code": "PLUGIN_ERROR", "plugin_code": "OUT_OF_RANGE", "message": "too late"}));
    let (_, headers, _) = failing(CallFailure::Down { retry_after: Duration::from_millis(2_100) }).await;
    assert_eq!(headers["retry-after"], "3", "rounded up");
}

#[tokio::test]
async fn a_body_that_is_too_large_never_reaches_the_plugin() {
    let (router, fixed, _) = front(Some(Ok(Bytes::new())));
    let (status, _, body) =
        send(router, post_call("/v1/call/clock/time", vec![b' '; request::BODY_MAX + 1])).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(String::from_utf8_lossy(&body).contains("BODY_TOO_LARGE"));
    assert!(fixed.asked.lock().unwrap().is_none());
    let (router, fixed, _) = front(Some(Ok(Bytes::new())));
    let (status, ..) = send(router, post_call("/v1/call/clock/time", vec![b' '; request::BODY_MAX])).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(fixed.asked.lock().unwrap().as_ref().unwrap().input.len(), request::BODY_MAX);
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up_at_the_deadline() {
    let (router, fixed, _) = front(Some(Ok(Bytes::new())));
    let endless = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let mut request = post_call("/v1/call/clock/time", Body::from_stream(endless));
    request.headers_mut().insert(TIMEOUT_HEADER, "50ms".parse().unwrap());
    let (status, _, body) = send(router, request).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    assert!(String::from_utf8_lossy(&body).contains("BODY_TOO_SLOW"));
    assert!(fixed.asked.lock().unwrap().is_none());
}

#[tokio::test]
async fn a_service_that_misses_the_deadline_does_not_hold_the_caller() {
    let (router, ..) = front(None);
    let started = Instant::now();
    let mut request = post_call("/v1/call/clock/time", "{}");
    request.headers_mut().insert(TIMEOUT_HEADER, "0.05".parse().unwrap());
    let (status, ..) = send(router, request).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_bad_timeout_is_named_as_a_field() {
    let (router, ..) = front(Some(Ok(Bytes::new())));
    let mut request = post_call("/v1/call/clock/time", "{}");
    request.headers_mut().insert(TIMEOUT_HEADER, "61".parse().unwrap());
    let (status, _, body) = send(router, request).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["field"], TIMEOUT_HEADER);
}

#[tokio::test]
async fn other_paths_and_methods_are_answered_in_json_too() {
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    for (path, status, code) in [
        ("/v1/call/clock", 404, "NO_ROUTE"),
        ("/v1/call/clock/time", 405, "WRONG_METHOD"),
        ("/", 404, "NO_ROUTE"),
    ] {
        let (got, _, body) = send(front(None).0, get(path)).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((got.as_u16(), &body["error"]["code"]), (status, &json!(code)), "{path}");
    }
    let (status, _, body) = send(front(None).0, post_call("/v1/call/%ff/time", "{}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(String::from_utf8_lossy(&body).contains("NO_ROUTE"));
    let (status, _, body) = send(front(None).0, get("/healthz")).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"ok\n"[..]));
    let (_, _, body) = send(front(None).0, get("/v1/plugins")).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["plugins"][0]["functions"], json!(["time"]));
}

#[tokio::test]
async fn names_that_no_plugin_has_do_not_become_labels() {
    let (router, _, metrics) = front(Some(Err(CallFailure::UnknownPlugin("made-up".into()))));
    let broken = || futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
    let endless = futures_util::stream::pending::<Result<Bytes, std::io::Error>>;
    for path in ["/v1/call/made-up/time", "/v1/call/clock/time"] {
        let mut impatient = post_call(path, "{}");
        impatient.headers_mut().insert(TIMEOUT_HEADER, "0".parse().unwrap());
        let mut slow = post_call(path, Body::from_stream(endless()));
        slow.headers_mut().insert(TIMEOUT_HEADER, "10ms".parse().unwrap());
        let large = post_call(path, vec![b' '; request::BODY_MAX + 1]);
        for refused in [impatient, slow, large, post_call(path, Body::from_stream(broken()))] {
            send(router.clone(), refused).await;
        }
    }
    send(router.clone(), post_call("/v1/call/made-up/time", "{}")).await;
    let (_, headers, text) = send(router, Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(headers["content-type"], Metrics::CONTENT_TYPE);
    let text = String::from_utf8_lossy(&text);
    for refusal in ["BAD_TIMEOUT", "BODY_TOO_SLOW", "BODY_TOO_LARGE", "BODY_BROKEN"] {
        for label in ["", "clock"] {
            assert!(text.contains(&format!("plugin=\"{label}\",outcome=\"{refusal}\"")), "{text}");
        }
    }
    assert!(text.contains("plugin=\"\",outcome=\"UNKNOWN_PLUGIN\""));
    assert!(!metrics.text().unwrap().contains("made-up"));
}

#[tokio::test]
async fn on_tcp_a_foreign_host_is_refused() {
    let guarded = front(Some(Ok(Bytes::new()))).0.guarded("127.0.0.1:80".parse().unwrap());
    let mut request = post_call("/v1/call/clock/time", "{}");
    request.headers_mut().insert("host", "evil.example:80".parse().unwrap());
    let (status, _, body) = send(guarded.clone(), request).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(String::from_utf8_lossy(&body).contains("FOREIGN_REQUEST"));
    let mut request = post_call("/v1/call/clock/time", "{}");
    request.headers_mut().insert("host", "127.0.0.1:80".parse().unwrap());
    assert_eq!(send(guarded, request).await.0, StatusCode::OK);
}

/// On a real socket: a request in flight at the stop still gets its answer, and then the server ends.
#[tokio::test]
async fn a_stop_waits_for_the_answer_in_flight() {
    let (entered, mut in_flight) = tokio::sync::mpsc::channel::<()>(1);
    let (release, released) = tokio::sync::watch::channel(false);
    let slow = Router::new().route(
        "/",
        get(move || {
            let (entered, mut released) = (entered.clone(), released.clone());
            async move {
                entered.send(()).await.unwrap();
                released.wait_for(|released| *released).await.unwrap();
                "answered"
            }
        }),
    );
    let listener = crate::serve::bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let slow = TowerToHyperService::new(slow);
    let server = tokio::spawn(crate::serve::serve(listener, move |_: &_| slow.clone(), stop.clone()));
    let caller = tokio::spawn(async move { reqwest::get(url).await.unwrap().text().await.unwrap() });
    in_flight.recv().await.unwrap();
    stop.cancel();
    release.send(true).unwrap();
    assert_eq!(caller.await.unwrap(), "answered");
    let started = Instant::now();
    server.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
}
