//! A fleet that lives: hosts hear, try and report in any order, and the controller only knows what it was told.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    checker::{Checker, reasons_are_given},
    stage::{PLATFORM, failure, id, release},
};
use crate::{
    Change, Denied, Desired, Elapsed, Failure, Fault, Fleet, Generation, Host, HostState, Plan, Policy, Push,
    Release, Reported, Rollback, Rollout, RolloutId, Selector, Started, Trial, plan,
};

const PLUGINS: [&str; 2] = ["clock", "counter"];

/// A planner, sound or broken.
pub(crate) type Planner = fn(&Fleet, &[Rollout], Elapsed) -> Plan;

/// What may happen; hosts are taken modulo their number.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Connect(usize),
    Disconnect(usize),
    /// The host hears what it is told.
    Deliver(usize),
    /// The host's trial goes one step on.
    Advance(usize),
    /// The host's trial fails.
    Fail(usize, Fault),
    /// An operator on the host holds what it runs, or goes back to another version.
    Hold(usize, Option<u64>),
    Release(usize),
    /// The controller hears the host.
    Report(usize),
    Pass(u64),
    Push(usize, u64, Policy),
    Rollback(usize),
    Join,
}

/// The truth on one host.
#[derive(Clone, Default)]
struct Truth {
    accepted: Generation,
    plugins: BTreeMap<&'static str, Reported>,
    /// What open trials try.
    tries: BTreeMap<&'static str, Option<Release>>,
    /// What it was told while it was held.
    waiting: BTreeMap<&'static str, Desired>,
    /// Plugins that an operator holds.
    held: BTreeSet<&'static str>,
}

pub(crate) struct World {
    fleet: Fleet,
    rollouts: Vec<Rollout>,
    truths: Vec<Truth>,
    now: Elapsed,
    checker: Checker,
    planner: Planner,
}

impl World {
    pub(crate) fn new(hosts: usize, planner: Planner) -> Self {
        let fleet = Fleet { epoch: 1, ..Fleet::default() };
        let checker = Checker::default();
        let mut world =
            Self { fleet, rollouts: Vec::new(), truths: Vec::new(), now: Elapsed(0), checker, planner };
        (0..hosts).for_each(|_| world.join());
        world
    }

    fn join(&mut self) {
        let name = format!("h{}", self.truths.len());
        let host =
            Host { name: name.clone(), platform: PLATFORM.to_owned(), online: true, ..Host::default() };
        self.fleet.hosts.insert(id(&name), host);
        self.truths.push(Truth::default());
    }

    fn at(&mut self, at: usize) -> Option<(&mut Truth, &mut Host)> {
        let at = at.checked_rem(self.truths.len())?;
        Some((&mut self.truths[at], self.fleet.hosts.get_mut(&id(&format!("h{at}")))?))
    }

