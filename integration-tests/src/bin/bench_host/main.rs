//! `cargo bench-host`: what a call costs, how long a swap pauses, how soon a worker is back. One table, or one JSON
//! object; medians of interleaved runs, each beside a baseline of the same run.
#![forbid(unsafe_code)]

mod call;
mod client;
mod hop;
mod host;
mod peer;
mod plain;
mod stat;
mod swap;
mod table;

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use fleetswap_host::{Level, run_worker_if_asked};
use fleetswap_integration_tests::{
    harness::{Binaries, compile_c, repository},
    swaps::Kind,
};

use table::Row;

/// Measure this build of Fleetswap on one host, beside baselines of the same run.
#[derive(Debug, Parser)]
#[command(name = "cargo bench-host", bin_name = "cargo bench-host --")]
struct Options {
    /// Fewer and shorter runs: under a minute once all is built.
    #[arg(long)]
    quick: bool,
    /// With `json`, the last line is one JSON object.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    /// Only rows of these groups.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// Run what is built already.
    #[arg(long)]
    no_build: bool,
    /// How the plain server of the comparison is started.
    #[arg(long, hide = true)]
    plain: Option<PathBuf>,
    /// Does nothing: the baseline of a start.
    #[arg(long, hide = true)]
    nothing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// A group of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// A call through front and worker, beside a plain server.
    Call,
    /// The bare hop.
    Hop,
    /// Starts of workers, and their memory.
    Start,
    /// Calls beside swaps.
    Swap,
    /// Series of swaps of which none may cost a call.
    Series,
    /// The peer's reload.
    Peer,
}

/// How much is measured.
struct Extent {
    rounds: usize,
    time: Duration,
    starts: usize,
    fleets: usize,
    /// Of each kind.
    swaps: u32,
}

impl Extent {
    const FULL: Self = Self { rounds: 5, time: Duration::from_secs(2), starts: 100, fleets: 5, swaps: 500 };
    const QUICK: Self = Self { rounds: 3, time: host::QUICK, starts: 20, fleets: 1, swaps: 10 };
}

fn main() -> ExitCode {
    // A worker of the bare rows is this program again.
    run_worker_if_asked();
    let options = Options::parse_from(arguments());
    if options.nothing {
        return ExitCode::SUCCESS;
    }
    let done = match &options.plain {
        Some(socket) => plain::serve(socket),
        None => bench(&options),
    };
    if let Err(error) = done {
        eprintln!("bench-host: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The alias ends in `--`, so a `--` that the user types as well is dropped.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "--") {
        arguments.remove(1);
    }
    arguments
}

fn bench(options: &Options) -> Result<()> {
    if !options.no_build {
        eprintln!("bench-host: building the programs and plugins in release");
        build()?;
    }
    let binaries = Binaries::find()?;
    let extent = if options.quick { Extent::QUICK } else { Extent::FULL };
    let before = stat::machine_load();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    let rows = runtime.block_on(Box::pin(rows(options, &binaries, &extent)))?;
    let about = format!(
        "medians of {} interleaved runs of {} ms; load of the machine {before:.1} before, {:.1} after (1 min, \
         this benchmark included), {} cores",
        extent.rounds,
        extent.time.as_millis(),
        stat::machine_load(),
        std::thread::available_parallelism().map_or(1, usize::from),
    );
    match options.output {
        Format::Text => println!("{}", table::text(&rows, &about)),
        Format::Json => println!("{}", table::json(&rows, &about)),
    }
    Ok(())
}

async fn rows(options: &Options, binaries: &Binaries, extent: &Extent) -> Result<Vec<Row>> {
    let wanted = |group| options.only.is_empty() || options.only.contains(&group);
    let folder = tempfile::Builder::new().prefix("fleetswap-bench-").tempdir().context("a folder")?;
    let source = repository().join("integration-tests/zoo/echo.c");
    let echo = compile_c(&source, "echo", "1.0.0", &[r#"VERSION="1.0.0""#], folder.path())?;
    let nursery = hop::Nursery::new(&echo)?;
    let mut rows = Vec::new();
    if wanted(Group::Call) {
        let fleet = host::with_clock(binaries)?;
        let (_process, plain) = call::plain(folder.path())?;
        rows.push(host::memory(&fleet)?);
        rows.extend(call::rows(&host::side(&fleet)?, &plain, extent.rounds, extent.time).await?);
    }
    if wanted(Group::Hop) {
        rows.extend(nursery.bare_hop(extent.rounds, extent.time).await?);
    }
    if wanted(Group::Start) {
        for level in [Level::Standard, Level::Strict] {
            rows.push(nursery.births(level, extent.starts).await?);
        }
        rows.push(nursery.rebirths(extent.starts).await?);
        rows.push(nursery.idle_memory().await?);
        rows.push(host::kills(binaries, extent.fleets).await?);
    }
    if wanted(Group::Swap) {
        rows.extend(Box::pin(swap::during(binaries, extent.rounds, extent.time)).await?);
    }
    if wanted(Group::Series) {
        for kind in [Kind::Stateless, Kind::Stateful] {
            rows.extend(Box::pin(swap::series(binaries, kind, extent.swaps)).await?);
        }
    }
    if wanted(Group::Peer) {
        rows.push(peer::row(folder.path(), extent.time * 3).await?);
    }
    Ok(rows)
}

/// What the benchmark runs, beside itself.
const PACKAGES: [&str; 6] = [
    "fleetswap-controller",
    "fleetswap-agent",
    "fleetswap-example-clock-1-0-0",
    "fleetswap-example-clock-1-2-0",
    "fleetswap-example-counter-1-0-0",
    "fleetswap-example-counter-2-0-0",
];

fn build() -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet"])
        .args(packages)
        .current_dir(repository())
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the build failed");
    Ok(())
}
