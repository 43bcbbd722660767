//! What the API needs of the reconcile loop: the seam between the wire's adapters and the fleet.

use async_trait::async_trait;
use fleetswap_proto::{Explained, v1};
use tokio::sync::watch;

use super::identity::HostIdentity;

/// One stream of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    /// Whose stream it is.
    pub(crate) host: HostIdentity,
    /// Counts the host's streams; the greatest is the newest.
    pub(crate) number: u64,
}

/// The fleet's side of a new stream.
#[derive(Debug)]
pub(crate) struct Connected {
    /// Names the stream in later calls.
    pub(crate) session: Session,
    /// The first message to the agent.
    pub(crate) welcome: v1::Welcome,
    /// What the host should run. Each value is complete, so only the latest is sent; `None`: nothing to say yet.
    pub(crate) desired: watch::Receiver<Option<v1::DesiredState>>,
}

/// Names a request that changes something, so that the fleet commits its answer in the same transaction
/// (as [`crate::store::RequestRow`]; the response is the encoded `v1::PushResponse`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestKey {
    /// Given by the caller, never seen before.
    pub(crate) request_id: String,
    /// SHA-256 over the request, 64 hex digits.
    pub(crate) fingerprint: String,
}

/// The fleet as the API sees it; the reconcile loop implements it. Every request has been validated field by field
/// before: ids are there, sizes are in bounds, enums are known. Errors are what an operator reads.
#[async_trait]
pub(crate) trait Fleet: Send + Sync + 'static {
    /// A hello. Returns when the host, its labels, its facts and every status of the hello are durable.
    /// A newer stream of a host replaces the older one.
    async fn agent_connected(&self, host: HostIdentity, hello: v1::Hello) -> Result<Connected, Explained>;

    /// A report. Returns when it is durable: only then is it acknowledged. One of a replaced session is passed over.
    async fn agent_report(&self, session: &Session, report: v1::Report) -> Result<(), Explained>;

    /// A sign of life; never written.
    fn agent_heartbeat(&self, session: &Session);

    /// The stream has ended; nothing happens if a newer session has taken over.
    async fn agent_gone(&self, session: &Session);

    /// Starts a rollout, says that nothing is to be done, or (`dry_run`, without a key) only plans.
    /// The manifest is canonical and, unless `dry_run`, published.
    async fn push(
        &self,
        request: v1::PushRequest,
        key: Option<RequestKey>,
    ) -> Result<v1::PushResponse, Explained>;

    /// Starts a rollout back to a release that succeeded before.
    async fn rollback(
        &self,
        request: v1::RollbackRequest,
        key: Option<RequestKey>,
    ) -> Result<v1::PushResponse, Explained>;

    /// One rollout, ended or not; `None`: there is no such rollout.
    async fn rollout(&self, id: u64) -> Result<Option<v1::Rollout>, Explained>;

    /// At most `limit` rollouts with an id below `before`, newest first; their `hosts` may be left out.
    async fn rollouts(
        &self,
        plugin: Option<String>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<v1::Rollout>, Explained>;

    /// At most `limit` hosts whose name sorts after `after`, by name.
    async fn hosts(&self, after: Option<String>, limit: u32) -> Result<Vec<v1::Host>, Explained>;

    /// The assignments of a plugin, or the one with this selector. `manifest` and `descriptors` are filled in by the
    /// API.
    async fn assignments(&self, plugin: &str, selector: &str) -> Result<Vec<v1::Assignment>, Explained>;

    /// Counts, assignments, unfinished rollouts. `metadata` and `dev_trust` are filled in by the API.
    async fn status(&self) -> Result<v1::GetStatusResponse, Explained>;

    /// Hosts that report to run each release, by release id.
    async fn hosts_by_release(&self) -> Result<std::collections::BTreeMap<String, u32>, Explained>;

    /// Changes whenever anything changed that a watcher of a rollout may see.
    fn changes(&self) -> watch::Receiver<u64>;
}
