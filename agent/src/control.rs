//! The control socket: what `agent status` and `agent logs` ask. Only the agent's own user may open it.

mod logs;
mod overrides;
mod status;

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use fleetswap_proto::Explained;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    calls::Calls,
    keeper::Keeper,
    link::{LinkState, Standing},
    logs::Logs,
    run::Orders,
    sandbox::Told,
};

pub(crate) use logs::{Event, LogReply};
pub(crate) use overrides::{Ordered, OverrideReply, greet, word};
pub(crate) use status::{LocalOverride, Release, Status, Trial};

/// Permission bits of the socket.
pub(crate) const SOCKET_MODE: u32 = 0o600;

/// Where the answers come from.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) name: String,
    pub(crate) host_id: String,
    pub(crate) controller: String,
    pub(crate) calls: Arc<dyn Calls>,
    pub(crate) orders: Orders,
    pub(crate) keeper: Keeper,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) link: watch::Receiver<LinkState>,
    pub(crate) sandbox: Told,
    pub(crate) logs: Logs,
    /// The agent ends: so do those answers that have no end of their own.
    pub(crate) stop: CancellationToken,
}

/// An error as it travels over the socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorReply {
    pub(crate) error: Explained,
}

/// `GET /status`, `GET /logs/{plugin}`, and the orders of an operator.
pub(crate) fn router(sources: Sources) -> Router {
    let asked = Router::new().route("/status", get(status)).route("/logs/{plugin}", get(logs::answer));
    asked.merge(overrides::router()).with_state(sources)
}

async fn status(State(sources): State<Sources>) -> Json<Status> {
    Json(Status::of(&sources))
}

#[cfg(test)]
mod tests;
