//! A release that does well on its canary and fails in the rest of the hosts.

use std::fs;

use anyhow::{Context, Result};
use fleetswap_integration_tests::harness::{Agent, Fleet, eventually};
use serde_json::Value;

use crate::common::{fleet, install, runs, subject};

/// One host after the other.
const ONE_BY_ONE: [&str; 4] = ["--min-healthy-time", "200ms", "--max-parallel", "1"];
/// Enough for the test subject as it is, and too few for one that holds 32 more.
const FEW_DESCRIPTORS: &str = "[limits]\nfiles = 32\n";

#[test]
fn a_release_that_fails_in_the_rest_stops_there_and_leaves_what_is_committed() -> Result<()> {
    let mut fleet = fleet(3)?;
    let old = install(&fleet, &subject(&fleet, "1.0.0", &[])?)?["to"].clone();
    let greedy = subject(&fleet, "1.1.0", &["HOLDS_DESCRIPTORS"])?;
    let dry = fleet.push(&greedy, &[&ONE_BY_ONE[..], &["--dry-run"]].concat())?.expect(0)?.json()?;
    let [canary, second, third] =
        [("canary", 0), ("rest", 0), ("rest", 1)].map(|turn| in_turn(&dry["plan"], turn));
    let (canary, second, third) = (canary?, second?, third?);
    give_few_descriptors(&mut fleet, &second)?;

    let said = fleet.controller(Fleet::push_arguments(&greedy, &ONE_BY_ONE))?.expect(3)?.stdout;
    assert!(said.contains(&format!("{second} failed in PROBING: CREATE_FAILED")), "{said}");
    assert!(said.contains("FAILED: subject 1.1.0 on 1 of 3 hosts, tried on 2"), "{said}");
    assert!(said.contains("to go back there: controller rollback subject --reason TEXT"), "{said}");
    let shown = fleet.controller(["status", "r-000002", "-o", "json"])?.expect(3)?.json()?;
    let rollout = &shown["rollout"];
    assert_eq!((&rollout["state"], &rollout["failure"]["fault"]), (&"FAILED".into(), &"release".into()));
    assert_eq!(rollout["failed_host"], *second);
    let became = [&canary, &second, &third].map(|name| became(rollout, name));
    assert_eq!(became, [Some(("COMMITTED", 1)), Some(("REJECTED", 1)), Some(("PENDING", 0))]);
    runs(agent(&fleet, &canary)?, &rollout["to"])?;
    runs(agent(&fleet, &second)?, &old)?;
    runs(agent(&fleet, &third)?, &old)?;

    let next = fleet.push(&subject(&fleet, "1.2.0", &[])?, &ONE_BY_ONE)?.expect(0)?.json()?;
    fleet.agents.iter().try_for_each(|agent| runs(agent, &next["rollout"]["to"]))
}

/// Who has this turn in a wave of the plan.
fn in_turn(plan: &Value, (wave, turn): (&str, usize)) -> Result<String> {
    let waves = plan["waves"].as_array().context("waves")?;
    let wave = waves.iter().find(|it| it["name"] == wave).context("the wave")?;
    Ok(wave["hosts"][turn].as_str().context("a host")?.to_owned())
}

/// State and attempt of a host in a rollout.
fn became<'a>(rollout: &'a Value, name: &str) -> Option<(&'a str, u64)> {
    let host = rollout["hosts"].as_array()?.iter().find(|host| host["host"] == name)?;
    Some((host["state"].as_str()?, host["attempt"].as_u64()?))
}

fn agent<'a>(fleet: &'a Fleet, name: &str) -> Result<&'a Agent> {
    fleet.agents.iter().find(|agent| agent.name == name).context("an agent")
}

/// Tightens the limits of one host, and waits until it is back.
fn give_few_descriptors(fleet: &mut Fleet, name: &str) -> Result<()> {
    let agent = fleet.agents.iter_mut().find(|agent| agent.name == name).context("an agent")?;
    let config = fs::read_to_string(agent.config())?;
    fs::write(agent.config(), format!("{config}{FEW_DESCRIPTORS}"))?;
    agent.kill();
    agent.start()?;
    eventually(&format!("{name} is back"), || {
        Ok((agent.status()?["controller"]["connected"] == true).then_some(()))
    })
}
