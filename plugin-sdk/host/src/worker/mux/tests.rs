//! What is known about requests when replies come, don't come, or come wrongly.
use super::*;
use crate::{
    Cause,
    frames::{self, FrameReader},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{os::unix::net::UnixStream as StdStream, sync::LazyLock};
use tokio::{net::UnixStream, sync::Semaphore};

static DEATH: LazyLock<Arc<Death>> =
    LazyLock::new(|| Arc::new(Death::new(Cause::Signal(9), Vec::new(), String::new())));

fn place() -> OwnedSemaphorePermit {
    Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
}

fn call(function: &str, body: usize) -> Request {
    let function = Bytes::copy_from_slice(function.as_bytes());
    Request { function, body: vec![b'x'; body].into(), ..Request::default() }
}

/// The last part of a reply.
fn reply(id: u64) -> Reply {
    Reply { id, status: 0, body: Bytes::from_static(b"ok"), ..Reply::default() }
}

/// A part of the first reply, which more follow.
fn part(len: usize) -> Reply {
    Reply { id: 1, status: 0, body: vec![0; len].into(), more: true, quick: false }
}

/// A mux whose writer writes into the returned socket.
fn connected() -> (Arc<Mux>, StdStream, tokio::task::JoinHandle<io::Result<()>>) {
    let (ours, theirs) = StdStream::pair().unwrap();
    let (mux, writer) = writes_to(ours);
    (mux, theirs, writer)
}

fn writes_to(ours: StdStream) -> (Arc<Mux>, tokio::task::JoinHandle<io::Result<()>>) {
    ours.set_nonblocking(true).unwrap();
    let (_, half) = UnixStream::from_std(ours).unwrap().into_split();
    let (mux, writer) = Mux::new(half, Room::new(1));
    (mux, tokio::spawn(writer))
}

/// Whether a socket takes no more bytes now.
fn is_full(socket: &StdStream) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    poll(&mut polled, Some(&Timespec::default())).unwrap() == 0
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_request_is_answered_by_the_reply_of_its_id() {
    let (mux, worker, _writer) = connected();
    let first = mux.send(call("a", 1), place());
    let second = mux.send(call("b", 1), place());
    until(|| mux.running().len() == 2).await;
    let mut frames = FrameReader::new(worker);
    for name in ["a", "b"] {
        assert_eq!(Request::decode(frames.next().unwrap().unwrap()).unwrap().function, name);
    }
    mux.accept(reply(2)).unwrap();
    mux.accept(reply(1)).unwrap();
    assert_eq!(second.await.unwrap().unwrap().1, "ok");
    assert_eq!(first.await.unwrap().unwrap().1, "ok");
}

#[tokio::test]
async fn a_reply_in_parts_is_put_together_and_one_in_crumbs_breaks_the_protocol() {
    let (mux, _worker, _writer) = connected();
    let answer = mux.send(Request { op: Op::SaveState as i32, ..Request::default() }, place());
    until(|| !mux.running().is_empty()).await;
    mux.accept(part(frames::PART_MAX)).unwrap();
    for len in [0, 1, frames::PART_MAX - 1] {
        let broken = mux.accept(part(len)).unwrap_err();
        assert!(broken.contains(&format!("a part of its reply to save_state has {len} bytes")), "{broken}");
    }
    mux.accept(reply(1)).unwrap();
    assert_eq!(answer.await.unwrap().unwrap().1.len(), frames::PART_MAX + 2);
}

#[tokio::test]
async fn a_reply_that_nobody_asked_for_or_that_comes_twice_breaks_the_protocol() {
    let (mux, _worker, _writer) = connected();
    assert!(mux.accept(reply(1)).unwrap_err().contains("request 1"));
    let _answer = mux.send(call("a", 1), place());
    until(|| !mux.running().is_empty()).await;
    mux.accept(reply(1)).unwrap();
    assert!(mux.accept(reply(1)).is_err());
}

#[tokio::test]
async fn a_reply_to_a_request_that_was_not_yet_written_breaks_the_protocol() {
    let (mux, _worker, _writer) = connected();
    let _answer = mux.enqueue(call("a", 1), place());
    assert!(mux.accept(reply(1)).is_err());
}

#[tokio::test]
async fn a_reply_beyond_its_bound_breaks_the_protocol() {
    let (mux, _worker, _writer) = connected();
    let _answer = mux.send(call("a", 1), place());
    until(|| !mux.running().is_empty()).await;
    mux.accept(part(frames::PART_MAX)).unwrap();
    assert!(mux.accept(part(frames::PART_MAX)).unwrap_err().contains("more than 1048576 bytes"));
}

#[tokio::test]
async fn a_cancelled_request_keeps_its_id_and_its_place_until_the_reply_came() {
    let (mux, _worker, _writer) = connected();
    let places = Arc::new(Semaphore::new(1));
    let answer = mux.send(call("a", 1), Arc::clone(&places).try_acquire_owned().unwrap());
    until(|| !mux.running().is_empty()).await;
    drop(answer);
    assert_eq!(places.available_permits(), 0);
    mux.accept(reply(1)).unwrap();
    assert_eq!(places.available_permits(), 1);
}

#[tokio::test]
async fn a_request_whose_caller_has_gone_before_it_was_written_is_never_written() {
    let (mux, _worker, _writer) = connected();
    drop(mux.enqueue(call("a", 1), place()));
    assert!(mux.lock().take().is_none() && mux.lock().pending.is_empty());
}

#[tokio::test]
async fn at_a_death_it_is_known_which_requests_were_written_whole() {
    let (ours, _worker) = StdStream::pair().unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
    let socket = ours.try_clone().unwrap();
    let (mux, writer) = writes_to(ours);
    let small = mux.send(call("small", 1), place());
    until(|| mux.running() == ["call small"]).await;
    // Far more than this socket holds, so its last byte stays here.
    let large = mux.send(call("large", 900_000), place());
    let behind = mux.send(call("behind", 1), place());
    until(|| is_full(&socket)).await;
    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());
    mux.bury(&DEATH);
    let written = |answer: Answer| match answer {
        Err(CallError::Died { written, .. }) => written,
        other => panic!("{other:?}"),
    };
    assert!(written(small.await.unwrap()));
    assert!(!written(large.await.unwrap()));
    assert!(!written(behind.await.unwrap()));
    assert!(!written(mux.send(call("late", 1), place()).await.unwrap()));
}

