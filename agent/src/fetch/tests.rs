//! Mirrors that lie, stall, send too much or too little; a controller that is asked last.

use std::{
    fs,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use fleetswap_proto::v1::bytes_service_server::{BytesService, BytesServiceServer};
use futures_util::stream;
use tokio::net::TcpListener;
use tokio_stream::{
    Stream,
    wrappers::{IntervalStream, TcpListenerStream},
};
use tonic::{Response as Reply, transport::Server};

use super::{pace::Share, *};
use crate::{durable::StateDir, link::endpoint};

const SECOND: Duration = Duration::from_secs(1);

/// What the tests fetch: long enough for several chunks.
fn content() -> Vec<u8> {
    (0..10_000_u32).flat_map(u32::to_le_bytes).collect()
}

type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A controller's byte service over one blob; `None`: it has none.
struct Bytewise {
    blob: Option<Vec<u8>>,
    metadata: Vec<v1::GetMetadataResponse>,
    offsets: Arc<Mutex<Vec<u64>>>,
}

#[tonic::async_trait]
impl BytesService for Bytewise {
    type GetMetadataStream = Chunks<v1::GetMetadataResponse>;
    type GetBlobStream = Chunks<v1::GetBlobResponse>;

    async fn get_metadata(
        &self,
        _: tonic::Request<v1::GetMetadataRequest>,
    ) -> Result<Reply<Self::GetMetadataStream>, Status> {
        Ok(Reply::new(Box::pin(stream::iter(self.metadata.clone().into_iter().map(Ok)))))
    }

    async fn get_blob(
        &self,
        request: tonic::Request<v1::GetBlobRequest>,
    ) -> Result<Reply<Self::GetBlobStream>, Status> {
        let offset = request.into_inner().offset;
        self.offsets.lock().unwrap().push(offset);
        let blob = self.blob.clone().ok_or_else(|| Status::not_found("no such blob"))?;
        let total = blob.len() as u64;
        let rest = blob[usize::try_from(offset).unwrap()..].to_vec();
        let chunks: Vec<_> =
            rest.chunks(7_000).map(|data| Ok(v1::GetBlobResponse { data: data.to_vec(), total })).collect();
        Ok(Reply::new(Box::pin(stream::iter(chunks))))
    }
}

struct World {
    _dir: tempfile::TempDir,
    _state: StateDir,
    fetcher: Fetcher,
    sha256: Digest,
    length: u64,
    offsets: Arc<Mutex<Vec<u64>>>,
}

async fn controller(service: Bytewise) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(
        Server::builder().add_service(BytesServiceServer::new(service)).serve_with_incoming(incoming),
    );
    address
}

/// A mirror that answers every request like this.
async fn mirror(answer: impl Fn(HeaderMap) -> Response + Clone + Send + Sync + 'static) -> Url {
    let listener = crate::serve::bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}/blobs", listener.local_addr().unwrap());
    let router = Router::new().fallback(move |request: Request| {
        let answer = answer.clone();
        async move {
            assert!(request.uri().path().starts_with("/blobs/") && request.uri().path().len() == 71);
            answer(request.headers().clone())
        }
    });
    let router = hyper_util::service::TowerToHyperService::new(router);
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(crate::serve::serve(listener, move |_: &_| router.clone(), stop));
    url.parse().unwrap()
}

async fn world(mirrors: &[Url], blob: Option<Vec<u8>>, metadata: Vec<v1::GetMetadataResponse>) -> World {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("state")).unwrap();
    let offsets = Arc::default();
    let address = controller(Bytewise { blob, metadata, offsets: Arc::clone(&offsets) }).await;
    let identity = Identity::new("id", "host").unwrap();
    let mut fetcher = Fetcher::new(state.blobs(), &endpoint(address), identity, mirrors).unwrap();
    let share = Share { head: SECOND, grace: 2 * SECOND, time: 60 * SECOND, rate_min: 1 };
    fetcher.timing = Timing { no_progress: SECOND, window: SECOND, window_bytes: 10_000, share };
    let content = content();
    World {
        _dir: dir,
        _state: state,
        fetcher,
        sha256: Digest::of(&content),
        length: content.len() as u64,
        offsets,
    }
}

impl World {
    async fn fetch(&self) -> Result<Vec<u8>, FetchError> {
        let path = self.fetcher.blob(self.sha256, self.length).await?;
        Ok(fs::read(path).unwrap())
    }

