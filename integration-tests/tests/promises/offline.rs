//! Hosts that are away during a push.

use anyhow::Result;
use fleetswap_integration_tests::harness::{Fleet, eventually};

use crate::common::{QUICK, active_version, call, fleet, install, subject};

#[test]
fn a_host_that_is_offline_during_the_push_converges_when_it_returns() -> Result<()> {
    let mut fleet = fleet(3)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    fleet.agents[2].kill();
    eventually("host-3 is offline", || Ok((fleet.status()?["hosts_online"] == 2).then_some(())))?;

    let said =
        fleet.controller(Fleet::push_arguments(&subject(&fleet, "1.1.0", &[])?, &QUICK))?.expect(0)?.stdout;
    assert!(
        said.contains("1.1.0 on 2 of 3 hosts, tried on 2; 1 offline, they follow when they return"),
        "{said}"
    );
    let shown = fleet.controller(["status"])?.expect(0)?.stdout;
    assert!(shown.contains("hosts 2 of 3 online"), "{shown}");
    let shown = fleet.controller(["status", "r-000002"])?.expect(0)?.stdout;
    assert!(
        shown.lines().any(|line| line.contains("host-3 PENDING") && line.ends_with("offline")),
        "{shown}"
    );
    let outcome = fleet.controller(["status", "r-000002", "-o", "json"])?.expect(0)?;
    let rollout = &outcome.json()?["rollout"];
    assert_eq!(rollout["state"], "SUCCEEDED", "a host that never returns blocks nobody");
    let away = rollout["hosts"].as_array().into_iter().flatten().find(|host| host["host"] == "host-3");
    let away = away.cloned().unwrap_or_default();
    assert_eq!(
        (away["state"].as_str(), away["online"].as_bool()),
        (Some("PENDING"), Some(false)),
        "and is shown"
    );

    fleet.agents[2].start()?;
    eventually("host-3 runs 1.1.0", || {
        Ok((active_version(&fleet.agents[2], "subject")? == "1.1.0").then_some(()))
    })?;
    assert_eq!(call(&fleet.agents[2].caller(), "subject", "echo", "")?.body, "1.1.0");
    Ok(())
}

#[test]
fn a_push_waits_for_hosts_when_nobody_is_online() -> Result<()> {
    let mut fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    fleet.agents[0].kill();
    eventually("nobody is online", || Ok((fleet.status()?["hosts_online"] == 0).then_some(())))?;
    let next = subject(&fleet, "1.1.0", &[])?;
    let outcome = fleet.push(&next, &[&QUICK[..], &["--wait-timeout", "1s"]].concat())?.expect(5)?;
    assert_eq!(outcome.json()?["error"]["code"], "WAIT_TIMEOUT");
    fleet.agents[0].start()?;
    let rollout = crate::common::wait_for_the_end(&fleet)?;
    assert_eq!(rollout["state"], "SUCCEEDED");
    Ok(())
}

#[test]
fn plugins_serve_on_without_a_controller_also_over_a_restart_of_the_agent() -> Result<()> {
    let mut fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    fleet.controller = None;
    assert_eq!(call(&fleet.agents[0].caller(), "subject", "echo", "")?.status, 200);
    fleet.agents[0].kill();
    fleet.agents[0].start()?;
    let reply = call(&fleet.agents[0].caller(), "subject", "echo", "")?;
    assert_eq!((reply.status, reply.version.as_str()), (200, "1.0.0"));
    Ok(())
}
