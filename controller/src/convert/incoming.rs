//! What agents and operators say, in the planner's words.

use std::collections::{BTreeMap, BTreeSet};

use fleetswap_proto::{Explained, v1};
use fleetswap_rollout as core;
use fleetswap_trust::{Manifest, Versions};
use prost::Message;

use crate::{
    explain,
    store::{HostFacts, ReportedRow},
};

/// A hello.
pub(crate) struct Greeting {
    /// From the host's config.
    pub(crate) labels: BTreeMap<String, String>,
    /// What it says about itself.
    pub(crate) facts: HostFacts,
    /// The greatest generation that it has accepted.
    pub(crate) highest: core::Generation,
    /// The metadata that it has accepted.
    pub(crate) metadata: Versions,
    /// No plugin is started there.
    pub(crate) safe_mode: bool,
    /// Every plugin that it knows.
    pub(crate) said: Vec<Said>,
}

/// What a host says about one plugin.
pub(crate) struct Said {
    /// Which plugin.
    pub(crate) plugin: String,
    /// In the planner's words.
    pub(crate) reported: core::Reported,
    /// As it came.
    pub(crate) status: Vec<u8>,
}

/// A report.
pub(crate) struct Answer {
    /// Number within the stream.
    pub(crate) sequence: u64,
    /// What it says.
    pub(crate) said: Said,
}

/// A push as the planner sees it, with the manifest that it brings.
pub(crate) struct Wish {
    /// For the planner.
    pub(crate) push: core::Push,
    /// Of the release.
    pub(crate) manifest: Manifest,
}

/// Reads a hello.
pub(crate) fn greeting(hello: v1::Hello) -> Greeting {
    let facts = hello.facts.unwrap_or_default();
    let highest = generation(hello.highest);
    let metadata = hello.metadata.unwrap_or_default();
    Greeting {
        labels: hello.labels.into_iter().collect(),
        facts: HostFacts {
            agent_version: hello.agent_version,
            platform: facts.platform,
            kernel: facts.kernel,
            glibc: facts.glibc,
            sandbox: facts.sandbox,
            boot_id: facts.boot_id,
        },
        highest,
        metadata: Versions {
            root: metadata.root,
            timestamp: metadata.timestamp,
            snapshot: metadata.snapshot,
            targets: metadata.targets,
        },
        safe_mode: hello.safe_mode,
        said: hello.plugins.iter().map(|status| said(status, highest)).collect(),
    }
}

/// Reads a report.
pub(crate) fn report(report: v1::Report) -> Answer {
    let status = report.status.unwrap_or_default();
    Answer { sequence: report.sequence, said: said(&status, generation(report.generation)) }
}

/// Reads what is stored of a report; `None` if this build can't.
pub(crate) fn said_of_row(row: &ReportedRow) -> Option<Said> {
    let status = v1::PluginStatus::decode(row.status.as_slice()).ok()?;
    let generation = core::Generation { epoch: row.key.generation.epoch, n: row.key.generation.n };
    Some(said(&status, generation))
}

fn said(status: &v1::PluginStatus, generation: core::Generation) -> Said {
    let reported = core::Reported {
        generation,
        active: status.active.as_ref().and_then(release),
        previous: status.previous.as_ref().and_then(release),
        trial: status.trial.as_ref().map(trial),
        denied: status.denied.iter().filter_map(denied).collect(),
        held: status.local_override.as_ref().map(|it| it.reason.clone()),
    };
    Said { plugin: status.plugin.clone(), reported, status: status.encode_to_vec() }
}

/// A host has nothing of a plugin any more.
pub(crate) fn nothing_of(plugin: &str, generation: core::Generation) -> Said {
    let service = v1::ServiceState::Empty.into();
    let status = v1::PluginStatus { plugin: plugin.to_owned(), service, ..v1::PluginStatus::default() };
    said(&status, generation)
}

fn generation(generation: Option<v1::Generation>) -> core::Generation {
    let v1::Generation { epoch, n } = generation.unwrap_or_default();
    core::Generation { epoch, n }
}

/// A release; `None` if its version is none.
fn release(release: &v1::Release) -> Option<core::Release> {
    let v1::Release { plugin, version, revision, release_id } = release;
    let version = version.parse().ok()?;
    Some(core::Release { plugin: plugin.clone(), version, revision: *revision, id: release_id.clone() })
}

fn denied(denied: &v1::Denied) -> Option<core::Denied> {
    let release = release(denied.release.as_ref()?)?;
    Some(core::Denied { release, code: denied.code.clone() })
}

fn trial(trial: &v1::TrialStatus) -> core::Trial {
    let state = host_state(trial.state());
    let failure = trial.failure.as_ref().map(failure);
    core::Trial {
        rollout: trial.rollout_id.parse().ok(),
        attempt: trial.attempt,
        state,
        failure,
        swap_pause_us: trial.swap_pause_us,
        proven_by: trial.proven_by.clone(),
        state_lost: trial.state_lost.clone(),
    }
}