    fn leave(&self, part: &[u8]) {
        fs::write(self.fetcher.blobs.part(self.sha256), part).unwrap();
    }

    fn asked_of_the_controller(&self) -> Vec<u64> {
        self.offsets.lock().unwrap().clone()
    }
}

/// What was tried, when nobody has the blob.
async fn tried(mirror: Url) -> String {
    let world = world(&[mirror], None, Vec::new()).await;
    match world.fetch().await {
        Err(FetchError::NoSource { tried, .. }) => tried[0].clone(),
        other => panic!("wanted no source, got {other:?}"),
    }
}

fn chunked(chunks: Vec<Vec<u8>>) -> Response {
    Body::from_stream(stream::iter(
        chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk))),
    ))
    .into_response()
}

/// Serves the content as a proper file server does.
fn honest(headers: &HeaderMap) -> Response {
    let content = content();
    let Some(range) = headers.get(header::RANGE) else { return content.into_response() };
    let from: usize = range.to_str().unwrap()["bytes=".len()..].trim_end_matches('-').parse().unwrap();
    let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], content[from..].to_vec()).into_response()
}

#[tokio::test]
async fn a_mirror_is_asked_before_the_controller() {
    let world = world(&[mirror(|headers| honest(&headers)).await], Some(content()), Vec::new()).await;
    assert_eq!(world.fetch().await.unwrap(), content());
    assert!(world.asked_of_the_controller().is_empty());
    fs::remove_file(world.fetcher.blobs.part(world.sha256)).unwrap_err();
    assert_eq!(world.fetch().await.unwrap(), content(), "what is here is not fetched again");
}

#[tokio::test]
async fn every_bad_mirror_costs_only_its_own_place() {
    let wrong = || content().into_iter().map(|byte| byte ^ 1).collect::<Vec<_>>();
    let endless = || stream::pending::<Result<Bytes, std::io::Error>>();
    let mirrors = [
        mirror(|_| StatusCode::NOT_FOUND.into_response()).await,
        mirror(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response()).await,
        mirror(move |_| wrong().into_response()).await,
        mirror(|_| content()[..100].to_vec().into_response()).await,
        mirror(|_| chunked(vec![content(), vec![0]])).await,
        mirror(|_| chunked(vec![content()[..5_000].to_vec()])).await,
        mirror(move |_| Body::from_stream(endless()).into_response()).await,
        "http://127.0.0.1:1/".parse().unwrap(),
    ];
    let world = world(&mirrors, Some(content()), Vec::new()).await;
    assert_eq!(world.fetch().await.unwrap(), content());
    assert_eq!(world.asked_of_the_controller().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_failed_is_asked_last_for_a_while() {
    let now = Some(Instant::now());
    assert_eq!(order(&[now, None, now, None]), [1, 3, 0, 2]);
    tokio::time::advance(DEMOTION).await;
    assert_eq!(order(&[now, None, None]), [0, 1, 2]);
}

#[tokio::test]
async fn a_mirror_that_lied_about_one_blob_is_not_asked_first_for_the_next() {
    let asked = Arc::new(AtomicUsize::new(0));
    let lies = mirror({
        let asked = Arc::clone(&asked);
        move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            vec![0_u8; content().len()].into_response()
        }
    })
    .await;
    let world = world(&[lies], Some(content()), Vec::new()).await;
    world.fetch().await.unwrap();
    fs::remove_file(world.fetcher.blobs.path(world.sha256)).unwrap();
    world.fetch().await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_reason_names_what_was_wrong() {
    let wrong = || content().into_iter().map(|byte| byte ^ 1).collect::<Vec<_>>();
    assert!(tried(mirror(|_| StatusCode::NOT_FOUND.into_response()).await).await.contains("doesn't have"));
    assert!(tried(mirror(|_| StatusCode::FORBIDDEN.into_response()).await).await.contains("status 403"));
    assert!(tried(mirror(move |_| wrong().into_response()).await).await.contains("SHA-256 is wrong"));
    assert!(tried(mirror(|_| content()[..9].to_vec().into_response()).await).await.contains("has 9 bytes"));
    assert!(tried(mirror(|_| chunked(vec![content(), vec![0]])).await).await.contains("more bytes"));
    assert!(tried(mirror(|_| chunked(vec![vec![1]])).await).await.contains("fewer bytes"));
    assert!(tried(mirror(|_| silent()).await).await.contains("no byte"));
    let foreign = |_| (StatusCode::PARTIAL_CONTENT, content()).into_response();
    assert!(tried(mirror(foreign).await).await.contains("another range"));
}

#[tokio::test]
async fn a_trickle_is_too_slow() {
    let trickle = || {
        let ticks = IntervalStream::new(tokio::time::interval(Duration::from_millis(20)));
        Body::from_stream(ticks.map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"x")))).into_response()
    };
    assert!(tried(mirror(move |_| trickle()).await).await.contains("too slow"));
}

