//! Arguments, and what the commands print, against a router on a real socket.

use std::path::Path;

use axum::{
    Router,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use clap::CommandFactory;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::serve::{bind_unix, serve};

/// Serves a router until the end of the test.
fn served(dir: &Path, router: Router) -> PathBuf {
    let socket = dir.join("sock");
    let listener = bind_unix(&socket, 0o600, None).unwrap();
    let router = hyper_util::service::TowerToHyperService::new(router);
    tokio::spawn(serve(listener, move |_: &_| router.clone(), CancellationToken::new()));
    socket
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn each_command_takes_config_and_output() {
    for line in [
        "daemon --safe",
        "status",
        "call clock time {}",
        "logs clock",
        "logs clock -f -n 3",
        "hold clock --reason x",
    ] {
        let words = format!("agent {line} --config /x/agent.toml -o json");
        let command = Cli::try_parse_from(words.split(' ')).unwrap().command;
        assert_eq!(command.common().config, Path::new("/x/agent.toml"), "{line}");
        assert_eq!(command.common().output, Form::Json, "{line}");
    }
}

#[test]
fn wrong_arguments_are_a_usage_error() {
    let long = format!("agent call clock time {{}} --timeout {}", "9".repeat(99));
    for line in [
        "agent",
        "agent serve",
        "agent logs",
        "agent logs clock -n -1",
        "agent logs clock -n many",
        "agent call clock",
        "agent status -o yaml",
        "agent status x",
        "agent hold clock",
        "agent rollback --reason x",
        "agent status --safe",
        &long,
    ] {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn a_usage_error_is_json_where_json_was_asked_for() {
    let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>().into_iter();
    for line in [
        "agent status -o json x",
        "agent logs --output=json",
        "agent -ojson",
        "agent -o=json",
        "agent --output json",
    ] {
        assert_eq!(wanted_form(args(line)), Form::Json, "{line}");
    }
    assert_eq!(wanted_form(args("agent call clock json -o text")), Form::Text);
}

#[tokio::test]
async fn a_call_prints_the_output_and_knows_the_release() {
    let dir = tempfile::tempdir().unwrap();
    let answer = async |body: String| ([("fleetswap-version", "1.2.0")], body);
    let socket = served(dir.path(), Router::new().route("/v1/call/clock/time", post(answer)));
    let reply =
        ask::call(&socket, ["clock", "time"], "{\"text\":\"now\"}".to_owned(), Duration::from_secs(5))
            .await
            .unwrap();
    assert_eq!(reply.text(), "{\"text\":\"now\"}");
    let json: serde_json::Value = serde_json::from_str(&output::json(&reply)).unwrap();
    assert_eq!((&json["schema"], &json["version"]), (&1.into(), &"1.2.0".into()));
    assert_eq!(json["output"]["text"], "now");
}

#[tokio::test]
async fn a_refused_call_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let body = r#"{"error":{"code":"BAD_INPUT","message":"wanted a number","field":"unix_seconds"}}"#;
    let answer = async move || (StatusCode::BAD_REQUEST, body).into_response();
    let socket = served(dir.path(), Router::new().route("/v1/call/{p}/{f}", post(answer)));
    let failure =
        ask::call(&socket, ["../x", "time"], "{}".to_owned(), Duration::from_secs(5)).await.unwrap_err();
    let error = failure.error;
    assert_eq!(error.code, "BAD_INPUT");
    assert_eq!(error.what, "../x/time can't take the field `unix_seconds`: wanted a number");
}

#[tokio::test]
async fn without_a_daemon_the_socket_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = ask::status(&dir.path().join("none.sock")).await.unwrap_err();
    assert_eq!(error.code, "AGENT_UNREACHABLE");
    assert!(error.what.contains("none.sock: there is no such socket"), "{error}");
    let left = dir.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    let error = ask::logs(&left, "clock", None).await.unwrap_err();
    assert_eq!(error.code, "AGENT_UNREACHABLE");
    assert!(error.what.contains("nobody listens"), "{error}");
}

#[tokio::test]
async fn an_answer_of_something_else_is_not_taken_for_a_status() {
    let dir = tempfile::tempdir().unwrap();
    let socket = served(dir.path(), Router::new().route("/status", get(async || "hello")));
    let error = ask::status(&socket).await.unwrap_err();
    assert_eq!(error.code, "ANSWER_NOT_UNDERSTOOD");
}
