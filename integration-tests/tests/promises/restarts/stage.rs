//! One host on held sockets, a conductor, and the releases that it is told to run.

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{
    Agent, Binaries, Conductor, Fleet, HeldSockets, Order, Plugin, Process, Published,
};
use fleetswap_proto::v1::{HostState, TrialStatus};
use tokio::runtime::Runtime;

use crate::common::fleet;

/// A worker counts as healthy after one good check: what is tested is not how long that takes.
const HEALTH: [&str; 2] = ["--health-green", "1"];
/// Probation of a release that is to be committed.
const SHORT: u64 = 10;
/// Probation that outlasts the wait for what is to happen in it.
const LONG: u64 = 2_000;
/// Where the bad releases fail, in turn, and how their trials end.
const FAILURES: [(&str, HostState); 4] = [
    ("restore_state", HostState::Rejected),
    ("activate", HostState::Rejected),
    ("probing", HostState::Rejected),
    ("probation", HostState::RolledBack),
];

/// Where a trial stands when the agent is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// There is none.
    Idle,
    /// It has just been told.
    Told,
    /// The candidate answers callers.
    Probation,
    /// Somewhere before that.
    Underway,
}

impl Restart {
    pub(super) const ALL: [Self; 4] = [Self::Idle, Self::Told, Self::Probation, Self::Underway];
}

/// The stage.
pub(super) struct Stage {
    pub(super) runtime: Runtime,
    pub(super) agent: Agent,
    pub(super) held: HeldSockets,
    pub(super) swaps: usize,
    pub(super) rollbacks: usize,
    pub(super) failed: usize,
    conductor: Conductor,
    /// 1.0.0, and two revisions of 2.0.0.
    old: Published,
    new: [Published; 2],
    bad: Vec<Published>,
    /// Serves metadata and blobs.
    _fleet: Fleet,
}

impl Stage {
    /// Publishes everything, starts the host, and has it run 2.0.0 after 1.0.0.
    pub(super) fn set(failures: usize) -> Result<Self> {
        let (fleet, binaries, runtime) = (fleet(0)?, Binaries::find()?, Runtime::new()?);
        let publish = |plugin: &Plugin, interval: &str| {
            Conductor::publish(&fleet, plugin, &[&["--health-interval", interval], &HEALTH[..]].concat())
        };
        let old = publish(&binaries.example("counter", "1.0.0")?, "10ms")?;
        let two = binaries.example("counter", "2.0.0")?;
        // Another rule is another revision.
        let new = [publish(&two, "10ms")?, publish(&two, "11ms")?];
        let three = binaries.example("counter", "3.0.0")?;
        let bad = (0..failures).map(|serial| publish_bad(&fleet, &three, serial)).collect::<Result<_>>()?;
        let conductor = Conductor::start(&runtime, &fleet)?;
        let mut agent = fleet.add_agent("host-1", "")?;
        conductor.take_over(&fleet, &agent)?;
        let held = HeldSockets::make(&agent)?;
        agent.start_on(&held, &[])?;
        let (swaps, rollbacks, failed) = (0, 0, 0);
        let mut stage =
            Self { runtime, agent, held, swaps, rollbacks, failed, conductor, old, new, bad, _fleet: fleet };
        stage.commit(&stage.old.clone(), false)?;
        stage.swap(0, false)?;
        stage.swaps = 0;
        Ok(stage)
    }

    /// Four swaps: between revisions, down, and up again; and a way back between them.
    pub(super) fn swaps_and_a_rollback(&mut self) -> Result<()> {
        self.swap(1, false)?;
        self.swap(0, false)?;
        let back = self.commit(&self.new[1].clone(), true)?;
        ensure!(back.proven_by == "before", "not the retained release: {back:?}");
        self.rollbacks += 1;
        // Not the retained one, so it is installed like any other.
        let down = self.commit(&self.old.clone(), true)?;
        ensure!(down.proven_by != "before", "{down:?}");
        self.swaps += 1;
        self.swap(0, false).map(drop)
    }

    fn swap(&mut self, to: usize, rollback: bool) -> Result<TrialStatus> {
        self.swaps += 1;
        self.commit(&self.new[to].clone(), rollback)
    }

    fn commit(&self, release: &Published, rollback: bool) -> Result<TrialStatus> {
        let id = self.conductor.tell(release, Order { rollback, min_healthy_ms: SHORT });
        self.committed(&id)
    }

    fn committed(&self, id: &str) -> Result<TrialStatus> {
        let trial = self.runtime.block_on(self.conductor.verdict("counter", id))?;
        ensure!(trial.state() == HostState::Committed, "{trial:?}");
        ensure!(trial.state_lost.is_empty(), "state was lost: {trial:?}");
        Ok(trial)
    }

    /// One swap that fails, each time in another place.
    pub(super) fn failed_swap(&mut self, number: usize) -> Result<()> {
        let (place, verdict) = FAILURES[number % FAILURES.len()];
        let release = self.bad.get(number).context("a bad release")?;
        let id = self.conductor.tell(release, Order { rollback: false, min_healthy_ms: LONG });
        let trial = self.runtime.block_on(self.conductor.verdict("counter", &id))?;
        let log = || self.agent.process.as_ref().map(Process::log_tail).unwrap_or_default();
        ensure!(trial.state() == verdict, "a failure in {place}: {trial:?}\n{}", log());
        ensure!(trial.state_lost.is_empty(), "state was lost in {place}: {trial:?}\n{}", log());
        self.failed += 1;
        Ok(())
    }

    /// SIGTERM and a start, while a swap stands where it is said.
    pub(super) fn restart(&mut self, at: Restart) -> Result<()> {
        let order = |min_healthy_ms| Order { rollback: false, min_healthy_ms };
        let next = &self.new[1];
        let told = match at {
            Restart::Idle => None,
            Restart::Told | Restart::Underway => Some(self.conductor.tell(next, order(SHORT))),
            Restart::Probation => Some(self.conductor.tell(next, order(LONG))),
        };
        if let Some(id) = told.as_ref().filter(|_| at != Restart::Told) {
            let reached = |state| match state {
                HostState::Probation => true,
                _ => at == Restart::Underway && state != HostState::Offered,
            };
            self.runtime.block_on(self.conductor.trial("counter", id, reached))?;
        }
        self.agent.stop()?;
        self.agent.start_on(&self.held, &[])?;
        if let Some(id) = told {
            // An end that was asked for is no verdict: the trial begins anew.
            self.committed(&id)?;
            self.swaps += 1;
            self.swap(0, false)?;
        }
        Ok(())
    }
}

fn publish_bad(fleet: &Fleet, plugin: &Plugin, serial: usize) -> Result<Published> {
    let (place, _) = FAILURES[serial % FAILURES.len()];
    let config = fleet.path(&format!("bad-{serial}.json"));
    std::fs::write(&config, format!(r#"{{"fails":"{place}","serial":{serial}}}"#))?;
    let config = config.display().to_string();
    let health = ["--health-interval", "10ms"];
    Conductor::publish(fleet, plugin, &[&HEALTH[..], &health, &["--config", &config]].concat())
}