/// The content, so many bytes every 20 ms.
fn slowly(bytes: usize) -> Response {
    let ticks = IntervalStream::new(tokio::time::interval(Duration::from_millis(20)));
    let chunks = stream::iter(content().chunks(bytes).map(Bytes::copy_from_slice).collect::<Vec<_>>());
    Body::from_stream(ticks.zip(chunks).map(|(_, chunk)| Ok::<_, std::io::Error>(chunk))).into_response()
}

fn silent() -> Response {
    Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()).into_response()
}

#[tokio::test]
async fn a_slow_mirror_loses_its_place_and_what_it_brought_is_gone_on_with() {
    let mut world = world(&[mirror(|_| slowly(100)).await], Some(content()), Vec::new()).await;
    let Timing { window_bytes, share, .. } = &mut world.fetcher.timing;
    (*window_bytes, share.grace, share.time) = (1, Duration::from_millis(200), SECOND);
    let started = Instant::now();
    assert_eq!(world.fetch().await.unwrap(), content());
    assert!(started.elapsed() < 3 * SECOND, "8 s at the mirror's pace: {:?}", started.elapsed());
    let asked = world.asked_of_the_controller();
    assert!(asked.len() == 1 && asked[0] > 0, "{asked:?}");
}

#[tokio::test]
async fn a_slow_mirror_with_nobody_behind_it_is_heard_out() {
    let mut world = world(&[mirror(|_| slowly(4_000)).await], None, Vec::new()).await;
    let share = &mut world.fetcher.timing.share;
    (share.grace, share.rate_min) = (Duration::ZERO, 1_000_000);
    assert_eq!(world.fetch().await.unwrap_err().code(), "FETCH_FAILED");
    world.fetcher.sources.pop();
    world.fetcher.failed().pop();
    assert_eq!(world.fetch().await.unwrap(), content());
}

#[tokio::test]
async fn mirrors_share_their_time_and_then_the_controller_is_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = mirror({
        let asked = Arc::clone(&asked);
        move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            StatusCode::NOT_FOUND.into_response()
        }
    });
    let mirrors = [mirror(|_| silent()).await, counted.await];
    let mut world = world(&mirrors, Some(content()), Vec::new()).await;
    world.fetcher.timing.share.time = Duration::from_millis(100);
    assert_eq!(world.fetch().await.unwrap(), content());
    assert_eq!(asked.load(Ordering::Relaxed), 0, "the first one took all the time");
    assert_eq!(order(&world.fetcher.failed()), [1, 2, 0], "which is no fault of the second one");
}

#[tokio::test]
async fn a_mirror_from_which_a_fetch_was_given_up_is_asked_last_the_next_time() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let silent = move |_: HeaderMap| {
        asked.send(()).unwrap();
        silent()
    };
    let world = world(&[mirror(silent).await], Some(content()), Vec::new()).await;
    tokio::select! {
        _ = world.fetch() => panic!("nobody sent anything"),
        asked = was_asked.recv() => asked.unwrap(),
    }
    assert_eq!(world.fetch().await.unwrap(), content());
    assert!(was_asked.try_recv().is_err(), "the controller came first");
}

#[tokio::test]
async fn a_fetch_that_is_given_up_keeps_its_turn_until_its_last_write_is_over() {
    let world = world(&[], None, Vec::new()).await;
    let Fetcher { blobs, turns, .. } = &world.fetcher;
    let here = std::thread::current().id();
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    let disk = Disk::take(blobs, turns).await;
    let mut write = Box::pin(disk.run(move |_| {
        assert_ne!(std::thread::current().id(), here, "callers are served on this one");
        may_go.recv().unwrap();
        Ok(())
    }));
    assert!(futures_util::poll!(&mut write).is_pending());
    drop(write);
    drop(disk);
    let mut next = Box::pin(Disk::take(blobs, turns));
    assert!(futures_util::poll!(&mut next).is_pending());
    go.send(()).unwrap();
    next.await;
}

