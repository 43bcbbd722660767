//! Agents played by hand, over a reconciler whose rounds are made by hand.

use std::{collections::BTreeMap, sync::Arc};

use fleetswap_proto::{Explained, PROTOCOL, v1};
use fleetswap_trust::{
    Manifest, Versions,
    manifest::{BlobRef, HealthRule, Platform},
};
use tokio::sync::watch;
use uuid::Uuid;

use super::super::Reconciler;
use crate::{
    api::{Fleet, HostIdentity, RequestKey, Session},
    store::{Change, ReleaseHead, ReleaseRow, Sqlite, Store},
};

const PLATFORM: &str = "x86_64-linux-gnu";
const PLUGIN: &str = "clock";

/// One agent: what it would say, and what it was told.
pub(super) struct Agent {
    id: Uuid,
    name: String,
    pub(super) session: Option<Session>,
    pub(super) desired: Option<watch::Receiver<Option<v1::DesiredState>>>,
    pub(super) highest: v1::Generation,
    pub(super) metadata: v1::MetadataVersions,
    pub(super) status: v1::PluginStatus,
    sequence: u64,
}

pub(super) struct Played {
    pub(super) store: Arc<dyn Store>,
    pub(super) versions: watch::Sender<Versions>,
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) agents: Vec<Agent>,
    requests: u64,
    _folder: tempfile::TempDir,
}

pub(super) fn agent_name(at: usize) -> String {
    format!("host-{at}")
}

pub(super) fn version_of(plugin: &v1::DesiredPlugin) -> Option<String> {
    match plugin.target.as_ref()? {
        v1::desired_plugin::Target::Release(release) => Some(release.version.clone()),
        v1::desired_plugin::Target::Nothing(v1::Nothing {}) => None,
    }
}

fn manifest(version: &str) -> Manifest {
    let blob = |length: u64| BlobRef { length, ..BlobRef::to(version.as_bytes()) };
    let platform = Platform { artifact: blob(1_000), descriptor: blob(200) };
    Manifest {
        format: 1,
        plugin: PLUGIN.to_owned(),
        version: version.parse().unwrap(),
        revision: 1,
        min_agent: "0.1.0".parse().unwrap(),
        floor: None,
        probes: Vec::new(),
        health: HealthRule::default(),
        config: None,
        data: Vec::new(),
        platforms: BTreeMap::from([(PLATFORM.to_owned(), platform)]),
    }
}

