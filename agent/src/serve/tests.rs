//! The end of serving, on real sockets.

use std::path::Path;

use axum::{Router, routing::get};
use hyper_util::service::TowerToHyperService;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{linger::LINGER, *};

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// `/quick` answers at once, `/slow` when it is let go.
struct Front {
    folder: tempfile::TempDir,
    stop: CancellationToken,
    let_go: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Front {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("front")).unwrap();
        let (stop, (let_go, gate)) = (CancellationToken::new(), watch::channel(false));
        let slow = async move || {
            let _ = gate.clone().wait_for(|go| *go).await;
            "slow"
        };
        let router = Router::new().route("/quick", get(async || "quick")).route("/slow", get(slow));
        let router = TowerToHyperService::new(router);
        let serving = tokio::spawn(serve(listener, move |_: &_| router.clone(), stop.clone()));
        Self { folder, stop, let_go, serving }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path().join("front")).await.unwrap()
    }
}

async fn send(stream: &mut UnixStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
}

/// One whole answer; its head in small letters, then its body.
async fn answer(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let whole = async {
        while !(text.ends_with(b"quick") || text.ends_with(b"slow")) {
            assert!(stream.read_buf(&mut text).await.unwrap() > 0, "it was closed without an answer");
        }
    };
    timeout(PATIENCE, whole).await.expect("no answer");
    String::from_utf8(text).unwrap().to_lowercase()
}

async fn is_closed(stream: &mut UnixStream) {
    let read = timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("it is still open");
    assert_eq!(read.unwrap(), 0);
}

#[tokio::test]
async fn a_call_that_comes_on_an_open_connection_after_the_end_has_begun_is_answered_as_its_last() {
    let front = Front::new();
    let mut stream = front.connect().await;
    send(&mut stream, "/quick").await;
    assert!(!answer(&mut stream).await.contains("connection: close"));
    front.stop.cancel();
    // The end is under way everywhere before the client goes on.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    send(&mut stream, "/quick").await;
    assert!(answer(&mut stream).await.contains("connection: close"));
    is_closed(&mut stream).await;
    timeout(PATIENCE, front.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_in_flight_at_the_end_is_answered_however_long_it_takes() {
    let front = Front::new();
    let mut stream = front.connect().await;
    send(&mut stream, "/slow").await;
    let mut other = front.connect().await;
    send(&mut other, "/quick").await;
    answer(&mut other).await;
    front.stop.cancel();
    is_closed(&mut other).await;
    front.let_go.send_replace(true);
    assert!(answer(&mut stream).await.contains("connection: close"));
    timeout(PATIENCE, front.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_linger_time_and_not_before() {
    let front = Front::new();
    let mut used = front.connect().await;
    send(&mut used, "/quick").await;
    answer(&mut used).await;
    let mut unused = front.connect().await;
    send(&mut front.connect().await, "/quick").await;
    let begun = Instant::now();
    front.stop.cancel();
    is_closed(&mut used).await;
    assert!(begun.elapsed() >= LINGER);
    is_closed(&mut unused).await;
    timeout(PATIENCE, front.serving).await.unwrap().unwrap();
}
