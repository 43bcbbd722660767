//! What a caller on a host is promised.

use std::fmt::Write;

use anyhow::{Context, Result};
use bytes::Bytes;
use fleetswap_integration_tests::harness::{Binaries, eventually};
use tokio::runtime::Runtime;

use crate::common::{CALL_LIMIT, QUICK, active_version, call, fleet, install, plugin_status, subject};

#[test]
fn a_call_in_flight_during_a_swap_is_answered_by_the_release_that_took_it() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let caller = fleet.agents[0].caller();
    let runtime = Runtime::new()?;
    let slow = runtime.spawn({
        let caller = caller.clone();
        async move { caller.call("subject", "slow", Bytes::from_static(b"4000"), CALL_LIMIT).await }
    });
    // The call has to be in flight before the push begins; a call that is answered after it shows that.
    call(&caller, "subject", "slow", "100")?;
    fleet.push(&subject(&fleet, "1.1.0", &[])?, &QUICK)?.expect(0)?;
    let after = call(&caller, "subject", "echo", "")?;
    assert_eq!(after.version, "1.1.0");
    assert!(!slow.is_finished(), "the slow call is still with the old release");
    let reply = runtime.block_on(slow)??;
    assert_eq!((reply.status, reply.version.as_str()), (200, "1.0.0"));
    assert_eq!(reply.body, "1.0.0");
    Ok(())
}

#[test]
fn every_way_to_fail_has_its_own_status_and_body() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    install(&fleet, &Binaries::find()?.example("panicky", "1.0.0")?)?;
    let caller = fleet.agents[0].caller();
    let hurried = caller.clone().with_timeout("150ms");
    let large = "1".repeat(1024 * 1024 + 1);
    let calls = [
        ("unknown plugin", &caller, "nobody", "echo", ""),
        ("unknown function", &caller, "subject", "sing", ""),
        ("no JSON", &caller, "panicky", "count", "{count"),
        ("wrong type", &caller, "panicky", "count", r#"{"count": "many"}"#),
        ("unknown field", &caller, "panicky", "count", r#"{"count": 1, "colour": 2}"#),
        ("too large", &caller, "subject", "echo", &large),
        ("past the deadline", &hurried, "subject", "slow", "2000"),
        ("its own error", &caller, "subject", "fail", ""),
        ("panic", &caller, "panicky", "boom", r#"{"count": 2}"#),
        ("and it still answers", &caller, "panicky", "count", r#"{"count": 3}"#),
    ];
    let mut seen = String::new();
    for (what, caller, plugin, function, input) in calls {
        let reply = call(caller, plugin, function, input).context(what)?;
        writeln!(seen, "{what}: {} {}", reply.status, reply.body)?;
    }
    insta::assert_snapshot!(seen);
    Ok(())
}

/// The story of a call that fails, as `agent` tells it.
#[test]
fn the_agent_says_why_a_call_failed_and_what_to_do() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    install(&fleet, &Binaries::find()?.example("panicky", "1.0.0")?)?;
    let agent = &fleet.agents[0];
    let mut seen = String::new();
    for (arguments, code) in [
        (vec!["call", "nobody", "echo"], 1),
        (vec!["call", "subject", "sing"], 1),
        (vec!["call", "panicky", "count", r#"{"count": "many"}"#], 1),
        (vec!["call", "subject", "fail"], 1),
        (vec!["call", "subject", "fail", "-o", "json"], 1),
        (vec!["call", "subject", "crash"], 1),
        (vec!["logs", "nobody"], 1),
    ] {
        let outcome = agent.run(&arguments)?.expect(code)?;
        writeln!(seen, "=== agent {}: exit {}", arguments.join(" "), outcome.code)?;
        writeln!(seen, "{}{}", outcome.stdout, outcome.stderr)?;
    }
    insta::assert_snapshot!(seen);
    let status = agent.run(["status"])?.expect(0)?.stdout;
    assert!(status.contains("  functions: ") && status.contains("echo"), "{status}");
    Ok(())
}

#[test]
fn the_logs_of_a_silent_plugin_are_nothing_at_all() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let outcome = fleet.agents[0].run(["logs", "subject"])?.expect(0)?;
    assert_eq!(outcome.stdout, "", "{outcome:?}");
    assert!(outcome.stderr.contains("subject has written no log lines"), "{outcome:?}");
    let outcome = fleet.agents[0].run(["logs", "subject", "-o", "json"])?.expect(0)?;
    assert_eq!(outcome.json()?["lines"].as_array().map(Vec::len), Some(0), "{outcome:?}");
    Ok(())
}

#[test]
fn a_crash_takes_its_own_call_along_and_no_other() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let caller = fleet.agents[0].caller();
    let reply = call(&caller, "subject", "crash", "")?;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.body["error"]["code"], "WORKER_DIED");
    assert_eq!(reply.body["error"]["executed"], "unknown");
    let next = call(&caller, "subject", "echo", "")?;
    assert_eq!(next.status, 200, "the next call waits for the new worker: {next:?}");
    Ok(())
}

#[test]
fn a_plugin_in_c_serves_like_one_in_rust() -> Result<()> {
    let fleet = fleet(1)?;
    let checksum = Binaries::find()?.example("checksum", "1.0.0")?;
    install(&fleet, &checksum)?;
    let reply = call(&fleet.agents[0].caller(), "checksum", "crc32", "123456789")?;
    assert_eq!((reply.status, reply.body["crc32"].as_str()), (200, Some("cbf43926")));
    Ok(())
}

#[test]
fn a_release_that_keeps_crashing_gives_way_to_the_one_before() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    fleet.push(&subject(&fleet, "1.1.0", &[])?, &QUICK)?.expect(0)?;
    let agent = &fleet.agents[0];
    for _ in 0..3 {
        assert_eq!(call(&agent.caller(), "subject", "crash", "")?.status, 503);
        // The next call waits for whoever comes back, so that each crash meets a living worker.
        assert_eq!(call(&agent.caller(), "subject", "echo", "")?.status, 200);
    }
    eventually("1.0.0 serves again", || Ok((active_version(agent, "subject")? == "1.0.0").then_some(())))?;
    assert_eq!(call(&agent.caller(), "subject", "echo", "")?.version, "1.0.0");
    let denied = plugin_status(agent, "subject")?["denied"][0].clone();
    assert_eq!(denied["code"], "CRASH_LOOP", "{denied}");
    Ok(())
}
