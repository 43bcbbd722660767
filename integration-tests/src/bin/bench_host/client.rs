//! The client of every HTTP row: connections that are kept, each with one call after the other.
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1, header::HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, task::JoinSet};

use super::stat::Sample;

/// What is called where.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) socket: PathBuf,
    pub(crate) path: &'static str,
    pub(crate) body: Bytes,
}

impl Target {
    /// `clock time` on a socket; the plain server answers it on any path.
    pub(crate) fn clock(socket: &Path) -> Self {
        let body = Bytes::from_static(br#"{"unix_seconds":1795500000}"#);
        Self { socket: socket.to_owned(), path: "/v1/call/clock/time", body }
    }
}

/// One open connection.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    target: Target,
    driver: tokio::task::AbortHandle,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let stream = UnixStream::connect(&target.socket).await.context("connecting")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self { sender, target: target.clone(), driver })
    }

    /// One call; its status.
    pub(crate) async fn call(&mut self) -> Result<u16> {
        let mut request = Request::new(Full::new(self.target.body.clone()));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = hyper::Uri::from_static(self.target.path);
        request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        response.into_body().collect().await?;
        Ok(status)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Calls on so many connections for so long.
///
/// # Errors
/// A call was not answered with 200: a benchmark of failures says nothing.
pub(crate) async fn run(target: &Target, connections: usize, time: Duration) -> Result<Sample> {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let mut connection = Connection::open(target).await?;
        // Warm, and it shows that it works.
        ensure!(connection.call().await? == 200, "{} is not answered with 200", target.path);
        tasks.spawn(async move {
            let mut took = Vec::with_capacity(64 * 1024);
            let started = Instant::now();
            while started.elapsed() < time {
                let sent = Instant::now();
                ensure!(connection.call().await? == 200, "a call failed");
                took.push(sent.elapsed());
            }
            anyhow::Ok(took)
        });
    }
    let started = Instant::now();
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.append(&mut done??);
    }
    Ok(Sample::new(took, started.elapsed()))
}
