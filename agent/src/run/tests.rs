//! The loop of a plugin on a real state folder, with played workers.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use fleetswap_proto::v1;
use fleetswap_trust::Manifest;
use fleetswap_update::{
    Event, Fact, Generation, Installed, Offer, Outcome, Plugin, Proof, RECORD_FORMAT, Target, Time,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

mod faults;
mod keeping;
mod ordered;

use super::{Files, Orders, World, lives::Lives, written::Saved};
use crate::{
    calls::{CallRequest, Calls},
    durable::StateDir,
    keeper::Keeper,
    link::Standing,
    service::{
        Registry,
        testing::{Kind, Zoo, artifact, descriptor, installed, manifest},
    },
    trial,
};

/// A host whose agent can be started again and again on the same folder.
pub(super) struct Host {
    pub(super) dir: tempfile::TempDir,
    pub(super) zoo: Arc<Zoo>,
    runs: AtomicU64,
    boot_id: &'static str,
}

/// One run of the agent.
struct Agent {
    lives: Lives,
    registry: Arc<Registry>,
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    state: StateDir,
    logs: crate::logs::Logs,
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            zoo: Arc::default(),
            runs: AtomicU64::new(0),
            boot_id: "boot-1",
        }
    }

    /// Puts a release on the shelf, as fetch does.
    pub(super) fn shelve(&self, version: &str, kind: Kind) -> Installed {
        let state = StateDir::open(self.dir.path()).unwrap();
        let manifest: Manifest = manifest(version, &kind);
        state.manifests().put(&manifest.canonical()).unwrap();
        state.blobs().put(&artifact(version)).unwrap();
        state.blobs().put(&descriptor(version, &kind)).unwrap();
        installed(&self.zoo.package(version, kind))
    }

    /// Writes the record of a host that has committed these, one after the other.
    pub(super) fn committed(&self, releases: &[Installed]) {
        let mut plugin = Plugin::new("counter".into());
        for (n, installed) in (1..).zip(releases) {
            plugin = commit(plugin, n, installed);
        }
        let state = StateDir::open(self.dir.path()).unwrap();
        state.records().of("counter").save(&Saved { format: RECORD_FORMAT, plugin }).unwrap();
    }

    pub(super) fn world(&self, state: &StateDir, clean_stop: bool) -> (World, watch::Receiver<Standing>) {
        let (sender, standing) = watch::channel(Standing::default());
        let run = self.runs.fetch_add(1, SeqCst) + 1;
        let keeper = Keeper::new(state.states(), run);
        let tools = Arc::new(trial::Tools { keeper, ..trial::testing_tools(state, &self.zoo, sender) });
        let world = World {
            records: state.records(),
            registry: Arc::default(),
            orders: Orders::default(),
            files: Files::new(tools.shelf.clone()),
            tools,
            slot: Arc::new(Semaphore::new(1)),
            boot_id: self.boot_id.into(),
            checkpoints: crate::config::CheckpointRules::default(),
            clean_stop,
            stop: CancellationToken::new(),
            failures: mpsc::channel(1).0,
        };
        (world, standing)
    }

    async fn start(&self, clean_stop: bool) -> Agent {
        let state = StateDir::open(self.dir.path()).unwrap();
        let (world, standing) = self.world(&state, clean_stop);
        let logs = world.tools.logs.clone();
        let (registry, stop) = (Arc::clone(&world.registry), world.stop.clone());
        let lives = Lives::resume(Arc::new(world)).await.unwrap();
        Agent { lives, registry, standing, stop, state, logs }
    }

    fn on_disk(&self) -> Plugin {
        let state = StateDir::open(self.dir.path()).unwrap();
        state.records().of("counter").load::<Saved>().unwrap().unwrap().plugin
    }
}

pub(super) fn commit(plugin: Plugin, n: u64, installed: &Installed) -> Plugin {
    let step = |plugin: Plugin, fact| plugin.step(Event { now: Time(n), fact });
    let told = Offer { rollback: false, ..offer(n, installed) };
    let mut plugin = step(step(plugin, Fact::Told(told)), Fact::SlotGranted);
    let outcomes = [
        Outcome::Fetched,
        Outcome::Verified(installed.clone()),
        Outcome::Loaded,
        Outcome::Probed,
        Outcome::Prepared,
        Outcome::Saved { lost: String::new() },
        Outcome::Restored,
        Outcome::Activated,
        Outcome::Switched { pause_us: 1 },
        Outcome::Proven(Proof::Calls),
    ];
    for outcome in outcomes {
        let serial = plugin.trial_serial().unwrap();
        plugin = step(plugin, Fact::Trial { serial, outcome });
    }
    plugin
}

