//! Workers without HTTP: the bare hop, and from fork to first answer, in this very process.
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fleetswap_host::{Image, Launcher, Level, Limits, LogSink, Worker, WorkerSpec, sandbox_level};
use fleetswap_integration_tests::harness::Plugin;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::{
    stat::{median, percentile, pss_mib},
    table::{Aim, Row},
};

/// Callers of the bare hop.
const CALLERS: usize = 64;
/// Idle workers that share their program's pages, as on a host with some plugins.
const IDLE_WORKERS: usize = 10;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts workers of one plugin.
pub(crate) struct Nursery {
    launcher: Launcher,
    image: Image,
}

impl Nursery {
    pub(crate) fn new(plugin: &Plugin) -> Result<Self> {
        let bytes = std::fs::read(&plugin.file).context("reading the plugin")?;
        let sha256 = Sha256::digest(&bytes).into();
        let image = Image::from_file(&plugin.file, &sha256, bytes.len() as u64)?;
        Ok(Self { launcher: Launcher::start().context("the launcher")?, image })
    }

    /// A worker that has answered.
    async fn answering(&self, level: Level) -> Result<Worker> {
        let spec = WorkerSpec {
            plugin: "echo".to_owned(),
            version: "1.0.0".to_owned(),
            descriptor: None,
            limits: Limits::default(),
            level,
            log: LogSink::discard(),
        };
        let worker = self.launcher.launch(&self.image, spec).await?;
        worker.create(Bytes::new()).await?;
        worker.activate().await?;
        ask(&worker).await?;
        Ok(worker)
    }

    /// Calls per second of many callers on one worker, beside the round trips of two threads on a socket pair.
    pub(crate) async fn bare_hop(&self, rounds: usize, time: Duration) -> Result<Vec<Row>> {
        let worker = Arc::new(self.answering(Level::default()).await?);
        let (mut rates, mut singles, mut pings) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            rates.push(calls(&worker, CALLERS, time).await?);
            singles.push(calls(&worker, 1, time).await?);
            pings.push(tokio::task::spawn_blocking(move || ping_pong(time)).await??);
        }
        let memory = pss_mib(worker.pid())?;
        worker.close().await;
        let ratio = median(rates.iter().zip(&pings).map(|(rate, ping)| rate / ping));
        let single = median(singles.iter().zip(&pings).map(|(rate, ping)| rate / ping));
        let (rate, alone, ping) = (median(rates), median(singles), median(pings));
        Ok(vec![
            Row::against("bare hop, no HTTP, 64 callers", "/s", rate, ping)
                .aim("calls/s", rate, Aim::AtLeast(400_000.0))
                .note(format!("{ratio:.2} times a socketpair ping-pong of two threads")),
            Row::against("bare hop, no HTTP, 1 caller", "/s", alone, ping).note(format!("ratio {single:.2}")),
            Row::alone("memory of the worker after it (PSS)", "MiB", memory),
        ])
    }

    /// From fork to the first answer, beside the start of a process that does nothing.
    pub(crate) async fn births(&self, level: Level, count: usize) -> Result<Row> {
        let what = format!("fork to first answer, {}", level.as_str());
        if let Err(lacks) = sandbox_level(level) {
            return Ok(Row::skipped(what, &lacks.to_string()));
        }
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let started = Instant::now();
            let worker = self.answering(level).await?;
            ours.push(started.elapsed());
            worker.close().await;
            bare.push(tokio::task::spawn_blocking(start_nothing).await??);
        }
        Ok(born(what, ours, bare, 2.5))
    }

    /// From SIGKILL to the first answer of the next worker, without an agent's rules.
    pub(crate) async fn rebirths(&self, count: usize) -> Result<Row> {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        let mut worker = self.answering(Level::default()).await?;
        for _ in 0..count {
            let started = Instant::now();
            worker.kill();
            worker.ended().await;
            worker = self.answering(Level::default()).await?;
            ours.push(started.elapsed());
            bare.push(tokio::task::spawn_blocking(start_nothing).await??);
        }
        worker.close().await;
        Ok(born("killed worker to the next one's answer, bare".to_owned(), ours, bare, 6.0))
    }

    /// What one more worker that was asked once takes of the machine's memory.
    pub(crate) async fn idle_memory(&self) -> Result<Row> {
        let mut workers = Vec::new();
        for _ in 0..IDLE_WORKERS {
            workers.push(self.answering(Level::default()).await?);
        }
        let shares: Result<Vec<f64>> = workers.iter().map(|worker| pss_mib(worker.pid())).collect();
        let memory = median(shares?);
        for worker in workers {
            worker.close().await;
        }
        Ok(Row::alone(format!("memory of an idle worker, one of {IDLE_WORKERS} (PSS)"), "MiB", memory).aim(
            "MiB",
            memory,
            Aim::AtMost(2.0),
        ))
    }
}

fn born(what: String, mut ours: Vec<Duration>, mut bare: Vec<Duration>, aim: f64) -> Row {
    ours.sort_unstable();
    bare.sort_unstable();
    let ms = |times: &[Duration], percent| percentile(times, percent).as_secs_f64() * 1e3;
    let p50 = ms(&ours, 50.0);
    Row::against(what, "ms", p50, ms(&bare, 50.0))
        .aim("p50 ms", p50, Aim::AtMost(aim))
        .note(format!("p99 {:.1} ms; baseline: a process that does nothing", ms(&ours, 99.0)))
}

async fn ask(worker: &Worker) -> Result<()> {
    let answer = worker.call("same", Bytes::from_static(b"0123456789abcdef"), PATIENCE).await?;
    ensure!(answer.len() == 16, "the answer is another one");
    Ok(())
}

async fn calls(worker: &Arc<Worker>, callers: usize, time: Duration) -> Result<f64> {
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for _ in 0..callers {
        let worker = Arc::clone(worker);
        tasks.spawn(async move {
            let mut count = 0_u64;
            while started.elapsed() < time {
                ask(&worker).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// Round trips per second of one byte between two threads.
fn ping_pong(time: Duration) -> Result<f64> {
    let (mut near, mut far) = UnixStream::pair()?;
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
    });
    let (started, mut count, mut byte) = (Instant::now(), 0_u64, [0]);
    while started.elapsed() < time {
        near.write_all(&byte)?;
        near.read_exact(&mut byte)?;
        count += 1;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    drop(near);
    drop(echo.join());
    Ok(rate)
}

/// Time to start a process of this program that ends at once, and to wait for it.
fn start_nothing() -> Result<Duration> {
    let started = Instant::now();
    let mut command = Command::new(Path::new("/proc/self/exe"));
    let status = command.arg("--nothing").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "a process that does nothing failed");
    Ok(started.elapsed())
}
