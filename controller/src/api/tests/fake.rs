//! A fleet that remembers what it was asked, and says what it is told to say.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use fleetswap_proto::{Explained, v1};
use tokio::sync::watch;

use crate::{
    api::{Connected, Fleet, HostIdentity, RequestKey, Session},
    store::{Change, Store, rollout_id, rollout_name},
};

/// The fleet.
pub(super) struct FakeFleet {
    store: Arc<dyn Store>,
    /// What it was asked, one line each.
    heard: Mutex<Vec<String>>,
    sessions: Mutex<u64>,
    rollouts: Mutex<BTreeMap<u64, v1::Rollout>>,
    changes: watch::Sender<u64>,
    /// What every host should run.
    pub(super) desired: watch::Sender<Option<v1::DesiredState>>,
}

impl FakeFleet {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            heard: Mutex::default(),
            sessions: Mutex::new(0),
            rollouts: Mutex::default(),
            changes: watch::channel(0).0,
            desired: watch::channel(None).0,
        }
    }

    /// What it was asked so far.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Puts a rollout into a state, and says that something changed.
    pub(super) fn set_rollout(&self, id: u64, state: v1::RolloutState) {
        let rollout =
            v1::Rollout { rollout_id: rollout_name(id), state: state.into(), ..v1::Rollout::default() };
        self.rollouts.lock().unwrap().insert(id, rollout);
        self.changes.send_modify(|count| *count += 1);
    }

    /// The signal of [`Fleet::changes`], also for tests that wait.
    pub(super) async fn wait_until_heard(&self, line: &str) {
        let mut changes = self.changes.subscribe();
        while !self.heard().iter().any(|heard| heard == line) {
            changes.changed().await.unwrap();
        }
    }

    fn hear(&self, line: String) {
        self.heard.lock().unwrap().push(line);
        self.changes.send_modify(|count| *count += 1);
    }

    async fn start(&self, key: Option<RequestKey>) -> Result<v1::PushResponse, Explained> {
        let rollout = v1::Rollout { rollout_id: rollout_name(1), ..v1::Rollout::default() };
        let response = v1::PushResponse { rollout: Some(rollout), ..v1::PushResponse::default() };
        if let Some(key) = key {
            let request = Some(key.row(&response));
            self.store.commit(Change { request, ..Change::default() }).await?;
        }
        Ok(response)
    }
}

#[async_trait]
impl Fleet for FakeFleet {
    async fn agent_connected(&self, host: HostIdentity, hello: v1::Hello) -> Result<Connected, Explained> {
        self.hear(format!("{} connected as {}", host.name, hello.session));
        let mut sessions = self.sessions.lock().unwrap();
        *sessions += 1;
        Ok(Connected {
            session: Session { host, number: *sessions },
            welcome: v1::Welcome { protocol: fleetswap_proto::PROTOCOL, epoch: 1, ..v1::Welcome::default() },
            desired: self.desired.subscribe(),
        })
    }

    async fn agent_report(&self, session: &Session, report: v1::Report) -> Result<(), Explained> {
        self.hear(format!("report {} of {}", report.sequence, session.host.name));
        Ok(())
    }

    fn agent_heartbeat(&self, session: &Session) {
        self.hear(format!("heartbeat of {}", session.host.name));
    }

    async fn agent_gone(&self, session: &Session) {
        self.hear(format!("session {} gone", session.number));
    }

    async fn push(
        &self,
        request: v1::PushRequest,
        key: Option<RequestKey>,
    ) -> Result<v1::PushResponse, Explained> {
        self.hear(format!("push by {}", request.actor));
        self.start(key).await
    }

    async fn rollback(
        &self,
        request: v1::RollbackRequest,
        key: Option<RequestKey>,
    ) -> Result<v1::PushResponse, Explained> {
        self.hear(format!("rollback by {}", request.actor));
        self.start(key).await
    }

    async fn rollout(&self, id: u64) -> Result<Option<v1::Rollout>, Explained> {
        Ok(self.rollouts.lock().unwrap().get(&id).cloned())
    }

    async fn rollouts(
        &self,
        _plugin: Option<String>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<v1::Rollout>, Explained> {
        let below = |rollout: &&v1::Rollout| {
            before.is_none_or(|before| rollout_id(&rollout.rollout_id).is_some_and(|id| id < before))
        };
        let rollouts = self.rollouts.lock().unwrap();
        Ok(rollouts.values().rev().filter(below).take(limit as usize).cloned().collect())
    }

    async fn hosts(&self, after: Option<String>, limit: u32) -> Result<Vec<v1::Host>, Explained> {
        let names = ["host-1", "host-2", "host-3"].into_iter();
        let later = names.filter(|name| after.as_deref().is_none_or(|after| *name > after));
        let host = |name: &str| v1::Host { name: name.to_owned(), ..v1::Host::default() };
        Ok(later.take(limit as usize).map(host).collect())
    }

    async fn assignments(&self, _plugin: &str, _selector: &str) -> Result<Vec<v1::Assignment>, Explained> {
        Ok(Vec::new())
    }

    async fn status(&self) -> Result<v1::GetStatusResponse, Explained> {
        Ok(v1::GetStatusResponse { epoch: 1, ..v1::GetStatusResponse::default() })
    }

    async fn hosts_by_release(&self) -> Result<BTreeMap<String, u32>, Explained> {
        Ok(BTreeMap::new())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
