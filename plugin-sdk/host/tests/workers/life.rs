//! How workers end, and that they leave nothing behind.
use crate::{
    loading::children,
    plugin::{LAUNCHER, active, active_with, ask, launch, limits, spec, specimen, until},
};
use bytes::Bytes;
use fleetswap_host::{Cause, Limits, WorkerSpec};
use std::{path::Path, time::Duration};

pub(crate) async fn closing_runs_destroy_and_ends_the_process() {
    let worker = launch(&["ON_DESTROY=(void)!write(1,\"destroyed\\n\",10)"]).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    let death = worker.close().await;
    assert_eq!((&death.cause, death.was_wanted()), (&Cause::Closed, true));
    assert_eq!(death.log_tail, "constructor ran\ndestroyed\n");
    assert!(!Path::new(&format!("/proc/{}", worker.pid())).exists());
    assert_eq!(worker.close().await, death, "closing twice is harmless");
}

pub(crate) async fn a_worker_that_hangs_in_destroy_is_killed() {
    let limits = Limits { close_timeout: Duration::from_millis(100), ..limits() };
    let image = specimen(&["ON_DESTROY=spin()"]);
    let worker = LAUNCHER.launch(&image, WorkerSpec { limits, ..spec() }).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    let death = worker.close().await;
    assert!(death.was_wanted(), "{death}");
    assert!(!Path::new(&format!("/proc/{}", worker.pid())).exists());
}

pub(crate) async fn signals_to_the_whole_service_are_the_hosts_to_handle() {
    let worker = active().await;
    let pid = rustix::process::Pid::from_raw(worker.pid().cast_signed()).unwrap();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP]
    {
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(ask(&worker, "echo", "still there").await, "still there");
    }
}

pub(crate) async fn dropping_the_last_handle_ends_the_worker() {
    let worker = active().await;
    let pid = worker.pid();
    let call = tokio::spawn({
        let worker = worker.clone();
        async move { ask(&worker, "slow", "100").await }
    });
    drop(worker);
    assert_eq!(call.await.unwrap(), "slept", "a call holds the worker until its reply");
    until("the worker's end", || !Path::new(&format!("/proc/{pid}")).exists()).await;
}

pub(crate) async fn a_worker_ends_with_its_socket() {
    // An active instance whose threads are all busy: only the end of the socket can end it in order.
    let worker = active_with(Limits { close_timeout: Duration::from_secs(10), ..limits() }).await;
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let worker = worker.clone();
            tokio::spawn(async move { worker.call("slow", "100000".into(), Duration::from_secs(60)).await })
        })
        .collect();
    worker.health(Duration::from_secs(10)).await.unwrap();
    assert_eq!(worker.close().await.cause, Cause::Closed);
    for call in busy {
        assert!(call.await.unwrap().is_err());
    }
}

/// How many descriptors this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

pub(crate) async fn fifty_launches_leave_no_descriptor_and_no_zombie() {
    let image = specimen(&[]);
    let bad = specimen(&["ON_LOAD=abort()"]);
    LAUNCHER.launch(&image, spec()).await.unwrap().close().await;
    let before = descriptors();
    for n in 0..50 {
        let worker = LAUNCHER.launch(&image, spec()).await.unwrap();
        worker.create(Bytes::new()).await.unwrap();
        match n % 4 {
            0 => drop(worker.close().await),
            1 => worker.kill(),
            2 => assert!(worker.call("die", "abort".into(), Duration::from_secs(9)).await.is_err()),
            _ => assert!(LAUNCHER.launch(&bad, spec()).await.is_err()),
        }
    }
    until("the end of all children", || children().is_empty()).await;
    until("the end of all descriptors", || descriptors() <= before).await;
}

pub(crate) async fn two_releases_in_turn_are_each_themselves() {
    for version in ["1.0.0", "2.0.0", "1.0.0"] {
        let worker = launch(&[&format!("VERSION=\"{version}\"")]).await.unwrap();
        let descriptor = fleetswap_inspect::Descriptor::parse(worker.descriptor()).unwrap();
        assert_eq!(descriptor.version.to_string(), version);
    }
}

pub(crate) async fn a_runtime_that_ends_takes_its_workers_along() {
    let pid = std::thread::spawn(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let worker = runtime.block_on(active());
        drop(runtime);
        let pid = worker.pid();
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "ended and reaped with the runtime");
        pid
    })
    .join()
    .unwrap();
    // The launcher's thread has nothing to do with that runtime, and starts the next one.
    assert_ne!(active().await.pid(), pid);
}

/// Threads of this process by name.
fn threads(name: &str) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|entry| entry.path());
    all.filter(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name))
        .collect()
}

pub(crate) async fn a_worker_outlives_the_threads_of_an_idle_runtime() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(1).enable_all().thread_name("idle");
    let runtime = builder.thread_keep_alive(Duration::from_millis(1)).build().unwrap();
    let handle = runtime.handle().clone();
    // Asked for by a thread for blocking work, which a runtime ends when it has been idle for a while.
    let asked = runtime.spawn_blocking(move || (handle.block_on(active()), threads("idle").len()));
    let (worker, busy) = asked.await.unwrap();
    until("the end of the thread that asked", || threads("idle").len() < busy).await;
    assert_eq!(ask(&worker, "echo", "still there").await, "still there");
    assert!(worker.death().is_none());
    worker.close().await;
    runtime.shutdown_background();
}

pub(crate) async fn a_worker_is_the_child_of_the_one_thread_that_starts_them() {
    let (one, other) = (active().await, active().await);
    let starters = threads("launcher");
    let children = |thread: &std::path::PathBuf| std::fs::read_to_string(thread.join("children")).unwrap();
    let of_both = starters.iter().filter(|thread| {
        let children = children(thread);
        [&one, &other].iter().all(|worker| children.split(' ').any(|pid| *pid == worker.pid().to_string()))
    });
    assert_eq!(of_both.count(), 1, "the kernel ends a worker with the thread that started it");
}
