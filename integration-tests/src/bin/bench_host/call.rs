//! A call through front and worker, beside the same function in a plain hyper server.
use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use fleetswap_integration_tests::harness::Process;

use super::{
    client::{self, Target},
    stat::{cpu_seconds, median},
    table::{Aim, Row},
};

/// Connections of the three rows.
const CONNECTIONS: [usize; 3] = [1, 16, 64];

/// One side of the comparison.
pub(crate) struct Side {
    pub(crate) target: Target,
    pub(crate) pid: u32,
}

/// What one run of one side gave.
struct Run {
    rate: f64,
    p50: f64,
    p99: f64,
    /// Microseconds.
    cpu_per_call: f64,
}

/// Starts the plain server: this program again.
///
/// # Errors
/// It does not start.
pub(crate) fn plain(folder: &Path) -> Result<(Process, Side)> {
    let socket = folder.join("plain.sock");
    let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
    command.arg("--plain").arg(&socket);
    let process = Process::start("the plain server", &mut command, &folder.join("plain.log"))?;
    process.wait_for_line("plain server ready")?;
    let side = Side { target: Target::clock(&socket), pid: process.pid() };
    Ok((process, side))
}

/// Interleaved runs of both sides; medians over the rounds.
pub(crate) async fn rows(ours: &Side, plain: &Side, rounds: usize, time: Duration) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        let (mut fronts, mut plains) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Who goes first changes, so that a machine that warms up or tires favours nobody.
            if round % 2 == 0 {
                fronts.push(run(ours, connections, time).await?);
                plains.push(run(plain, connections, time).await?);
            } else {
                plains.push(run(plain, connections, time).await?);
                fronts.push(run(ours, connections, time).await?);
            }
        }
        rows.extend(compare(connections, &fronts, &plains));
    }
    Ok(rows)
}

async fn run(side: &Side, connections: usize, time: Duration) -> Result<Run> {
    let before = cpu_seconds(side.pid)?;
    let sample = client::run(&side.target, connections, time).await?;
    let cpu = cpu_seconds(side.pid)? - before;
    let cpu_per_call = cpu * 1e6 / sample.calls().max(1) as f64;
    let (p50, p99) = (sample.percentile(50.0), sample.percentile(99.0));
    Ok(Run { rate: sample.rate(), p50, p99, cpu_per_call })
}

fn compare(connections: usize, ours: &[Run], plain: &[Run]) -> Vec<Row> {
    let both = |field: fn(&Run) -> f64| (median(ours.iter().map(field)), median(plain.iter().map(field)));
    let ratio = |field: fn(&Run) -> f64| {
        median(ours.iter().zip(plain).map(|(ours, plain)| field(ours) / field(plain)))
    };
    let at = |what: &str| format!("call through front and worker, {connections} connections: {what}");
    let (rate, p50, p99, cpu) =
        (both(|it| it.rate), both(|it| it.p50), both(|it| it.p99), both(|it| it.cpu_per_call));
    let mut rate = Row::against(at("throughput"), "/s", rate.0, rate.1);
    let mut cpu = Row::against(at("CPU"), "us", cpu.0, cpu.1);
    let mut middle = Row::against(at("p50"), "us", p50.0, p50.1);
    let (rate_ratio, cpu_ratio) = (ratio(|it| it.rate), ratio(|it| it.cpu_per_call));
    if connections == 1 {
        let added = median(ours.iter().zip(plain).map(|(ours, plain)| ours.p50 - plain.p50));
        middle = middle.aim("added us", added, Aim::AtMost(60.0));
        rate = rate.note(format!("ratio {rate_ratio:.2}"));
    } else {
        rate = rate.aim("ratio", rate_ratio, Aim::AtLeast(0.90));
    }
    if connections == 64 {
        cpu = cpu.aim("ratio", cpu_ratio, Aim::AtMost(1.3));
    } else {
        cpu = cpu.note(format!("ratio {cpu_ratio:.2}"));
    }
    vec![rate, middle, Row::against(at("p99"), "us", p99.0, p99.1), cpu]
}
