//! Pushes that are refused, that meet each other, and that carry a config.

use std::{fs, process::Stdio};

use anyhow::{Context, Result};
use fleetswap_integration_tests::harness::{Binaries, Fleet, Outcome, eventually, signal};
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{QUICK, active_version, call, fleet, install, subject, wait_for_the_end, wait_for_trial};

fn code(outcome: &Outcome) -> Result<String> {
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
    let first = interrupted(&fleet, "1.0.0", &["--hosts", "all"])?;
    assert!(first.stderr.contains("controller status r-000001 --watch"), "{}", first.stderr);
    assert!(first.stderr.contains("nothing to go back to: push a higher version"), "{}", first.stderr);
    let second = interrupted(&fleet, "1.1.0", &["-o", "json"])?;
    let said: Value = serde_json::from_str(&second.stdout)?;
    assert_eq!((&said["schema"], &said["error"]["code"]), (&1.into(), &"DETACHED".into()), "{said}");
    let fix = said["error"]["fix"].as_str().unwrap_or_default();
    assert!(fix.ends_with("once it has ended: controller rollback subject --reason TEXT"), "{fix}");
    Ok(())
}

/// What a push says that is interrupted while a host tries its release; the rollout then succeeds all the same.
fn interrupted(fleet: &Fleet, version: &str, more: &[&str]) -> Result<Outcome> {
    let plugin = subject(fleet, version, &[])?;
    let arguments = Fleet::push_arguments(&plugin, &[&["--min-healthy-time", "3s"], more].concat());
    let mut command = fleet.controller_command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    wait_for_trial(&fleet.agents[0], "subject", &["PROBING", "PROBATION"])?;
    signal(child.id(), Signal::INT)?;
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    let outcome = Outcome { code, stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert_eq!(wait_for_the_end(fleet)?["state"], "SUCCEEDED");
    outcome.expect(130)
}

#[test]
fn the_same_file_with_another_probe_is_the_next_revision() -> Result<()> {
    let fleet = fleet(1)?;
    let clock = Binaries::find()?.example("clock", "1.0.0")?;
    install(&fleet, &clock)?;
    let again = fleet.push(&clock, &[])?.expect(0)?;
    assert_eq!(again.json()?["nothing_to_do"], true, "the same arguments are the same release");
    let probe = r#"time {"unix_seconds":1795500000} => {"text":"2026-11-24 06:00:00"}"#;
    let outcome = fleet.push(&clock, &[&QUICK[..], &["--probe", probe]].concat())?.expect(0)?;
    assert_eq!(outcome.json()?["rollout"]["to"]["revision"], 2);
    let history = fleet.controller(["history"])?.expect(0)?.stdout;
    assert!(history.contains("1.0.0 → 1.0.0-r2"), "{history}");
    Ok(())
}

#[test]
fn a_publisher_folder_that_is_named_has_to_be_one_although_nothing_is_signed() -> Result<()> {
    let fleet = fleet(1)?;
    let clock = Binaries::find()?.example("clock", "1.0.0")?;
    install(&fleet, &clock)?;
    let empty = fleet.path("").display().to_string();
    for wrong in ["/nowhere", empty.as_str()] {
        let outcome = fleet.push(&clock, &["--publisher-dir", wrong])?.expect(1)?;
        assert_eq!(code(&outcome)?, "KEY_UNUSABLE");
    }
    let mut without = fleet.controller_command(Fleet::push_arguments(&clock, &[]));
    Outcome::of(without.env_remove("FLEETSWAP_PUBLISHER_DIR"))?.expect(0).map(drop)
}

#[test]
fn an_older_version_is_refused_with_the_way_back_that_works() -> Result<()> {
    let fleet = fleet(1)?;
    let clock = |version: &str| Binaries::find()?.example("clock", version);
    install(&fleet, &clock("1.0.0")?)?;
    fleet.push(&clock("1.2.0")?, &QUICK)?.expect(0)?;
    let down = fleet.controller(["diff", "clock", "1.2.0", "1.0.0"])?.expect(0)?.stdout;
    assert!(down.starts_with("1.0.0 is older: read as going down from 1.2.0 to 1.0.0"), "{down}");
    // 1.0.0 lacks a function of 1.2.0; that it would break callers is not what stands in the way.
    let refused = fleet.push(&clock("1.0.0")?, &[])?.expect(7)?;
    assert_eq!(code(&refused)?, "PUSH_DOWNGRADE");
    let back = ["rollback", "clock", "--to", "1.0.0", "--reason", "back"];
    let fix = refused.json()?["error"]["fix"].to_string();
    assert!(fix.contains("controller rollback clock --to 1.0.0 --reason TEXT"), "{fix}");
    fleet.controller(back)?.expect(0)?;
    let forth = ["rollback", "clock", "--to", "1.2.0", "--reason", "forth", "-o", "json"];
    let outcome = fleet.controller(forth)?.expect(1)?;
    assert_eq!(code(&outcome)?, "ROLLBACK_TARGET_UNKNOWN");
    let error = outcome.json()?["error"].clone();
    assert!(error["why"].to_string().contains("was not rolled back since"), "{error}");
    assert!(error["fix"].to_string().contains("with --to: 1.0.0; or push 1.2.0, with a canary"), "{error}");
    fleet.push(&clock("1.2.0")?, &QUICK)?.expect(0).map(drop)
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
