//! The control socket: what `agent status` and `agent logs` ask. Only the agent's own user may open it.

mod status;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use fleetswap_proto::Explained;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    calls::Calls,
    keeper::Keeper,
    link::{LinkState, Standing},
    logs::{Line, Logs},
};

pub(crate) use status::{Release, Status, Trial};

/// Permission bits of the socket.
pub(crate) const SOCKET_MODE: u32 = 0o600;

/// Where the answers come from.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) name: String,
    pub(crate) host_id: String,
    pub(crate) controller: String,
    pub(crate) calls: Arc<dyn Calls>,
    pub(crate) keeper: Keeper,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) link: watch::Receiver<LinkState>,
    pub(crate) logs: Logs,
}

/// The lines of one plugin.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogReply {
    pub(crate) schema: u32,
    pub(crate) plugin: String,
    pub(crate) lines: Vec<Line>,
}

/// An error as it travels over the socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorReply {
    pub(crate) error: Explained,
}

/// `GET /status` and `GET /logs/{plugin}`.
pub(crate) fn router(sources: Sources) -> Router {
    Router::new().route("/status", get(status)).route("/logs/{plugin}", get(logs)).with_state(sources)
}

async fn status(State(sources): State<Sources>) -> Json<Status> {
    Json(Status::of(&sources))
}

async fn logs(State(sources): State<Sources>, Path(plugin): Path<String>) -> Response {
    let known = || sources.standing.borrow().plugins.contains_key(&plugin);
    match sources.logs.of(&plugin) {
        Some(lines) => Json(LogReply { schema: 1, plugin, lines }).into_response(),
        None if known() => Json(LogReply { schema: 1, plugin, lines: Vec::new() }).into_response(),
        None => {
            let error = Explained::new(
                "UNKNOWN_PLUGIN",
                format!("no plugin `{plugin}` on this host"),
                "it was never installed here, or it was removed before the agent started",
                "agent status lists the plugins of this host",
            );
            (StatusCode::NOT_FOUND, Json(ErrorReply { error })).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
