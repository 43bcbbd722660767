//! Must hold 5: a reboot and a clean stop in any step blame nobody and cost one retry; a kill blames from Loading on.
//!
//! Each host is held in a step; its boot id is faked.

use std::{path::PathBuf, process::ExitStatus};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{Agent, eventually, signal};
use fleetswap_proto::v1::{Fault, HostState};
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::common::{PLUGIN, Published, World, active, hits, is_whole, status};

/// The steps of an update at whose beginning it can be held, in order.
const STEPS: [&str; 11] = [
    "fetch",
    "verify",
    "load",
    "probe",
    "prepare",
    "before-gate",
    "restore",
    "activate",
    "before-pointer",
    "probation",
    "go-back",
];
/// So many of them come before Loading.
const BEFORE_LOADING: usize = 2;
/// From this one on callers may have been answered by the new release.
const BEFORE_GATE: usize = 5;
/// The way back of a candidate that dies.
const GO_BACK: usize = 10;

/// How the step is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// SIGTERM.
    Stop,
    /// The host boots anew.
    Reboot,
    /// `kill -9`.
    Kill,
    /// SIGTERM, and once more in the same step: the host gives up, and the controller asks it once more.
    StopTwice,
}

/// Four updates of eleven hosts, each held in its own step and cut in one of the ways.
#[test]
fn a_reboot_and_a_clean_stop_blame_nobody_and_are_retried_once_and_a_kill_blames_from_loading_on()
-> Result<()> {
    let mut world = World::start(STEPS.len())?;
    let runtime = Runtime::new()?;
    for cut in [Cut::Stop, Cut::Reboot, Cut::Kill, Cut::StopTwice] {
        cut_all(&mut world, cut, &runtime).with_context(|| format!("{cut:?}"))?;
    }
    Ok(())
}

fn cut_all(world: &mut World, cut: Cut, runtime: &Runtime) -> Result<()> {
    let (living, dying) = (world.publish(&[])?, world.publish(&["CRASHES_ACTIVE"])?);
    let candidate = |step: usize| if step == GO_BACK { &dying } else { &living };
    let failing = world.failing.clone();
    let (mut old, mut rollouts) = (Vec::new(), Vec::new());
    for step in 0..STEPS.len() {
        let agent = &mut world.fleet.agents[step];
        old.push(active(agent)?.0);
        agent.kill();
        rollouts.push(world.operator.push(PLUGIN, &agent.name, &candidate(step).manifest, 0)?);
    }
    let point = |step: &str| format!("update.{step}");
    let agents = &mut world.fleet.agents;
    let times = if cut == Cut::StopTwice { 2 } else { 1 };
    for time in 0..times {
        let logs: Vec<PathBuf> = agents.iter().map(|agent| agent.folder().join("agent.log")).collect();
        let before: Vec<usize> = logs.iter().zip(STEPS).map(|(log, step)| hits(log, &point(step))).collect();
        for (step, agent) in STEPS.iter().zip(agents.iter_mut()) {
            let held = format!("{}:hold", point(step));
            let environment =
                [("FLEETSWAP_TEST_FAILPOINT", held.as_str()), ("FLEETSWAP_TEST_BOOT_ID", "boot-1")];
            agent.spawn_as(&failing, &environment)?;
        }
        eventually("each host is held in its step", || {
            let is_held = |step: usize| {
                // The way back is over for good after the first cut.
                let is_over = time > 0 && step == GO_BACK;
                is_over || hits(&logs[step], &point(STEPS[step])) > before[step]
            };
            let not_yet: Vec<&str> =
                (0..STEPS.len()).filter(|it| !is_held(*it)).map(|it| STEPS[it]).collect();
            ensure!(not_yet.is_empty(), "not held: {not_yet:?}");
            Ok(Some(()))
        })?;
        // All at once: one that holds a step that must come to its end takes its whole time.
        for agent in agents.iter() {
            if matches!(cut, Cut::Stop | Cut::StopTwice) {
                signal(agent.process.as_ref().context("it runs")?.pid(), Signal::TERM)?;
            }
        }
        for agent in agents.iter_mut() {
            end(agent, cut)?;
        }
    }
    let boot_id = if cut == Cut::Reboot { "boot-2" } else { "boot-1" };
    for agent in agents.iter_mut() {
        agent.spawn_as(&failing, &[("FLEETSWAP_TEST_BOOT_ID", boot_id)])?;
    }
    world.operator.wait_for(&rollouts)?;
    for step in 0..STEPS.len() {
        let (_, host) = world.operator.rollout(&rollouts[step])?;
        let found = (host.state(), host.failure.map(|failure| (failure.fault(), failure.code)));
        let gives_up = cut == Cut::StopTwice && (BEFORE_LOADING..GO_BACK).contains(&step);
        let attempts = if gives_up { 2 } else { 1 };
        ensure!(host.attempt == attempts, "{}: {} attempts, not {attempts}", STEPS[step], host.attempt);
        let agent = &world.fleet.agents[step];
        check(agent, (cut, step), found, (&old[step], candidate(step)), runtime)
            .with_context(|| STEPS[step])?;
    }
    Ok(())
}

fn end(agent: &mut Agent, cut: Cut) -> Result<()> {
    match cut {
        Cut::Stop | Cut::StopTwice => {
            let ended = agent.process.as_mut().context("it runs")?.wait()?;
            ensure!(ExitStatus::success(&ended), "{} did not end in order: {ended}", agent.name);
        }
        Cut::Reboot | Cut::Kill => agent.kill(),
    }
    Ok(())
}

type Found = (HostState, Option<(Fault, String)>);

fn check(
    agent: &Agent,
    (cut, step): (Cut, usize),
    found: Found,
    (old, candidate): (&str, &Published),
    runtime: &Runtime,
) -> Result<()> {
    let failed = |fault, code: &str| {
        let moved = if step < BEFORE_GATE { HostState::Rejected } else { HostState::RolledBack };
        (moved, Some((fault, code.to_owned())))
    };
    let wanted = match cut {
        // The verdict had fallen before the cut.
        _ if step == GO_BACK => failed(Fault::Release, "WORKER_DIED"),
        Cut::Kill if step >= BEFORE_LOADING => failed(Fault::Release, "KILLED_ON_TRIAL"),
        Cut::Stop | Cut::Reboot | Cut::Kill | Cut::StopTwice => (HostState::Committed, None),
    };
    ensure!(found == wanted, "{found:?}, not {wanted:?}");
    let runs = if wanted.1.is_none() { candidate.id.as_str() } else { old };
    eventually("the release answers", || {
        let (id, version) = is_whole(agent, runtime)?;
        ensure!(id == *runs, "{version} runs");
        Ok(Some(()))
    })?;
    let denied = status(agent)?["denied"].clone();
    let is_denied =
        denied.as_array().into_iter().flatten().any(|it| it["release"]["release_id"] == candidate.id);
    let is_blamed = matches!(wanted.1, Some((Fault::Release, _)));
    ensure!(is_denied == is_blamed, "denied: {denied}");
    Ok(())
}
