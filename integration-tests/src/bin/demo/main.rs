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
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use fleetswap_integration_tests::harness::{Binaries, build_workspace};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use report::{Report, failed};
use stage::Stage;
use story::Story;

/// The story has to be over after this; the rest of the 90 s that the demo promises is for clearing up.
const STORY_LIMIT: Duration = Duration::from_secs(85);

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
    let runtime = Handle::current();
    let told = within(STORY_LIMIT, move || runtime.block_on(tell_the_story(&binaries)));
    // The fleet lives as long as the story does.
    let (_story, report, what_to_try) = told.await?;
    tell(&report.text());
    // Before the commands are shown: whoever sees them may press Ctrl-C.
    stage.leave_result(&report.json())?;
    if options.keep {
        tell(&what_to_try);
        future::pending::<()>().await;
    }
    Ok(())
}

async fn tell_the_story(binaries: &Binaries) -> Result<(Story, Report, String)> {
    let mut story = Story::begin(binaries)?;
    let report = story.tell_all().await?;
    let what_to_try = story.what_to_try()?;
    Ok((story, report, what_to_try))
}

/// Does work that blocks, on a thread of its own. Work that is stuck is left behind, and ends with the process.
async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, result) = oneshot::channel();
    // Nobody listens any more when it was too slow.
    thread::spawn(move || drop(done.send(work())));
    match timeout(limit, result).await {
        Ok(result) => result.context("it broke off")?,
        Err(_) => bail!("it is not over after {limit:?}"),
    }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_story_that_is_stuck_fails_when_its_time_is_over() {
        let (_sender, never) = mpsc::channel::<()>();
        let stuck = within(Duration::from_millis(20), move || Ok(never.recv()?)).await;
        assert_eq!(format!("{:#}", stuck.unwrap_err()), "it is not over after 20ms");
    }

    #[tokio::test]
    async fn a_story_in_time_ends_as_it_says_itself() {
        assert_eq!(within(STORY_LIMIT, || Ok(7)).await.unwrap(), 7);
        let failed = within(STORY_LIMIT, || -> Result<()> { bail!("the push was refused") }).await;
        assert_eq!(failed.unwrap_err().to_string(), "the push was refused");
        let broken = within(STORY_LIMIT, || -> Result<()> { panic!("this panic belongs to the test") }).await;
        assert!(broken.unwrap_err().to_string().starts_with("it broke off"));
    }
}
