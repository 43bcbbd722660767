//! Hosts that join late, a host that trusts another root among them.

use std::fs;

use anyhow::{Context, Result};
use fleetswap_integration_tests::harness::{Agent, Binaries, Fleet, eventually};
use serde_json::Value;

use crate::common::{QUICK, active_version, fleet, install};

/// A host whose trusted root is that of another fleet; not started.
fn stranger(fleet: &Fleet, name: &str) -> Result<Agent> {
    let [data, keys] = ["other-data", "other-keys"].map(|name| fleet.path(name).display().to_string());
    fleet.controller(["init", "--dev", "--data-dir", &data, "--publisher-dir", &keys])?.expect(0)?;
    let agent = fleet.add_agent(name, "")?;
    replace_root(fleet, &agent, "publisher", "other-keys")?;
    Ok(agent)
}

fn replace_root(fleet: &Fleet, agent: &Agent, from: &str, to: &str) -> Result<()> {
    let root = |folder: &str| format!("\"{}\"", fleet.path(folder).join("root.json").display());
    let text = fs::read_to_string(agent.config())?;
    Ok(fs::write(agent.config(), text.replace(&root(from), &root(to)))?)
}

/// Waits until status names one host alone, and returns what it says of it.
fn deviation(fleet: &Fleet, host: &str) -> Result<Value> {
    eventually(&format!("status names {host} alone"), || {
        let assignment = &fleet.status()?["assignments"][0];
        let named = &assignment["deviations"][0];
        Ok((assignment["deviating"] == 1 && named["host"] == host).then(|| named.clone()))
    })
}

fn all_run(agents: &[Agent], version: &str) -> Result<()> {
    for agent in agents {
        eventually(&format!("{} runs {version}", agent.name), || {
            Ok((active_version(agent, "clock")? == version).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_host_that_trusts_another_root_is_named_and_keeps_nobody_from_a_release_or_from_going_back() -> Result<()>
{
    let mut fleet = fleet(2)?;
    let binaries = Binaries::find()?;
    install(&fleet, &binaries.example("clock", "1.0.0")?)?;
    fleet.push(&binaries.example("clock", "1.2.0")?, &QUICK)?.expect(0)?;
    let mut stranger = stranger(&fleet, "host-7")?;
    stranger.start()?;
    let named = deviation(&fleet, "host-7")?;
    assert_eq!(named["code"], "TRUST_THRESHOLD");
    assert!(named["fix"].as_str().context("a fix")?.contains("trust_root"), "{named}");

    let mut late = fleet.add_agent("host-8", "")?;
    late.start()?;
    fleet.agents.push(late);
    all_run(&fleet.agents, "1.2.0")?;

    let rollback = ["rollback", "clock", "--reason", "test", "-o", "json"];
    let plan = fleet.controller([&rollback[..], &["--dry-run"]].concat())?.expect(0)?.json()?;
    assert_eq!(
        (&plan["plan"]["from"]["version"], &plan["plan"]["to"]["version"]),
        (&"1.2.0".into(), &"1.0.0".into())
    );
    let back = fleet.controller(rollback)?.expect(3)?.json()?;
    assert_eq!(back["rollout"]["failed_host"], "host-7");
    all_run(&fleet.agents, "1.0.0")?;

    stranger.kill();
    replace_root(&fleet, &stranger, "other-keys", "publisher")?;
    stranger.start()?;
    fleet.controller(rollback)?.expect(0)?;
    fleet.agents.push(stranger);
    all_run(&fleet.agents, "1.0.0")?;
    assert_eq!(fleet.status()?["assignments"][0]["deviating"], 0);
    Ok(())
}

#[test]
fn what_was_rolled_back_is_tried_anew_when_it_is_pushed_again() -> Result<()> {
    let fleet = fleet(1)?;
    let binaries = Binaries::find()?;
    install(&fleet, &binaries.example("clock", "1.0.0")?)?;
    let new = binaries.example("clock", "1.2.0")?;
    fleet.push(&new, &QUICK)?.expect(0)?;
    fleet.controller(["rollback", "clock", "--reason", "test"])?.expect(0)?;
    let again = fleet.push(&new, &QUICK)?.expect(0)?.json()?;
    let host = &again["rollout"]["hosts"][0];
    assert_eq!((&host["state"], &host["wave"]), (&"COMMITTED".into(), &0.into()));
    assert_eq!(host["proven_by"], "health", "not `before`: it has no probes and no callers here");
    Ok(())
}

#[test]
fn what_runs_is_known_by_its_revision_though_a_newer_one_was_published() -> Result<()> {
    let fleet = fleet(1)?;
    let clock = Binaries::find()?.example("clock", "1.0.0")?;
    install(&fleet, &clock)?;
    let probe = r#"time {"unix_seconds":1795500000} => {"text":"2026-11-24 06:00:00"}"#;
    let newer = fleet.push(&clock, &[&QUICK[..], &["--probe", probe]].concat())?.expect(0)?.json()?;
    assert_eq!(newer["rollout"]["to"]["revision"], 2);
    fleet.controller(["rollback", "clock", "--reason", "test"])?.expect(0)?;
    let again = fleet.push(&clock, &QUICK)?.expect(0)?.json()?;
    assert_eq!(again["nothing_to_do"], true, "no third revision: the first one runs");
    Ok(())
}
