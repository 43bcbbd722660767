//! `cargo demo`: five hosts swap a live plugin, refuse a bad one, and go back, under load, as real processes.
//!
//! Two processes of this program: the one that was called keeps order and cleans up ([`keeper`]), and its child,
//! in a process group with all that it starts, tells the story.
#![forbid(unsafe_code)]

mod keeper;
mod report;
mod stage;
mod story;

use std::{
    ffi::OsString,
    future,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use fleetswap_integration_tests::harness::{Binaries, build_workspace};

use report::failed;
use stage::Stage;
use story::Story;

/// Watch a small fleet upgrade a plugin without losing a call.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo --")]
struct Options {
    /// Leave the fleet running at the end, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// With `json`, the last line is one JSON object with the figures.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    /// Run what is built already.
    #[arg(long)]
    no_build: bool,
    /// How the keeper starts the story.
    #[arg(long, hide = true)]
    stage: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse_from(arguments());
    let Some(stage) = &options.stage else {
        return keeper::run(&options).await;
    };
    match act(stage, &options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The alias ends in `--`, so a `--` that the user types as well is dropped.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "--") {
        arguments.remove(1);
    }
    arguments
}

/// Tells the story on a stage that the keeper has set up, and leaves its result there.
async fn act(folder: &Path, options: &Options) -> Result<()> {
    let stage = Stage::enter(folder)?;
    keeper::end_with_the_keeper(stage.clone());
    if let Err(error) = perform(&stage, options).await {
        stage.leave_result(&failed(&format!("it did not go as told: {error:#}")))?;
    }
    Ok(())
}

async fn perform(stage: &Stage, options: &Options) -> Result<()> {
    let binaries = if options.no_build {
        Binaries::find()?
    } else {
        tell("demo: building the programs and the example plugins (the first time takes some minutes)");
        build_workspace()?
    };
    let mut story = Story::begin(&binaries)?;
    let report = story.tell_all().await?;
    let what_to_try = story.what_to_try()?;
    tell(&report.text());
    if options.keep {
        tell(&what_to_try);
    }
    stage.leave_result(&report.json())?;
    if options.keep {
        future::pending::<()>().await;
    }
    Ok(())
}

/// A line of the story. A closed pipe must not end the demo before it has cleaned up.
pub(crate) fn tell(line: &str) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// A line on standard error.
pub(crate) fn complain(line: &str) {
    drop(writeln!(io::stderr(), "demo: {line}"));
}
