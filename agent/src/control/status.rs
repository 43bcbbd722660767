//! How the host stands, as `agent status` shows it.

use std::time::{Duration, UNIX_EPOCH};

use fleetswap_proto::v1;
use serde::{Deserialize, Serialize};

use super::Sources;
use crate::{calls::PluginInfo, keeper::View, sandbox::Told};

/// The whole status.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) schema: u32,
    pub(crate) name: String,
    pub(crate) host_id: String,
    pub(crate) agent_version: String,
    /// The agent runs with --safe: no plugin is started.
    #[serde(default)]
    pub(crate) safe_mode: bool,
    pub(crate) controller: Controller,
    pub(crate) generation: Generation,
    pub(crate) metadata: Metadata,
    /// How plugins are kept.
    #[serde(default)]
    pub(crate) sandbox: Told,
    pub(crate) plugins: Vec<Plugin>,
}

/// The link to the controller.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Controller {
    pub(crate) address: String,
    pub(crate) connected: bool,
    pub(crate) version: String,
    pub(crate) last_error: String,
}

/// The highest generation that was accepted.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(crate) epoch: u64,
    pub(crate) n: u64,
}

/// Versions of the metadata that was accepted.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) root: u64,
    pub(crate) timestamp: u64,
    pub(crate) snapshot: u64,
    pub(crate) targets: u64,
}

/// One plugin.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plugin {
    pub(crate) plugin: String,
    /// `EMPTY`, `SERVING`, `RESTARTING` or `DOWN`.
    pub(crate) service: String,
    pub(crate) active: Option<Release>,
    pub(crate) previous: Option<Release>,
    /// The running trial, or the verdict of the last one.
    pub(crate) trial: Option<Trial>,
    pub(crate) denied: Vec<Denied>,
    /// What an operator on this host has ordered.
    #[serde(default)]
    pub(crate) local_override: Option<LocalOverride>,
    /// What can be called now.
    pub(crate) functions: Vec<String>,
    /// Process id of the worker that answers.
    pub(crate) worker_pid: Option<u32>,
    /// The state on disk.
    #[serde(default)]
    pub(crate) saved_state: Option<SavedState>,
    /// What of its state the active release lost at a start, in words; empty if nothing was lost.
    #[serde(default)]
    pub(crate) state_lost: String,
}

/// What a plugin handed over last, and the agent keeps.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedState {
    /// When, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    pub(crate) version: u32,
    pub(crate) bytes: usize,
}

/// What an operator on this host has ordered.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LocalOverride {
    /// `HOLD`, `ROLLING_BACK` or `ROLLED_BACK`.
    pub(crate) kind: String,
    pub(crate) reason: String,
    /// A user of this host.
    pub(crate) by: String,
    /// RFC 3339.
    pub(crate) since: String,
    /// What answered callers before a rollback.
    pub(crate) from: Option<Release>,
}

/// A release.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Release {
    pub(crate) version: String,
    pub(crate) revision: u64,
    pub(crate) release_id: String,
}

/// A trial.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) rollout_id: String,
    pub(crate) attempt: u32,
    pub(crate) candidate: Option<Release>,
    /// e.g. `PROBING`
    pub(crate) state: String,
    pub(crate) failure: Option<Failure>,
    pub(crate) swap_pause_us: u64,
    pub(crate) proven_by: String,
    pub(crate) state_lost: String,
}

/// Why a trial failed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) failed_state: String,
    /// e.g. `release`
    pub(crate) fault: String,
    pub(crate) code: String,
    pub(crate) check: String,
    pub(crate) got: String,
    pub(crate) wanted: String,
    pub(crate) tries: u32,
    pub(crate) message: String,
    pub(crate) log_tail: String,
    pub(crate) next: String,
}

/// A release that this host doesn't install again.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Denied {
    pub(crate) release: Option<Release>,
    pub(crate) code: String,
    pub(crate) reason: String,
}

