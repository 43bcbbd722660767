//! A counter over swaps, failed swaps, rollbacks, planned restarts of the agent, and kills.

mod counting;
mod stage;

use std::{env, fs, os::unix::net::UnixDatagram, time::Duration};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{Agent, Binaries, HeldSockets, eventually};
use serde_json::Value;

use crate::common::{QUICK, call, fleet_with, plugin_status};
use counting::Counting;
use stage::{Restart, Stage};

/// Rounds of four swaps, a rollback and a failed swap in `cargo ci`. The whole of the promise are 50: 200 swaps, 50
/// rollbacks, 50 failed swaps and 10 restarts.
const ROUNDS_IN_CI: usize = 4;
/// Overrides [`ROUNDS_IN_CI`].
const ROUNDS_KEY: &str = "FLEETSWAP_COUNTER_ROUNDS";
/// Rounds for each restart of the agent; at least one of each kind is made.
const ROUNDS_PER_RESTART: usize = 5;

/// What the agent's log may not say.
const LOSSES: [&str; 2] = ["STATE_LOST", "SAVE_STATE_FAILED"];

fn rounds() -> Result<usize> {
    match env::var(ROUNDS_KEY) {
        Ok(rounds) => rounds.parse().with_context(|| format!("{ROUNDS_KEY} is a number")),
        Err(_) => Ok(ROUNDS_IN_CI),
    }
}

#[test]
fn the_counter_loses_no_increment_over_swaps_failed_swaps_rollbacks_and_planned_restarts() -> Result<()> {
    let rounds = rounds()?;
    let mut stage = Stage::set(rounds)?;
    let counting = Counting::start(&stage.runtime, &stage.agent().front(), stage.held.address()?);
    let (wanted, mut restarts) = ((rounds / ROUNDS_PER_RESTART).max(Restart::ALL.len()), 0);
    for round in 0..rounds {
        while restarts * rounds < (round + 1) * wanted {
            stage.restart(Restart::ALL[restarts % Restart::ALL.len()])?;
            restarts += 1;
        }
        stage.swaps_and_a_rollback()?;
        stage.failed_swap(round)?;
    }
    let counted = stage.runtime.block_on(counting.finish())?;
    println!(
        "{} swaps, {} rollbacks, {} failed swaps, {restarts} restarts; {} increments on {} connections",
        stage.swaps,
        stage.rollbacks,
        stage.failed,
        counted.values.len(),
        counted.connections
    );
    assert_eq!((stage.rollbacks, stage.failed, restarts), (rounds, rounds, wanted));
    ensure!(stage.swaps >= 4 * rounds, "only {} swaps", stage.swaps);
    assert_eq!(counted.failures, Vec::<String>::new());
    let log = fs::read_to_string(stage.agent().log())?;
    let told = log.lines().filter(|line| LOSSES.iter().any(|code| line.contains(code)));
    assert_eq!(told.collect::<Vec<_>>(), Vec::<&str>::new(), "no state was lost on the way");
    let values = &counted.values;
    let odd = values.windows(2).filter(|two| two[1] != two[0] + 1).map(|two| two[1]);
    assert_eq!(odd.collect::<Vec<_>>(), Vec::<u64>::new(), "each is acknowledged once, and there is no gap");
    let last = values.last().copied().unwrap_or_default();
    assert_eq!(last, values.len() as u64, "from the first one on");
    assert_eq!(value(stage.agent())?, last);
    Ok(())
}

fn value(agent: &Agent) -> Result<u64> {
    let reply = call(&agent.caller(), "counter", "value", "{}")?;
    reply.body["value"].as_u64().with_context(|| format!("a value in {reply:?}"))
}

fn count_to(agent: &Agent, wanted: u64) -> Result<()> {
    while call(&agent.caller(), "counter", "increment", "{}")?.body["value"].as_u64() < Some(wanted) {}
    Ok(())
}

/// Waits for a checkpoint that was taken after now.
fn checkpointed(agent: &Agent, now_ms: u64) -> Result<Value> {
    eventually("a checkpoint is taken", || {
        let saved = plugin_status(agent, "counter")?["saved_state"].clone();
        Ok((saved["unix_ms"].as_u64() > Some(now_ms)).then_some(saved))
    })
}

fn now_ms() -> Result<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(u64::try_from(since.as_millis())?)
}

#[test]
fn a_kill_loses_what_came_after_the_last_checkpoint_and_says_so_and_a_planned_end_loses_nothing() -> Result<()>
{
    let mut fleet = fleet_with(1, "[plugins.counter]\ncheckpoint_interval = \"1s\"")?;
    let counter = Binaries::find()?.example("counter", "1.0.0")?;
    fleet.push(&counter, &[&QUICK[..], &["--hosts", "all"]].concat())?.expect(0)?;
    let agent = fleet.agents.first_mut().context("an agent")?;
    count_to(agent, 5)?;
    checkpointed(agent, now_ms()?)?;
    count_to(agent, 9)?;
    agent.kill();
    agent.start()?;
    let after = value(agent)?;
    ensure!(
        (5..=9).contains(&after),
        "{after}: it had 5 at the last checkpoint that was seen, and 9 at its end"
    );
    let lost = eventually("the status says what is lost", || {
        let lost = plugin_status(agent, "counter")?["state_lost"].as_str().map(str::to_owned);
        Ok(lost.filter(|lost| !lost.is_empty()))
    })?;
    ensure!(
        lost.contains("its state is that of a checkpoint") && lost.ends_with("before this start"),
        "{lost}"
    );
    let text = agent.run(["status"])?.expect(0)?.stdout;
    ensure!(text.contains("state lost: ") && text.contains("state: saved "), "{text}");
    count_to(agent, 20)?;
    agent.stop()?;
    agent.start()?;
    assert_eq!(value(agent)?, 20);
    Ok(())
}

#[test]
fn an_agent_on_a_socket_unit_tells_its_manager_and_leaves_the_sockets_to_it() -> Result<()> {
    let mut fleet = fleet_with(0, "")?;
    let mut agent = fleet.add_agent("host-1", "")?;
    let held = HeldSockets::make(&agent)?;
    let notify = agent.folder().join("notify.sock");
    let manager = UnixDatagram::bind(&notify)?;
    manager.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut word = [0; 64];
    let mut heard = |wanted: &str| -> Result<()> {
        let length = manager.recv(&mut word).with_context(|| format!("{wanted} never came"))?;
        ensure!(word[..length].trim_ascii() == wanted.as_bytes(), "{:?}", &word[..length]);
        Ok(())
    };
    let notify = notify.display().to_string();
    for _ in 0..2 {
        agent.start_on(&held, &[("NOTIFY_SOCKET", &notify)])?;
        heard("READY=1")?;
        ensure!(call(&agent.caller(), "nobody", "x", "{}")?.status == 404, "the front answers");
        ensure!(agent.stop()?.success(), "it ends in order");
        heard("STOPPING=1")?;
        ensure!(agent.front().exists(), "the socket is not the agent's to remove");
        ensure!(!agent.folder().join("control.sock").exists(), "one that it made is");
    }
    fleet.agents.push(agent);
    Ok(())
}
