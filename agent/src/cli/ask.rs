//! Questions to the daemon, over its sockets.

use std::{path::Path, time::Duration};

use fleetswap_proto::Explained;
use reqwest::{Client, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    door::{Door, unreachable},
    failure::Failure,
    refusal::{Called, Refused},
};
use crate::{
    control::{ErrorReply, LogReply, Ordered, OverrideReply, Status, word},
    front::{RELEASE_HEADER, TIMEOUT_HEADER, VERSION_HEADER},
    run::{ORDER_MAX, Verb},
};

/// Longest wait for the daemon's answer about itself.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How much longer than the call itself its answer may take.
const CALL_EXTRA: Duration = Duration::from_secs(5);
/// Largest answer, in bytes: a status with many plugins has a record of each failure.
const REPLY_MAX: usize = 64 * 1024 * 1024;

/// A call's output.
#[derive(Debug, Serialize)]
pub(super) struct Reply {
    schema: u32,
    version: String,
    release_id: String,
    output: Value,
}

impl Reply {
    /// The output alone.
    pub(super) fn text(&self) -> String {
        match &self.output {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

pub(super) async fn status(socket: &Path) -> Result<Status, Explained> {
    read(ask(socket, "status").await?).await
}

/// `count`: lines at most; none for all that are kept.
pub(super) async fn logs(socket: &Path, plugin: &str, count: Option<u32>) -> Result<LogReply, Explained> {
    let count = count.map(|count| format!("?lines={count}")).unwrap_or_default();
    read(ask(socket, &format!("logs/{}{count}", escaped(plugin))).await?).await
}

/// The beginning of an answer that goes on for as long as the agent does.
pub(super) async fn follow(socket: &Path, plugin: &str, count: u32) -> Result<Response, Explained> {
    let url = format!("http://localhost/logs/{}?follow=true&lines={count}", escaped(plugin));
    let response = timeout(ANSWER_MAX, client(socket, Door::Control)?.get(url).send()).await;
    let response = response.map_err(|_| not_understood("no answer came in time"))?;
    let response = response.map_err(|error| unreachable(socket, Door::Control, &error))?;
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    Err(read::<Value>(response).await.err().unwrap_or_else(|| not_understood("it is no stream")))
}

/// Gives an order about a plugin; the daemon answers when it is durable, and a rollback when it is done.
pub(super) async fn order(
    socket: &Path,
    verb: Verb,
    (plugin, reason): (&str, String),
) -> Result<OverrideReply, Explained> {
    let url = format!("http://localhost/{}/{}", word(verb), escaped(plugin));
    let body = serde_json::json!(Ordered { reason }).to_string();
    let request = client(socket, Door::Control)?
        .post(url)
        .header("content-type", "application/json")
        .timeout(ORDER_MAX.saturating_add(ANSWER_MAX))
        .body(body);
    read(request.send().await.map_err(|error| unreachable(socket, Door::Control, &error))?).await
}

/// `target`: plugin and function.
pub(super) async fn call(
    socket: &Path,
    target: [&str; 2],
    input: String,
    time: Duration,
) -> Result<Reply, Failure> {
    let url = format!("http://localhost/v1/call/{}/{}", escaped(target[0]), escaped(target[1]));
    let request = client(socket, Door::Front)?
        .post(url)
        .header(TIMEOUT_HEADER, time.as_secs_f64().to_string())
        .timeout(time.saturating_add(CALL_EXTRA))
        .body(input);
    let response = request.send().await.map_err(|error| unreachable(socket, Door::Front, &error))?;
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (version, release_id, status) = (header(VERSION_HEADER), header(RELEASE_HEADER), response.status());
    let body = body(response).await?;
    if status != StatusCode::OK {
        let refused: Refused = serde_json::from_slice(&body)
            .map_err(|_| not_understood(&format!("status {status} without an error that can be read")))?;
        return Err(refused.explain(&Called { plugin: target[0], function: target[1], version: &version }));
    }
    let output = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    Ok(Reply { schema: 1, version, release_id, output })
}

async fn ask(socket: &Path, path: &str) -> Result<Response, Explained> {
    let request = client(socket, Door::Control)?.get(format!("http://localhost/{path}")).timeout(ANSWER_MAX);
    request.send().await.map_err(|error| unreachable(socket, Door::Control, &error))
}

fn client(socket: &Path, door: Door) -> Result<Client, Explained> {
    // TLS is never used on a unix socket; without roots of its own the client can always be made.
    let client = Client::builder().unix_socket(socket).tls_certs_only([]);
    client.build().map_err(|error| unreachable(socket, door, &error))
}

/// A successful answer of the control socket, or the error that it carries.
async fn read<T: DeserializeOwned>(response: Response) -> Result<T, Explained> {
    let status = response.status();
    let body = body(response).await?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| not_understood(&error.to_string()));
    }
    match serde_json::from_slice::<ErrorReply>(&body) {
        Ok(reply) => Err(reply.error),
        Err(_) => Err(not_understood(&format!("status {status}"))),
    }
}

async fn body(mut response: Response) -> Result<Vec<u8>, Explained> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| not_understood(&error.to_string()))? {
        body.extend_from_slice(&chunk);
        if body.len() > REPLY_MAX {
            return Err(not_understood("the answer is too large"));
        }
    }
    Ok(body)
}

pub(super) fn not_understood(why: &str) -> Explained {
    Explained::new(
        "ANSWER_NOT_UNDERSTOOD",
        "the agent's answer can't be read",
        why,
        "see that agent daemon and this command are of one version, and that the socket is the agent's",
    )
}

/// A name as one segment of a path.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(escape).collect()
}
