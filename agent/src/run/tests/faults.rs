//! What goes wrong at the worst moment.

use std::fs;

use super::*;
use crate::{
    run::{host::HostRecord, teller},
    service::Instance,
};

/// Lets the other tasks go on, those on the disk too.
async fn a_moment() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    }
}

#[tokio::test]
async fn a_start_that_a_switch_cuts_has_ended_before_the_candidate_is_active() {
    let host = Host::new();
    let releases =
        [host.shelve("1.0.0", stateful()), host.shelve("2.0.0", Kind { stately: true, ..stateful() })];
    host.committed(&releases);
    let mut agent = host.start(false).await;
    while host.zoo.launched.lock().unwrap().iter().all(|worker| !worker.is_active()) {
        tokio::task::yield_now().await;
    }
    let starting = host.zoo.newest();
    agent.lives.tell("counter", offer(9, &releases[0])).await;
    agent.reports(serves("1.0.0")).await;
    assert!(starting.is_gone());
    assert_eq!(host.zoo.most_active.load(SeqCst), 1, "never two active at once");
    assert_eq!(agent.count().await.0, "1.0.0");
    agent.stop().await;
}

#[tokio::test]
async fn a_way_back_that_meets_a_bug_ends_the_trial_and_the_old_release_is_started_anew() {
    let host = Host::new();
    let explosive = Kind { explosive: true, ..stateful() };
    let releases =
        [host.shelve("1.0.0", Kind { ponderous: true, ..stateful() }), host.shelve("2.0.0", explosive)];
    host.committed(&releases);
    let mut agent = host.start(false).await;
    agent.reports(serves("2.0.0")).await;
    let old = host.zoo.newest();
    agent.lives.tell("counter", offer(9, &releases[0])).await;
    while old.is_active() {
        tokio::task::yield_now().await;
    }
    // It can't wait for long, so the switch is given up.
    let request = CallRequest {
        plugin: "counter".into(),
        function: "count".into(),
        input: Bytes::new(),
        timeout: Duration::from_millis(200),
    };
    agent.registry.call(request).await;
    let status = agent
        .reports(|status| {
            status.trial.as_ref().is_some_and(|trial| trial.state() == v1::HostState::Rejected)
                && status.service() == v1::ServiceState::Serving
        })
        .await;
    assert_eq!(status.trial.unwrap().failure.unwrap().code, "SWAP_BUSY");
    assert_eq!(agent.count().await.0, "2.0.0");
    assert!(old.is_gone());
    assert_eq!(host.zoo.most_active.load(SeqCst), 1, "never two active at once");
    agent.stop().await;
}

#[tokio::test]
async fn a_release_whose_files_are_gone_gives_way_to_the_one_before() {
    let host = Host::new();
    let release = host.shelve("1.0.0", Kind::default());
    let missing = installed(&host.zoo.package("3.0.0", Kind::default()));
    host.committed(&[release, missing]);
    let mut agent = host.start(false).await;
    let status = agent.reports(serves("1.0.0")).await;
    assert_eq!(status.trial.unwrap().failure.unwrap().code, "RELEASE_FILES_MISSING");
    assert!(status.denied.is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn a_release_whose_files_are_gone_is_not_given_up_for_one_whose_files_are_gone_as_well() {
    let host = Host::new();
    let missing = ["1.0.0", "3.0.0"].map(|it| installed(&host.zoo.package(it, Kind::default())));
    host.committed(&missing);
    let mut agent = host.start(false).await;
    a_moment().await;
    let status = agent.reports(|status| status.service() == v1::ServiceState::Restarting).await;
    assert_eq!(status.active.unwrap().version, "3.0.0");
    agent.stop().await;
    assert_eq!(host.on_disk().status().previous.unwrap(), missing[0].release);
}

#[tokio::test]
async fn what_is_told_in_the_pause_is_written_after_it() {
    let host = Host::new();
    let releases =
        [host.shelve("1.0.0", Kind { ponderous: true, ..stateful() }), host.shelve("2.0.0", stateful())];
    host.committed(&releases);
    let mut agent = host.start(false).await;
    agent.reports(serves("2.0.0")).await;
    let old = host.zoo.newest();
    agent.lives.tell("counter", offer(9, &releases[0])).await;
    while old.is_active() {
        tokio::task::yield_now().await;
    }
    let record = agent.state.records().of("counter");
    let written = move || record.load::<Saved>().unwrap().unwrap().plugin.generation().n;
    {
        let again = Offer { rollout: "r-9".into(), ..offer(10, &releases[0]) };
        let mut told = std::pin::pin!(agent.lives.tell("counter", again));
        tokio::select! {
            biased;
            () = &mut told => panic!("it was taken in while callers waited"),
            () = a_moment() => {}
        }
        assert_eq!(written(), 9);
        host.zoo.newest().let_go.send_replace(true);
        told.await;
    }
    agent.reports(serves("1.0.0")).await;
    assert_eq!(written(), 10);
    agent.stop().await;
}

#[tokio::test]
async fn a_start_that_fails_leaves_the_clean_stop_to_the_next_one() {
    let host = Host::new();
    let state = StateDir::open(host.dir.path()).unwrap();
    let mut record = HostRecord::open(state.host_record()).unwrap();
    record.set_clean_stop(true).unwrap();
    fs::write(host.dir.path().join("records/counter.a"), "damaged").unwrap();
    let (world, _standing) = host.world(&state, record.clean_stop());
    assert!(crate::run::resume(world, &mut record).await.is_err());
    assert!(HostRecord::open(state.host_record()).unwrap().clean_stop(), "no plugin has taken it in yet");
    fs::remove_file(host.dir.path().join("records/counter.a")).unwrap();
    let (world, _standing) = host.world(&state, record.clean_stop());
    drop(crate::run::resume(world, &mut record).await.unwrap());
    assert!(!HostRecord::open(state.host_record()).unwrap().clean_stop());
}

#[tokio::test]
async fn what_could_not_be_kept_is_followed_once_it_can() {
    let host = Host::new();
    let mut agent = host.start(false).await;
    let record = HostRecord::open(agent.state.host_record()).unwrap();
    // A folder stands where the record is staged.
    let in_the_way = host.dir.path().join("records/@host.a.new");
    fs::create_dir(&in_the_way).unwrap();
    let (sender, desired) = watch::channel(None);
    let telling = tokio::spawn(teller::run(agent.lives, desired, record.clone()));
    let generation = Some(v1::Generation { epoch: 1, n: 3 });
    sender.send_replace(Some(v1::DesiredState { generation, ..v1::DesiredState::default() }));
    a_moment().await;
    assert_eq!(agent.standing.borrow().highest.n, 0, "what is not kept is not accepted");
    fs::remove_dir(&in_the_way).unwrap();
    let followed = agent.standing.wait_for(|standing| standing.highest.n == 3);
    tokio::time::timeout(Duration::from_secs(20), followed).await.expect("it is never followed").unwrap();
    assert_eq!(HostRecord::open(agent.state.host_record()).unwrap().highest().n, 3);
    agent.stop.cancel();
    telling.await.unwrap();
}
