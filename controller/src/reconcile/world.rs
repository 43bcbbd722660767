//! The fleet in memory: what the store holds, and who is connected.

use std::collections::{BTreeMap, BTreeSet};

use fleetswap_proto::Explained;
use fleetswap_rollout::{
    AssignmentKey, Elapsed, Fleet, Host, HostId, Plan, Reported, Rollout, RolloutId, RolloutState, Waiting,
    plan,
};
use fleetswap_trust::Versions;
use uuid::Uuid;

use super::{links::Edition, rows};
use crate::{
    convert::RolloutView,
    store::{HostRow, ReportedRow, Snapshot},
};

/// The fleet, and what belongs to its rows beside it.
pub(super) struct World {
    pub(super) fleet: Fleet,
    pub(super) rollouts: Vec<Rollout>,
    pub(super) heads: BTreeMap<RolloutId, Head>,
    pub(super) hosts: BTreeMap<HostId, Entry>,
    /// Version of each assignment's row.
    pub(super) assignments: BTreeMap<AssignmentKey, u64>,
    pub(super) waiting: BTreeMap<RolloutId, Vec<Waiting>>,
    pub(super) next_rollout: u64,
    behind: Option<String>,
}

/// What a rollout's row has that the planner does not need.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) actor: String,
    pub(super) reason: String,
    /// Unix milliseconds.
    pub(super) created_ms: u64,
    /// Unix milliseconds.
    pub(super) ended_ms: Option<u64>,
    /// Of the row.
    pub(super) version: u64,
}

/// What a host's rows have that the planner does not need.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) row: HostRow,
    pub(super) reported: BTreeMap<String, ReportedRow>,
}

/// The planner's name of a host.
pub(super) fn host_id(id: Uuid) -> HostId {
    HostId(id.to_string())
}

impl World {
    /// Reads everything that is live. Nobody is connected.
    pub(super) fn load(snapshot: Snapshot) -> Result<Self, Explained> {
        rows::load(snapshot)
    }

    pub(super) fn empty(epoch: u64, next_rollout: u64) -> Self {
        Self {
            fleet: Fleet { epoch, ..Fleet::default() },
            rollouts: Vec::new(),
            heads: BTreeMap::new(),
            hosts: BTreeMap::new(),
            assignments: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_rollout,
            behind: None,
        }
    }

    /// Takes over what the store holds. Who is connected stays, and so do reports that came while it was read.
    pub(super) fn replace(&mut self, fresh: Self) {
        let mut old = std::mem::replace(self, fresh);
        self.behind = old.behind;
        for (id, host) in old.fleet.hosts {
            if let Some(fresh) = self.fleet.hosts.get_mut(&id) {
                fresh.online = host.online;
                fresh.safe_mode = host.safe_mode;
            }
            let mut rows = old.hosts.remove(&id).map(|entry| entry.reported).unwrap_or_default();
            for (plugin, state) in host.plugins {
                if let (Some(row), Some(reported)) = (rows.remove(&plugin), state.reported) {
                    self.put_reported(row, reported);
                }
            }
        }
    }

    /// Why nothing is sent: the store knows less than a host has seen.
    pub(super) fn behind(&self) -> Option<&str> {
        self.behind.as_deref()
    }

    /// Stops everything until the controller starts again over another store.
    pub(super) fn fall_behind(&mut self, why: String) {
        tracing::error!(why, "the store is behind its hosts: nothing is sent");
        self.behind.get_or_insert(why);
    }

    pub(super) fn plan(&self, elapsed_ms: u64) -> Plan {
        plan(&self.fleet, &self.rollouts, Elapsed(elapsed_ms))
    }