fn host_state(state: v1::HostState) -> core::HostState {
    match state {
        v1::HostState::Unspecified | v1::HostState::Pending => core::HostState::Pending,
        v1::HostState::Offered => core::HostState::Offered,
        v1::HostState::Fetching => core::HostState::Fetching,
        v1::HostState::Verifying => core::HostState::Verifying,
        v1::HostState::Loading => core::HostState::Loading,
        v1::HostState::Probing => core::HostState::Probing,
        v1::HostState::Switching => core::HostState::Switching,
        v1::HostState::Probation => core::HostState::Probation,
        v1::HostState::Committed => core::HostState::Committed,
        v1::HostState::RollingBack => core::HostState::RollingBack,
        v1::HostState::RolledBack => core::HostState::RolledBack,
        v1::HostState::Rejected => core::HostState::Rejected,
        v1::HostState::Lost => core::HostState::Lost,
        v1::HostState::Skipped => core::HostState::Skipped,
    }
}

fn failure(failure: &v1::Failure) -> core::Failure {
    let fault = match failure.fault() {
        // Nothing shows that the release is innocent.
        v1::Fault::Unspecified | v1::Fault::Release => core::Fault::Release,
        v1::Fault::Host => core::Fault::Host,
        v1::Fault::Link => core::Fault::Link,
        v1::Fault::Trust => core::Fault::Trust,
        v1::Fault::Interrupted => core::Fault::Interrupted,
        v1::Fault::Withdrawn => core::Fault::Withdrawn,
    };
    core::Failure {
        failed_state: host_state(failure.failed_state()),
        fault,
        code: failure.code.clone(),
        check: failure.check.clone(),
        got: failure.got.clone(),
        wanted: failure.wanted.clone(),
        tries: failure.tries,
        message: failure.message.clone(),
        log_tail: failure.log_tail.clone(),
        next: failure.next.clone(),
    }
}

/// The rules of a request on top of defaults; 0 means the default.
fn policy(policy: Option<v1::Policy>, default: core::Policy) -> core::Policy {
    let v1::Policy { max_parallel, min_healthy_ms, healthy_deadline_ms } = policy.unwrap_or_default();
    let or = |value: u64, default: u64| if value == 0 { default } else { value };
    core::Policy {
        max_parallel: if max_parallel == 0 {
            default.max_parallel
        } else {
            core::Amount::Count(max_parallel)
        },
        min_healthy_ms: or(min_healthy_ms, default.min_healthy_ms),
        healthy_deadline_ms: or(healthy_deadline_ms, default.healthy_deadline_ms),
        ..default
    }
}

/// Reads a push.
pub(crate) fn push(request: &v1::PushRequest) -> Result<Wish, Explained> {
    let manifest = Manifest::parse(&request.manifest).map_err(|error| explain::manifest(&error))?;
    let release = core::Release {
        plugin: manifest.plugin.clone(),
        version: manifest.version.clone(),
        revision: manifest.revision,
        id: manifest.release_id().to_string(),
    };
    let push = core::Push {
        selector: selector(&request.selector)?,
        release,
        platforms: platforms(&manifest),
        policy: policy(request.policy, core::Policy::push()),
    };
    Ok(Wish { push, manifest })
}

/// Reads a rollback.
pub(crate) fn rollback(request: &v1::RollbackRequest) -> Result<core::Rollback, Explained> {
    let to = match request.to_version.as_str() {
        "" => None,
        version => Some(version.parse().map_err(|error| {
            Explained::new(
                "REQUEST_INVALID",
                format!("to_version: `{version}` is not a version"),
                format!("{error}"),
                "give a semantic version such as 1.2.0",
            )
        })?),
    };
    Ok(core::Rollback {
        plugin: request.plugin.clone(),
        selector: selector(&request.selector)?,
        to,
        policy: policy(request.policy, core::Policy::rollback()),
    })
}

/// The platforms that a release is built for.
pub(crate) fn platforms(manifest: &Manifest) -> BTreeSet<String> {
    manifest.platforms.keys().cloned().collect()
}

/// Reads a selector; an empty text is none.
pub(crate) fn selector(text: &str) -> Result<Option<core::Selector>, Explained> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| invalid_selector(text, &error))
}

/// Why a text is no selector.
fn invalid_selector(text: &str, error: &core::InvalidSelector) -> Explained {
    Explained::new(
        error.code(),
        format!("`{text}` does not select hosts"),
        error.to_string(),
        "write `all`, or comma-joined terms: key=value, key!=value, name=HOST, key in (a,b)",
    )
}
