//! Break-glass: what an operator on a host orders, with the controller and without.

use std::{fmt::Write, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::{
    harness::{Agent, Binaries, Fleet, eventually},
    load::{Load, Oracle, Stream, Tally, Target},
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::common::{
    Pushed, QUICK, active_version, call, fleet, install, plugin_status, runs, subject, wait_for_the_end,
};

/// Calls per second while a plugin is rolled back.
const RATE: u32 = 200;

/// An order on a host; its answer as JSON.
fn order(agent: &Agent, verb: &str) -> Result<Value> {
    agent.run([verb, "subject", "--reason", "INC-412: slow", "-o", "json"])?.expect(0)?.json()
}

/// An order that is refused; the code of the error.
fn refused(agent: &Agent, arguments: &[&str], exit: i32) -> Result<String> {
    let outcome = agent.run([arguments, &["-o", "json"]].concat())?.expect(exit)?.json()?;
    Ok(outcome["error"]["code"].as_str().context("a code")?.to_owned())
}

/// Two releases, the newer one committed on every host.
fn two_releases(fleet: &Fleet) -> Result<[Value; 2]> {
    let old = install(fleet, &subject(fleet, "1.0.0", &[])?)?["to"].clone();
    let new = fleet.push(&subject(fleet, "1.1.0", &[])?, &QUICK)?.expect(0)?.json()?;
    Ok([old, new["rollout"]["to"].clone()])
}

/// A host of a rollout.
fn host<'a>(rollout: &'a Value, name: &str) -> Result<&'a Value> {
    let mut hosts = rollout["hosts"].as_array().into_iter().flatten();
    hosts.find(|host| host["host"] == name).context("the host")
}

/// What `controller status` finds wrong with a host.
fn named(fleet: &Fleet, name: &str) -> Result<Option<Value>> {
    let status = fleet.status()?;
    let mut all = status["assignments"][0]["deviations"].as_array().into_iter().flatten();
    Ok(all.find(|it| it["host"] == name).cloned())
}

fn wait_until_named(fleet: &Fleet, name: &str, code: &str) -> Result<Value> {
    eventually(&format!("status names {name} with {code}"), || {
        Ok(named(fleet, name)?.filter(|it| it["code"] == code))
    })
}

#[test]
fn a_held_host_is_passed_over_named_and_brought_up_to_date_when_it_is_released() -> Result<()> {
    let mut fleet = fleet(2)?;
    let old = install(&fleet, &subject(&fleet, "1.0.0", &[])?)?["to"].clone();
    let held = order(&fleet.agents[1], "hold")?;
    assert_eq!((&held["changed"], &held["plugin"]["local_override"]["kind"]), (&true.into(), &"HOLD".into()));
    // It is on disk before it is answered.
    fleet.agents[1].kill();
    fleet.agents[1].start()?;
    assert_eq!(
        plugin_status(&fleet.agents[1], "subject")?["local_override"],
        held["plugin"]["local_override"]
    );
    let deviation = wait_until_named(&fleet, "host-2", "HELD_LOCALLY")?;
    let said = deviation["what"].as_str().context("words")?;
    ensure!(said.contains("is held on 1.0.0") && said.ends_with(": INC-412: slow"), "{said}");
    ensure!(
        deviation["fix"].as_str().context("a fix")?.contains("agent release subject --reason"),
        "{deviation}"
    );

    let said =
        fleet.controller(Fleet::push_arguments(&subject(&fleet, "1.1.0", &[])?, &QUICK))?.expect(0)?.stdout;
    let summary =
        "SUCCEEDED: subject 1.1.0 on 1 of 2 hosts, tried on 1; 1 skipped (held there: INC-412: slow): host-2";
    ensure!(said.contains(summary), "{said}");
    let rollout = wait_for_the_end(&fleet)?;
    assert_eq!(host(&rollout, "host-2")?["state"], "SKIPPED");
    runs(&fleet.agents[1], &old)?;
    let listed = fleet.controller(["host", "list", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!(listed["hosts"][1]["plugins"][0]["local_override"]["reason"], "INC-412: slow");

    order(&fleet.agents[1], "release")?;
    runs(&fleet.agents[1], &rollout["to"])?;
    eventually("nothing is wrong any more", || Ok(named(&fleet, "host-2")?.is_none().then_some(())))?;
    let metrics = eventually("the gauge falls", || metric(&fleet.agents[1], "fleetswap_plugin_held"))?;
    ensure!(metrics.ends_with("{plugin=\"subject\"} 0"), "{metrics}");
    Ok(())
}

/// A line of the front's metrics.
fn metric(agent: &Agent, name: &str) -> Result<Option<String>> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(agent.front())?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.lines().find(|line| line.starts_with(name)).map(str::to_owned))
}

