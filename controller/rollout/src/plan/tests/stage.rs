//! A fleet played by hand: its vocabulary is what hosts and operators do.

use std::collections::{BTreeMap, BTreeSet};

use super::checker::Checker;
use crate::{
    AssignmentKey, Change, Denied, Desired, Elapsed, Failure, Fault, Fleet, Host, HostId, HostState, Member,
    Plan, Policy, Push, Release, Rollback, Rollout, RolloutId, RolloutState, Selector, Started, Trial, plan,
};

pub(crate) const PLATFORM: &str = "x86_64-linux-gnu";
const PLUGIN: &str = "clock";

pub(crate) struct Stage {
    pub(crate) fleet: Fleet,
    pub(crate) rollouts: Vec<Rollout>,
    pub(crate) now: Elapsed,
    last: Plan,
    checker: Checker,
}

pub(crate) fn release(plugin: &str, version: &str) -> Release {
    let id = format!("{plugin}-{version}");
    Release { plugin: plugin.to_owned(), version: version.parse().unwrap(), revision: 1, id }
}

pub(crate) fn failure(failed_state: HostState, fault: Fault) -> Failure {
    Failure { fault, code: "PROBE_MISMATCH".to_owned(), ..Failure::withdrawn(failed_state) }
}

pub(crate) fn id(name: &str) -> HostId {
    HostId(name.to_owned())
}