impl Status {
    pub(super) fn of(sources: &Sources) -> Self {
        let (standing, link) = (sources.standing.borrow().clone(), sources.link.borrow().clone());
        let callable = sources.calls.plugins();
        let info = |plugin: &str| callable.iter().find(|info| info.plugin == plugin);
        let plugins = standing.plugins.into_values();
        Self {
            schema: 1,
            name: sources.name.clone(),
            host_id: sources.host_id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            safe_mode: standing.safe_mode,
            controller: Controller {
                address: sources.controller.clone(),
                connected: link.connected,
                version: link.controller_version,
                last_error: link.last_error,
            },
            generation: Generation { epoch: standing.highest.epoch, n: standing.highest.n },
            metadata: Metadata {
                root: standing.metadata.root,
                timestamp: standing.metadata.timestamp,
                snapshot: standing.metadata.snapshot,
                targets: standing.metadata.targets,
            },
            sandbox: sources.sandbox.clone(),
            plugins: plugins
                .map(|status| {
                    let saved = sources.keeper.view(&status.plugin);
                    Plugin::of((info(&status.plugin), saved), status)
                })
                .collect(),
        }
    }
}

impl Plugin {
    pub(super) fn of((info, saved): (Option<&PluginInfo>, Option<View>), status: v1::PluginStatus) -> Self {
        let service = status.service().as_str_name().trim_start_matches("SERVICE_STATE_");
        Self {
            service: service.to_owned(),
            active: status.active.map(Release::from),
            previous: status.previous.map(Release::from),
            trial: status.trial.map(Trial::from),
            denied: status.denied.into_iter().map(Denied::from).collect(),
            local_override: status.local_override.map(LocalOverride::from),
            plugin: status.plugin,
            functions: info.map(|info| info.functions.clone()).unwrap_or_default(),
            worker_pid: info.and_then(|info| info.worker_pid),
            saved_state: saved.map(|View { unix_ms, version, bytes }| SavedState { unix_ms, version, bytes }),
            state_lost: status.state_lost,
        }
    }
}

impl From<v1::Release> for Release {
    fn from(release: v1::Release) -> Self {
        Self { version: release.version, revision: release.revision, release_id: release.release_id }
    }
}

impl Trial {
    /// Whether callers notice it already.
    pub(crate) fn is_past_its_switch(&self) -> bool {
        matches!(self.state.as_str(), "SWITCHING" | "PROBATION" | "ROLLING_BACK")
    }
}

impl From<v1::LocalOverride> for LocalOverride {
    fn from(it: v1::LocalOverride) -> Self {
        let kind = it.kind().as_str_name().trim_start_matches("LOCAL_OVERRIDE_KIND_").to_owned();
        let since = UNIX_EPOCH.checked_add(Duration::from_millis(it.since_ms)).unwrap_or(UNIX_EPOCH);
        let since = humantime::format_rfc3339_seconds(since).to_string();
        Self { kind, reason: it.reason, by: it.by, since, from: it.from.map(Release::from) }
    }
}

impl From<v1::TrialStatus> for Trial {
    fn from(trial: v1::TrialStatus) -> Self {
        Self {
            state: host_state(trial.state()),
            rollout_id: trial.rollout_id,
            attempt: trial.attempt,
            candidate: trial.candidate.map(Release::from),
            failure: trial.failure.map(Failure::from),
            swap_pause_us: trial.swap_pause_us,
            proven_by: trial.proven_by,
            state_lost: trial.state_lost,
        }
    }
}

impl From<v1::Failure> for Failure {
    fn from(failure: v1::Failure) -> Self {
        let fault = failure.fault().as_str_name().trim_start_matches("FAULT_").to_ascii_lowercase();
        Self {
            failed_state: host_state(failure.failed_state()),
            fault,
            code: failure.code,
            check: failure.check,
            got: failure.got,
            wanted: failure.wanted,
            tries: failure.tries,
            message: failure.message,
            log_tail: failure.log_tail,
            next: failure.next,
        }
    }
}

impl From<v1::Denied> for Denied {
    fn from(denied: v1::Denied) -> Self {
        Self { release: denied.release.map(Release::from), code: denied.code, reason: denied.reason }
    }
}

fn host_state(state: v1::HostState) -> String {
    state.as_str_name().trim_start_matches("HOST_STATE_").to_owned()
}
