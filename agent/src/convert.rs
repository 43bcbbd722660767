//! Between the wire and the core: the only file of the agent that names the types of both.

use fleetswap_proto::v1;
use fleetswap_update::{
    Denied, Failure, Fault, Generation, LocalOverride, Offer, OverrideKind, Proof, Release, ReleaseId,
    ServiceStatus, Stage, Status, Target, TrialStatus,
};

/// What the controller told this host, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Desired {
    /// When it was told, among everything that was.
    pub(crate) generation: Generation,
    /// One offer per plugin.
    pub(crate) offers: Vec<(String, Offer)>,
}

/// Why a desired state is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadDesired {
    /// Without one nothing can be compared.
    #[error("it has no generation")]
    NoGeneration,
    /// It has no name, no target, or a release that can't be read.
    #[error("its entry for plugin `{plugin}` can't be read: {why}")]
    Plugin {
        /// As it was sent, cut.
        plugin: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Longest name or version that an error repeats, in bytes.
const SHOWN_MAX: usize = 64;
/// Longest id of a rollout, in bytes: it is kept in the record, and told in every report.
const ROLLOUT_ID_MAX: usize = 64;
/// Longest version, in bytes; as in a manifest.
const VERSION_MAX: usize = 64;
/// Longest probation and longest deadline, in milliseconds: a day, as at push. A trial holds the host's one slot.
const TIME_MAX_MS: u64 = 86_400_000;

/// Reads a desired state; one bad entry makes the whole of it bad, since it is complete or nothing.
pub(crate) fn desired(state: v1::DesiredState) -> Result<Desired, BadDesired> {
    let v1::DesiredState { generation, metadata: _, plugins } = state;
    let generation = from_generation(generation.ok_or(BadDesired::NoGeneration)?);
    let offers = plugins.into_iter().map(|plugin| offer(generation, plugin)).collect::<Result<_, _>>()?;
    Ok(Desired { generation, offers })
}

fn offer(generation: Generation, desired: v1::DesiredPlugin) -> Result<(String, Offer), BadDesired> {
    let v1::DesiredPlugin {
        plugin,
        target,
        rollout_id,
        attempt,
        rollback,
        min_healthy_ms,
        healthy_deadline_ms,
    } = desired;
    let shown = plugin[..plugin.floor_char_boundary(SHOWN_MAX)].to_owned();
    let bad = |why: String| BadDesired::Plugin { plugin: shown.clone(), why };
    if !fleetswap_trust::manifest::is_plugin_name(&plugin) {
        return Err(bad("it is not a plugin name".to_owned()));
    }
    within_bounds(&rollout_id, min_healthy_ms, healthy_deadline_ms).map_err(bad)?;
    let target = match target.ok_or_else(|| bad("it has no target".to_owned()))? {
        v1::desired_plugin::Target::Nothing(v1::Nothing {}) => Target::Nothing,
        v1::desired_plugin::Target::Release(release) => {
            Target::Release(from_release(release, &plugin).map_err(bad)?)
        }
    };
    let rollout = rollout_id;
    Ok((
        plugin,
        Offer { generation, target, rollout, attempt, rollback, min_healthy_ms, healthy_deadline_ms },
    ))
}

fn within_bounds(rollout_id: &str, min_healthy_ms: u64, healthy_deadline_ms: u64) -> Result<(), String> {
    if rollout_id.len() > ROLLOUT_ID_MAX {
        return Err(format!("its rollout id has {} bytes, more than {ROLLOUT_ID_MAX}", rollout_id.len()));
    }
    for (name, ms) in [("min_healthy_ms", min_healthy_ms), ("healthy_deadline_ms", healthy_deadline_ms)] {
        if ms > TIME_MAX_MS {
            return Err(format!("its {name} is {ms}, more than a day"));
        }
    }
    Ok(())
}

fn from_release(release: v1::Release, of: &str) -> Result<Release, String> {
    let v1::Release { plugin, version, revision, release_id } = release;
    if plugin != of {
        return Err("its release is one of another plugin".to_owned());
    }
    if version.len() > VERSION_MAX {
        return Err(format!("its version has {} bytes, more than {VERSION_MAX}", version.len()));
    }
    let version = version.parse().map_err(|error| format!("its version is no semantic version: {error}"))?;
    let id = ReleaseId::from_hex(&release_id).map_err(|error| error.to_string())?;
    Ok(Release { plugin, version, revision, id })
}

/// A generation as the core has it.
pub(crate) const fn from_generation(generation: v1::Generation) -> Generation {
    Generation { epoch: generation.epoch, n: generation.n }
}

/// A generation as the wire has it.
pub(crate) const fn generation(generation: Generation) -> v1::Generation {
    v1::Generation { epoch: generation.epoch, n: generation.n }
}

/// Versions of the four roles as the wire has them.
pub(crate) const fn versions(versions: fleetswap_trust::Versions) -> v1::MetadataVersions {
    let fleetswap_trust::Versions { root, timestamp, snapshot, targets } = versions;
    v1::MetadataVersions { root, timestamp, snapshot, targets }
}

/// How a plugin stands, for a report.
pub(crate) fn status(status: Status) -> v1::PluginStatus {
    let Status { plugin, generation: _, service, active, previous, trial, denied, local_override, lost } =
        status;
    v1::PluginStatus {
        plugin,
        service: service_state(service).into(),
        active: active.map(release),
        previous: previous.map(release),
        trial: trial.map(trial_status),
        denied: denied.into_iter().map(denial).collect(),
        local_override: local_override.map(self::local_override),
        state_lost: lost,
    }
}

fn trial_status(trial: TrialStatus) -> v1::TrialStatus {
    let TrialStatus { rollout, attempt, candidate, stage, failure, pause_us, proof, lost } = trial;
    v1::TrialStatus {
        rollout_id: rollout,
        attempt,
        candidate: candidate.map(release),
        state: host_state(stage).into(),
        failure: failure.map(self::failure),
        swap_pause_us: pause_us,
        proven_by: proof.map_or("", proven_by).to_owned(),
        state_lost: lost,
    }
}

fn failure(failure: Failure) -> v1::Failure {
    let Failure { stage, problem, next } = failure;
    v1::Failure {
        failed_state: host_state(stage).into(),
        fault: fault(problem.fault).into(),
        code: problem.code.into(),
        check: problem.check.into(),
        got: problem.got.into(),
        wanted: problem.wanted.into(),
        tries: problem.tries,
        message: problem.message.into(),
        log_tail: problem.log_tail.into(),
        next,
    }
}

fn local_override(of: LocalOverride) -> v1::LocalOverride {
    use v1::LocalOverrideKind as Kind;
    let LocalOverride { kind, order } = of;
    let (kind, from) = match kind {
        OverrideKind::Hold => (Kind::Hold, None),
        OverrideKind::RollingBack { from, .. } => (Kind::RollingBack, Some(from)),
        OverrideKind::RolledBack { from, .. } => (Kind::RolledBack, Some(from)),
    };
    v1::LocalOverride {
        kind: kind.into(),
        reason: order.reason,
        by: order.by,
        since_ms: order.at_ms,
        from: from.map(release),
    }
}

fn release(of: Release) -> v1::Release {
    let Release { plugin, version, revision, id } = of;
    v1::Release { plugin, version: version.to_string(), revision, release_id: id.to_string() }
}

fn denial(denied: Denied) -> v1::Denied {
    let Denied { release: of, code, reason } = denied;
    v1::Denied { release: Some(release(of)), code, reason }
}

const fn service_state(service: ServiceStatus) -> v1::ServiceState {
    match service {
        ServiceStatus::Empty => v1::ServiceState::Empty,
        ServiceStatus::Serving => v1::ServiceState::Serving,
        ServiceStatus::Restarting => v1::ServiceState::Restarting,
        ServiceStatus::Down => v1::ServiceState::Down,
    }
}

const fn host_state(stage: Stage) -> v1::HostState {
    match stage {
        Stage::Offered => v1::HostState::Offered,
        Stage::Fetching => v1::HostState::Fetching,
        Stage::Verifying => v1::HostState::Verifying,
        Stage::Loading => v1::HostState::Loading,
        Stage::Probing => v1::HostState::Probing,
        Stage::Switching => v1::HostState::Switching,
        Stage::Probation => v1::HostState::Probation,
        Stage::Committed => v1::HostState::Committed,
        Stage::RollingBack => v1::HostState::RollingBack,
        Stage::RolledBack => v1::HostState::RolledBack,
        Stage::Rejected => v1::HostState::Rejected,
    }
}

const fn fault(fault: Fault) -> v1::Fault {
    match fault {
        Fault::Release => v1::Fault::Release,
        Fault::Host => v1::Fault::Host,
        Fault::Link => v1::Fault::Link,
        Fault::Trust => v1::Fault::Trust,
        Fault::Interrupted => v1::Fault::Interrupted,
        Fault::Withdrawn => v1::Fault::Withdrawn,
    }
}

const fn proven_by(proof: Proof) -> &'static str {
    match proof {
        Proof::Calls => "calls",
        Proof::Probes => "probes",
        Proof::Health => "health",
        Proof::Unchanged => "unchanged",
        Proof::Before => "before",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(version: &str) -> v1::Release {
        v1::Release {
            plugin: "clock".into(),
            version: version.into(),
            revision: 2,
            release_id: "ab".repeat(32),
        }
    }

    fn state(plugin: &str, target: Option<v1::desired_plugin::Target>) -> v1::DesiredState {
        let plugin = v1::DesiredPlugin { plugin: plugin.into(), target, ..v1::DesiredPlugin::default() };
        let generation = Some(v1::Generation { epoch: 1, n: 2 });
        v1::DesiredState { generation, metadata: None, plugins: vec![plugin] }
    }

    #[test]
    fn an_offer_is_read_with_the_generation_of_the_whole() {
        let told = desired(state("clock", Some(v1::desired_plugin::Target::Release(wire("1.2.0"))))).unwrap();
        let (plugin, offer) = &told.offers[0];
        assert_eq!((plugin.as_str(), offer.generation.n), ("clock", 2));
        assert_eq!(offer.target.release().map(|of| release(of.clone())), Some(wire("1.2.0")));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        let release = |version| Some(v1::desired_plugin::Target::Release(wire(version)));
        assert!(desired(state("clock", release("one"))).unwrap_err().to_string().contains("`clock`"));
        assert!(desired(state("other", release("1.0.0"))).is_err());
        assert!(desired(state("../x", release("1.0.0"))).is_err());
        assert!(desired(state("clock", None)).is_err());
        assert_eq!(desired(v1::DesiredState::default()), Err(BadDesired::NoGeneration));
    }

    /// Longer texts could not be kept any more, and a longer trial would keep all others waiting.
    #[test]
    fn an_offer_without_bounds_is_refused() {
        let longest = "1.0.0-".to_owned() + &"a".repeat(VERSION_MAX - 6);
        let told = |change: &dyn Fn(&mut v1::DesiredPlugin)| {
            let mut state = state("clock", Some(v1::desired_plugin::Target::Release(wire(&longest))));
            change(&mut state.plugins[0]);
            desired(state).map(drop)
        };
        let fits = |plugin: &mut v1::DesiredPlugin| {
            plugin.rollout_id = "r".repeat(ROLLOUT_ID_MAX);
            (plugin.min_healthy_ms, plugin.healthy_deadline_ms) = (TIME_MAX_MS, TIME_MAX_MS);
        };
        assert_eq!(told(&fits), Ok(()));
        let longer = v1::desired_plugin::Target::Release(wire(&format!("{longest}a")));
        let changes: [&dyn Fn(&mut v1::DesiredPlugin); 4] = [
            &|it| it.rollout_id = "r".repeat(ROLLOUT_ID_MAX + 1),
            &|it| it.min_healthy_ms = TIME_MAX_MS + 1,
            &|it| it.healthy_deadline_ms = u64::MAX,
            &|it| it.target = Some(longer.clone()),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(told(change).is_err(), "change {number}");
        }
    }

    #[test]
    fn a_plugin_that_was_never_told_anything_is_reported_as_empty() {
        let empty = status(fleetswap_update::Plugin::new("clock".into()).status());
        assert_eq!((empty.service(), empty.trial), (v1::ServiceState::Empty, None));
    }
}
