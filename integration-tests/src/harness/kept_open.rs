//! A caller that keeps its connection open between calls, as clients with a pool do. It never sends a call twice: a
//! connection that the other side has closed is opened anew before the next call, not after one was lost.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// Where it calls.
#[derive(Clone, Debug)]
enum Front {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// One caller.
#[derive(Debug)]
pub struct KeptOpen {
    front: Front,
    timeout: String,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// Connections that were opened.
    pub opened: u64,
}

impl KeptOpen {
    /// Over a unix socket; `timeout` as in the header `Fleetswap-Timeout`.
    #[must_use]
    pub fn unix(socket: &Path, timeout: &str) -> Self {
        Self::to(Front::Unix(socket.to_owned()), timeout)
    }

    /// Over TCP.
    #[must_use]
    pub fn tcp(address: SocketAddr, timeout: &str) -> Self {
        Self::to(Front::Tcp(address), timeout)
    }

    fn to(front: Front, timeout: &str) -> Self {
        Self { front, timeout: timeout.to_owned(), connection: None, opened: 0 }
    }

    /// Closes the connection: the next call opens another one.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// One call; HTTP status and body.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn call(&mut self, plugin: &str, function: &str, input: &str) -> Result<(u16, Value)> {
        let mut kept = self.connection.take();
        let is_open = match &mut kept {
            Some(kept) => kept.ready().await.is_ok(),
            None => false,
        };
        let mut connection = match kept.filter(|_| is_open) {
            Some(kept) => kept,
            None => self.open().await.context("opening a connection")?,
        };
        let host = match &self.front {
            Front::Unix(_) => "localhost".to_owned(),
            Front::Tcp(address) => address.to_string(),
        };
        let request = Request::post(format!("/v1/call/{plugin}/{function}"))
            .header("host", host)
            .header("fleetswap-timeout", &self.timeout)
            .body(Full::new(Bytes::copy_from_slice(input.as_bytes())))?;
        let response = connection.send_request(request).await.context("sending a call")?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.context("reading an answer")?.to_bytes();
        self.connection = Some(connection);
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    async fn open(&mut self) -> Result<SendRequest<Full<Bytes>>> {
        self.opened += 1;
        match &self.front {
            Front::Unix(path) => shake_hands(UnixStream::connect(path).await?).await,
            Front::Tcp(address) => shake_hands(TcpStream::connect(address).await?).await,
        }
    }
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // How it ends is told by the sender.
    tokio::spawn(connection);
    Ok(sender)
}
