//! A series of swaps on one host under a storm of calls: three good releases in turn, and bad ones between them.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use fleetswap_proto::v1::{HostState, Release, TrialStatus};
use serde_json::Value;

use crate::{
    harness::{Binaries, Conductor, Fleet, FleetOptions, Order, Plugin, Process, compile_c, repository},
    load::{Door, Outcome, Storm},
};

/// Good releases; they take turns.
const GOOD: [&str; 3] = ["1.0.0", "1.1.0", "1.2.0"];
/// Of ten swaps so many are made to fail.
pub const FAILING_OF_TEN: u32 = 3;
/// Time that a release must stay healthy unless somebody sets another one, in milliseconds.
const MIN_HEALTHY_MS: u64 = 50;
/// Longer than a red check takes to be seen.
const UNTIL_RED_MS: u64 = 10_000;
/// How a release is pushed or published here.
const HEALTH: [&str; 2] = ["--health-interval", "10ms"];
/// Calls in flight before the first swap begins, and at every swap.
pub const IN_FLIGHT_MIN: usize = 64;

/// What the swapped plugin is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The pointer moves, and calls in flight finish where they are.
    Stateless,
    /// Callers wait while the state is carried over.
    Stateful,
}

/// A way to fail, with the macro that builds it and the verdict that it must get.
#[derive(Clone, Copy, Debug)]
struct Failing {
    define: &'static str,
    verdict: HostState,
    code: &'static str,
}

const FAILS_ACTIVATE: Failing =
    Failing { define: "FAILS_ACTIVATE", verdict: HostState::Rejected, code: "ACTIVATE_FAILED" };
const FAILS_RESTORE: Failing =
    Failing { define: "FAILS_RESTORE", verdict: HostState::Rejected, code: "RESTORE_STATE_FAILED" };
const RED_ACTIVE: Failing =
    Failing { define: "RED_ACTIVE", verdict: HostState::RolledBack, code: "HEALTH_FAILED" };

impl Kind {
    const fn failing(self) -> &'static [Failing] {
        match self {
            Self::Stateless => &[FAILS_ACTIVATE, RED_ACTIVE],
            Self::Stateful => &[FAILS_ACTIVATE, FAILS_RESTORE, RED_ACTIVE],
        }
    }
}

/// A host whose releases are published and which a conductor directs.
#[derive(Debug)]
pub struct Series {
    /// The fleet of that one host.
    pub fleet: Fleet,
    /// Its conductor.
    pub conductor: Conductor,
    /// Time that a good release must stay healthy before it is committed, in milliseconds.
    pub min_healthy_ms: u64,
    kind: Kind,
    good: Vec<Release>,
    bad: Vec<(Failing, Release)>,
    made: u32,
}

/// What a series of swaps came to.
#[derive(Debug)]
pub struct Report {
    /// Swaps that were committed.
    pub committed: u32,
    /// Swaps that were made to fail, and did.
    pub failed: u32,
    /// Swaps that gave way to callers and were tried again by a new order.
    pub gave_way: u32,
    /// The pauses of the committed ones.
    pub pauses: Vec<Duration>,
    /// What the storm saw.
    pub outcome: Outcome,
}

impl Series {
    /// Starts a host and publishes what so many swaps need.
    ///
    /// # Errors
    /// A part does not start, or a release can't be published.
    pub async fn prepare(binaries: &Binaries, kind: Kind, swaps: u32) -> Result<Self> {
        let mut fleet = Fleet::start(binaries, &FleetOptions { agents: 1, ..FleetOptions::default() })?;
        let mut bad = Vec::new();
        for (number, failing) in (1..=failing_swaps(swaps)).zip(kind.failing().iter().cycle()) {
            let plugin = compile(&fleet, kind, &bad_version(kind, failing), &[failing.define])?;
            bad.push((*failing, publish(&fleet, &plugin, number)?));
        }
        let mut good = Vec::new();
        for version in GOOD {
            let plugin = compile(&fleet, kind, version, &[])?;
            let pace = ["--hosts", "all", "--min-healthy-time", "50ms"];
            let outcome = fleet.push(&plugin, &[&HEALTH[..], &pace].concat())?.expect(0)?.json()?;
            good.push(release("swapped", &outcome["rollout"]["to"])?);
        }
        // The last one pushed is the one that runs.
        good.rotate_right(1);
        let config = fleet.agents[0].config();
        let text = fs::read_to_string(&config)?;
        fs::write(&config, text.replace("[front]\n", "[front]\nlisten = \"127.0.0.1:0\"\n"))?;
        let conductor = Conductor::take_over(&mut fleet, 0).await?;
        Ok(Self { fleet, conductor, min_healthy_ms: MIN_HEALTHY_MS, kind, good, bad, made: 0 })
    }

    /// Both doors of the host's front.
    ///
    /// # Errors
    /// The agent did not say where it listens.
    pub fn doors(&self) -> Result<Vec<Door>> {
        let agent = &self.fleet.agents[0];
        let log = agent.process.as_ref().context("the agent runs")?.log();
        let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut ports = lines.filter_map(|line| line["address"].as_str().map(str::to_owned));
        let address = ports.next().context("the agent's log names its port")?;
        Ok(vec![Door::Unix(agent.front()), Door::Tcp(address.parse().with_context(|| address.clone())?)])
    }

    /// Makes so many swaps under a storm of so many calls a second. At every one, [`IN_FLIGHT_MIN`] calls or more are
    /// in flight.
    ///
    /// # Errors
    /// A swap has another end than it was made for, or the host does not answer any more.
    pub async fn run(&mut self, swaps: u32, rate: u32) -> Result<Report> {
        let storm = Storm::begin(self.doors()?, rate);
        let swapped = self.swap_under(&storm, swaps).await;
        let outcome = storm.end().await;
        let log_tail = || self.fleet.agents[0].process.as_ref().map(Process::log_tail).unwrap_or_default();
        let mut report = swapped.with_context(|| format!("{:?}\n{}", outcome.failures, log_tail()))?;
        report.outcome = outcome;
        Ok(report)
    }

