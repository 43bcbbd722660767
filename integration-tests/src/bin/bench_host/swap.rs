//! Swaps under load: what they cost callers, and that they cost none a call.
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use fleetswap_integration_tests::{
    harness::Binaries,
    load::Outcome,
    swaps::{Kind, Report, Series, Swap},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    client::{self, Target},
    host,
    stat::{Sample, median, percentile},
    table::{Aim, Row},
};

/// Connections of the closed loop beside which swaps are made.
const CONNECTIONS: usize = 64;
/// Between two swaps of the paced row.
const PACE: Duration = Duration::from_millis(100);
/// Calls per second of the open loop.
const STORM_RATE: u32 = 2_400;

/// Calls before and during swaps, the two in turn: ten swaps a second, and one right after the other.
pub(crate) async fn during(binaries: &Binaries, rounds: usize, time: Duration) -> Result<Vec<Row>> {
    let mut series = Series::prepare(binaries, Kind::Stateless, 0).await?;
    // What comes back to back is committed as soon as it may be.
    series.min_healthy_ms = 1;
    let body = Bytes::from_static(b"0 n ");
    let target = Target { socket: host::agent(&series.fleet)?.front(), path: "/v1/call/swapped/work", body };
    let mut rows = Vec::new();
    for (name, pace) in [("10 swaps/s", Some(PACE)), ("swaps back to back", None)] {
        let mut pairs = Vec::new();
        for _ in 0..rounds {
            let before = client::run(&target, CONNECTIONS, time).await?;
            pairs.push((before, swaps_beside(&mut series, &target, time, pace).await?));
        }
        rows.extend(compare(name, pace.is_some(), &pairs));
    }
    Ok(rows)
}

/// One run with swaps in it.
struct Beside {
    sample: Sample,
    swaps: usize,
}

async fn swaps_beside(
    series: &mut Series,
    target: &Target,
    time: Duration,
    pace: Option<Duration>,
) -> Result<Beside> {
    let calls = tokio::spawn({
        let target = target.clone();
        async move { client::run(&target, CONNECTIONS, time).await }
    });
    let mut ticks = pace.map(interval);
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    }
    let (started, mut swaps) = (Instant::now(), 0);
    while started.elapsed() < time {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        if matches!(series.swap().await?, Swap::Committed(_)) {
            swaps += 1;
        }
    }
    Ok(Beside { sample: calls.await??, swaps })
}

fn compare(name: &str, paced: bool, pairs: &[(Sample, Beside)]) -> Vec<Row> {
    let side = |of: fn(&Sample) -> f64| {
        let during = median(pairs.iter().map(|(_, during)| of(&during.sample)));
        let before = median(pairs.iter().map(|(before, _)| of(before)));
        let ratio = median(pairs.iter().map(|(before, during)| of(&during.sample) / of(before)));
        (during, before, ratio)
    };
    let (rate, p99) = (side(Sample::rate), side(|sample| sample.percentile(99.0)));
    let swaps: usize = pairs.iter().map(|(_, during)| during.swaps).sum();
    let calls: usize = pairs.iter().map(|(_, during)| during.sample.calls()).sum();
    let note = format!("{swaps} swaps, {calls} calls, 0 failed; baseline: without swaps");
    let mut p99_row = Row::against(format!("p99 of calls during {name}, 64 connections"), "us", p99.0, p99.1);
    p99_row = if paced {
        p99_row.aim("ratio", p99.2, Aim::AtMost(1.25))
    } else {
        p99_row.note(format!("ratio {:.2}", p99.2))
    };
    vec![
        Row::against(format!("calls during {name}, 64 connections"), "/s", rate.0, rate.1)
            .note(format!("ratio {:.2}; {note}", rate.2)),
        p99_row,
    ]
}

/// Series of swaps in an open loop, a part of which are made to fail: the calls that were lost or made twice, and the
/// pauses.
pub(crate) async fn series(binaries: &Binaries, kind: Kind, swaps: u32) -> Result<Vec<Row>> {
    let mut series = Series::prepare(binaries, kind, swaps).await?;
    let report = series.run(swaps, STORM_RATE).await?;
    let Report { committed, failed, gave_way, mut pauses, outcome } = report;
    ensure!(committed + failed == swaps, "{committed} and {failed} swaps of {swaps}");
    pauses.sort_unstable();
    let doubles = doubled(kind, &outcome);
    let name = match kind {
        Kind::Stateless => "stateless",
        Kind::Stateful => "stateful",
    };
    let in_flight = outcome.fewest_at_change.unwrap_or_default();
    let story = format!(
        "{} calls, {committed} swaps committed, {failed} made to fail, {gave_way} gave way, at least {in_flight} calls \
         in flight at a swap, by unix socket and TCP{}",
        outcome.sent,
        outcome.failures.first().map(|words| format!("; {words}")).unwrap_or_default()
    );
    let us = |percent| percentile(&pauses, percent).as_secs_f64() * 1e6;
    let lost = outcome.failed() as f64;
    Ok(vec![
        Row::alone(format!("calls lost in {swaps} swaps, {name}, open loop"), "", lost)
            .aim("lost", lost, Aim::AtMost(0.0))
            .note(story),
        Row::alone(format!("calls made twice or not in {swaps} swaps, {name}"), "", doubles).aim(
            "doubled",
            doubles,
            Aim::AtMost(0.0),
        ),
        Row::alone(format!("swap pause, {name}, p50"), "us", us(50.0))
            .note(format!("p99 {:.0} us", us(99.0))),
    ])
}

/// Calls that ran twice, or ran without an answer. A plugin with state counts its calls over all releases, so the counts
/// that came are 1 to the number of answers; without state only a reply to a wrong call would show, and is a lost call.
fn doubled(kind: Kind, outcome: &Outcome) -> f64 {
    match kind {
        Kind::Stateless => 0.0,
        Kind::Stateful => {
            let wrong = (1..).zip(&outcome.counts).filter(|(wanted, count)| wanted != *count).count();
            wrong as f64
        }
    }
}