#[tokio::test]
async fn closing_ends_the_stream_after_what_was_asked() {
    let (mux, worker, writer) = connected();
    let _answer = mux.send(call("a", 1), place());
    mux.close();
    writer.await.unwrap().unwrap();
    let mut frames = FrameReader::new(worker);
    assert!(frames.next().unwrap().is_some());
    assert_eq!(frames.next().unwrap(), None);
}

#[tokio::test]
async fn a_lone_request_is_written_by_its_caller_and_further_ones_together_by_the_writer() {
    let (ours, worker) = StdStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    worker.set_nonblocking(true).unwrap();
    let (_, half) = UnixStream::from_std(ours).unwrap().into_split();
    half.writable().await.unwrap();
    // Its writer does not run yet.
    let (mux, writer) = Mux::new(half, Room::new(1));
    let _first = mux.send(call("a", 1), place());
    let mut frames = FrameReader::new(&worker);
    assert!(frames.next().unwrap().is_some());
    let _second = mux.send(call("b", 1), place());
    let _third = mux.send(call("c", 1), place());
    assert_eq!(frames.next().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let writer = tokio::spawn(writer);
    until(|| mux.running().len() == 3).await;
    assert!(frames.next().unwrap().is_some() && frames.ready().unwrap().is_some());
    writer.abort();
}

#[tokio::test]
async fn a_worker_that_is_buried_has_the_end_of_its_stream() {
    let (mux, worker, writer) = connected();
    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());
    mux.bury(&DEATH);
    let late = mux.send(call("late", 1), place()).await.unwrap();
    assert!(matches!(late, Err(CallError::Died { written: false, .. })));
    worker.set_nonblocking(true).unwrap();
    assert_eq!(FrameReader::new(&worker).next().unwrap(), None);
}