pub(super) fn offer(n: u64, installed: &Installed) -> Offer {
    Offer {
        generation: Generation { epoch: 1, n },
        target: Target::Release(installed.release.clone()),
        rollout: format!("r-{n}"),
        attempt: 1,
        rollback: true,
        min_healthy_ms: 0,
        healthy_deadline_ms: 0,
    }
}

impl Agent {
    async fn count(&self) -> (String, u64) {
        let request = CallRequest {
            plugin: "counter".into(),
            function: "count".into(),
            input: Bytes::new(),
            timeout: Duration::from_secs(5),
        };
        let answer = self.registry.call(request).await;
        let value: serde_json::Value = serde_json::from_slice(&answer.outcome.unwrap()).unwrap();
        (value["version"].as_str().unwrap().to_owned(), value["count"].as_u64().unwrap())
    }

    /// Waits until the report says so.
    async fn reports(&mut self, is: impl Fn(&v1::PluginStatus) -> bool) -> v1::PluginStatus {
        let seen = self.standing.wait_for(|standing| standing.plugins.get("counter").is_some_and(&is));
        let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
        seen.expect("the report never came").unwrap().plugins["counter"].clone()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.lives.ended().await;
    }
}

fn serves(version: &'static str) -> impl Fn(&v1::PluginStatus) -> bool {
    move |status| {
        let active = status.active.as_ref().is_some_and(|active| active.version == version);
        active && status.service() == v1::ServiceState::Serving
    }
}

pub(super) fn stateful() -> Kind {
    Kind { state: vec![1], ..Kind::default() }
}

#[tokio::test]
async fn a_committed_release_starts_from_its_record_and_ends_in_order() {
    let host = Host::new();
    let release = host.shelve("1.0.0", Kind::default());
    host.committed(&[release]);
    let mut agent = host.start(false).await;
    agent.reports(serves("1.0.0")).await;
    assert_eq!(agent.count().await, ("1.0.0".to_owned(), 1));
    agent.stop().await;
    assert!(!host.zoo.newest().is_active());
    let mut again = host.start(true).await;
    again.reports(serves("1.0.0")).await;
    again.stop().await;
}

#[tokio::test]
async fn a_rollback_to_the_retained_release_needs_nobody_and_carries_the_state() {
    let host = Host::new();
    let releases = [host.shelve("1.0.0", stateful()), host.shelve("2.0.0", stateful())];
    host.committed(&releases);
    let mut agent = host.start(false).await;
    agent.reports(serves("2.0.0")).await;
    assert_eq!(agent.count().await, ("2.0.0".to_owned(), 1));
    agent.lives.tell("counter", offer(9, &releases[0])).await;
    let status = agent.reports(serves("1.0.0")).await;
    let trial = status.trial.unwrap();
    assert_eq!((trial.state(), trial.rollout_id.as_str()), (v1::HostState::Committed, "r-9"));
    assert_eq!(agent.count().await, ("1.0.0".to_owned(), 2));
    agent.lives.tell("counter", offer(10, &releases[1])).await;
    // The slot is free for the next trial, which has to fetch what was left, and can't.
    let next = |status: &v1::PluginStatus| {
        let trial = status.trial.as_ref().filter(|trial| trial.rollout_id == "r-10");
        trial.is_some_and(|trial| trial.state() == v1::HostState::Rejected)
    };
    agent.reports(next).await;
    assert_eq!(agent.count().await, ("1.0.0".to_owned(), 3));
    assert_eq!(host.zoo.most_active.load(SeqCst), 1);
    agent.stop().await;
    assert_eq!(host.on_disk().status().active.unwrap(), releases[0].release);
}

