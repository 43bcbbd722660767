//! A host of the fleet under the benchmark: a controller and an agent, as an operator runs them.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{
    Agent, Binaries, Fleet, FleetOptions, Plugin, eventually, signal,
};
use rustix::process::Signal;

use super::{
    call::Side,
    client::{Connection, Target},
    stat::{children, percentile, pss_mib},
    table::{Aim, Row},
};

/// Worker deaths that one release may have before its agent does more than start it again.
const KILLS_PER_FLEET: usize = 2;

/// A fleet of one host that answers `clock time`.
pub(crate) fn with_clock(binaries: &Binaries) -> Result<Fleet> {
    let fleet = Fleet::start(binaries, &FleetOptions { agents: 1, ..FleetOptions::default() })?;
    let clock = binaries.example("clock", "1.0.0")?;
    push(&fleet, &clock, &["--hosts", "all"])?;
    Ok(fleet)
}

/// Pushes with as little probation as there is, and waits for the end.
pub(crate) fn push(fleet: &Fleet, plugin: &Plugin, more: &[&str]) -> Result<()> {
    let arguments: Vec<&str> = ["--min-healthy-time", "1ms"].iter().chain(more).copied().collect();
    fleet.push(plugin, &arguments)?.expect(0).map(drop)
}

/// The one host.
pub(crate) fn agent(fleet: &Fleet) -> Result<&Agent> {
    fleet.agents.first().context("the fleet has a host")
}

/// Its front as a side of a comparison.
pub(crate) fn side(fleet: &Fleet) -> Result<Side> {
    let agent = agent(fleet)?;
    let pid = agent.process.as_ref().context("the agent runs")?.pid();
    Ok(Side { target: Target::clock(&agent.front()), pid })
}

/// Memory of its only worker.
pub(crate) fn memory(fleet: &Fleet) -> Result<Row> {
    let workers = children(side(fleet)?.pid);
    ensure!(workers.len() == 1, "{} workers run", workers.len());
    let memory = pss_mib(workers[0])?;
    Ok(Row::alone("memory of an idle worker of clock under an agent (PSS)", "MiB", memory).aim(
        "MiB",
        memory,
        Aim::AtMost(2.0),
    ))
}

/// From SIGKILL of a worker to the answer of a call that was sent right after it. No call may fail.
pub(crate) async fn kills(binaries: &Binaries, fleets: usize) -> Result<Row> {
    let mut took = Vec::new();
    for _ in 0..fleets {
        let fleet = with_clock(binaries)?;
        let side = side(&fleet)?;
        for _ in 0..KILLS_PER_FLEET {
            let mut connection = Connection::open(&side.target).await?;
            ensure!(connection.call().await? == 200, "the worker answers");
            let worker = eventually("one worker runs", || Ok(children(side.pid).first().copied()))?;
            let started = Instant::now();
            signal(worker, Signal::KILL)?;
            loop {
                let status = connection.call().await?;
                ensure!(status == 200, "a call after the kill got {status}");
                if !children(side.pid).contains(&worker) {
                    break;
                }
            }
            took.push(started.elapsed());
        }
    }
    took.sort_unstable();
    let ms = |percent| percentile(&took, percent).as_secs_f64() * 1e3;
    Ok(Row::alone("killed worker to the next one's answer, under an agent", "ms", ms(50.0))
        .aim("p50 ms", ms(50.0), Aim::AtMost(6.0))
        .note(format!("{} kills, longest {:.1} ms, no call failed", took.len(), ms(100.0))))
}

/// Longest that a row of the quick form may take.
pub(crate) const QUICK: Duration = Duration::from_millis(500);