    /// Does what was committed to the memory. True if people would see a difference.
    pub(super) fn apply(&mut self, plan: &Plan, now_ms: u64) -> bool {
        plan.apply(&mut self.fleet, &mut self.rollouts);
        for (id, generation) in &plan.generations {
            if let Some(entry) = self.hosts.get_mut(id) {
                entry.row.generation = rows::generation(*generation);
            }
        }
        for change in &plan.progress {
            if let Some(head) = self.heads.get_mut(&change.rollout) {
                head.version += 1;
                if change.progress.state.has_ended() {
                    head.ended_ms.get_or_insert(now_ms);
                }
            }
        }
        for assignment in &plan.assignments {
            *self.assignments.entry(assignment.key.clone()).or_default() += 1;
        }
        let has_changed = !plan.is_empty() || self.waiting != plan.waiting;
        self.waiting.clone_from(&plan.waiting);
        self.forget();
        has_changed
    }

    /// Keeps only the rollouts that a plan needs: unfinished ones, and of each assignment the newest one and the
    /// newest that succeeded. The others are in the store.
    fn forget(&mut self) {
        let (mut newest, mut succeeded) = (BTreeMap::new(), BTreeMap::new());
        for rollout in &self.rollouts {
            let (key, id) = (&rollout.spec.key, rollout.spec.id);
            let keep = |of: &mut BTreeMap<AssignmentKey, RolloutId>| {
                of.entry(key.clone()).and_modify(|kept| *kept = id.max(*kept)).or_insert(id);
            };
            keep(&mut newest);
            if rollout.progress.state == RolloutState::Succeeded {
                keep(&mut succeeded);
            }
        }
        let kept: BTreeSet<RolloutId> = newest.into_values().chain(succeeded.into_values()).collect();
        self.rollouts
            .retain(|rollout| !rollout.progress.state.has_ended() || kept.contains(&rollout.spec.id));
        let rollouts = &self.rollouts;
        self.heads.retain(|id, _| rollouts.iter().any(|rollout| rollout.spec.id == *id));
    }

    /// Takes in a rollout that was committed, with its assignment if that is new.
    pub(super) fn begin(&mut self, start: fleetswap_rollout::Change, head: Head) {
        let fleetswap_rollout::Change { assignment, rollout } = start;
        if let Some(assignment) = assignment {
            self.assignments.insert(assignment.key.clone(), 1);
            self.fleet.assignments.insert(assignment.key.clone(), assignment);
        }
        let id = rollout.spec.id;
        self.next_rollout = id.0 + 1;
        self.heads.insert(id, Head { version: 1, ..head });
        self.rollouts.push(rollout);
    }

    /// Takes in a host's row.
    pub(super) fn put_host(&mut self, row: HostRow, online: bool) {
        let id = host_id(row.host_id);
        let host = self.fleet.hosts.entry(id.clone()).or_default();
        let (plugins, safe_mode) = (std::mem::take(&mut host.plugins), host.safe_mode);
        *host = Host {
            name: row.name.clone(),
            labels: row.labels.clone(),
            platform: row.facts.platform.clone(),
            online,
            safe_mode,
            generation: rows::core_generation(row.generation),
            plugins,
        };
        match self.hosts.get_mut(&id) {
            Some(entry) => entry.row = row,
            None => {
                self.hosts.insert(id, Entry { row, reported: BTreeMap::new() });
            }
        }
    }

    /// Takes in whether a host that has just connected starts its plugins.
    pub(super) fn put_safe_mode(&mut self, id: Uuid, safe_mode: bool) {
        if let Some(host) = self.fleet.hosts.get_mut(&host_id(id)) {
            host.safe_mode = safe_mode;
        }
    }

    /// Takes in what a host said, unless it is older than what is known.
    pub(super) fn put_reported(&mut self, row: ReportedRow, reported: Reported) {
        let id = host_id(row.host_id);
        let (Some(host), Some(entry)) = (self.fleet.hosts.get_mut(&id), self.hosts.get_mut(&id)) else {
            return;
        };
        if entry.reported.get(&row.plugin).is_some_and(|known| known.key >= row.key) {
            return;
        }
        host.plugins.entry(row.plugin.clone()).or_default().reported = Some(reported);
        entry.reported.insert(row.plugin.clone(), row);
    }

