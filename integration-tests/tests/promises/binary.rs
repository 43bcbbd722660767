//! The agent's binary, exchanged underneath a running agent; and what becomes of workers when the agent idles or dies.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{Agent, Binaries, Fleet, Process, eventually};

use crate::common::{QUICK, call, fleet, install, plugin_status, subject};

/// A fleet of one host whose agent runs from a file of its own.
fn fleet_with_its_own_binary() -> Result<(Fleet, PathBuf)> {
    let mut fleet = fleet(0)?;
    let mut agent = fleet.add_agent("host-1", "")?;
    let program = fleet.path("agent-of-its-own");
    // By a process of its own: while this one has a file open for writing, another test's fork may hold it open longer.
    let copied = Command::new("cp").arg(Binaries::find()?.agent()).arg(&program).status()?;
    ensure!(copied.success(), "cp ended with {copied}");
    let mut command = Command::new(&program);
    command.args(["daemon", "--config"]).arg(agent.config());
    let process = Process::start("host-1", &mut command, &agent.folder().join("agent.log"))?;
    process.wait_for_line(" ready")?;
    agent.process = Some(process);
    fleet.agents.push(agent);
    Ok((fleet, program))
}

fn worker(agent: &Agent, plugin: &str) -> Result<u64> {
    plugin_status(agent, plugin)?["worker_pid"].as_u64().context("a worker")
}

/// What a process runs, as the kernel names it.
fn runs(pid: u64) -> Result<String> {
    Ok(fs::read_link(format!("/proc/{pid}/exe"))?.display().to_string())
}

fn serves(fleet: &Fleet, version: &str) -> Result<()> {
    let reply = call(&fleet.agents[0].caller(), "subject", "echo", "")?;
    ensure!(reply.status == 200 && reply.body == version, "{version}: {reply:?}");
    fleet.check_alive()
}

#[test]
fn swaps_work_after_the_agents_binary_was_replaced_and_deleted() -> Result<()> {
    let (fleet, program) = fleet_with_its_own_binary()?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    serves(&fleet, "1.0.0")?;
    // Another program altogether, as a package manager puts it there: written beside, then renamed over it.
    let other = fleet.path("other");
    fs::copy("/bin/false", &other)?;
    fs::rename(&other, &program)?;
    fleet.push(&subject(&fleet, "1.1.0", &[])?, &QUICK)?.expect(0)?;
    serves(&fleet, "1.1.0")?;
    fs::remove_file(&program)?;
    fleet.push(&subject(&fleet, "1.2.0", &[])?, &QUICK)?.expect(0)?;
    serves(&fleet, "1.2.0")?;
    let program = runs(worker(&fleet.agents[0], "subject")?)?;
    ensure!(
        program.ends_with("agent-of-its-own (deleted)"),
        "the very program that the agent runs: {program}"
    );
    Ok(())
}

#[test]
fn a_worker_that_died_is_replaced_after_the_agents_binary_was() -> Result<()> {
    let (fleet, program) = fleet_with_its_own_binary()?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    fs::remove_file(&program)?;
    let before = worker(&fleet.agents[0], "subject")?;
    ensure!(call(&fleet.agents[0].caller(), "subject", "crash", "")?.status == 503, "it crashed");
    eventually("another worker answers", || {
        let now = plugin_status(&fleet.agents[0], "subject")?["worker_pid"].as_u64();
        Ok(now.filter(|now| *now != before))
    })?;
    serves(&fleet, "1.0.0")
}

/// Whether a process runs; a zombie runs no more.
fn is_alive(pid: u64) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ") && !status.contains("State:\tX"))
}

/// Threads of a process by name.
fn threads(pid: u32, name: &str) -> Result<Vec<PathBuf>> {
    let all = fs::read_dir(format!("/proc/{pid}/task"))?.flatten().map(|entry| entry.path());
    let named = |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
    Ok(all.filter(|path| named(path)).collect())
}

/// The kernel ends a worker with the *thread* that started it. Those of the runtime come and go with the load.
#[test]
fn workers_hang_on_one_thread_that_lives_as_long_as_the_agent() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    fleet.push(&subject(&fleet, "1.1.0", &[])?, &QUICK)?.expect(0)?;
    let agent = fleet.agents[0].process.as_ref().context("it runs")?.pid();
    let launchers = threads(agent, "launcher")?;
    assert_eq!(launchers.len(), 1, "{launchers:?}");
    let children = fs::read_to_string(launchers[0].join("children"))?;
    let worker = worker(&fleet.agents[0], "subject")?.to_string();
    ensure!(children.split(' ').any(|child| child == worker), "{worker} is not among {children}");
    Ok(())
}

#[test]
fn all_workers_die_with_an_agent_that_is_killed() -> Result<()> {
    let mut fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    install(&fleet, &Binaries::find()?.example("counter", "1.0.0")?)?;
    let agent = fleet.agents[0].process.as_ref().context("it runs")?.pid();
    let children = |pid: u32| -> Result<Vec<u64>> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let text: String =
            tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
        Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
    };
    let workers = children(agent)?;
    for plugin in ["subject", "counter"] {
        ensure!(workers.contains(&worker(&fleet.agents[0], plugin)?), "{plugin} is not among {workers:?}");
    }
    ensure!(workers.iter().all(|pid| is_alive(*pid)), "{workers:?} run");
    fleet.agents[0].kill();
    eventually("no worker is left", || Ok((!workers.iter().any(|pid| is_alive(*pid))).then_some(())))
}