    pub(crate) fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Connect(at) => self.on_host(at, |truth, host| {
                host.online = true;
                truth.report(host);
            }),
            Step::Disconnect(at) => self.on_host(at, |_, host| host.online = false),
            Step::Deliver(at) => self.on_online(at, |truth, host| truth.deliver(host)),
            Step::Advance(at) => self.on_host(at, |truth, _| truth.advance(None)),
            Step::Fail(at, fault) => self.on_host(at, |truth, _| truth.advance(Some(fault))),
            Step::Hold(at, back) => self.on_host(at, |truth, _| truth.hold(back)),
            Step::Release(at) => self.on_host(at, |truth, _| truth.release()),
            Step::Report(at) => self.on_online(at, |truth, host| truth.report(host)),
            Step::Pass(ms) => self.now = self.now.plus(ms),
            Step::Push(plugin, version, policy) => self.push(PLUGINS[plugin], version, policy),
            Step::Rollback(plugin) => self.rollback(PLUGINS[plugin]),
            Step::Join => self.join(),
        }
        self.plan()
    }

    fn on_host(&mut self, at: usize, act: impl FnOnce(&mut Truth, &mut Host)) {
        if let Some((truth, host)) = self.at(at) {
            act(truth, host);
        }
    }

    fn on_online(&mut self, at: usize, act: impl FnOnce(&mut Truth, &mut Host)) {
        if let Some((truth, host)) = self.at(at).filter(|(_, host)| host.online) {
            act(truth, host);
        }
    }

    fn plan(&mut self) -> Result<(), String> {
        let plan = (self.planner)(&self.fleet, &self.rollouts, self.now);
        let (fleet, rollouts) = (self.fleet.clone(), self.rollouts.clone());
        plan.apply(&mut self.fleet, &mut self.rollouts);
        self.checker.check(&fleet, &rollouts, &self.fleet, &self.rollouts)?;
        reasons_are_given(&plan, &self.rollouts)?;
        let again = (self.planner)(&self.fleet, &self.rollouts, self.now);
        if again.is_empty() { Ok(()) } else { Err(format!("a plan on its own result changes {again:?}")) }
    }

    fn next_id(&self) -> RolloutId {
        RolloutId(u64::try_from(self.rollouts.len()).unwrap() + 1)
    }

    fn push(&mut self, plugin: &str, version: u64, policy: Policy) {
        let selector = Some(Selector::all());
        let platforms = BTreeSet::from([PLATFORM.to_owned()]);
        let push = Push { selector, release: release(plugin, &format!("1.{version}.0")), platforms, policy };
        self.begin(push.start(&self.fleet, &self.rollouts, self.next_id()).ok());
    }

    fn rollback(&mut self, plugin: &str) {
        let rollback =
            Rollback { plugin: plugin.to_owned(), selector: None, to: None, policy: Policy::rollback() };
        self.begin(rollback.start(&self.fleet, &self.rollouts, self.next_id(), BTreeSet::new()).ok());
    }

    fn begin(&mut self, started: Option<Started>) {
        let Some(Started::Start(change)) = started else { return };
        let Change { assignment, rollout } = *change;
        if let Some(assignment) = assignment {
            self.fleet.assignments.insert(assignment.key.clone(), assignment);
        }
        self.rollouts.push(rollout);
    }

    fn unfinished(&self) -> usize {
        self.rollouts.iter().filter(|rollout| !rollout.progress.state.has_ended()).count()
    }

    /// Everyone is there and answers until nothing goes on any more.
    pub(crate) fn answer_until_done(&mut self) -> Result<(), String> {
        let rounds = 20 * (self.truths.len() + 1) * (self.rollouts.len() + 1);
        for _ in 0..rounds {
            if self.unfinished() == 0 || self.truths.is_empty() {
                return Ok(());
            }
            for at in 0..self.truths.len() {
                for step in [Step::Connect(at), Step::Deliver(at), Step::Advance(at), Step::Report(at)] {
                    self.take(step)?;
                }
            }
            self.take(Step::Pass(2_000))?;
        }
        Err(format!("{} rollouts never end", self.unfinished()))
    }

    /// Nobody answers any more: only timers are left.
    pub(crate) fn stay_silent_until_done(&mut self) -> Result<(), String> {
        for _ in 0..=20 * (self.truths.len() + 1) {
            let plan = plan(&self.fleet, &self.rollouts, self.now);
            let Some(due) = plan.next_timer else { break };
            self.take(Step::Pass(due.0.saturating_sub(self.now.0)))?;
        }
        let stuck = self.rollouts.iter().find(|rollout| {
            let is_open = rollout.members.values().any(|member| member.state.is_open());
            !rollout.progress.state.has_ended() && is_open
        });
        stuck.map_or(Ok(()), |rollout| Err(format!("{} waits for the silent", rollout.spec.id)))
    }
}

impl Truth {
    fn deliver(&mut self, host: &Host) {
        for plugin in PLUGINS {
            let Some(row) = host.plugins.get(plugin).and_then(|plugin| plugin.desired.clone()) else {
                continue;
            };
            if row.generation <= self.accepted {
                continue;
            }
            if self.held.contains(plugin) {
                self.waiting.insert(plugin, row);
            } else {
                self.hear(plugin, row);
            }
        }
        self.accepted = host.generation;
    }