#[test]
fn a_host_that_is_held_while_it_tries_a_release_keeps_nobody_waiting() -> Result<()> {
    let fleet = fleet(1)?;
    let old = install(&fleet, &subject(&fleet, "1.0.0", &[])?)?["to"].clone();
    let pushed = Pushed::detached(&fleet, &subject(&fleet, "1.1.0", &["HEALTH_BLOCKS"])?, &QUICK)?;
    pushed.wait_for_trial(&fleet.agents[0], "PROBING")?;
    order(&fleet.agents[0], "hold")?;
    let rollout = pushed.wait_for_the_end(&fleet)?;
    assert_eq!((&rollout["state"], &rollout["failure"]["code"]), (&"FAILED".into(), &"HELD_LOCALLY".into()));
    assert_eq!(host(&rollout, "host-1")?["skip_reason"], "held there: INC-412: slow");
    assert_eq!(plugin_status(&fleet.agents[0], "subject")?["denied"], Value::Array(Vec::new()));
    runs(&fleet.agents[0], &old)
}

#[test]
fn a_rollback_on_the_host_needs_no_controller_and_none_can_undo_it() -> Result<()> {
    let mut fleet = fleet(2)?;
    let [old, new] = two_releases(&fleet)?;
    fleet.stop_controller()?;
    let back = order(&fleet.agents[0], "rollback")?;
    let standing = &back["plugin"]["local_override"];
    assert_eq!((&standing["kind"], &standing["from"]["version"]), (&"ROLLED_BACK".into(), &"1.1.0".into()));
    // It answers when the old release does.
    assert_eq!(call(&fleet.agents[0].caller(), "subject", "echo", "")?.body, "1.0.0");
    assert_eq!(
        order(&fleet.agents[0], "rollback")?["changed"],
        false,
        "the same again is no second step back"
    );
    fleet.agents[0].kill();
    fleet.agents[0].start()?;
    runs(&fleet.agents[0], &old)?;

    fleet.start_controller()?;
    let said = wait_until_named(&fleet, "host-1", "HELD_LOCALLY")?;
    ensure!(
        said["what"].as_str().context("words")?.contains("was rolled back from 1.1.0 to 1.0.0"),
        "{said}"
    );
    let next = fleet.push(&subject(&fleet, "1.2.0", &[])?, &QUICK)?.expect(0)?.json()?["rollout"].clone();
    assert_eq!(host(&next, "host-1")?["state"], "SKIPPED");
    let rolled =
        fleet.controller(["rollback", "subject", "--reason", "test", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!(
        host(&rolled["rollout"], "host-1")?["state"],
        "SKIPPED",
        "a rollback doesn't override it either"
    );
    runs(&fleet.agents[0], &old)?;
    runs(&fleet.agents[1], &new)?;
    order(&fleet.agents[0], "release")?;
    runs(&fleet.agents[0], &new)
}

#[test]
fn a_release_that_crashes_again_and_again_can_be_left_by_hand() -> Result<()> {
    let fleet = fleet(1)?;
    let [old, _] = two_releases(&fleet)?;
    let agent = &fleet.agents[0];
    let pid = plugin_status(agent, "subject")?["worker_pid"].as_u64().context("a worker")?;
    let pid = u32::try_from(pid)?;
    fleetswap_integration_tests::harness::signal(pid, rustix::process::Signal::KILL)?;
    order(agent, "rollback")?;
    runs(agent, &old)
}

#[test]
fn a_rollback_on_the_host_under_load_loses_no_call_and_no_count() -> Result<()> {
    let (fleet, runtime, binaries) = (fleet(1)?, Runtime::new()?, Binaries::find()?);
    let (agent, mut oracle) = (&fleet.agents[0], Oracle::default());
    for (version, more) in [("1.0.0", &["--hosts", "all"][..]), ("2.0.0", &[])] {
        let pushed = fleet.push(&binaries.example("counter", version)?, &[&QUICK[..], more].concat())?;
        let to = pushed.expect(0)?.json()?["rollout"]["to"].clone();
        oracle.learn(to["release_id"].as_str().context("an id")?, version);
    }
    let load = {
        let _inside = runtime.enter();
        let (host, caller) = (agent.name.clone(), agent.caller());
        Load::start([Stream { host, caller, target: Target::CounterIncrement, rate: RATE }])
    };
    let counted = || {
        Ok((call(&agent.caller(), "counter", "value", "{}")?.body["value"].as_u64() > Some(20)).then_some(()))
    };
    eventually("the load runs", counted)?;
    agent.run(["rollback", "counter", "--reason", "test"])?.expect(0)?;
    assert_eq!(active_version(agent, "counter")?, "1.0.0");
    let records = runtime.block_on(load.finish());
    let tally = Tally::of(&records, &oracle);
    assert_eq!((tally.lost, tally.doubles), (0, 0), "{:?}", tally.losses);
    let versions: std::collections::BTreeSet<&str> = records
        .iter()
        .filter_map(|record| record.reply.as_ref().ok())
        .map(|reply| reply.version.as_str())
        .collect();
    assert_eq!(versions.into_iter().collect::<Vec<_>>(), ["1.0.0", "2.0.0"], "both answered");
    let value = call(&agent.caller(), "counter", "value", "{}")?.body["value"].as_u64();
    assert_eq!(value, tally.increments.get("host-1").copied(), "every acknowledged increment is there");
    Ok(())
}

#[test]
fn safe_mode_starts_nothing_and_a_start_without_it_brings_everything_back() -> Result<()> {
    let mut fleet = fleet(2)?;
    let [old, new] = two_releases(&fleet)?;
    let records = |agent: &Agent| -> Result<_> {
        let entries = std::fs::read_dir(agent.folder().join("state/records"))?;
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry?.path();
            Ok((path.clone(), std::fs::read(path)?))
        };
        entries.map(read).collect::<Result<std::collections::BTreeMap<_, _>>>()
    };
    fleet.agents[0].kill();
    let before = records(&fleet.agents[0])?;
    fleet.agents[0].start_with(&["--safe"])?;
    let agent = &fleet.agents[0];
    let reply = call(&agent.caller(), "subject", "echo", "")?;
    assert_eq!((reply.status, &reply.body["error"]["code"]), (503, &"AGENT_SAFE_MODE".into()));
    assert_eq!(call(&agent.caller(), "nobody", "echo", "")?.status, 404);
    ensure!(agent.run(["status"])?.expect(0)?.stdout.starts_with("SAFE MODE: no plugin is started"));
    wait_until_named(&fleet, "host-1", "AGENT_SAFE_MODE")?;
    let next = fleet.push(&subject(&fleet, "1.2.0", &[])?, &QUICK)?.expect(0)?.json()?["rollout"].clone();
    let skipped = host(&next, "host-1")?;
    assert_eq!(
        (&skipped["state"], &skipped["skip_reason"]),
        (&"SKIPPED".into(), &"its agent is in safe mode".into())
    );
    assert_eq!(plugin_status(agent, "subject")?["worker_pid"], Value::Null);
    fleet.agents[0].process.take().context("the agent")?.stop()?;
    assert_eq!(records(&fleet.agents[0])?, before, "every record is as it was, the one of the last end too");
    fleet.agents[0].start_with(&["--safe"])?;
    let agent = &fleet.agents[0];

    let back = order(agent, "rollback")?;
    assert_eq!((&back["safe_mode"], &back["plugin"]["active"]), (&true.into(), &old.clone().take_release()));
    fleet.agents[0].kill();
    fleet.agents[0].start()?;
    runs(&fleet.agents[0], &old)?;
    order(&fleet.agents[0], "release")?;
    runs(&fleet.agents[0], &next["to"])?;
    ensure!(new["version"] == "1.1.0");
    Ok(())
}

/// A release as `agent status` shows it.
trait TakeRelease {
    fn take_release(self) -> Value;
}

impl TakeRelease for Value {
    fn take_release(mut self) -> Self {
        if let Some(fields) = self.as_object_mut() {
            fields.remove("plugin");
        }
        self
    }
}

#[test]
fn an_order_that_makes_no_sense_changes_nothing_and_says_why() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let agent = &fleet.agents[0];
    let before = plugin_status(agent, "subject")?;
    let because = ["--reason", "test"];
    for (verb, plugin, code) in [
        ("hold", "nobody", "UNKNOWN_PLUGIN"),
        ("rollback", "subject", "NOTHING_TO_ROLL_BACK_TO"),
        ("release", "subject", "NOT_HELD"),
    ] {
        assert_eq!(refused(agent, &[&[verb, plugin], &because[..]].concat(), 1)?, code);
    }
    for reason in ["", "two\nlines", &"x".repeat(257)] {
        assert_eq!(
            refused(agent, &["hold", "subject", "--reason", reason], 1)?,
            "REASON_INVALID",
            "{reason:?}"
        );
    }
    assert_eq!(refused(agent, &["hold", "subject"], 2)?, "USAGE", "there is always a reason");
    assert_eq!(plugin_status(agent, "subject")?, before);
    let mode = std::fs::metadata(agent.folder().join("control.sock"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    Ok(())
}

#[test]
fn each_order_says_what_it_did_what_that_means_and_how_to_undo_it() -> Result<()> {
    let fleet = fleet(1)?;
    two_releases(&fleet)?;
    let agent = &fleet.agents[0];
    let mut told = String::new();
    for line in ["hold", "hold", "rollback", "status", "release"] {
        let because = ["subject", "--reason", "INC-412: slow"];
        let arguments = if line == "status" { vec![line] } else { [&[line], &because[..]].concat() };
        let said = agent.run(&arguments)?.expect(0)?.stdout;
        writeln!(told, "$ agent {}\n{said}", arguments.join(" "))?;
    }
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"by \S+ since \d{4}-\S+Z", "by USER since TIME");
    settings.add_filter(r"id [0-9a-f-]{36}", "id HOST-ID");
    // It differs from machine to machine.
    settings.add_filter(r"(?m)^sandbox .*\n", "");
    settings.add_filter(r"127\.0\.0\.1:\d+", "ADDRESS");
    settings.add_filter(r"\b[0-9a-f]{12}\b", "RELEASE");
    settings.bind(|| insta::assert_snapshot!("orders_in_text", told));
    Ok(())
}