    /// Which desired state a host has now; `None`: it was never told anything, or nothing may be sent.
    pub(super) fn edition(&self, id: Uuid, versions: Versions) -> Option<Edition> {
        let host = self.fleet.hosts.get(&host_id(id)).filter(|_| self.behind.is_none())?;
        let is_told = host.plugins.values().any(|plugin| plugin.desired.is_some());
        is_told.then(|| (rows::generation(host.generation), versions))
    }

    /// A host by its id in the store.
    pub(super) fn host(&self, id: Uuid) -> Option<&Host> {
        self.fleet.hosts.get(&host_id(id))
    }

    /// A live rollout by its number.
    pub(super) fn live(&self, number: u64) -> Option<RolloutView<'_>> {
        let id = RolloutId(number);
        Some(self.view(self.rollout(id)?, self.heads.get(&id)?))
    }

    /// Rollouts that go on.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = RolloutView<'_>> {
        let unfinished = self.rollouts.iter().filter(|rollout| !rollout.progress.state.has_ended());
        unfinished.filter_map(|rollout| Some(self.view(rollout, self.heads.get(&rollout.spec.id)?)))
    }

    /// What people are shown of a rollout, live or from the store.
    pub(super) fn view<'a>(&'a self, rollout: &'a Rollout, head: &'a Head) -> RolloutView<'a> {
        let reasons = self.waiting.get(&rollout.spec.id).into_iter().flatten();
        let behind = self.behind().filter(|_| !rollout.progress.state.has_ended());
        let behind = behind.map(|why| format!("the store is behind its hosts, nothing is sent: {why}"));
        RolloutView {
            rollout,
            actor: &head.actor,
            reason: &head.reason,
            created_ms: head.created_ms,
            ended_ms: head.ended_ms,
            waiting: behind.into_iter().chain(reasons.map(ToString::to_string)).collect(),
            fleet: &self.fleet,
        }
    }

    /// Whether a host has an open offer and has not been `heard` since the controller started.
    pub(super) fn awaits(&self, heard: impl Fn(Uuid) -> bool) -> bool {
        let unfinished = self.rollouts.iter().filter(|rollout| !rollout.progress.state.has_ended());
        let open =
            unfinished.flat_map(|rollout| &rollout.members).filter(|(_, member)| member.state.is_open());
        open.filter_map(|(host, _)| rows::uuid(host)).any(|host| !heard(host))
    }

    pub(super) fn rollout(&self, id: RolloutId) -> Option<&Rollout> {
        self.rollouts.iter().find(|rollout| rollout.spec.id == id)
    }

    /// Hosts that report to run each release.
    pub(super) fn hosts_by_release(&self) -> BTreeMap<String, u32> {
        let mut hosts = BTreeMap::new();
        let plugins = self.fleet.hosts.values().flat_map(|host| host.plugins.values());
        let active = plugins.filter_map(|plugin| plugin.reported.as_ref()?.active.as_ref());
        active.for_each(|release| *hosts.entry(release.id.clone()).or_default() += 1);
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ReportKey, contract};

    fn world(sequence: u64, online: bool) -> World {
        let mut world = World::empty(1, 1);
        let row = contract::host(1);
        let key = ReportKey { sequence, ..ReportKey::default() };
        let (host_id, plugin) = (row.host_id, "clock".to_owned());
        world.put_host(row, online);
        let row = ReportedRow { host_id, plugin, key, active: None, status: Vec::new() };
        world.put_reported(row, Reported::default());
        world
    }

    #[test]
    fn a_report_that_came_while_the_store_was_read_anew_is_kept() {
        for (known, stored) in [(2, 1), (1, 2)] {
            let mut memory = world(known, true);
            memory.replace(world(stored, false));
            let (id, entry) = memory.hosts.first_key_value().unwrap();
            assert_eq!(entry.reported["clock"].key.sequence, 2);
            assert!(memory.fleet.hosts[id].online);
        }
    }
}
