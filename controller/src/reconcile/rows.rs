//! The planner's values as rows of the store, and back.

use std::collections::BTreeMap;

use fleetswap_proto::Explained;
use fleetswap_rollout::{
    Assignment, AssignmentKey, Desired, Generation, HostId, Member, Progress, Release, Rollout, RolloutId,
    Selector, Spec, Stored,
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::world::{Head, World, host_id};
use crate::{
    convert,
    store::{self, AssignmentRow, DesiredRow, ReleaseHead, RolloutHostRow, RolloutRow, Snapshot},
};

pub(super) fn generation(generation: Generation) -> store::Generation {
    store::Generation { epoch: generation.epoch, n: generation.n }
}

pub(super) fn core_generation(generation: store::Generation) -> Generation {
    Generation { epoch: generation.epoch, n: generation.n }
}

pub(super) fn desired(host_id: Uuid, plugin: &str, desired: &Desired) -> DesiredRow {
    DesiredRow {
        host_id,
        plugin: plugin.to_owned(),
        release_id: desired.target.as_ref().map(|target| target.id.clone()),
        rollout: desired.rollout.map(|rollout| rollout.0),
        attempt: desired.attempt,
        rollback: desired.rollback,
        generation: generation(desired.generation),
        min_healthy_ms: desired.min_healthy_ms,
        healthy_deadline_ms: desired.healthy_deadline_ms,
    }
}

pub(super) fn assignment(assignment: &Assignment, version: u64) -> AssignmentRow {
    let history = assignment.history.iter().take(AssignmentRow::HISTORY_MAX);
    AssignmentRow {
        plugin: assignment.key.plugin.clone(),
        selector: assignment.key.selector.to_string(),
        release_id: assignment.release().map(|release| release.id.clone()),
        history: history.map(|release| release.id.clone()).collect(),
        version,
    }
}

pub(super) fn rollout(spec: &Spec, progress: &Progress, head: &Head) -> Result<RolloutRow, Explained> {
    Ok(RolloutRow {
        id: spec.id.0,
        plugin: spec.key.plugin.clone(),
        selector: spec.key.selector.to_string(),
        from: spec.from.as_ref().map(|release| release.id.clone()),
        to: spec.to.as_ref().map(|release| release.id.clone()),
        state: progress.state.to_string(),
        trigger: spec.trigger.to_string(),
        actor: head.actor.clone(),
        reason: head.reason.clone(),
        created_ms: head.created_ms,
        ended_ms: head.ended_ms,
        doc: encode((spec, progress))?,
        version: head.version,
    })
}

pub(super) fn member(
    rollout: RolloutId,
    host_id: Uuid,
    member: &Member,
) -> Result<RolloutHostRow, Explained> {
    Ok(RolloutHostRow { rollout: rollout.0, host_id, state: member.state.to_string(), doc: encode(member)? })
}

fn encode<T: Serialize>(value: T) -> Result<String, Explained> {
    serde_json::to_string(&Stored::new(value)).map_err(|error| unreadable("a value can't be written", &error))
}

fn decode<T: DeserializeOwned>(what: &str, doc: &str) -> Result<T, Explained> {
    let stored: Stored<T> = serde_json::from_str(doc).map_err(|error| unreadable(what, &error))?;
    Ok(stored.into_value())
}

fn unreadable(what: &str, error: &dyn std::fmt::Display) -> Explained {
    Explained::new(
        "STORE_FAILED",
        format!("the store has what this controller can't read: {what}"),
        error.to_string(),
        "start the controller that wrote it, or restore a backup; the store was left as it is",
    )
}

/// A rollout from its rows.
pub(super) fn rollout_of(row: RolloutRow, hosts: &[RolloutHostRow]) -> Result<(Rollout, Head), Explained> {
    let name = store::rollout_name(row.id);
    let (spec, progress) = decode(&name, &row.doc)?;
    let mut members = BTreeMap::new();
    for host in hosts {
        let member = decode(&format!("{name}, host {}", host.host_id), &host.doc)?;
        members.insert(host_id(host.host_id), member);
    }
    let RolloutRow { actor, reason, created_ms, ended_ms, version, .. } = row;
    Ok((Rollout { spec, progress, members }, Head { actor, reason, created_ms, ended_ms, version }))
}

/// What the ids in rows stand for.
type Releases = BTreeMap<String, Release>;

/// Everything that is live.
pub(super) fn load(snapshot: Snapshot) -> Result<World, Explained> {
    let mut world = World::empty(snapshot.epoch, snapshot.next_rollout);
    let mut releases = Releases::new();
    for head in snapshot.releases {
        let release = release(head)?;
        releases.insert(release.id.clone(), release);
    }
    for row in snapshot.hosts {
        world.put_host(row, false);
    }
    for row in snapshot.reported {
        let said = convert::said_of_row(&row).ok_or_else(|| unreadable("a host's report", &row.plugin))?;
        remember(&mut releases, [&said.reported.active, &said.reported.previous]);
        world.put_reported(row, said.reported);
    }
    let mut hosts: BTreeMap<u64, Vec<RolloutHostRow>> = BTreeMap::new();
    for row in snapshot.rollout_hosts {
        hosts.entry(row.rollout).or_default().push(row);
    }
    for row in snapshot.rollouts {
        let members = hosts.remove(&row.id).unwrap_or_default();
        let (rollout, head) = rollout_of(row, &members)?;
        remember(&mut releases, [&rollout.spec.from, &rollout.spec.to]);
        world.heads.insert(rollout.spec.id, head);
        world.rollouts.push(rollout);
    }
    for row in snapshot.assignments {
        let version = row.version;
        let assignment = assignment_of(row, &releases)?;
        world.assignments.insert(assignment.key.clone(), version);
        world.fleet.assignments.insert(assignment.key.clone(), assignment);
    }
    for row in snapshot.desired {
        put_desired(&mut world, &releases, row);
    }
    Ok(world)
}

/// Releases are named in several places; any of them tells what an id stands for.
fn remember(releases: &mut Releases, known: [&Option<Release>; 2]) {
    for release in known.into_iter().flatten() {
        releases.entry(release.id.clone()).or_insert_with(|| release.clone());
    }
}

fn release(head: ReleaseHead) -> Result<Release, Explained> {
    let ReleaseHead { release_id, plugin, version, revision, .. } = head;
    let version =
        version.parse().map_err(|error| unreadable(&format!("version {version} of {plugin}"), &error))?;
    Ok(Release { plugin, version, revision, id: release_id })
}

fn assignment_of(row: AssignmentRow, releases: &Releases) -> Result<Assignment, Explained> {
    let what = format!("the assignment {} of {}", row.selector, row.plugin);
    let selector: Selector = row.selector.parse().map_err(|error| unreadable(&what, &error))?;
    let known = |id: &String| releases.get(id).cloned().ok_or_else(|| unreadable(&what, id));
    let history = row.history.iter().map(known).collect::<Result<_, _>>()?;
    Ok(Assignment { key: AssignmentKey { plugin: row.plugin, selector }, history })
}

/// A row whose release nothing tells about any more is left out: the host then keeps what it runs.
fn put_desired(world: &mut World, releases: &Releases, row: DesiredRow) {
    let target = match &row.release_id {
        None => None,
        Some(id) => match releases.get(id) {
            Some(release) => Some(release.clone()),
            None => {
                return tracing::warn!(host = %row.host_id, plugin = row.plugin, release = id, "unknown release");
            }
        },
    };
    let desired = Desired {
        target,
        rollout: row.rollout.map(RolloutId),
        attempt: row.attempt,
        rollback: row.rollback,
        min_healthy_ms: row.min_healthy_ms,
        healthy_deadline_ms: row.healthy_deadline_ms,
        generation: core_generation(row.generation),
    };
    if let Some(host) = world.fleet.hosts.get_mut(&host_id(row.host_id)) {
        host.plugins.entry(row.plugin).or_default().desired = Some(desired);
    }
}

/// The store's name of a host; `None` if the planner's is none of ours.
pub(super) fn uuid(host: &HostId) -> Option<Uuid> {
    host.0.parse().ok()
}
