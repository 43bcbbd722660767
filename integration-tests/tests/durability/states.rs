//! A plugin's state, failing at each step of being kept at the agent's end: the next start has all of it or what was kept
//! before, and says which.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fleetswap_integration_tests::harness::{Agent, Binaries, Fleet, FleetOptions, eventually};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::common::{failpoints, hits};

/// What is done to keep a state.
const KEPT: [&str; 4] =
    ["saved-state.write", "saved-state.sync", "saved-state.rename", "saved-state.sync-folder"];
/// What is done where a plugin is new, or gone.
const REMOVED: &str = "saved-state.remove";
/// Counted before the state is kept for the first time.
const BEFORE: u64 = 3;
/// How long a call may take.
const CALL_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// The failpoints that are tried here.
pub(crate) fn points() -> BTreeSet<String> {
    KEPT.into_iter().chain([REMOVED]).map(str::to_owned).collect()
}

#[test]
fn a_state_that_can_not_be_kept_leaves_the_one_before_and_the_loss_is_told() -> Result<()> {
    let (binaries, runtime) = (Binaries::find()?, Runtime::new()?);
    let failing = binaries.agent_with_failpoints()?;
    let listed = failpoints(&failing)?.into_iter().filter(|(name, _)| KEPT.contains(&name.as_str()));
    let cases: Vec<(String, String)> = listed
        .flat_map(|(point, actions)| actions.into_iter().map(move |action| (point.clone(), action)))
        .filter(|(_, action)| action != "hold")
        .collect();
    let mut fleet =
        Fleet::start(&binaries, &FleetOptions { agents: cases.len(), ..FleetOptions::default() })?;
    let pace = ["--min-healthy-time", "50ms", "--health-interval", "20ms", "--max-parallel", "64"];
    let counter = binaries.example("counter", "1.0.0")?;
    fleet.push(&counter, &[&pace[..], &["--hosts", "all"]].concat())?.expect(0)?;
    for ((point, action), agent) in cases.iter().zip(&mut fleet.agents) {
        for _ in 0..BEFORE {
            count(agent, &runtime, "increment")?;
        }
        agent.stop()?;
        // Behind the start, whose own work is not meant.
        agent.spawn_as(&failing, &[("FLEETSWAP_TEST_FAILPOINT", &format!("{point}:{action}"))])?;
    }
    for ((point, action), agent) in cases.iter().zip(&mut fleet.agents) {
        agent.wait_ready()?;
        let value = count(agent, &runtime, "increment")?;
        ensure!(value == BEFORE + 1, "{point}:{action}: {value} after a planned restart");
        agent.stop()?;
        ensure!(hits(&agent.log(), point) == 1, "{point}:{action} was not hit");
    }
    for ((point, action), agent) in cases.iter().zip(&mut fleet.agents) {
        agent.start()?;
        let value = count(agent, &runtime, "value")?;
        // Renamed, it is there for a kill; and a short write goes on.
        let is_whole = action == "short" || (point == "saved-state.sync-folder" && action == "kill");
        let may_be_whole = is_whole || point == "saved-state.sync-folder";
        let wanted = if is_whole { vec![BEFORE + 1] } else { vec![BEFORE] };
        ensure!(
            wanted.contains(&value) || (may_be_whole && value == BEFORE + 1),
            "{point}:{action}: the counter is at {value}"
        );
        if value == BEFORE {
            // Callers are let in first.
            eventually("the loss is told", || Ok((!state_lost(agent)?.is_empty()).then_some(())))?;
        } else {
            ensure!(state_lost(agent)?.is_empty(), "{point}:{action}: nothing is lost, and it says so");
        }
    }
    Ok(())
}

#[test]
fn a_state_that_can_not_be_removed_keeps_no_release_from_being_installed() -> Result<()> {
    let (binaries, runtime) = (Binaries::find()?, Runtime::new()?);
    let failing = binaries.agent_with_failpoints()?;
    let listed = failpoints(&failing)?.into_iter().find(|(name, _)| name == REMOVED);
    let (_, actions) = listed.context("it is a failpoint")?;
    let actions: Vec<String> = actions.into_iter().filter(|action| action != "hold").collect();
    let options = FleetOptions { agents: actions.len(), ..FleetOptions::default() };
    let mut fleet = Fleet::start(&binaries, &options)?;
    for (action, agent) in actions.iter().zip(&mut fleet.agents) {
        agent.kill();
        agent.spawn_as(&failing, &[("FLEETSWAP_TEST_FAILPOINT", &format!("{REMOVED}:{action}"))])?;
        agent.wait_ready()?;
    }
    let counter = binaries.example("counter", "1.0.0")?;
    for agent in &fleet.agents {
        // The first one to be offered it is the canary, and may be the one that is killed: each is offered it by itself.
        let hosts = format!("name={}", agent.name);
        let pace = ["--min-healthy-time", "50ms", "--health-interval", "20ms", "--detach", "--hosts", &hosts];
        fleet.push(&counter, &pace)?.expect(0)?;
    }
    for (action, agent) in actions.iter().zip(&mut fleet.agents) {
        let log = agent.log();
        eventually("the failpoint is hit", || Ok((hits(&log, REMOVED) >= 1).then_some(())))?;
        if action == "kill" {
            agent.kill();
            agent.start()?;
        }
    }
    for agent in &fleet.agents {
        ensure!(count(agent, &runtime, "increment")? == 1, "{} does not start anew", agent.name);
    }
    Ok(())
}

fn count(agent: &Agent, runtime: &Runtime, function: &str) -> Result<u64> {
    let caller = agent.caller();
    eventually("the counter answers", || {
        let call = caller.call("counter", function, Bytes::from_static(b"{}"), CALL_LIMIT);
        let reply = runtime.block_on(call)?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(Some(reply.body["value"].as_u64().context("a value")?))
    })
}

fn state_lost(agent: &Agent) -> Result<String> {
    let status = agent.status()?;
    let plugins = status["plugins"].as_array().cloned().unwrap_or_default();
    let counter = plugins.into_iter().find(|it| it["plugin"] == "counter").unwrap_or(Value::Null);
    Ok(counter["state_lost"].as_str().context("what was lost")?.to_owned())
}
