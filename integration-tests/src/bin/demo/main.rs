//! `cargo demo`: five hosts swap a live plugin, refuse a bad one, and go back, under load, as real processes.
#![forbid(unsafe_code)]

mod report;
mod story;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use fleetswap_integration_tests::harness::build_workspace;
use tokio::{signal, sync::watch};

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse_from(arguments());
    match demo(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("\ndemo: it did not go as told: {error:#}"));
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

async fn demo(options: &Options) -> Result<bool> {
    tell("demo: building the programs and the example plugins (the first time takes some minutes)");
    let binaries = build_workspace()?;
    let mut story = Story::begin(&binaries, interrupts())?;
    let report = story.tell_all().await?;
    tell(&report.text());
    if options.keep {
        tell(&story.what_to_try());
        story.until_interrupted().await;
        tell("\ndemo: taking the fleet down");
    }
    if options.output == Format::Json {
        tell(&report.json());
    }
    Ok(report.all_well())
}

/// Becomes true at Ctrl-C. The story looks at it between its chapters, so that it always cleans up.
fn interrupts() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        if signal::ctrl_c().await.is_ok() {
            sender.send_replace(true);
        }
        // Kept, so that the channel stays open for whoever waits on it.
        sender.closed().await;
    });
    receiver
}

/// A line of the story. A closed pipe must not end the demo before it has cleaned up.
pub(crate) fn tell(line: &str) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}
