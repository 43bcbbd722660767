//! `cargo ci`: everything that has to pass before a change lands, in one command that ends by itself.
#![forbid(unsafe_code)]

use std::{
    env,
    ffi::OsString,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use fleetswap_integration_tests::harness::{Binaries, FAILPOINTS_BUILD, build_c_examples, repository};

/// One step: what it protects, and the cargo command that does it.
struct Step {
    title: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    after: fn() -> Result<(), String>,
}

/// Snapshots are compared, never written. Property tests start from one seed, so that a failure is the change's own;
/// a plain `cargo test` draws new seeds each time.
const TEST_ENVIRONMENT: &[(&str, &str)] = &[("INSTA_UPDATE", "no"), ("PROPTEST_RNG_SEED", "20261124")];

/// Cheap steps first. The build comes before the tests, which find the programs and plugins that it made.
const STEPS: &[Step] = &[
    Step { title: "format", arguments: &["fmt", "--all", "--check"], environment: &[], after: nothing },
    Step {
        title: "clippy",
        arguments: &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
        environment: &[],
        after: nothing,
    },
    Step {
        title: "build",
        arguments: &["build", "--quiet", "--workspace"],
        environment: &[],
        after: c_examples,
    },
    Step { title: "failpoints", arguments: &FAILPOINTS_BUILD, environment: &[], after: nothing },
    Step {
        title: "tests",
        arguments: &["test", "--workspace"],
        environment: TEST_ENVIRONMENT,
        after: nothing,
    },
    Step {
        title: "every interleaving at the gate",
        arguments: &["test", "--quiet", "-p", "fleetswap-host", "--features", "loom", "--lib", "gate::model"],
        environment: &[],
        after: nothing,
    },
    Step {
        title: "rustdoc",
        arguments: &["doc", "--quiet", "--workspace", "--no-deps"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        after: nothing,
    },
];

fn main() -> ExitCode {
    let started = Instant::now();
    for (number, step) in (1..).zip(STEPS) {
        println!("ci: [{number}/{}] {}: cargo {}", STEPS.len(), step.title, step.arguments.join(" "));
        let step_started = Instant::now();
        if let Err(why) = run(step) {
            println!("ci: FAILED in step `{}`: {why}", step.title);
            return ExitCode::FAILURE;
        }
        println!("ci: {} passed in {}", step.title, seconds(step_started.elapsed()));
    }
    println!("ci: all {} steps passed in {}", STEPS.len(), seconds(started.elapsed()));
    ExitCode::SUCCESS
}

fn run(step: &Step) -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .args(step.arguments)
        .envs(step.environment.iter().copied())
        .current_dir(repository())
        .status()
        .map_err(|error| format!("cargo can't be started: {error}"))?;
    if !status.success() {
        return Err(format!("cargo ended with {status}; its output is above"));
    }
    (step.after)()
}

fn nothing() -> Result<(), String> {
    Ok(())
}

fn c_examples() -> Result<(), String> {
    let built = Binaries::find().and_then(|binaries| build_c_examples(&binaries));
    built.map_err(|error| format!("{error:#}"))
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}
