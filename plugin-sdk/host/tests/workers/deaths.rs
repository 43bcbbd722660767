//! Workers that die, and what is known then.
use crate::plugin::{LAUNCHER, PATIENCE, active, active_with, ask, launch, limits, spec, specimen};
use bytes::Bytes;
use fleetswap_host::{CallError, Cause, Limits, Worker, WorkerSpec};
use std::time::Duration;

/// Has the worker die in a call, and returns the cause.
pub(crate) async fn die(worker: &Worker, how: &'static str) -> Cause {
    let error = worker.call("die", Bytes::from_static(how.as_bytes()), PATIENCE).await.unwrap_err();
    let CallError::Died { written: true, death } = error else { panic!("{how}: {error:?}") };
    assert_eq!(death.running, ["call die"], "{how}");
    assert_eq!(worker.ended().await, death);
    death.cause.clone()
}

pub(crate) async fn each_way_to_die_is_told_from_the_others() {
    for (how, cause) in [
        ("abort", Cause::Signal(libc::SIGABRT)),
        ("segv", Cause::Signal(libc::SIGSEGV)),
        ("illegal", Cause::Signal(libc::SIGILL)),
        ("exit", Cause::Exited(0)),
        ("_exit", Cause::Exited(3)),
    ] {
        assert_eq!(die(&active().await, how).await, cause, "{how}");
    }
    let overflow = die(&active().await, "overflow").await;
    assert!(matches!(overflow, Cause::Signal(libc::SIGSEGV | libc::SIGABRT)), "{overflow:?}");
}

pub(crate) async fn a_fault_signal_from_outside_ends_the_worker_at_once() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        let worker = active().await;
        let pid = i32::try_from(worker.pid()).unwrap();
        // SAFETY: sending a signal to a child of this process touches no memory.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        assert_eq!(worker.ended().await.cause, Cause::Signal(signal));
    }
}

pub(crate) async fn a_death_says_which_calls_the_worker_had_seen() {
    let worker = active().await;
    let call = |function: &'static str, input: &'static str| {
        let worker = worker.clone();
        let input = Bytes::from_static(input.as_bytes());
        tokio::spawn(async move { worker.call(function, input, PATIENCE).await })
    };
    // Four run, four are ready in the worker, the rest wait in the host.
    let busy: Vec<_> = (0..12).map(|_| call("slow", "100000")).collect();
    // Round trips, so that what was sent before them has been written.
    for _ in 0..3 {
        worker.health(PATIENCE).await.unwrap();
    }
    worker.kill();
    let mut written = 0;
    for call in busy {
        match call.await.unwrap().unwrap_err() {
            CallError::Died { written: seen, death } => {
                written += u32::from(seen);
                assert_eq!((&death.cause, death.running.len()), (&Cause::Killed, 8));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(written, 8, "the others were certainly not executed");
}

pub(crate) async fn a_death_in_create_or_health_is_seen() {
    let worker = launch(&["ON_CREATE=abort()"]).await.unwrap();
    let error = worker.create(Bytes::new()).await.unwrap_err();
    assert!(error.to_string().contains("signal 6 (SIGABRT) while it ran create"), "{error}");
    let worker = launch(&["ON_HEALTH=abort()"]).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    let error = worker.health(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("signal 6 (SIGABRT) while it ran health"), "{error}");
    let short = Limits { control_timeout: Duration::from_millis(100), ..limits() };
    let spec = WorkerSpec { limits: short, ..spec() };
    let worker = LAUNCHER.launch(&specimen(&["ON_CREATE=spin()"]), spec).await.unwrap();
    assert_eq!(worker.create(Bytes::new()).await, Err(CallError::Deadline));
    worker.close().await;
}

pub(crate) async fn a_worker_that_breaks_the_protocol_is_ended() {
    for (how, words) in [
        ("forge", "it answered request 999, which it was not asked"),
        ("nonsense", "a reply can't be read"),
        ("huge", "a frame can't be read"),
        ("part", "a part of its reply to call has 0 bytes"),
    ] {
        let worker = active().await;
        let Cause::Protocol(what) = die(&worker, how).await else { panic!("{how}: {:?}", worker.death()) };
        assert!(what.contains(words), "{how}: {what}");
        assert_eq!(worker.ended().await.code(), "WORKER_PROTOCOL");
    }
    let closed = die(&active().await, "close everything").await;
    assert!(matches!(closed, Cause::Protocol(_) | Cause::Exited(0)), "{closed:?}");
}

pub(crate) async fn a_worker_with_too_much_memory_is_ended() {
    let worker = active_with(Limits { memory_bytes: 100 << 20, ..limits() }).await;
    assert_eq!(ask(&worker, "allocate", "64").await, "ate");
    assert!(worker.health(PATIENCE).await.is_ok());
    let _ = worker.call("allocate", Bytes::from_static(b"64"), PATIENCE).await;
    let death = worker.ended().await;
    assert_eq!(death.code(), "WORKER_MEMORY", "{death}");
    assert!(matches!(death.cause, Cause::Memory { seen, limit: 0x640_0000 } if seen > 100 << 20), "{death}");
}

pub(crate) async fn a_worker_with_too_many_threads_is_ended() {
    let worker = active_with(Limits { threads: 16, ..limits() }).await;
    assert_eq!(ask(&worker, "threads", "16").await, "started");
    assert!(worker.health(PATIENCE).await.is_ok());
    let _ = worker.call("threads", Bytes::from_static(b"40"), PATIENCE).await;
    let death = worker.ended().await;
    assert_eq!(death.code(), "WORKER_THREADS", "{death}");
}

pub(crate) async fn a_worker_whose_main_thread_ended_is_ended() {
    let image = specimen(&["ON_CREATE=syscall(SYS_exit,0)"]);
    let worker = LAUNCHER.launch(&image, spec()).await.unwrap();
    let error = worker.create(Bytes::new()).await.unwrap_err();
    assert!(error.to_string().contains("its main thread ended"), "{error}");
    let Cause::Protocol(_) = worker.ended().await.cause else { panic!("{:?}", worker.death()) };
}

pub(crate) async fn calls_after_a_death_know_that_they_were_not_written() {
    let worker = active().await;
    die(&worker, "abort").await;
    for error in [
        worker.call("echo", Bytes::new(), PATIENCE).await.unwrap_err(),
        worker.health(PATIENCE).await.unwrap_err(),
        worker.deactivate().await.unwrap_err(),
    ] {
        assert!(matches!(error, CallError::Died { written: false, .. }), "{error:?}");
    }
    assert_eq!(worker.close().await.cause, Cause::Signal(libc::SIGABRT));
}
