//! The baseline: the function of `clock` 1.0.0 in a plain hyper server, in a process of its own.
use std::{convert::Infallible, path::Path, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{net::UnixListener, runtime::Builder};

/// As in the agent: bounds of a head, of a body, and of the wait for a head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_MAX: usize = 1024 * 1024;
const HEAD_MAX: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeRequest {
    unix_seconds: Option<i64>,
}

#[derive(Serialize)]
struct TimeReply {
    text: String,
    unix_seconds: i64,
}

/// Serves on this socket until the process is killed. Same runtime, HTTP library and settings as the agent's front.
///
/// # Errors
/// The socket can't be made.
pub(crate) fn serve(socket: &Path) -> Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    runtime.block_on(async {
        let listener = UnixListener::bind(socket).context("the socket of the plain server")?;
        println!("plain server ready");
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
                // A client that goes away ends its connection.
                drop(http.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
            });
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
    let output = body.ok().and_then(|body| time(&body.to_bytes()));
    let mut response = Response::new(Full::new(output.clone().unwrap_or_default()));
    if output.is_none() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn time(input: &[u8]) -> Option<Bytes> {
    let request: TimeRequest = serde_json::from_slice(input).ok()?;
    let at = match request.unix_seconds {
        Some(second) => Timestamp::from_second(second).ok()?,
        None => Timestamp::now(),
    };
    let text = at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    serde_json::to_vec(&TimeReply { text, unix_seconds: at.as_second() }).ok().map(Bytes::from)
}
