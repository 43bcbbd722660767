//! Serving a router on a socket: bounded connections, bounded heads, and an orderly end.

mod inherited;
mod linger;
mod socket;

use std::{convert::Infallible, error::Error, io, time::Duration};

use hyper::{Request, Response, body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use linger::Calls;

pub(crate) use inherited::{Inherited, Paths};
pub(crate) use socket::{bind_tcp, bind_unix};

/// Most open connections of one socket; further ones wait in its backlog.
const CONNECTIONS_MAX: usize = 1_024;
/// Longest wait for the head of a request, an idle connection's next one included.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// Largest head, in bytes; also the read buffer of a connection.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Pause after a failed accept: with no descriptor left the next one fails as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What can be accepted from.
pub(crate) trait Accept: Send {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Waits for the next connection.
    fn next(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&mut self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&mut self) -> io::Result<Self::Stream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// What answers requests.
pub(crate) trait Answers:
    Service<Request<Incoming>, Response = Response<Self::Out>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
    /// The body of an answer.
    type Out: hyper::body::Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;
}

impl<S, B> Answers for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: hyper::body::Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Out = B;
}

/// Serves each connection with what `greet` gives it, until `stop`; then accepts nothing more, and returns when the
/// requests in flight have their answers and what a client was just about to send on an open connection has as well.
pub(crate) async fn serve<L: Accept, A: Answers>(
    mut listener: L,
    greet: impl Fn(&L::Stream) -> A + Send,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let places = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                // Never closed, so there is always a place at some time.
                let place = places.clone().acquire_owned().await.ok();
                (place, listener.next().await)
            } => accepted,
        };
        match accepted {
            (place, Ok(stream)) => {
                let answers = greet(&stream);
                let connection = connection(stream, answers, stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    answers: impl Answers,
    stop: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
    let calls = Calls::default();
    let connection = http.serve_connection(TokioIo::new(stream), calls.noted(answers));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async {
            stop.cancelled().await;
            calls.last().await;
        } => {
            if calls.are_none() {
                // It was opened and never used: there is nothing to finish.
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests;