#[tokio::test]
async fn whoever_looks_for_the_cause_of_a_death_finds_it_in_the_plugins_log() {
    let host = Host::new();
    let releases = [host.shelve("1.0.0", stateful())];
    host.committed(&releases);
    let mut agent = host.start(false).await;
    agent.reports(serves("1.0.0")).await;
    host.zoo.newest().crash();
    agent.count().await;
    let lines = agent.logs.last("counter", 9).unwrap();
    assert_eq!(lines[0].release, releases[0].release.id.to_string());
    assert!(lines.iter().any(|line| line.text.contains("signal 11")), "{lines:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_worker_that_dies_is_started_again_and_three_deaths_return_to_the_release_before() {
    let host = Host::new();
    let releases = [host.shelve("1.0.0", Kind::default()), host.shelve("2.0.0", Kind::default())];
    host.committed(&releases);
    let mut agent = host.start(false).await;
    agent.reports(serves("2.0.0")).await;
    for version in ["2.0.0", "2.0.0", "1.0.0"] {
        host.zoo.newest().crash();
        assert_eq!(agent.count().await.0, version, "callers wait for the next worker");
    }
    let status = agent.reports(serves("1.0.0")).await;
    assert_eq!(status.denied[0].code, "CRASH_LOOP");
    assert_eq!(status.trial.unwrap().state(), v1::HostState::RolledBack);
    agent.stop().await;
}

#[tokio::test]
async fn without_files_on_disk_the_only_release_is_tried_again_and_never_given_up() {
    let host = Host::new();
    host.committed(&[installed(&host.zoo.package("3.0.0", Kind::default()))]);
    let mut agent = host.start(false).await;
    let status = agent.reports(|status| status.service() == v1::ServiceState::Restarting).await;
    assert_eq!(status.active.unwrap().version, "3.0.0");
    agent.stop().await;
}

#[tokio::test]
async fn a_trial_without_a_root_of_trust_is_the_hosts_fault_and_the_old_release_serves_on() {
    let host = Host::new();
    let releases = [host.shelve("1.0.0", Kind::default()), host.shelve("2.0.0", Kind::default())];
    host.committed(&releases[..1]);
    let mut agent = host.start(false).await;
    agent.reports(serves("1.0.0")).await;
    agent.lives.tell("counter", offer(9, &releases[1])).await;
    let rejected = |status: &v1::PluginStatus| {
        status.trial.as_ref().is_some_and(|trial| trial.state() == v1::HostState::Rejected)
    };
    let status = agent.reports(rejected).await;
    let failure = status.trial.unwrap().failure.unwrap();
    assert_eq!((failure.fault(), failure.code.starts_with("TRUST_")), (v1::Fault::Host, true), "{failure:?}");
    assert!(status.denied.is_empty());
    assert_eq!(agent.count().await.0, "1.0.0");
    agent.stop().await;
}

#[tokio::test]
async fn a_record_of_a_newer_agent_is_refused_and_left_alone() {
    let host = Host::new();
    let state = StateDir::open(host.dir.path()).unwrap();
    state.records().of("counter").save(&serde_json::json!({"format": 3, "new": true})).unwrap();
    let (world, _standing) = host.world(&state, true);
    let refused = Lives::resume(Arc::new(world)).await.err().unwrap();
    assert_eq!(refused.code(), "FORMAT_TOO_NEW");
    assert!(Path::new(host.dir.path()).join("records/counter.a").exists());
}

#[tokio::test]
async fn a_switch_that_cannot_be_written_is_tried_again_and_callers_never_notice() {
    let host = Host::new();
    let releases = [host.shelve("1.0.0", stateful()), host.shelve("2.0.0", stateful())];
    host.committed(&releases);
    let mut agent = host.start(false).await;
    agent.reports(serves("2.0.0")).await;
    assert_eq!(agent.count().await, ("2.0.0".to_owned(), 1));
    // A folder stands where the record is staged.
    let in_the_way = host.dir.path().join("records/counter.a.new");
    std::fs::create_dir(&in_the_way).unwrap();
    agent.lives.tell("counter", offer(9, &releases[0])).await;
    // The second worker is the first try's, the third that of another one.
    while host.zoo.launched.lock().unwrap().len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(agent.count().await, ("2.0.0".to_owned(), 2));
    std::fs::remove_dir(&in_the_way).unwrap();
    let status = agent.reports(serves("1.0.0")).await;
    assert_eq!(status.trial.unwrap().state(), v1::HostState::Committed);
    assert_eq!(agent.count().await, ("1.0.0".to_owned(), 3), "the state came along");
    assert_eq!(host.zoo.most_active.load(SeqCst), 1);
    agent.stop().await;
    assert_eq!(host.on_disk().status().active.unwrap(), releases[0].release);
}
