//! A caller on the host: one HTTP call on the front's unix socket, on a connection of its own, never retried.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1, header::HeaderValue};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

/// Calls the plugins of one host.
#[derive(Clone, Debug)]
pub struct Caller {
    socket: PathBuf,
    timeout: Option<HeaderValue>,
}

/// What a call was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Fleetswap-Release`; empty if the reply names none.
    pub release: String,
    /// `Fleetswap-Version`; empty if the reply names none.
    pub version: String,
    /// The body as JSON; `Null` if it is none.
    pub body: Value,
}

/// Why there was no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The front could not be reached.
    #[error("connecting to the front")]
    Connect(#[source] std::io::Error),
    /// The connection broke before the reply was complete.
    #[error("the call broke off")]
    Http(#[from] hyper::Error),
    /// No reply in time.
    #[error("no reply within {0:?}")]
    Late(Duration),
}

impl Caller {
    /// For the front on this socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), timeout: None }
    }

    /// The same caller, asking for a deadline with the header `Fleetswap-Timeout`.
    #[must_use]
    pub fn with_timeout(mut self, timeout: &'static str) -> Self {
        self.timeout = Some(HeaderValue::from_static(timeout));
        self
    }

    /// One call, at most `limit` long.
    ///
    /// # Errors
    /// See [`CallError`]; an HTTP error status is a reply.
    pub async fn call(
        &self,
        plugin: &str,
        function: &str,
        input: Bytes,
        limit: Duration,
    ) -> Result<Reply, CallError> {
        timeout(limit, self.exchange(plugin, function, input)).await.unwrap_or(Err(CallError::Late(limit)))
    }

    async fn exchange(&self, plugin: &str, function: &str, input: Bytes) -> Result<Reply, CallError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(CallError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request = Request::new(Full::new(input));
        *request.method_mut() = hyper::Method::POST;
        if let Ok(uri) = format!("/v1/call/{plugin}/{function}").parse() {
            *request.uri_mut() = uri;
        }
        request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
        if let Some(timeout) = &self.timeout {
            request.headers_mut().insert("fleetswap-timeout", timeout.clone());
        }
        let response = sender.send_request(request).await?;
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (status, release, version) =
            (response.status().as_u16(), header("fleetswap-release"), header("fleetswap-version"));
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        Ok(Reply { status, release, version, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
    }
}
