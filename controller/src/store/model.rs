//! The rows of the store, and the change that writes them.
//!
//! Rollout documents and host statuses are opaque here: the core's JSON and the wire's bytes, both with their own
//! rules of growth. Beside them stand the columns by which rows are found, listed and compared.

use std::collections::BTreeMap;

use fleetswap_trust::Versions;
use uuid::Uuid;

/// What a host was told; a greater epoch is greater whatever `n` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation {
    /// Opened anew when the store was behind its hosts.
    pub(crate) epoch: u64,
    /// Grows by one with each thing that a host is told.
    pub(crate) n: u64,
}

/// A host that has connected at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostRow {
    /// From the connection's identity.
    pub(crate) host_id: Uuid,
    /// Unique over the fleet.
    pub(crate) name: String,
    /// Labels of its hello.
    pub(crate) labels: BTreeMap<String, String>,
    /// Facts of its hello.
    pub(crate) facts: HostFacts,
    /// Unix milliseconds.
    pub(crate) first_seen_ms: u64,
    /// The greatest generation that it was told; a commit never lowers it.
    pub(crate) generation: Generation,
    /// Counts its streams: the number of the newest one.
    pub(crate) session: u64,
    /// What its newest hello had seen.
    pub(crate) seen: Seen,
}

/// What a host has seen of its controller. More than the store knows shows that the store is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The greatest generation that it has accepted.
    pub(crate) generation: Generation,
    /// The metadata that it has accepted.
    pub(crate) metadata: Versions,
}

/// What a host says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostFacts {
    /// Version of the agent program.
    pub(crate) agent_version: String,
    /// e.g. `x86_64-linux-gnu`
    pub(crate) platform: String,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Version of the C library.
    pub(crate) glibc: String,
    /// The sandbox level that it reaches.
    pub(crate) sandbox: String,
    /// Changes with every boot.
    pub(crate) boot_id: String,
}

/// What a host should do about one plugin: exactly what was, or will be, sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DesiredRow {
    /// The host.
    pub(crate) host_id: Uuid,
    /// The plugin's name.
    pub(crate) plugin: String,
    /// Id of the release, or `None`: the plugin is to be removed.
    pub(crate) release_id: Option<String>,
    /// The rollout that offers it; `None` in a steady state.
    pub(crate) rollout: Option<u64>,
    /// Attempt within the rollout.
    pub(crate) attempt: u32,
    /// Allows a version below the committed one.
    pub(crate) rollback: bool,
    /// The generation that brought it.
    pub(crate) generation: Generation,
    /// Probation, in milliseconds.
    pub(crate) min_healthy_ms: u64,
    /// Time for the whole trial, in milliseconds.
    pub(crate) healthy_deadline_ms: u64,
}

/// Orders the reports on one plugin of one host: only a greater key changes the row. The newest stream wins: a host
/// that has lost its memory answers lower generations than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReportKey {
    /// Number of the stream, counted per host by the controller ([`HostRow::session`]).
    pub(crate) session: u64,
    /// Number within the stream.
    pub(crate) sequence: u64,
    /// The generation that the report answers.
    pub(crate) generation: Generation,
    /// Attempt of the trial.
    pub(crate) attempt: u32,
}

/// What a host last said about one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReportedRow {
    /// The host.
    pub(crate) host_id: Uuid,
    /// The plugin's name.
    pub(crate) plugin: String,
    /// Its place in the order of reports.
    pub(crate) key: ReportKey,
    /// Id of the release that answers callers, for people who read the table.
    pub(crate) active: Option<String>,
    /// The encoded `fleetswap.v1.PluginStatus`.
    pub(crate) status: Vec<u8>,
}

/// A plugin, a set of hosts, and the release that they should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssignmentRow {
    /// The plugin's name.
    pub(crate) plugin: String,
    /// The selector's canonical text; with the plugin, the key.
    pub(crate) selector: String,
    /// `None` before the first rollout has succeeded.
    pub(crate) release_id: Option<String>,
    /// Releases that succeeded here, newest first, the present one included; of more than [`Self::HISTORY_MAX`] the
    /// oldest are forgotten.
    pub(crate) history: Vec<String>,
    /// As read; 0 = new. A commit demands that it is still so, and adds one.
    pub(crate) version: u64,
}

impl AssignmentRow {
    /// Releases that an assignment remembers.
    pub(crate) const HISTORY_MAX: usize = 64;
}