/// Labels by key and value.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Stage {
    pub(crate) fn with_hosts(count: usize) -> Self {
        let fleet = Fleet { epoch: 1, ..Fleet::default() };
        let (last, checker) = (Plan::default(), Checker::default());
        let mut stage = Self { fleet, rollouts: Vec::new(), now: Elapsed(1_000), last, checker };
        for at in 0..count {
            stage.add(&format!("h{at}"));
        }
        stage
    }

    /// A fleet that runs a version, brought by the first rollout.
    pub(crate) fn running(version: &str, count: usize) -> Self {
        let mut stage = Self::with_hosts(count);
        let id = stage.push(version, Policy { max_parallel: crate::Amount::Count(100), ..Policy::push() });
        stage.finish(id);
        assert_eq!(stage.state(id), RolloutState::Succeeded);
        stage
    }

    fn add(&mut self, name: &str) {
        let host =
            Host { name: name.to_owned(), platform: PLATFORM.to_owned(), online: true, ..Host::default() };
        self.fleet.hosts.insert(id(name), host);
    }

    /// Plans and applies; the checker looks on, and a second plan must change nothing.
    pub(crate) fn settle(&mut self) {
        let plan_now = plan(&self.fleet, &self.rollouts, self.now);
        let (fleet, rollouts) = (self.fleet.clone(), self.rollouts.clone());
        plan_now.apply(&mut self.fleet, &mut self.rollouts);
        self.checker.check(&fleet, &rollouts, &self.fleet, &self.rollouts).unwrap();
        self.last = plan(&self.fleet, &self.rollouts, self.now);
        assert!(self.last.is_empty(), "a plan on its own result changes {:?}", self.last);
    }

    pub(crate) fn join(&mut self, name: &str) {
        self.add(name);
        self.settle();
    }

    pub(crate) fn push(&mut self, version: &str, policy: Policy) -> RolloutId {
        self.push_plugin(PLUGIN, version, policy)
    }

    pub(crate) fn push_plugin(&mut self, plugin: &str, version: &str, policy: Policy) -> RolloutId {
        self.start(release(plugin, version), policy, "all")
    }

    pub(crate) fn push_to(&mut self, selector: &str, version: &str) -> RolloutId {
        self.start(release(PLUGIN, version), Policy::push(), selector)
    }

    fn start(&mut self, release: Release, policy: Policy, selector: &str) -> RolloutId {
        let selector: Selector = selector.parse().unwrap();
        let platforms = BTreeSet::from([PLATFORM.to_owned()]);
        let push = Push { selector: Some(selector), release, platforms, policy };
        let started = push.start(&self.fleet, &self.rollouts, self.next_id()).unwrap();
        self.begin(started)
    }

    pub(crate) fn rollback(&mut self, to: Option<&str>) -> RolloutId {
        let to = to.map(|to| to.parse().unwrap());
        let rollback = Rollback { plugin: PLUGIN.to_owned(), selector: None, to, policy: Policy::rollback() };
        let started = rollback.start(&self.fleet, &self.rollouts, self.next_id(), BTreeSet::new()).unwrap();
        self.begin(started)
    }

    pub(crate) fn next_id(&self) -> RolloutId {
        RolloutId(self.rollouts.last().map_or(1, |rollout| rollout.spec.id.0 + 1))
    }

    fn begin(&mut self, started: Started) -> RolloutId {
        let Started::Start(change) = started else { panic!("nothing to do") };
        let Change { assignment, rollout } = *change;
        if let Some(assignment) = assignment {
            self.fleet.assignments.insert(assignment.key.clone(), assignment);
        }
        let id = rollout.spec.id;
        self.rollouts.push(rollout);
        self.settle();
        id
    }

    pub(crate) fn rollout(&self, id: RolloutId) -> &Rollout {
        self.rollouts.iter().find(|rollout| rollout.spec.id == id).unwrap()
    }

    pub(crate) fn state(&self, id: RolloutId) -> RolloutState {
        self.rollout(id).progress.state
    }

    pub(crate) fn member(&self, rollout: RolloutId, name: &str) -> Member {
        self.rollout(rollout).members[&id(name)].clone()
    }

    fn names(&self, rollout: RolloutId, is_such: impl Fn(&Member) -> bool) -> Vec<String> {
        let mut members: Vec<_> =
            self.rollout(rollout).members.iter().filter(|(_, member)| is_such(member)).collect();
        members.sort_by_key(|(_, member)| member.order);
        members.into_iter().map(|(host, _)| host.0.clone()).collect()
    }

    pub(crate) fn open(&self, rollout: RolloutId) -> Vec<String> {
        self.names(rollout, |member| member.state.is_open())
    }

    /// Hosts that were ever offered it.
    pub(crate) fn offered(&self, rollout: RolloutId) -> Vec<String> {
        self.names(rollout, |member| member.attempt > 0)
    }

    pub(crate) fn committed(&self, rollout: RolloutId) -> usize {
        self.names(rollout, |member| member.state == HostState::Committed).len()
    }

    pub(crate) fn waits(&self, rollout: RolloutId) -> Vec<String> {
        self.last.waiting.get(&rollout).into_iter().flatten().map(ToString::to_string).collect()
    }

    pub(crate) fn release(&self) -> Option<String> {
        let key = AssignmentKey { plugin: PLUGIN.to_owned(), selector: Selector::all() };
        self.fleet.assignments[&key].release().map(|release| release.version.to_string())
    }

    pub(crate) fn host(&mut self, name: &str) -> &mut Host {
        self.fleet.hosts.get_mut(&id(name)).unwrap()
    }

    pub(crate) fn row(&self, name: &str) -> Desired {
        self.fleet.hosts[&id(name)].plugins[PLUGIN].desired.clone().unwrap()
    }

    /// The version that a host is told to run.
    pub(crate) fn told(&self, name: &str) -> String {
        self.row(name).target.map_or_else(|| "nothing".to_owned(), |target| target.version.to_string())
    }

    /// The host says that it runs another version, which nobody told it.
    pub(crate) fn run_by_itself(&mut self, name: &str, version: &str) {
        let plugin = self.host(name).plugins.get_mut(PLUGIN).unwrap();
        plugin.reported.as_mut().unwrap().active = Some(release(PLUGIN, version));
        self.settle();
    }

    /// The host says with its next report that a version has failed on it before.
    pub(crate) fn deny(&mut self, name: &str, version: &str) {
        let denied = Denied { release: release(PLUGIN, version), code: "CRASHED".to_owned() };
        let plugin = self.host(name).plugins.entry(PLUGIN.to_owned()).or_default();
        plugin.reported.get_or_insert_default().denied.push(denied);
    }

    /// The host says that an operator there holds the plugin, or does so no more.
    pub(crate) fn hold(&mut self, name: &str, reason: Option<&str>) {
        let plugin = self.host(name).plugins.entry(PLUGIN.to_owned()).or_default();
        plugin.reported.get_or_insert_default().held = reason.map(str::to_owned);
        self.settle();
    }

    fn report(&mut self, rollout: RolloutId, name: &str, state: HostState, failure: Option<Failure>) {
        let spec = self.rollout(rollout).spec.clone();
        let attempt = self.member(rollout, name).attempt;
        let host = self.host(name);
        let generation = host.generation;
        let reported = host.plugins.entry(spec.key.plugin).or_default().reported.get_or_insert_default();
        reported.generation = generation;
        if state == HostState::Committed {
            reported.active = spec.to;
        }
        let (proven_by, state_lost) = ("probes".to_owned(), String::new());
        let trial = Trial {
            rollout: Some(rollout),
            attempt,
            state,
            failure,
            swap_pause_us: 7,
            proven_by,
            state_lost,
        };
        reported.trial = Some(trial);
    }

    pub(crate) fn progress(&mut self, rollout: RolloutId, name: &str, state: HostState) {
        self.report(rollout, name, state, None);
        self.settle();
    }

    pub(crate) fn fail(&mut self, rollout: RolloutId, name: &str, state: HostState, failure: Failure) {
        self.report(rollout, name, state, Some(failure));
        self.settle();
    }

    pub(crate) fn report_commit(&mut self, rollout: RolloutId, name: &str) {
        self.report(rollout, name, HostState::Committed, None);
    }

    pub(crate) fn commit(&mut self, rollout: RolloutId, name: &str) {
        self.progress(rollout, name, HostState::Committed);
    }

    pub(crate) fn commit_all_open(&mut self, rollout: RolloutId) {
        for name in self.open(rollout) {
            self.report_commit(rollout, &name);
        }
        self.settle();
    }

    /// Commits whoever is offered it until the rollout has ended.
    pub(crate) fn finish(&mut self, rollout: RolloutId) {
        for _ in 0..=self.fleet.hosts.len() {
            self.commit_all_open(rollout);
        }
        assert!(self.state(rollout).has_ended());
    }

    /// The host says that it has heard what it was told last, without having begun.
    pub(crate) fn acknowledge(&mut self, name: &str) {
        let host = self.host(name);
        let generation = host.generation;
        host.plugins.get_mut(PLUGIN).unwrap().reported.get_or_insert_default().generation = generation;
        self.settle();
    }

    pub(crate) fn disconnect(&mut self, name: &str) {
        self.host(name).online = false;
        self.settle();
    }

    pub(crate) fn connect(&mut self, name: &str) {
        self.connect_with(name, |_| {});
    }

    /// Connects; the hello carries what the host did while it was away.
    pub(crate) fn connect_with(&mut self, name: &str, hello: impl FnOnce(&mut Self)) {
        self.host(name).online = true;
        hello(self);
        self.settle();
    }

    pub(crate) fn reconnect(&mut self, name: &str) {
        self.disconnect(name);
        self.connect(name);
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus(ms);
        self.settle();
    }
}