    async fn swap_under(&mut self, storm: &Storm, swaps: u32) -> Result<Report> {
        let outcome = Outcome::default();
        let mut report = Report { committed: 0, failed: 0, gave_way: 0, pauses: Vec::new(), outcome };
        while report.committed + report.failed < swaps {
            in_flight(storm).await?;
            match self.swap().await? {
                Swap::Committed(pause) => {
                    report.committed += 1;
                    report.pauses.push(pause);
                }
                Swap::Failed => report.failed += 1,
                Swap::GaveWay => report.gave_way += 1,
            }
            ensure!(report.gave_way <= swaps, "more swaps give way than are made: {report:?}");
        }
        Ok(report)
    }

    /// The next swap of the series.
    ///
    /// # Errors
    /// It has another end than it was made for.
    pub async fn swap(&mut self) -> Result<Swap> {
        self.made += 1;
        let fails = self.made % 10 < FAILING_OF_TEN;
        let bad = if fails { self.bad.pop() } else { None };
        match bad {
            Some((failing, release)) => self.swap_badly(failing, release).await,
            None => self.swap_well().await,
        }
    }

    async fn swap_well(&mut self) -> Result<Swap> {
        self.good.rotate_left(1);
        let release = self.good[0].clone();
        // After the newest comes the oldest.
        let rollback = release.version == GOOD[0];
        let order = Order { release, rollback, min_healthy_ms: self.min_healthy_ms };
        let trial = self.conductor.order(&order).await?;
        match trial.state() {
            HostState::Committed if trial.state_lost.is_empty() => {
                Ok(Swap::Committed(Duration::from_micros(trial.swap_pause_us)))
            }
            _ if code(&trial) == "SWAP_BUSY" => {
                self.good.rotate_right(1);
                Ok(Swap::GaveWay)
            }
            _ => bail!("a good release of {:?} was not committed: {trial:?}", self.kind),
        }
    }

    async fn swap_badly(&mut self, failing: Failing, release: Release) -> Result<Swap> {
        let order = Order { release: release.clone(), rollback: false, min_healthy_ms: UNTIL_RED_MS };
        let trial = self.conductor.order(&order).await?;
        if code(&trial) == "SWAP_BUSY" {
            self.bad.push((failing, release));
            return Ok(Swap::GaveWay);
        }
        ensure!(
            trial.state() == failing.verdict && code(&trial) == failing.code && trial.state_lost.is_empty(),
            "{failing:?} got another verdict: {trial:?}"
        );
        Ok(Swap::Failed)
    }
}

/// How a swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// As wanted, after this pause.
    Committed(Duration),
    /// As it was built to.
    Failed,
    /// It would have cost a call.
    GaveWay,
}

/// How many of so many swaps are made to fail.
const fn failing_swaps(swaps: u32) -> u32 {
    swaps.div_ceil(10) * FAILING_OF_TEN
}

fn code(trial: &TrialStatus) -> &str {
    trial.failure.as_ref().map_or("", |failure| &failure.code)
}

/// Waits until as many calls are in flight as a swap shall meet.
async fn in_flight(storm: &Storm) -> Result<()> {
    let enough = async {
        while storm.in_flight() < IN_FLIGHT_MIN {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), enough).await;
    waited.with_context(|| format!("only {} calls are in flight", storm.in_flight()))
}

/// Each way to fail has a version of its own, above the good ones.
fn bad_version(kind: Kind, failing: &Failing) -> String {
    let number = kind.failing().iter().position(|other| other.define == failing.define).unwrap_or_default();
    format!("1.9.{number}")
}

fn compile(fleet: &Fleet, kind: Kind, version: &str, defines: &[&str]) -> Result<Plugin> {
    let version_define = format!("VERSION=\"{version}\"");
    let mut all = vec![version_define.as_str()];
    all.extend(defines);
    if kind == Kind::Stateful {
        all.push("STATEFUL");
    }
    let source = repository().join("integration-tests/zoo/swapped.c");
    compile_c(&source, "swapped", version, &all, &fleet.path(""))
}

/// Signs and uploads a release, with a number that makes it another one than the last of its version: what failed once is
/// not tried again.
fn publish(fleet: &Fleet, plugin: &Plugin, number: u32) -> Result<Release> {
    let config = fleet.path("config.json");
    fs::write(&config, format!("{{\"number\":{number}}}"))?;
    let arguments = publish_arguments(plugin, &config);
    let outcome = fleet.controller(arguments)?.expect(0)?.json()?;
    release(&plugin.name, &outcome["release"])
}

fn publish_arguments(plugin: &Plugin, config: &Path) -> Vec<String> {
    let (file, config) = (plugin.file.display().to_string(), config.display().to_string());
    let arguments = [
        "publish",
        &plugin.name,
        "--version",
        &plugin.version,
        "--artifact",
        &file,
        "--config",
        &config,
        "-o",
        "json",
    ];
    arguments.iter().chain(&HEALTH).map(|argument| (*argument).to_owned()).collect()
}

/// A release as the controller's command line prints it.
fn release(plugin: &str, printed: &Value) -> Result<Release> {
    let text = |field: &str| {
        printed[field].as_str().map(str::to_owned).with_context(|| format!("`{field}` in {printed}"))
    };
    Ok(Release {
        plugin: plugin.to_owned(),
        version: text("version")?,
        revision: printed["revision"].as_u64().context("a revision")?,
        release_id: text("release_id")?,
    })
}