#[tokio::test]
async fn a_partial_file_is_gone_on_with() {
    let world = world(&[], Some(content()), Vec::new()).await;
    world.leave(&content()[..12_345]);
    assert_eq!(world.fetch().await.unwrap(), content());
    assert_eq!(world.asked_of_the_controller(), [12_345]);
}

#[tokio::test]
async fn a_mirror_may_ignore_the_range() {
    let world = world(&[mirror(|_| content().into_response()).await], None, Vec::new()).await;
    world.leave(b"something");
    assert_eq!(world.fetch().await.unwrap(), content());
}

#[tokio::test]
async fn wrong_bytes_of_an_earlier_source_are_not_blamed_on_the_next() {
    let world = world(&[], Some(content()), Vec::new()).await;
    world.leave(b"not how the content begins");
    assert_eq!(world.fetch().await.unwrap(), content());
    assert_eq!(world.asked_of_the_controller(), [26, 0]);
}

#[tokio::test]
async fn a_whole_partial_file_needs_no_source_and_a_longer_one_starts_anew() {
    let world = world(&[], Some(content()), Vec::new()).await;
    world.leave(&content());
    assert_eq!(world.fetch().await.unwrap(), content());
    assert!(world.asked_of_the_controller().is_empty());
    fs::remove_file(world.fetcher.blobs.path(world.sha256)).unwrap();
    world.leave(&[content(), vec![0]].concat());
    assert_eq!(world.fetch().await.unwrap(), content());
    assert_eq!(world.asked_of_the_controller(), [0]);
}

#[tokio::test]
async fn a_source_that_lied_leaves_nothing_behind_and_one_that_stopped_leaves_its_part() {
    let too_much = mirror(|_| chunked(vec![content()[..9].to_vec(), content(), vec![0]])).await;
    let world_of_lies = world(&[too_much], None, Vec::new()).await;
    assert_eq!(world_of_lies.fetch().await.unwrap_err().code(), "FETCH_FAILED");
    let part = |world: &World| fs::read(world.fetcher.blobs.part(world.sha256)).unwrap_or_default();
    assert!(part(&world_of_lies).is_empty());
    let too_little = mirror(|_| chunked(vec![content()[..5_000].to_vec()])).await;
    let world = world(&[too_little], None, Vec::new()).await;
    world.fetch().await.unwrap_err();
    assert_eq!(part(&world), content()[..5_000]);
}

#[tokio::test]
async fn a_huge_blob_is_refused_before_anybody_is_asked() {
    let world = world(&[], Some(content()), Vec::new()).await;
    let error = world.fetcher.blob(world.sha256, u64::MAX).await.unwrap_err();
    assert_eq!(error.code(), "BLOB_TOO_LARGE");
    assert!(world.asked_of_the_controller().is_empty());
}

#[tokio::test]
async fn a_disk_that_fails_is_this_hosts_fault() {
    let world = world(&[], Some(content()), Vec::new()).await;
    fs::create_dir(world.fetcher.blobs.part(world.sha256)).unwrap();
    assert!(matches!(world.fetch().await, Err(FetchError::Disk(_))));
}

fn file(name: &str, data: &[u8], last: bool) -> v1::GetMetadataResponse {
    v1::GetMetadataResponse { name: name.to_owned(), data: data.to_vec(), last }
}

#[tokio::test]
async fn metadata_comes_as_named_files_and_is_bounded() {
    let known = v1::MetadataVersions::default();
    let files = vec![file("timestamp.json", b"{", false), file("timestamp.json", b"}", true)];
    world(&[], None, files).await.fetcher.metadata(known).await.unwrap();
    let cut = vec![file("timestamp.json", b"{", false)];
    let error = world(&[], None, cut).await.fetcher.metadata(known).await.unwrap_err();
    assert_eq!(error.code(), "METADATA_UNAVAILABLE");
    let many = (1..=65).map(|n| file(&format!("{n}.root.json"), b"{}", true)).collect();
    let error = world(&[], None, many).await.fetcher.metadata(known).await.unwrap_err();
    assert_eq!(error.code(), "TRUST_TOO_LARGE");
}
