//! The front: where callers on this host reach the plugins, over HTTP.

mod guard;
mod reply;
mod request;

use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{body::Body, service::Service};
use hyper_util::service::TowerToHyperService;
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

/// The front on one socket. A call goes straight to its plugin; all else is the router's.
#[derive(Clone)]
pub(crate) struct Door {
    front: Front,
    router: Router,
    /// Of a TCP socket, which is closed to what a browser's page could send.
    address: Option<SocketAddr>,
}

impl Door {
    /// For a unix socket: whoever may open the socket may call.
    pub(crate) fn open(calls: Arc<dyn Calls>, metrics: Arc<Metrics>) -> Self {
        let front = Front { calls, metrics };
        Self { router: router(front.clone()), front, address: None }
    }

    /// For a TCP socket with this address.
    pub(crate) fn guarded(self, address: SocketAddr) -> Self {
        Self { address: Some(address), ..self }
    }
}

/// What every answer's body is.
type Reply = Either<Full<Bytes>, axum::body::Body>;

impl<B> Service<hyper::Request<B>> for Door
where
    B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    type Response = hyper::Response<Reply>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: hyper::Request<B>) -> Self::Future {
        let foreign = self.address.and_then(|address| guard::refusal(address, request.headers()));
        if let Some(refusal) = foreign {
            return Box::pin(async { Ok(refusal.response().map(Either::Left)) });
        }
        if let Some((plugin, function)) = plain_names(request.method(), request.uri().path()) {
            let (plugin, function) = (plugin.to_owned(), function.to_owned());
            let front = self.front.clone();
            return Box::pin(
                async move { Ok(called(&front, plugin, function, request).await.map(Either::Left)) },
            );
        }
        let router = TowerToHyperService::new(self.router.clone());
        Box::pin(async move {
            let response = router.call(request.map(axum::body::Body::new)).await?;
            Ok(response.map(Either::Right))
        })
    }
}

/// Plugin and function of a call, if it is one without escapes in its path.
fn plain_names<'a>(method: &Method, path: &'a str) -> Option<(&'a str, &'a str)> {
    let names = path.strip_prefix("/v1/call/").filter(|names| method == Method::POST && !names.contains('%'));
    let (plugin, function) = names?.split_once('/')?;
    let plain = !plugin.is_empty() && !function.is_empty() && !function.contains('/');
    plain.then_some((plugin, function))
}

fn router(front: Front) -> Router {
    Router::new()
        .route("/v1/call/{plugin}/{function}", post(call))
        .route("/v1/plugins", get(plugins))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics_text))
        .fallback(async || Refusal::no_route().into_response())
        .method_not_allowed_fallback(async || Refusal::wrong_method().into_response())
        .with_state(front)
}

/// One call whose path has escapes.
async fn call(
    State(front): State<Front>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    // A name that is not even text names nothing here.
    let Ok(Path((plugin, function))) = path else { return Refusal::no_route().into_response() };
    Box::pin(called(&front, plugin, function, request)).await.into_response()
}

/// One call: read within its deadline, answered by its deadline.
async fn called<B: Body<Data = Bytes>>(
    front: &Front,
    plugin: String,
    function: String,
    request: hyper::Request<B>,
) -> hyper::Response<Full<Bytes>> {
    let asked = ask(&*front.calls, &plugin, function, request).await;
    let was_looked_up = asked.is_ok();
    let (response, outcome) = reply::of(asked);
    // A name that is not a plugin's must not become a label: a caller could make endless ones.
    let is_known = if was_looked_up { outcome != "UNKNOWN_PLUGIN" } else { front.knows(&plugin) };
    front.metrics.called(if is_known { &plugin } else { "" }, outcome);
    response
}

async fn ask<B: Body<Data = Bytes>>(
    calls: &dyn Calls,
    plugin: &str,
    function: String,
    request: hyper::Request<B>,
) -> Result<Answer, Refusal> {
    let timeout = request::timeout(request.headers())?;
    let deadline = Instant::now() + timeout;
    let input = timeout_at(deadline, request::body(request.into_body()))
        .await
        .unwrap_or_else(|_| Err(Refusal::body_too_slow()))?;
    let timeout = deadline.saturating_duration_since(Instant::now());
    let call = calls.call(CallRequest { plugin: plugin.to_owned(), function, input, timeout });
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
