//! The JSON of everything that the controller answers: the proto's names, enum values without their prefix.

use fleetswap_proto::v1::{
    Deviation, Failure, Fault, Generation, GetStatusResponse, Host, LocalOverride, MetadataVersions, Plan,
    PluginStatus, Policy, PublishedRelease, Release, Rollout, RolloutHost,
};
use serde_json::{Value, json};

/// A rollout with its waves and hosts.
pub(super) fn rollout(rollout: &Rollout) -> Value {
    let waves: Vec<Value> = rollout
        .waves
        .iter()
        .map(|wave| {
            json!({
                "name": wave.name, "state": bare(wave.state().as_str_name(), "WAVE_STATE_"),
                "hosts": wave.hosts, "committed": wave.committed,
            })
        })
        .collect();
    json!({
        "rollout_id": rollout.rollout_id, "plugin": rollout.plugin, "selector": rollout.selector,
        "from": optional(rollout.from.as_ref(), release), "to": optional(rollout.to.as_ref(), release),
        "state": bare(rollout.state().as_str_name(), "ROLLOUT_STATE_"),
        "trigger": rollout.trigger, "actor": rollout.actor, "reason": rollout.reason,
        "created_ms": rollout.created_ms, "ended_ms": rollout.ended_ms,
        "policy": optional(rollout.policy.as_ref(), policy),
        "waves": waves, "hosts": rollout.hosts.iter().map(rollout_host).collect::<Vec<_>>(),
        "waiting": rollout.waiting,
        "failure": optional(rollout.failure.as_ref(), failure), "failed_host": rollout.failed_host,
    })
}

fn rollout_host(host: &RolloutHost) -> Value {
    json!({
        "host": host.host, "wave": host.wave, "state": bare(host.state().as_str_name(), "HOST_STATE_"),
        "online": host.online, "attempt": host.attempt, "failure": optional(host.failure.as_ref(), failure),
        "skip_reason": host.skip_reason, "swap_pause_us": host.swap_pause_us, "proven_by": host.proven_by,
        "state_lost": host.state_lost,
    })
}

/// A failure record.
pub(super) fn failure(failure: &Failure) -> Value {
    json!({
        "failed_state": bare(failure.failed_state().as_str_name(), "HOST_STATE_"),
        "fault": fault(failure.fault()), "code": failure.code, "check": failure.check, "got": failure.got,
        "wanted": failure.wanted, "tries": failure.tries, "message": failure.message, "log_tail": failure.log_tail,
        "next": failure.next,
    })
}

/// The word for a fault.
pub(super) fn fault(fault: Fault) -> String {
    bare(fault.as_str_name(), "FAULT_").to_lowercase()
}

fn release(release: &Release) -> Value {
    json!({
        "plugin": release.plugin, "version": release.version, "revision": release.revision,
        "release_id": release.release_id,
    })
}

fn policy(policy: &Policy) -> Value {
    json!({
        "max_parallel": policy.max_parallel, "min_healthy_ms": policy.min_healthy_ms,
        "healthy_deadline_ms": policy.healthy_deadline_ms,
    })
}

/// What a dry run would do.
pub(super) fn plan(plan: &Plan) -> Value {
    let waves: Vec<Value> =
        plan.waves.iter().map(|wave| json!({ "name": wave.name, "hosts": wave.hosts })).collect();
    json!({
        "from": optional(plan.from.as_ref(), release), "to": optional(plan.to.as_ref(), release),
        "waves": waves, "bytes": plan.bytes, "offline": plan.offline,
    })
}

/// The state of the fleet.
pub(super) fn status(status: &GetStatusResponse) -> Value {
    let assignments: Vec<Value> = status
        .assignments
        .iter()
        .map(|assignment| {
            json!({
                "plugin": assignment.plugin, "selector": assignment.selector,
                "release": optional(assignment.release.as_ref(), release), "hosts": assignment.hosts,
                "hosts_online": assignment.hosts_online, "hosts_on_release": assignment.hosts_on_release,
                "deviating": assignment.deviating,
                "deviations": assignment.deviations.iter().map(deviation).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "epoch": status.epoch, "metadata": optional(status.metadata.as_ref(), metadata),
        "hosts_online": status.hosts_online, "hosts_known": status.hosts_known, "assignments": assignments,
        "unfinished": status.unfinished.iter().map(rollout).collect::<Vec<_>>(),
        "store_behind": status.store_behind, "dev_trust": status.dev_trust,
    })
}

fn deviation(it: &Deviation) -> Value {
    json!({ "host": it.host, "code": it.code, "what": it.what, "fix": it.fix })
}

fn metadata(versions: &MetadataVersions) -> Value {
    json!({
        "root": versions.root, "timestamp": versions.timestamp, "snapshot": versions.snapshot,
        "targets": versions.targets,
    })
}

/// A host and what it runs.
pub(super) fn host(host: &Host) -> Value {
    let facts = host.facts.clone().unwrap_or_default();
    let labels: std::collections::BTreeMap<_, _> = host.labels.iter().collect();
    json!({
        "host_id": host.host_id, "name": host.name, "online": host.online, "last_seen_ms": host.last_seen_ms,
        "agent_version": host.agent_version, "safe_mode": host.safe_mode, "labels": labels,
        "facts": {
            "platform": facts.platform, "kernel": facts.kernel, "glibc": facts.glibc, "sandbox": facts.sandbox,
        },
        "plugins": host.plugins.iter().map(plugin).collect::<Vec<_>>(),
        "generation": optional(host.generation.as_ref(), generation),
    })
}

fn generation(generation: &Generation) -> Value {
    json!({ "epoch": generation.epoch, "n": generation.n })
}

fn plugin(status: &PluginStatus) -> Value {
    let denied: Vec<Value> = status
        .denied
        .iter()
        .map(|denied| {
            let release = optional(denied.release.as_ref(), release);
            json!({ "release": release, "code": denied.code, "reason": denied.reason })
        })
        .collect();
    json!({
        "plugin": status.plugin, "service": bare(status.service().as_str_name(), "SERVICE_STATE_"),
        "active": optional(status.active.as_ref(), release), "previous": optional(status.previous.as_ref(), release),
        "denied": denied, "local_override": optional(status.local_override.as_ref(), local_override),
    })
}

fn local_override(it: &LocalOverride) -> Value {
    json!({
        "kind": bare(it.kind().as_str_name(), "LOCAL_OVERRIDE_KIND_"), "reason": it.reason, "by": it.by,
        "since_ms": it.since_ms, "from": optional(it.from.as_ref(), release),
    })
}

/// A published release.
pub(super) fn published(published: &PublishedRelease) -> Value {
    json!({
        "release": optional(published.release.as_ref(), release), "platforms": published.platforms,
        "withdrawn": published.withdrawn, "hosts": published.hosts,
    })
}

/// An enum value without the prefix that proto needs.
pub(super) fn bare(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn optional<T>(value: Option<&T>, view: impl Fn(&T) -> Value) -> Value {
    value.map_or(Value::Null, view)
}

#[cfg(test)]
mod tests {
    use fleetswap_proto::v1::RolloutState;

    use super::*;

    #[test]
    fn states_lose_the_prefix_that_proto_needs() {
        let value = rollout(&Rollout { state: RolloutState::RolledBack.into(), ..Rollout::default() });
        assert_eq!(value["state"], "ROLLED_BACK");
        assert_eq!(value["from"], Value::Null);
        assert_eq!(fault(Fault::Release), "release");
    }
}