/// One rollout: the core's document, and the columns by which it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RolloutRow {
    /// Shown as `r-000007`; a new one takes [`Snapshot::next_rollout`] and counts on from there.
    pub(crate) id: u64,
    /// The plugin's name.
    pub(crate) plugin: String,
    /// The assignment's selector.
    pub(crate) selector: String,
    /// Id of the release that the assignment had.
    pub(crate) from: Option<String>,
    /// Id of the release that it moves to; `None`: the plugin is removed (the way back of a first install).
    pub(crate) to: Option<String>,
    /// The state's name, e.g. `RUNNING`.
    pub(crate) state: String,
    /// `push` or `rollback`
    pub(crate) trigger: String,
    /// Who asked for it.
    pub(crate) actor: String,
    /// Why.
    pub(crate) reason: String,
    /// Unix milliseconds.
    pub(crate) created_ms: u64,
    /// Unix milliseconds; `None` while it goes on: then it is part of every [`Snapshot`].
    pub(crate) ended_ms: Option<u64>,
    /// The core's document, JSON.
    pub(crate) doc: String,
    /// As read; 0 = new. A commit demands that it is still so, and adds one.
    pub(crate) version: u64,
}

/// One host in a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RolloutHostRow {
    /// The rollout.
    pub(crate) rollout: u64,
    /// The host.
    pub(crate) host_id: Uuid,
    /// The state's name, e.g. `COMMITTED`.
    pub(crate) state: String,
    /// The core's document, JSON.
    pub(crate) doc: String,
}

/// A published release without its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReleaseHead {
    /// SHA-256 of the manifest, 64 hex digits.
    pub(crate) release_id: String,
    /// The plugin's name.
    pub(crate) plugin: String,
    /// Semantic version.
    pub(crate) version: String,
    /// Beside the version.
    pub(crate) revision: u64,
    /// The publisher took it back: no host gets it any more.
    pub(crate) withdrawn: bool,
    /// Names of the platforms that its manifest has.
    pub(crate) platforms: Vec<String>,
}

/// A published release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReleaseRow {
    /// What it is.
    pub(crate) head: ReleaseHead,
    /// The manifest's canonical bytes.
    pub(crate) manifest: Vec<u8>,
}

/// An answered request, so that asking again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestRow {
    /// Given by the caller.
    pub(crate) request_id: String,
    /// SHA-256 over the request, 64 hex digits: the same id with another content is refused.
    pub(crate) fingerprint: String,
    /// The encoded answer.
    pub(crate) response: Vec<u8>,
}

/// Something that people may want to know later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventRow {
    /// Unix milliseconds.
    pub(crate) at_ms: u64,
    /// Short kind, e.g. `host_joined`.
    pub(crate) kind: String,
    /// What it is about: a host's name, a rollout, a plugin.
    pub(crate) subject: String,
    /// One sentence.
    pub(crate) text: String,
}

/// Which rollouts to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RolloutPage {
    /// Only this plugin's.
    pub(crate) plugin: Option<String>,
    /// Only those with a lower id.
    pub(crate) before: Option<u64>,
    /// At most so many.
    pub(crate) limit: u32,
}

/// Everything that is live, from one consistent view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The epoch of new generations.
    pub(crate) epoch: u64,
    /// Id of the next rollout.
    pub(crate) next_rollout: u64,
    /// Milliseconds that the controller has been listening, over all its lives: the clock of every deadline.
    pub(crate) elapsed_ms: u64,
    /// All known hosts.
    pub(crate) hosts: Vec<HostRow>,
    /// What each should do.
    pub(crate) desired: Vec<DesiredRow>,
    /// What each last said.
    pub(crate) reported: Vec<ReportedRow>,
    /// All assignments.
    pub(crate) assignments: Vec<AssignmentRow>,
    /// Rollouts that have not ended, and of each assignment the newest one and the newest one whose `state` is
    /// `SUCCEEDED`: hosts that were away still get that one, and a lost host may still correct its count.
    pub(crate) rollouts: Vec<RolloutRow>,
    /// The hosts of these rollouts.
    pub(crate) rollout_hosts: Vec<RolloutHostRow>,
    /// All published releases.
    pub(crate) releases: Vec<ReleaseHead>,
}

/// One change, written whole or not at all. Start from `Change::default()` and fill in what changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The new [`Snapshot::elapsed_ms`]; a lower one than stored is passed over.
    pub(crate) elapsed_ms: Option<u64>,
    /// Inserted or replaced; a lowered generation or session is a conflict.
    pub(crate) hosts: Vec<HostRow>,
    /// Inserted or replaced.
    pub(crate) desired: Vec<DesiredRow>,
    /// (host, plugin) rows that end.
    pub(crate) undesired: Vec<(Uuid, String)>,
    /// Inserted, or replaced if the key is greater; an older one is passed over.
    pub(crate) reported: Vec<ReportedRow>,
    /// Compare-and-set by `version`.
    pub(crate) assignments: Vec<AssignmentRow>,
    /// Compare-and-set by `version`.
    pub(crate) rollouts: Vec<RolloutRow>,
    /// Inserted or replaced.
    pub(crate) rollout_hosts: Vec<RolloutHostRow>,
    /// Inserted or replaced.
    pub(crate) releases: Vec<ReleaseRow>,
    /// The request that this change answers; a taken id is a conflict.
    pub(crate) request: Option<RequestRow>,
    /// Appended.
    pub(crate) events: Vec<EventRow>,
}
