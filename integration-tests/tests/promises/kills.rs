//! `kill -9` in the middle of a push: exactly the old or the new release runs, and the rollout ends by itself.

use anyhow::Result;
use fleetswap_integration_tests::harness::{Fleet, Plugin, eventually};
use serde_json::Value;

use crate::common::{QUICK, active_version, call, fleet, install, subject, wait_for_the_end, wait_for_trial};

/// Starts a push and does not wait for it.
fn push_detached(fleet: &Fleet, plugin: &Plugin, more: &[&str]) -> Result<()> {
    fleet.push(plugin, &[more, &["--detach"]].concat())?.expect(0).map(drop)
}

/// Kills the agent once its trial is in a state, starts it again, and returns how the rollout ended.
fn kill_agent_at(candidate: &[&str], more: &[&str], states: &[&str]) -> Result<(Fleet, Value)> {
    let mut fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    push_detached(&fleet, &subject(&fleet, "1.1.0", candidate)?, more)?;
    wait_for_trial(&fleet.agents[0], "subject", states)?;
    fleet.agents[0].kill();
    fleet.agents[0].start()?;
    let rollout = wait_for_the_end(&fleet)?;
    Ok((fleet, rollout))
}

fn runs(fleet: &Fleet, version: &str) -> Result<()> {
    eventually(&format!("the host runs {version}"), || {
        Ok((active_version(&fleet.agents[0], "subject")? == version).then_some(()))
    })?;
    let reply = call(&fleet.agents[0].caller(), "subject", "echo", "")?;
    assert_eq!((reply.status, reply.version.as_str()), (200, version));
    Ok(())
}

fn blames_the_release(rollout: &Value) {
    assert_eq!(rollout["state"], "FAILED");
    assert_eq!(rollout["failure"]["fault"], "release", "{}", rollout["failure"]);
}

#[test]
fn an_agent_killed_while_probing_blames_the_release_and_keeps_the_old_one() -> Result<()> {
    let (fleet, rollout) = kill_agent_at(&["HEALTH_BLOCKS"], &QUICK, &["PROBING"])?;
    blames_the_release(&rollout);
    runs(&fleet, "1.0.0")
}

#[test]
fn an_agent_killed_while_switching_blames_the_release_and_keeps_the_old_one() -> Result<()> {
    let (fleet, rollout) = kill_agent_at(&["ACTIVATE_BLOCKS"], &QUICK, &["SWITCHING"])?;
    blames_the_release(&rollout);
    runs(&fleet, "1.0.0")
}

#[test]
fn an_agent_killed_in_probation_blames_the_release_and_goes_back() -> Result<()> {
    let (fleet, rollout) = kill_agent_at(&[], &["--min-healthy-time", "60s"], &["PROBATION"])?;
    blames_the_release(&rollout);
    assert_eq!(rollout["hosts"][0]["state"], "ROLLED_BACK");
    runs(&fleet, "1.0.0")
}

#[test]
fn an_agent_killed_just_after_commit_runs_the_new_release() -> Result<()> {
    let (fleet, rollout) = kill_agent_at(&[], &QUICK, &["COMMITTED"])?;
    assert_eq!(rollout["state"], "SUCCEEDED");
    runs(&fleet, "1.1.0")
}

/// Kills the controller once the host's trial is in a state, starts it again, and returns how the rollout ended.
fn kill_controller_at(candidate: &[&str], more: &[&str], states: &[&str]) -> Result<(Fleet, Value)> {
    let mut fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    push_detached(&fleet, &subject(&fleet, "1.1.0", candidate)?, more)?;
    wait_for_trial(&fleet.agents[0], "subject", states)?;
    fleet.controller = None;
    fleet.start_controller()?;
    let rollout = wait_for_the_end(&fleet)?;
    Ok((fleet, rollout))
}

#[test]
fn a_controller_killed_while_a_host_probes_learns_the_verdict() -> Result<()> {
    let impatient = [&QUICK[..], &["--healthy-deadline", "8s"]].concat();
    let (fleet, rollout) = kill_controller_at(&["HEALTH_BLOCKS"], &impatient, &["PROBING"])?;
    blames_the_release(&rollout);
    runs(&fleet, "1.0.0")
}

#[test]
fn a_controller_killed_while_a_host_switches_learns_the_verdict() -> Result<()> {
    let (fleet, rollout) = kill_controller_at(&["ACTIVATE_BLOCKS"], &QUICK, &["SWITCHING"])?;
    blames_the_release(&rollout);
    runs(&fleet, "1.0.0")
}

#[test]
fn a_controller_killed_during_probation_learns_of_the_commit() -> Result<()> {
    let (fleet, rollout) = kill_controller_at(&[], &["--min-healthy-time", "2s"], &["PROBATION"])?;
    assert_eq!(rollout["state"], "SUCCEEDED");
    runs(&fleet, "1.1.0")
}

#[test]
fn a_controller_killed_just_after_commit_still_knows_it() -> Result<()> {
    let (fleet, rollout) = kill_controller_at(&[], &QUICK, &["COMMITTED"])?;
    assert_eq!(rollout["state"], "SUCCEEDED");
    runs(&fleet, "1.1.0")
}

#[test]
fn an_acknowledged_push_survives_the_death_of_the_controller() -> Result<()> {
    let mut fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let outcome =
        fleet.push(&subject(&fleet, "1.1.0", &[])?, &[&QUICK[..], &["--detach"]].concat())?.expect(0)?;
    fleet.controller = None;
    fleet.start_controller()?;
    let rollout = wait_for_the_end(&fleet)?;
    assert_eq!(rollout["rollout_id"], outcome.json()?["rollout"]["rollout_id"]);
    assert_eq!(rollout["state"], "SUCCEEDED");
    runs(&fleet, "1.1.0")
}

#[test]
fn an_acknowledged_report_survives_the_death_of_the_controller() -> Result<()> {
    let mut fleet = fleet(1)?;
    let installed = install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    // Nobody is left to report it again.
    fleet.agents[0].kill();
    fleet.controller = None;
    fleet.start_controller()?;
    let rollout = wait_for_the_end(&fleet)?;
    assert_eq!(rollout["rollout_id"], installed["rollout_id"]);
    assert_eq!(rollout["hosts"][0]["state"], "COMMITTED");
    let hosts = fleet.controller(["host", "list", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!(hosts["hosts"][0]["plugins"][0]["active"]["version"], "1.0.0");
    Ok(())
}
