//! What is known about requests when replies come, don't come, or come wrongly.
use super::*;
use crate::{Cause, frames::FrameReader};
use std::{os::unix::net::UnixStream as StdStream, sync::LazyLock};
use tokio::{net::UnixStream, sync::Semaphore};

static DEATH: LazyLock<Arc<Death>> =
    LazyLock::new(|| Arc::new(Death::new(Cause::Signal(9), Vec::new(), String::new())));

fn place() -> OwnedSemaphorePermit {
    Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
}

fn call(function: &str, body: usize) -> Request {
    Request { function: function.into(), body: vec![b'x'; body].into(), ..Request::default() }
}

fn reply(id: u64, more: bool) -> Reply {
    Reply { id, status: 0, body: Bytes::from_static(b"ok"), more }
}

/// A mux whose writer writes into the returned socket.
fn connected() -> (Arc<Mux>, StdStream, tokio::task::JoinHandle<io::Result<()>>) {
    let (ours, theirs) = StdStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let (_, half) = UnixStream::from_std(ours).unwrap().into_split();
    let (mux, queue) = Mux::new();
    let mux = Arc::new(mux);
    let writer = tokio::spawn(write(Arc::clone(&mux), half, queue));
    (mux, theirs, writer)
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
    mux.accept(reply(2, false)).unwrap();
    mux.accept(reply(1, true)).unwrap();
    mux.accept(reply(1, false)).unwrap();
    assert_eq!(second.await.unwrap().unwrap().1, "ok");
    assert_eq!(first.await.unwrap().unwrap().1, "okok");
}

#[tokio::test]
async fn a_reply_that_nobody_asked_for_or_that_comes_twice_breaks_the_protocol() {
    let (mux, _worker, _writer) = connected();
    assert!(mux.accept(reply(1, false)).unwrap_err().contains("request 1"));
    let _answer = mux.send(call("a", 1), place());
    until(|| !mux.running().is_empty()).await;
    mux.accept(reply(1, false)).unwrap();
    assert!(mux.accept(reply(1, false)).is_err());
}

#[tokio::test]
async fn a_reply_to_a_request_that_was_not_yet_written_breaks_the_protocol() {
    let (mux, _queue) = Mux::new();
    let _answer = mux.send(call("a", 1), place());
    assert!(mux.accept(reply(1, false)).is_err());
}

#[tokio::test]
async fn a_reply_beyond_its_bound_breaks_the_protocol() {
    let (mux, _worker, _writer) = connected();
    let _answer = mux.send(call("a", 1), place());
    until(|| !mux.running().is_empty()).await;
    let part = || Reply { id: 1, status: 0, body: vec![0; frames::PART_MAX].into(), more: true };
    mux.accept(part()).unwrap();
    assert!(mux.accept(part()).unwrap_err().contains("more than 1048576 bytes"));
}

#[tokio::test]
async fn a_cancelled_request_keeps_its_id_and_its_place_until_the_reply_came() {
    let (mux, _worker, _writer) = connected();
    let places = Arc::new(Semaphore::new(1));
    let answer = mux.send(call("a", 1), Arc::clone(&places).try_acquire_owned().unwrap());
    until(|| !mux.running().is_empty()).await;
    drop(answer);
    assert_eq!(places.available_permits(), 0);
    mux.accept(reply(1, false)).unwrap();
    assert_eq!(places.available_permits(), 1);
}

#[tokio::test]
async fn a_request_whose_caller_has_gone_before_it_was_written_is_never_written() {
    let (mux, mut queue) = Mux::new();
    drop(mux.send(call("a", 1), place()));
    let mut batch = Batch::default();
    assert!(batch.add(&mux, queue.recv().await.unwrap()));
    assert!(batch.frames.is_empty() && mux.lock().pending.is_empty());
}

#[tokio::test]
async fn at_a_death_it_is_known_which_requests_were_written_whole() {
    let (mux, _worker, writer) = connected();
    let small = mux.send(call("small", 1), place());
    until(|| mux.running() == ["call small"]).await;
    // More than any socket buffer holds, so its last byte stays here.
    let large = mux.send(call("large", 900_000), place());
    let behind = mux.send(call("behind", 1), place());
    for _ in 0..1000 {
        yield_now().await;
    }
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
