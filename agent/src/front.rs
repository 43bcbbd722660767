//! The front: where callers on this host reach the plugins, over HTTP.

mod guard;
mod reply;
mod request;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    calls::{Answer, CallFailure, CallRequest, Calls, PluginInfo},
    metrics::Metrics,
};
use reply::Refusal;

pub(crate) use request::TIMEOUT_HEADER;

/// Header of a reply: id of the release that answered.
pub(crate) const RELEASE_HEADER: &str = "fleetswap-release";
/// Header of a reply: version of the release that answered.
pub(crate) const VERSION_HEADER: &str = "fleetswap-version";

/// What every request needs.
#[derive(Clone)]
struct Front {
    calls: Arc<dyn Calls>,
    metrics: Arc<Metrics>,
}

impl Front {
    fn knows(&self, plugin: &str) -> bool {
        self.calls.plugins().iter().any(|info| info.plugin == plugin)
    }
}

/// The front for a unix socket: whoever may open the socket may call.
pub(crate) fn router(calls: Arc<dyn Calls>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/v1/call/{plugin}/{function}", post(call))
        .route("/v1/plugins", get(plugins))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics_text))
        .fallback(async || Refusal::no_route().into_response())
        .method_not_allowed_fallback(async || Refusal::wrong_method().into_response())
        .with_state(Front { calls, metrics })
}

/// The front for a TCP socket: the same, closed to what a browser's page could send.
pub(crate) fn guarded(router: Router, address: SocketAddr) -> Router {
    router.layer(middleware::from_fn(move |request, next| guard::check(address, request, next)))
}

/// One call: read within its deadline, answered by its deadline.
async fn call(
    State(front): State<Front>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    // A name that is not even text names nothing here.
    let Ok(Path((plugin, function))) = path else { return Refusal::no_route().into_response() };
    let answer = Box::pin(answer(&*front.calls, plugin.clone(), function, request)).await;
    let was_looked_up = answer.is_ok();
    let (response, outcome) = reply::of(answer);
    // A name that is not a plugin's must not become a label: a caller could make endless ones.
    let is_known = if was_looked_up { outcome != "UNKNOWN_PLUGIN" } else { front.knows(&plugin) };
    front.metrics.called(if is_known { &plugin } else { "" }, outcome);
    response
}

async fn answer(
    calls: &dyn Calls,
    plugin: String,
    function: String,
    request: Request,
) -> Result<Answer, Refusal> {
    let timeout = request::timeout(request.headers())?;
    let deadline = Instant::now() + timeout;
    let input = timeout_at(deadline, request::body(request.into_body()))
        .await
        .unwrap_or_else(|_| Err(Refusal::body_too_slow()))?;
    let timeout = deadline.saturating_duration_since(Instant::now());
    let call = calls.call(CallRequest { plugin, function, input, timeout });
    let late = |_| Answer { tag: None, outcome: Err(CallFailure::Deadline) };
    Ok(timeout_at(deadline + request::GRACE, call).await.unwrap_or_else(late))
}

#[derive(serde::Serialize)]
struct Plugins {
    plugins: Vec<PluginInfo>,
}

async fn plugins(State(front): State<Front>) -> Json<Plugins> {
    Json(Plugins { plugins: front.calls.plugins() })
}

/// The agent answers; a plugin that is down does not make the agent unhealthy.
async fn healthz() -> &'static str {
    "ok\n"
}

async fn metrics_text(State(front): State<Front>) -> Response {
    match front.metrics.text() {
        Ok(text) => ([("content-type", Metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests;
