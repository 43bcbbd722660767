//! Pushes that are refused, that meet each other, and that carry a config.

use std::{fs, process::Stdio};

use anyhow::{Context, Result};
use fleetswap_integration_tests::harness::{Fleet, eventually, signal};
use rustix::process::Signal;

use crate::common::{QUICK, active_version, call, fleet, install, subject, wait_for_the_end, wait_for_trial};

fn code(outcome: &fleetswap_integration_tests::harness::Outcome) -> Result<String> {
    Ok(outcome.json()?["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn other_bytes_under_a_published_version_are_refused() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let other = subject(&fleet, "1.0.0", &["STATEFUL"])?;
    let outcome = fleet.push(&other, &QUICK)?.expect(7)?;
    assert_eq!(code(&outcome)?, "VERSION_PUBLISHED");
    Ok(())
}

#[test]
fn a_plugin_that_needs_what_no_agent_gives_is_refused() -> Result<()> {
    let fleet = fleet(1)?;
    let outcome = fleet.push(&subject(&fleet, "1.0.0", &["NEEDS_FILES"])?, &["--hosts", "all"])?.expect(7)?;
    assert_eq!(code(&outcome)?, "NEEDS_UNKNOWN");
    Ok(())
}

#[test]
fn a_push_into_a_running_rollout_is_refused_and_one_after_a_failed_one_is_not() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let slow = ["--min-healthy-time", "60s", "--detach"];
    fleet.push(&subject(&fleet, "1.1.0", &["CRASHES_ACTIVE"])?, &slow)?.expect(0)?;
    let next = subject(&fleet, "1.2.0", &[])?;
    let outcome = fleet.push(&next, &QUICK)?.expect(6)?;
    assert_eq!(code(&outcome)?, "ROLLOUT_IN_PROGRESS");
    assert_eq!(wait_for_the_end(&fleet)?["state"], "FAILED");
    fleet.push(&next, &QUICK)?.expect(0)?;
    assert_eq!(active_version(&fleet.agents[0], "subject")?, "1.2.0");
    Ok(())
}

#[test]
fn ctrl_c_leaves_the_rollout_to_itself() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let arguments = Fleet::push_arguments(&subject(&fleet, "1.1.0", &[])?, &["--min-healthy-time", "3s"]);
    let mut command = fleet.controller_command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    wait_for_trial(&fleet.agents[0], "subject", &["PROBING", "PROBATION"])?;
    signal(child.id(), Signal::INT)?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(130));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("controller status r-000002 --watch"), "{words}");
    let followed = fleet.controller(["status", "r-000002", "--watch", "-o", "json"])?.expect(0)?;
    assert_eq!(followed.json()?["rollout"]["state"], "SUCCEEDED");
    Ok(())
}

#[test]
fn a_changed_config_is_the_next_revision_and_reaches_the_plugin() -> Result<()> {
    let fleet = fleet(1)?;
    let plugin = subject(&fleet, "1.0.0", &[])?;
    let config = fleet.path("config.json");
    let file = config.display().to_string();
    let caller = fleet.agents[0].caller();
    for (revision, text) in [(1, r#""red""#), (2, r#""blue""#)] {
        fs::write(&config, text)?;
        let more = ["--config", file.as_str(), "--hosts", "all"];
        let outcome = fleet.push(&plugin, &[&QUICK[..], &more].concat())?.expect(0)?;
        assert_eq!(outcome.json()?["rollout"]["to"]["revision"], revision);
        assert_eq!(call(&caller, "subject", "config", "")?.body, text.trim_matches('"'));
    }
    Ok(())
}

#[test]
fn a_host_that_falls_silent_while_it_loads_is_lost_and_the_release_is_blamed() -> Result<()> {
    let mut fleet = fleet(2)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let patience = ["--min-healthy-time", "200ms", "--healthy-deadline", "4s", "--detach"];
    fleet.push(&subject(&fleet, "1.1.0", &["HEALTH_BLOCKS"])?, &patience)?.expect(0)?;
    let canary = eventually("a host probes", || {
        for (index, agent) in fleet.agents.iter().enumerate() {
            let status = crate::common::plugin_status(agent, "subject")?;
            if status["trial"]["state"] == "PROBING" {
                return Ok(Some(index));
            }
        }
        Ok(None)
    })?;
    fleet.agents[canary].kill();
    let rollout = wait_for_the_end(&fleet)?;
    assert_eq!(rollout["state"], "FAILED");
    assert_eq!(rollout["failed_host"], fleet.agents[canary].name.as_str());
    let hosts = rollout["hosts"].as_array().context("hosts")?;
    let lost = hosts.iter().find(|host| host["state"] == "LOST").context("a lost host")?;
    assert_eq!(lost["failure"]["fault"], "release", "{lost}");
    let other = hosts.iter().find(|host| host["state"] != "LOST").context("another host")?;
    assert_eq!(other["attempt"], 0, "the other host was never touched");
    Ok(())
}

#[test]
fn a_push_that_is_followed_survives_a_restart_of_the_controller() -> Result<()> {
    let mut fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let arguments = Fleet::push_arguments(&subject(&fleet, "1.1.0", &[])?, &["--min-healthy-time", "2s"]);
    let mut command = fleet.controller_command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    wait_for_trial(&fleet.agents[0], "subject", &["PROBING", "PROBATION"])?;
    fleet.controller = None;
    fleet.start_controller()?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let at = |words: &str| said.find(words).with_context(|| format!("no `{words}` in {said}"));
    assert!(at("host-1 COMMITTED")? < at("1.1.0  SUCCEEDED")?, "hosts first, the final state last: {said}");
    Ok(())
}

#[test]
fn describe_prints_the_descriptor_byte_for_byte() -> Result<()> {
    let fleet = fleet(0)?;
    let plugin = subject(&fleet, "1.0.0", &[])?;
    let outcome = fleet.controller(["describe", &plugin.file.display().to_string()])?.expect(0)?;
    let library = fs::read(&plugin.file)?;
    let said = outcome.stdout.as_bytes();
    assert!(said.starts_with(b"{") && said.ends_with(b"}"), "no byte is added: {}", outcome.stdout);
    assert!(library.windows(said.len()).any(|window| window == said), "the text stands so in the library");
    Ok(())
}
