//! One host on held sockets, a conductor, and the releases that it is told to run.

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{
    Agent, Binaries, Conductor, Fleet, HeldSockets, Order, Plugin, Process,
};
use fleetswap_proto::v1::{HostState, Release, TrialStatus};
use tokio::runtime::Runtime;

use crate::common::fleet;

/// A worker counts as healthy after one good check: what is tested is not how long that takes.
const HEALTH: [&str; 2] = ["--health-checks", "1"];
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

/// How a trial ends.
const VERDICTS: [HostState; 3] = [HostState::Committed, HostState::RolledBack, HostState::Rejected];
/// Where it stands before.
const UNDERWAY: [HostState; 6] = [
    HostState::Fetching,
    HostState::Verifying,
    HostState::Loading,
    HostState::Probing,
    HostState::Switching,
    HostState::Probation,
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
    pub(super) held: HeldSockets,
    pub(super) swaps: usize,
    pub(super) rollbacks: usize,
    pub(super) failed: usize,
    conductor: Conductor,
    /// 1.0.0, and two revisions of 2.0.0.
    old: Release,
    new: [Release; 2],
    bad: Vec<Release>,
    /// The controller serves metadata and blobs; the one host is told by the conductor.
    fleet: Fleet,
}

impl Stage {
    /// Publishes everything, starts the host, and has it run 2.0.0 after 1.0.0.
    pub(super) fn set(failures: usize) -> Result<Self> {
        let (mut fleet, binaries, runtime) = (fleet(1)?, Binaries::find()?, Runtime::new()?);
        let good = |plugin: &Plugin, interval: &str| {
            publish(&fleet, plugin, &[&["--health-interval", interval], &HEALTH[..]].concat())
        };
        let old = good(&binaries.example("counter", "1.0.0")?, "10ms")?;
        let two = binaries.example("counter", "2.0.0")?;
        // Another rule is another revision.
        let new = [good(&two, "10ms")?, good(&two, "11ms")?];
        let three = binaries.example("counter", "3.0.0")?;
        let bad = (0..failures).map(|serial| publish_bad(&fleet, &three, serial)).collect::<Result<_>>()?;
        let conductor = runtime.block_on(Conductor::take_over(&mut fleet, 0))?;
        let agent = &mut fleet.agents[0];
        agent.stop()?;
        let held = HeldSockets::make(agent)?;
        agent.start_on(&held, &[])?;
        let (swaps, rollbacks, failed) = (0, 0, 0);
        let mut stage = Self { runtime, held, swaps, rollbacks, failed, conductor, old, new, bad, fleet };
        stage.commit(&stage.old.clone(), false)?;
        stage.swap(0, false)?;
        stage.swaps = 0;
        Ok(stage)
    }

    /// The host.
    pub(super) fn agent(&self) -> &Agent {
        &self.fleet.agents[0]
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

    fn commit(&self, release: &Release, rollback: bool) -> Result<TrialStatus> {
        let id = self.tell(release, rollback, SHORT);
        self.committed(&id)
    }

    fn tell(&self, release: &Release, rollback: bool, min_healthy_ms: u64) -> String {
        self.conductor.tell(&Order { release: release.clone(), rollback, min_healthy_ms })
    }

    /// Waits until the trial is in one of these states.
    fn reached(&self, id: &str, states: &[HostState]) -> Result<TrialStatus> {
        self.runtime.block_on(self.conductor.reached("counter", id, states))
    }

    fn committed(&self, id: &str) -> Result<TrialStatus> {
        let trial = self.reached(id, &VERDICTS)?;
        ensure!(trial.state() == HostState::Committed, "{trial:?}");
        ensure!(trial.state_lost.is_empty(), "state was lost: {trial:?}");
        Ok(trial)
    }

    /// One swap that fails, each time in another place.
    pub(super) fn failed_swap(&mut self, number: usize) -> Result<()> {
        let (place, verdict) = FAILURES[number % FAILURES.len()];
        let id = self.tell(self.bad.get(number).context("a bad release")?, false, LONG);
        let trial = self.reached(&id, &VERDICTS)?;
        let log = || self.agent().process.as_ref().map(Process::log_tail).unwrap_or_default();
        ensure!(trial.state() == verdict, "a failure in {place}: {trial:?}\n{}", log());
        ensure!(trial.state_lost.is_empty(), "state was lost in {place}: {trial:?}\n{}", log());
        self.failed += 1;
        Ok(())
    }

    /// SIGTERM and a start, while a swap stands where it is said.
    pub(super) fn restart(&mut self, at: Restart) -> Result<()> {
        let next = &self.new[1];
        let (min_healthy_ms, states): (_, &[HostState]) = match at {
            Restart::Idle | Restart::Told => (SHORT, &[]),
            Restart::Underway => (SHORT, &UNDERWAY),
            Restart::Probation => (LONG, &[HostState::Probation]),
        };
        let told = (at != Restart::Idle).then(|| self.tell(next, false, min_healthy_ms));
        if let Some(id) = told.as_ref().filter(|_| !states.is_empty()) {
            self.reached(id, states)?;
        }
        let agent = &mut self.fleet.agents[0];
        let status = agent.stop()?;
        ensure!(status.success(), "the agent ended with {status}");
        agent.start_on(&self.held, &[])?;
        if let Some(id) = told {
            // An end that was asked for is no verdict: the trial begins anew.
            self.committed(&id)?;
            self.swaps += 1;
            self.swap(0, false)?;
        }
        Ok(())
    }
}

fn publish(fleet: &Fleet, plugin: &Plugin, more: &[&str]) -> Result<Release> {
    let mut arguments = Fleet::push_arguments(plugin, more);
    arguments[0] = "publish".to_owned();
    arguments.extend(["-o".to_owned(), "json".to_owned()]);
    let release = fleet.controller(arguments)?.expect(0)?.json()?["release"].clone();
    let text = |field: &str| release[field].as_str().unwrap_or_default().to_owned();
    Ok(Release {
        plugin: text("plugin"),
        version: text("version"),
        revision: release["revision"].as_u64().context("a revision")?,
        release_id: text("release_id"),
    })
}

fn publish_bad(fleet: &Fleet, plugin: &Plugin, serial: usize) -> Result<Release> {
    let (place, _) = FAILURES[serial % FAILURES.len()];
    let config = fleet.path(&format!("bad-{serial}.json"));
    std::fs::write(&config, format!(r#"{{"fails":"{place}","serial":{serial}}}"#))?;
    let config = config.display().to_string();
    let health = ["--health-interval", "10ms"];
    publish(fleet, plugin, &[&HEALTH[..], &health, &["--config", &config]].concat())
}