    fn hear(&mut self, plugin: &'static str, row: Desired) {
        let known = self.plugins.entry(plugin).or_default();
        let trial = known.trial.as_ref().map(|trial| (trial.rollout, trial.attempt));
        if row.attempt == 0 {
            if let Some(trial) = known.trial.as_mut().filter(|trial| trial.state.is_open()) {
                trial.failure = Some(failure(trial.state, Fault::Withdrawn));
                trial.state = HostState::Rejected;
            }
            known.active = row.target;
        } else if trial != Some((row.rollout, row.attempt)) {
            let is_denied = known.denied.iter().any(|denied| Some(&denied.release) == row.target.as_ref());
            let denial = Failure {
                code: Failure::RELEASE_DENIED.to_owned(),
                ..failure(HostState::Verifying, Fault::Release)
            };
            self.tries.insert(plugin, row.target);
            let (proven_by, state_lost) = (String::new(), String::new());
            let state = if is_denied { HostState::Rejected } else { HostState::Fetching };
            let failure = is_denied.then_some(denial);
            let (rollout, attempt) = (row.rollout, row.attempt);
            let trial = Trial { rollout, attempt, state, failure, swap_pause_us: 0, proven_by, state_lost };
            known.trial = Some(trial);
        }
    }

    /// What has not loaded anything yet goes back to waiting.
    fn hold(&mut self, back: Option<u64>) {
        self.held = self.plugins.keys().copied().collect();
        for (plugin, known) in &mut self.plugins {
            let Some(trial) = &mut known.trial else { continue };
            if matches!(trial.state, HostState::Fetching | HostState::Loading) {
                trial.state = HostState::Offered;
            } else if let (Some(version), false) = (back, trial.state.is_open()) {
                known.active = Some(release(plugin, &format!("1.{version}.0")));
            }
        }
    }

    fn release(&mut self) {
        self.held.clear();
        for known in self.plugins.values_mut() {
            if let Some(trial) = known.trial.as_mut().filter(|trial| trial.state == HostState::Offered) {
                trial.state = HostState::Fetching;
            }
        }
        for (plugin, row) in std::mem::take(&mut self.waiting) {
            self.hear(plugin, row);
        }
    }

    fn advance(&mut self, fault: Option<Fault>) {
        let begun = |trial: &Trial| trial.state.is_open() && trial.state != HostState::Offered;
        let is_open = |known: &Reported| known.trial.as_ref().is_some_and(begun);
        let Some((plugin, known)) = self.plugins.iter_mut().find(|(_, known)| is_open(known)) else { return };
        let Some(trial) = known.trial.as_mut() else { return };
        let is_late = matches!(trial.state, HostState::Switching | HostState::Probation);
        if let Some(fault) = fault {
            if let (Fault::Release, Some(release)) = (fault, self.tries[plugin].clone()) {
                known.denied.push(Denied { release, code: "PROBE_MISMATCH".to_owned() });
            }
            trial.failure = Some(failure(trial.state, fault));
            trial.state = if is_late { HostState::RolledBack } else { HostState::Rejected };
            return;
        }
        trial.state = if trial.state == HostState::Fetching {
            HostState::Loading
        } else if trial.state == HostState::Loading {
            HostState::Probation
        } else {
            HostState::Committed
        };
        if trial.state == HostState::Committed {
            known.active = self.tries[plugin].clone();
        }
    }

    fn report(&self, host: &mut Host) {
        for (plugin, known) in &self.plugins {
            let held = self.held.contains(plugin).then(|| "INC-7".to_owned());
            let reported = Reported { generation: self.accepted, held, ..known.clone() };
            host.plugins.entry((*plugin).to_owned()).or_default().reported = Some(reported);
        }
    }
}

/// Lives through the steps; the error is what the checker found.
pub(crate) fn walk(hosts: usize, steps: Vec<Step>, planner: Planner) -> Result<World, String> {
    let mut world = World::new(hosts, planner);
    for step in steps {
        world.take(step)?;
    }
    Ok(world)
}
