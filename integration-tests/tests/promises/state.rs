//! State that is carried while callers call.

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::{
    harness::{Binaries, Fleet, Plugin},
    load::{Load, Oracle, Stream, Tally, Target},
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::common::{QUICK, call, fleet};

/// Calls per second on each host.
const RATE: u32 = 100;

struct Pushes<'a> {
    fleet: &'a Fleet,
    oracle: Oracle,
}

impl Pushes<'_> {
    fn push(&mut self, plugin: &Plugin, more: &[&str]) -> Result<()> {
        let outcome = self.fleet.push(plugin, &[&QUICK[..], more].concat())?.expect(0)?;
        self.learn(&outcome.json()?["rollout"])
    }

    fn roll_back(&mut self) -> Result<()> {
        let arguments = ["rollback", "counter", "--reason", "test", "-o", "json"];
        let rollout = self.fleet.controller(arguments)?.expect(0)?.json()?["rollout"].clone();
        for host in rollout["hosts"].as_array().context("hosts")? {
            ensure!(host["state_lost"] == "", "state was lost on the way back: {host}");
        }
        self.learn(&rollout)
    }

    fn learn(&mut self, rollout: &Value) -> Result<()> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a release");
        self.oracle.learn(&text(&rollout["to"]["release_id"])?, &text(&rollout["to"]["version"])?);
        Ok(())
    }
}

#[test]
fn the_counter_keeps_its_count_over_swaps_and_rollbacks_under_load() -> Result<()> {
    let (fleet, runtime, binaries) = (fleet(2)?, Runtime::new()?, Binaries::find()?);
    let mut pushes = Pushes { fleet: &fleet, oracle: Oracle::default() };
    pushes.push(&binaries.example("counter", "1.0.0")?, &["--hosts", "all"])?;
    let load = {
        let _inside = runtime.enter();
        Load::start(fleet.agents.iter().map(|agent| Stream {
            host: agent.name.clone(),
            caller: agent.caller(),
            target: Target::CounterIncrement,
            rate: RATE,
        }))
    };
    for _ in 0..3 {
        pushes.push(&binaries.example("counter", "2.0.0")?, &[])?;
        pushes.roll_back()?;
    }
    let tally = Tally::of(&runtime.block_on(load.finish()), &pushes.oracle);
    ensure!(tally.sent > 500, "only {} calls were sent", tally.sent);
    assert_eq!((tally.lost, tally.doubles), (0, 0), "{:?}", tally.losses);
    for agent in &fleet.agents {
        let value = call(&agent.caller(), "counter", "value", "{}")?.body["value"].as_u64();
        assert_eq!(value, tally.increments.get(&agent.name).copied(), "on {}", agent.name);
        assert_eq!(value, tally.counter_values.get(&agent.name).copied(), "and there is no gap");
    }
    Ok(())
}
