//! A plan as one change of the store.

use fleetswap_proto::Explained;
use fleetswap_rollout::{self as core, Plan, RolloutState};

use super::{
    rows,
    world::{Head, World},
};
use crate::store::{Change, EventRow};

/// The rows that a plan changes.
pub(super) fn of_plan(world: &World, plan: &Plan, now_ms: u64) -> Result<Change, Explained> {
    let mut change = Change::default();
    for (id, generation) in &plan.generations {
        if let Some(entry) = world.hosts.get(id) {
            let mut row = entry.row.clone();
            row.generation = rows::generation(*generation);
            change.hosts.push(row);
        }
    }
    for told in &plan.desired {
        if let Some(host) = rows::uuid(&told.host) {
            change.desired.push(rows::desired(host, &told.plugin, &told.desired));
        }
    }
    for moved in &plan.members {
        if let Some(host) = rows::uuid(&moved.host) {
            change.rollout_hosts.push(rows::member(moved.rollout, host, &moved.member)?);
        }
    }
    for assignment in &plan.assignments {
        let version = world.assignments.get(&assignment.key).copied().unwrap_or(0);
        change.assignments.push(rows::assignment(assignment, version));
    }
    for moved in &plan.progress {
        let (Some(rollout), Some(head)) = (world.rollout(moved.rollout), world.heads.get(&moved.rollout))
        else {
            continue;
        };
        let mut head = head.clone();
        if moved.progress.state.has_ended() && head.ended_ms.is_none() {
            head.ended_ms = Some(now_ms);
            change.events.push(ended(moved.rollout.to_string(), moved.progress.state, now_ms));
        }
        change.rollouts.push(rows::rollout(&rollout.spec, &moved.progress, &head)?);
    }
    Ok(change)
}

/// The rows of a rollout that begins, with its assignment if that is new.
pub(super) fn of_start(start: &core::Change, head: &Head, now_ms: u64) -> Result<Change, Explained> {
    let core::Rollout { spec, progress, .. } = &start.rollout;
    let version = spec.to.as_ref().map_or_else(|| "nothing".to_owned(), |to| to.version.to_string());
    let (subject, plugin) = (spec.id.to_string(), &spec.key.plugin);
    let text = format!("{subject} moves {plugin} to {version}");
    Ok(Change {
        assignments: start.assignment.iter().map(|assignment| rows::assignment(assignment, 0)).collect(),
        rollouts: vec![rows::rollout(spec, progress, head)?],
        events: vec![EventRow { at_ms: now_ms, kind: "rollout_started".to_owned(), subject, text }],
        ..Change::default()
    })
}

fn ended(subject: String, state: RolloutState, at_ms: u64) -> EventRow {
    let text = format!("{subject} is {state}");
    EventRow { at_ms, kind: "rollout_ended".to_owned(), subject, text }
}