impl Played {
    pub(super) async fn with_agents(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("store.db")).unwrap());
        let versions = watch::Sender::new(Versions { root: 1, timestamp: 3, snapshot: 3, targets: 3 });
        for version in ["1.0.0", "1.1.0", "1.2.0"] {
            publish(&*store, version).await;
        }
        let reconciler = Reconciler::load(Arc::clone(&store), versions.subscribe()).await.unwrap();
        let agents = (0..count).map(agent).collect();
        let mut stage = Self { store, versions, reconciler, agents, requests: 0, _folder: folder };
        stage.connect_all().await;
        stage
    }

    /// A fleet whose first rollout has succeeded.
    pub(super) async fn running(version: &str, count: usize) -> Self {
        let mut stage = Self::with_agents(count).await;
        stage.push(version).await;
        stage.finish().await;
        stage
    }

    pub(super) fn fleet(&self) -> &dyn Fleet {
        &*self.reconciler
    }

    pub(super) async fn restart(&mut self) {
        let (store, versions) = (Arc::clone(&self.store), self.versions.subscribe());
        self.reconciler = Reconciler::load(store, versions).await.unwrap();
    }

    pub(super) async fn round(&self) {
        self.reconciler.round().await.unwrap();
    }

    pub(super) async fn connect_all(&mut self) {
        for at in 0..self.agents.len() {
            self.connect(at).await;
        }
    }

    pub(super) async fn connect(&mut self, at: usize) {
        let agent = &self.agents[at];
        let host = HostIdentity { id: agent.id, name: agent.name.clone() };
        let connected = self.fleet().agent_connected(host, hello(agent)).await.unwrap();
        assert_eq!((connected.welcome.protocol, connected.welcome.epoch), (PROTOCOL, 1));
        let agent = &mut self.agents[at];
        (agent.session, agent.desired) = (Some(connected.session), Some(connected.desired));
        agent.sequence = 0;
    }

    pub(super) async fn connect_as(&self, id: u128, name: &str) -> Result<(), Explained> {
        let host = HostIdentity { id: Uuid::from_u128(id), name: name.to_owned() };
        self.fleet().agent_connected(host, hello(&agent(0))).await.map(drop)
    }

    pub(super) async fn disconnect(&mut self, at: usize) {
        let session = self.agents[at].session.take().unwrap();
        self.fleet().agent_gone(&session).await;
    }

    pub(super) fn request(&self, version: &str) -> v1::PushRequest {
        v1::PushRequest {
            plugin: PLUGIN.to_owned(),
            selector: "all".to_owned(),
            manifest: manifest(version).canonical(),
            policy: Some(v1::Policy { max_parallel: 8, ..v1::Policy::default() }),
            reason: "a test".to_owned(),
            actor: "tester".to_owned(),
            ..v1::PushRequest::default()
        }
    }

    pub(super) async fn try_push(&mut self, version: &str) -> Result<v1::PushResponse, Explained> {
        self.requests += 1;
        let key =
            RequestKey { request_id: format!("request-{}", self.requests), fingerprint: "ff".repeat(32) };
        self.fleet().push(self.request(version), Some(key)).await
    }

    pub(super) async fn push(&mut self, version: &str) -> v1::PushResponse {
        self.try_push(version).await.unwrap()
    }

    pub(super) async fn rollback(&self) -> Result<v1::PushResponse, Explained> {
        let request = v1::RollbackRequest { plugin: PLUGIN.to_owned(), ..v1::RollbackRequest::default() };
        self.fleet().rollback(request, None).await
    }

    pub(super) async fn rollout(&self, id: u64) -> v1::Rollout {
        self.fleet().rollout(id).await.unwrap().unwrap()
    }

    /// What an agent was told last.
    pub(super) fn desired(&self, at: usize) -> Option<v1::DesiredState> {
        self.agents[at].desired.as_ref()?.borrow().clone()
    }

    /// Agents with an offer that they have not answered.
    pub(super) fn offered(&self) -> Vec<usize> {
        (0..self.agents.len()).filter(|at| self.offer(*at).is_some()).collect()
    }

    fn offer(&self, at: usize) -> Option<v1::DesiredPlugin> {
        let offer = self.desired(at)?.plugins.into_iter().find(|plugin| !plugin.rollout_id.is_empty())?;
        let trial = self.agents[at].status.trial.as_ref();
        let is_done = trial.is_some_and(|trial| {
            trial.rollout_id == offer.rollout_id
                && trial.attempt == offer.attempt
                && trial.state() == v1::HostState::Committed
        });
        (!is_done).then_some(offer)
    }

    /// The agent comes so far with its offer; it has not told yet.
    pub(super) fn settle_offer(&mut self, at: usize, state: v1::HostState) {
        let offer = self.offer(at).unwrap();
        let generation = self.desired(at).unwrap().generation.unwrap();
        let target = match offer.target.unwrap() {
            v1::desired_plugin::Target::Release(release) => Some(release),
            v1::desired_plugin::Target::Nothing(v1::Nothing {}) => None,
        };
        let agent = &mut self.agents[at];
        agent.highest = generation;
        agent.status.plugin = PLUGIN.to_owned();
        let failure = (state == v1::HostState::Rejected).then(|| v1::Failure {
            failed_state: v1::HostState::Probing.into(),
            fault: v1::Fault::Release.into(),
            code: "PROBE_MISMATCH".to_owned(),
            ..v1::Failure::default()
        });
        if state == v1::HostState::Committed {
            agent.status.previous = agent.status.active.take();
            agent.status.active.clone_from(&target);
            agent.status.service = v1::ServiceState::Serving.into();
        }
        agent.status.trial = Some(v1::TrialStatus {
            rollout_id: offer.rollout_id,
            attempt: offer.attempt,
            candidate: target,
            state: state.into(),
            failure,
            ..v1::TrialStatus::default()
        });
    }

    pub(super) fn next_report(&mut self, at: usize) -> v1::Report {
        let agent = &mut self.agents[at];
        agent.sequence += 1;
        let (generation, status) = (Some(agent.highest), Some(agent.status.clone()));
        v1::Report { sequence: agent.sequence, generation, status }
    }

    pub(super) async fn report(&mut self, at: usize) {
        let report = self.next_report(at);
        let session = self.agents[at].session.clone().unwrap();
        self.fleet().agent_report(&session, report).await.unwrap();
    }

    /// Whoever has an offer commits it, and says so.
    pub(super) async fn commit_offers(&mut self) {
        for at in self.offered() {
            self.settle_offer(at, v1::HostState::Committed);
            self.report(at).await;
        }
        self.round().await;
    }

    pub(super) async fn finish(&mut self) {
        self.round().await;
        for _ in 0..=self.agents.len() {
            self.commit_offers().await;
        }
        assert!(self.fleet().status().await.unwrap().unfinished.is_empty());
    }

    /// How many agents run which version.
    pub(super) fn active(&self) -> BTreeMap<String, usize> {
        let mut versions = BTreeMap::new();
        let active = self.agents.iter().filter_map(|agent| agent.status.active.as_ref());
        active.for_each(|release| *versions.entry(release.version.clone()).or_default() += 1);
        versions
    }
}

fn agent(at: usize) -> Agent {
    Agent {
        id: Uuid::from_u128(u128::try_from(at).unwrap() + 1),
        name: agent_name(at),
        session: None,
        desired: None,
        highest: v1::Generation::default(),
        metadata: v1::MetadataVersions::default(),
        status: v1::PluginStatus::default(),
        sequence: 0,
    }
}

fn hello(agent: &Agent) -> v1::Hello {
    let status = Some(agent.status.clone()).filter(|status| !status.plugin.is_empty());
    v1::Hello {
        protocol: PROTOCOL,
        agent_version: "0.1.0".to_owned(),
        session: Uuid::nil().to_string(),
        highest: Some(agent.highest),
        metadata: Some(agent.metadata),
        facts: Some(v1::HostFacts { platform: PLATFORM.to_owned(), ..v1::HostFacts::default() }),
        plugins: status.into_iter().collect(),
        ..v1::Hello::default()
    }
}

async fn publish(store: &dyn Store, version: &str) {
    let manifest = manifest(version);
    let head = ReleaseHead {
        release_id: manifest.release_id().to_string(),
        plugin: PLUGIN.to_owned(),
        version: version.to_owned(),
        revision: 1,
        withdrawn: false,
        platforms: vec![PLATFORM.to_owned()],
    };
    let releases = vec![ReleaseRow { head, manifest: manifest.canonical() }];
    store.commit(Change { releases, ..Change::default() }).await.unwrap();
}
