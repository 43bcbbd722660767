//! Pushes that are interrupted, that carry a config, that reach some hosts only, and that fail.

use std::{fs, process::Stdio};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{
    Binaries, Fleet, Outcome, Plugin, compile_c, eventually, repository, signal,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{QUICK, active_version, call, fleet, install, subject, wait_for_the_end, wait_for_trial};

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
    let again = fleet.push(&clock, &QUICK)?.expect(0)?;
    assert_eq!(again.json()?["nothing_to_do"], true, "the same arguments are the same release");
    let probe = r#"time {"unix_seconds":1795500000} => {"text":"2026-11-24 06:00:00"}"#;
    let outcome = fleet.push(&clock, &[&QUICK[..], &["--probe", probe]].concat())?.expect(0)?;
    assert_eq!(outcome.json()?["rollout"]["to"]["revision"], 2);
    let history = fleet.controller(["history"])?.expect(0)?.stdout;
    assert!(history.contains("1.0.0 → 1.0.0-r2"), "{history}");
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

/// The subject in a version, with one macro set and some of its source replaced.
pub(crate) fn variant(
    fleet: &Fleet,
    (version, define): (&str, &str),
    changes: &[(&str, &str)],
) -> Result<Plugin> {
    let mut text = fs::read_to_string(repository().join("integration-tests/zoo/subject.c"))?;
    for (old, new) in changes {
        ensure!(text.contains(old), "there is no {old} in the subject any more");
        text = text.replace(old, new);
    }
    let source = fleet.path(&format!("subject-{version}.c"));
    fs::write(&source, text)?;
    let version_define = format!("VERSION=\"{version}\"");
    compile_c(&source, "subject", version, &[&version_define, define], &fleet.path(""))
}

/// What each of two hosts runs of the subject.
fn versions(fleet: &Fleet) -> Result<[String; 2]> {
    Ok([active_version(&fleet.agents[0], "subject")?, active_version(&fleet.agents[1], "subject")?])
}

#[test]
fn a_push_and_a_rollback_reach_only_the_hosts_that_their_selector_names() -> Result<()> {
    let fleet = fleet(2)?;
    let (one, two) = (["--hosts", "number=1"], ["--hosts", "number=2"]);
    let first = subject(&fleet, "1.0.0", &[])?;
    let rollout = fleet.push(&first, &[&QUICK[..], &one].concat())?.expect(0)?.json()?["rollout"].clone();
    assert_eq!(rollout["selector"], "number=1");
    assert_eq!((&rollout["hosts"][0]["host"], &rollout["hosts"][1]), (&"host-1".into(), &Value::Null));
    assert_eq!(versions(&fleet)?, ["1.0.0", ""]);
    fleet.push(&first, &[&QUICK[..], &two].concat())?.expect(0)?;
    assert_eq!(versions(&fleet)?, ["1.0.0", "1.0.0"]);
    let next = subject(&fleet, "1.1.0", &[])?;
    let plan =
        fleet.push(&next, &[&QUICK[..], &two, &["--dry-run"]].concat())?.expect(0)?.json()?["plan"].clone();
    assert_eq!(plan["waves"][0]["hosts"], serde_json::json!(["host-2"]), "{plan}");
    fleet.push(&next, &[&QUICK[..], &two].concat())?.expect(0)?;
    assert_eq!(versions(&fleet)?, ["1.0.0", "1.1.0"]);
    let back = ["rollback", "subject", "--reason", "test", "-o", "json"];
    let rollout = fleet.controller([&back[..], &two].concat())?.expect(0)?.json()?["rollout"].clone();
    assert_eq!((&rollout["selector"], &rollout["hosts"][1]), (&"number=2".into(), &Value::Null));
    assert_eq!(
        (&rollout["hosts"][0]["host"], versions(&fleet)?),
        (&"host-2".into(), ["1.0.0".into(), "1.0.0".into()])
    );
    Ok(())
}

#[test]
fn a_failure_is_the_same_on_screen_and_in_json_with_the_end_of_the_log() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    // A function with JSON in and out can be probed, and its answer is the version.
    let with_json = [(r#"\"raw\":true"#, r#"\"raw\":false"#), (r#"put\":null"#, r#"put\":{}"#)];
    let bad = variant(&fleet, ("1.1.0", "CONSTRUCTOR_SPEAKS"), &with_json)?;
    let more = ["--probe", r#"echo {} => "9.9.9""#, "--allow-breaking"];
    let push =
        fleet.controller(Fleet::push_arguments(&bad, &[&QUICK[..], &more].concat()))?.expect(3)?.stdout;
    let status = fleet.controller(["status", "r-000002"])?.expect(3)?.stdout;
    let rollout =
        fleet.controller(["status", "r-000002", "-o", "json"])?.expect(3)?.json()?["rollout"].clone();
    let failure = rollout["failure"].as_object().context("a failure")?;
    assert_eq!(failure["log_tail"], "constructor of subject 1.1.0 ran\n");
    assert_eq!(rollout["hosts"][0]["failure"], rollout["failure"], "the host's record is the rollout's");
    let mut said = 0;
    for (name, value) in failure.iter().chain([(&"host".to_owned(), &rollout["failed_host"])]) {
        let words = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for line in words.lines() {
            assert!(push.contains(line), "`{name}` ({line}) is not in {push}");
            assert!(status.contains(line), "`{name}` ({line}) is not in {status}");
            said += 1;
        }
    }
    assert_eq!(said, failure.len() + 1, "each value has words: {rollout}");
    Ok(())
}
