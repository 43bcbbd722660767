//! Every argument, config key and message field, wrong, too long or missing: an error that says what, why, and
//! what to do, under a code that has its page.

mod agent;
mod messages;
mod push;
mod rollback;
mod serve;

use std::{
    fs,
    net::TcpListener,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use fleetswap_integration_tests::harness::{Binaries, Fleet, Outcome, repository};
use serde_json::Value;

use crate::common::fleet;

/// Longer than any argument or key may be.
const LONG: usize = 5000;

/// Arguments that are refused: the exit, the code, and words of what is wrong with them.
type Row<'a> = (&'a [&'a str], i32, &'a str, &'a str);

/// Runs each row behind the arguments that all have in common.
fn all_refused(fleet: &Fleet, common: &[&str], rows: &[Row<'_>]) -> Result<()> {
    let as_json =
        |(arguments, ..): &Row<'_>| fleet.controller_command([common, arguments, &["-o", "json"]].concat());
    let outcomes = two_at_a_time(rows.iter().map(as_json).collect())?;
    rows.iter().zip(outcomes).try_for_each(|((arguments, exit, code, words), outcome)| {
        let case = case(&[common, arguments].concat());
        ensure!(outcome.code == *exit, "{case}: exit {} instead of {exit}\n{}", outcome.code, outcome.stdout);
        let error = explained(&outcome, &case)?;
        ensure!(error["code"] == *code, "{case}: not {code} but {error}");
        let named = ["what", "why"].iter().any(|part| error[part].to_string().contains(words));
        ensure!(named, "{case}: nothing of `{words}` in {error}");
        Ok(())
    })
}

/// Runs commands to their ends; their outcomes are in their order.
fn two_at_a_time(mut commands: Vec<Command>) -> Result<Vec<Outcome>> {
    let half = commands.len().div_ceil(2).max(1);
    let run = |commands: &mut [Command]| commands.iter_mut().map(Outcome::of).collect::<Result<Vec<_>>>();
    thread::scope(|scope| {
        let halves: Vec<_> =
            commands.chunks_mut(half).map(|commands| scope.spawn(move || run(commands))).collect();
        let mut outcomes = Vec::new();
        for half in halves {
            let Ok(done) = half.join() else { bail!("a thread panicked") };
            outcomes.extend(done?);
        }
        Ok(outcomes)
    })
}

/// A row as a failed test names it.
fn case(arguments: &[&str]) -> String {
    arguments.join(" ").chars().take(200).collect()
}

/// The error object of a refused command, after a look at its parts.
fn explained(outcome: &Outcome, case: &str) -> Result<Value> {
    let error = outcome.json()?["error"].clone();
    for part in ["what", "why", "fix"] {
        ensure!(error[part].as_str().is_some_and(|text| !text.is_empty()), "{case}: no `{part}` in {error}");
    }
    let code = error["code"].as_str().unwrap_or_default();
    ensure!(error["page"] == format!("docs/errors/{code}.md"), "{case}: another page in {error}");
    has_page(code)?;
    Ok(error)
}

/// The same error on a screen: its four parts on standard error, and nothing on standard output.
fn explained_in_text(outcome: &Outcome, code: &str) -> Result<()> {
    ensure!(outcome.stderr.starts_with(&format!("error[{code}]: ")), "{code}: {}", outcome.stderr);
    for part in ["\n  why:  ", "\n  fix:  ", "\n  page: "] {
        ensure!(outcome.stderr.contains(part), "{code}: no {part:?} in {}", outcome.stderr);
    }
    ensure!(outcome.stdout.is_empty(), "{code}: {}", outcome.stdout);
    has_page(code)
}

fn has_page(code: &str) -> Result<()> {
    let page = repository().join(format!("docs/errors/{code}.md"));
    let text = fs::read_to_string(&page)?;
    ensure!(text.starts_with(&format!("# {code}\n")), "{} has another title", page.display());
    Ok(())
}

#[test]
fn no_verb_speaks_to_the_controller_of_another_machine() -> Result<()> {
    let fleet = fleet(0)?;
    let file = Binaries::find()?.example("clock", "1.0.0")?.file.display().to_string();
    let verbs: [&[&str]; 8] = [
        &["push", "clock", "--version", "1.0.0", "--artifact", &file],
        &["publish", "clock", "--version", "1.0.0", "--artifact", &file],
        &["rollback", "clock", "--reason", "r"],
        &["status"],
        &["history"],
        &["host", "list"],
        &["plugin", "list"],
        &["diff", "clock", "1.0.0", "1.1.0"],
    ];
    for verb in verbs {
        for foreign in ["192.0.2.1:7443", "controller.example.net:7443"] {
            let mut command = fleet.controller_command([verb, &["-o", "json"]].concat());
            let outcome = Outcome::of(command.env("FLEETSWAP_CONTROLLER", foreign))?.expect(2)?;
            let error = explained(&outcome, foreign)?;
            ensure!(error["code"] == "ADDRESS_NOT_LOOPBACK", "{verb:?}: {error}");
        }
    }
    let port = fleet.address().rsplit(':').next().unwrap_or_default().to_owned();
    for own in [format!("http://{}", fleet.address()), format!("localhost:{port}")] {
        fleet.controller(["status", "--controller", &own])?.expect(0)?;
    }
    fleet.controller(["status", "--controller", "192.0.2.1:7443"])?.expect(2).map(drop)
}

#[test]
fn a_port_that_accepts_and_stays_silent_is_given_up_after_seconds() -> Result<()> {
    let fleet = fleet(0)?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let address = silent.local_addr()?.to_string();
    let begun = Instant::now();
    let outcome = fleet.controller(["status", "--controller", &address, "-o", "json"])?.expect(1)?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    let error = explained(&outcome, "silent")?;
    ensure!(error["code"] == "UNREACHABLE", "{error}");
    ensure!(outcome.stdout.contains("something listens there"), "{}", outcome.stdout);
    Ok(())
}

#[test]
fn a_rollout_that_never_was_is_not_blamed_on_versions() -> Result<()> {
    let fleet = fleet(0)?;
    for more in [&["-o", "json"][..], &["--watch", "-o", "json"]] {
        let outcome = fleet.controller([&["status", "r-99"], more].concat())?.expect(1)?;
        let error = explained(&outcome, "r-99")?;
        ensure!(error["code"] == "ROLLOUT_NOT_FOUND", "{error}");
        ensure!(error["what"] == "there is no rollout r-000099", "{error}");
        ensure!(error["fix"].as_str().is_some_and(|fix| fix.contains("controller history")), "{error}");
    }
    Ok(())
}
