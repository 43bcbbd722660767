//! Pushes that are refused: a dry run exits as the push would, for the same reason, and where it can be allowed, it is.

use anyhow::{Result, ensure};
use fleetswap_integration_tests::harness::{Binaries, Fleet, Outcome, Plugin};

use crate::{
    common::{QUICK, active_version, fleet, install, subject, wait_for_the_end},
    pushes::variant,
};

fn code(outcome: &Outcome) -> Result<String> {
    Ok(outcome.json()?["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// A push that is refused, as a dry run and for real; returns what was said for real.
fn refused(fleet: &Fleet, plugin: &Plugin, more: &[&str], exit: i32, expected: &str) -> Result<Outcome> {
    let dry = fleet.push(plugin, &[more, &["--dry-run"]].concat())?.expect(exit)?;
    ensure!(code(&dry)? == expected, "the dry run gave another code: {}", dry.stdout);
    let push = fleet.push(plugin, more)?.expect(exit)?;
    ensure!(code(&push)? == expected, "the push gave another code: {}", push.stdout);
    Ok(push)
}

/// The subject with a state of which it writes one version and reads some.
fn stateful(fleet: &Fleet, version: &str, writes: &str, reads: &str) -> Result<Plugin> {
    let state = |writes: &str, reads: &str| format!(r#"{{\"writes\":[{writes}],\"reads\":[{reads}]}}"#);
    variant(fleet, (version, "STATEFUL"), &[(&state("1", "1"), &state(writes, reads))])
}

#[test]
fn other_bytes_under_a_published_version_are_refused() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let other = subject(&fleet, "1.0.0", &["STATEFUL"])?;
    refused(&fleet, &other, &QUICK, 7, "VERSION_PUBLISHED").map(drop)
}

#[test]
fn a_plugin_that_needs_what_no_agent_gives_is_refused() -> Result<()> {
    let fleet = fleet(1)?;
    let plugin = subject(&fleet, "1.0.0", &["NEEDS_FILES"])?;
    refused(&fleet, &plugin, &["--hosts", "all"], 7, "NEEDS_UNKNOWN").map(drop)
}

#[test]
fn a_push_into_a_running_rollout_is_refused_and_one_after_a_failed_one_is_not() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let next = subject(&fleet, "1.2.0", &[])?;
    let slow = ["--min-healthy-time", "60s", "--detach"];
    fleet.push(&subject(&fleet, "1.1.0", &["CRASHES_ACTIVE"])?, &slow)?.expect(0)?;
    refused(&fleet, &next, &QUICK, 6, "ROLLOUT_IN_PROGRESS")?;
    assert_eq!(wait_for_the_end(&fleet)?["state"], "FAILED");
    fleet.push(&next, &QUICK)?.expect(0)?;
    assert_eq!(active_version(&fleet.agents[0], "subject")?, "1.2.0");
    Ok(())
}

#[test]
fn a_release_that_failed_on_every_host_is_refused_when_it_is_pushed_again() -> Result<()> {
    let fleet = fleet(1)?;
    let clock = |version: &str| Binaries::find()?.example("clock", version);
    install(&fleet, &clock("1.0.0")?)?;
    let (bad, probe) =
        (clock("1.1.0")?, r#"time {"unix_seconds":1795500000} => {"text":"2026-11-24 06:00:00"}"#);
    let more = [&QUICK[..], &["--probe", probe]].concat();
    fleet.push(&bad, &more)?.expect(3)?;
    let error = refused(&fleet, &bad, &more, 7, "RELEASE_DENIED")?.json()?["error"].clone();
    let what = error["what"].as_str().unwrap_or_default();
    assert!(what.contains("on host-1 with PROBE_FAILED"), "{error}");
    let history = fleet.controller(["history", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!(history["rollouts"].as_array().map(Vec::len), Some(2), "nobody was offered it again");
    Ok(())
}

#[test]
fn a_breaking_push_is_refused_unless_it_is_allowed() -> Result<()> {
    let fleet = fleet(1)?;
    let clock = |version: &str| Binaries::find()?.example("clock", version);
    install(&fleet, &clock("1.0.0")?)?;
    let breaking = clock("1.3.0")?;
    let said = refused(&fleet, &breaking, &QUICK, 7, "STRUCTURE_BREAKING")?.json()?;
    assert_eq!(said["diff"]["breaking"], true, "{said}");
    assert_eq!(active_version(&fleet.agents[0], "clock")?, "1.0.0");
    let allowed = fleet.push(&breaking, &[&QUICK[..], &["--allow-breaking"]].concat())?.expect(0)?.json()?;
    assert_eq!((&allowed["rollout"]["state"], &allowed["diff"]), (&"SUCCEEDED".into(), &said["diff"]));
    assert_eq!(active_version(&fleet.agents[0], "clock")?, "1.3.0");
    Ok(())
}

#[test]
fn a_push_that_cannot_give_its_state_back_is_refused_unless_it_is_allowed() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &stateful(&fleet, "1.0.0", "1", "1")?)?;
    let one_way = stateful(&fleet, "1.1.0", "2", "1,2")?;
    let said = refused(&fleet, &one_way, &QUICK, 7, "STATE_ONE_WAY")?.json()?;
    assert_eq!(said["diff"]["one_way"], true, "{said}");
    assert_eq!(active_version(&fleet.agents[0], "subject")?, "1.0.0");
    refused(&fleet, &one_way, &["--allow-breaking"], 7, "STATE_ONE_WAY")?;
    fleet.push(&one_way, &[&QUICK[..], &["--allow-one-way"]].concat())?.expect(0)?;
    assert_eq!(active_version(&fleet.agents[0], "subject")?, "1.1.0");
    Ok(())
}

#[test]
fn a_publisher_folder_that_is_named_has_to_be_one_although_nothing_is_signed() -> Result<()> {
    let fleet = fleet(1)?;
    let clock = Binaries::find()?.example("clock", "1.0.0")?;
    install(&fleet, &clock)?;
    let empty = fleet.path("").display().to_string();
    for wrong in ["/nowhere", empty.as_str()] {
        refused(&fleet, &clock, &["--publisher-dir", wrong], 1, "KEY_UNUSABLE")?;
    }
    let mut without = fleet.controller_command(Fleet::push_arguments(&clock, &QUICK));
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
    let refused = refused(&fleet, &clock("1.0.0")?, &[], 7, "PUSH_DOWNGRADE")?;
    let back = ["rollback", "clock", "--to", "1.0.0", "--reason", "back"];
    let fix = refused.json()?["error"]["fix"].to_string();
    assert!(fix.contains("controller rollback clock --to 1.0.0 --reason TEXT"), "{fix}");
    fleet.controller(back)?.expect(0)?;
    let forth = ["rollback", "clock", "--to", "1.2.0", "--reason", "forth", "-o", "json"];
    for more in [&["--dry-run"][..], &[]] {
        let outcome = fleet.controller([&forth, more].concat())?.expect(1)?;
        assert_eq!(code(&outcome)?, "ROLLBACK_TARGET_UNKNOWN");
        let error = outcome.json()?["error"].clone();
        assert!(error["why"].to_string().contains("was not rolled back since"), "{error}");
        assert!(
            error["fix"].to_string().contains("with --to: 1.0.0; or push 1.2.0, with a canary"),
            "{error}"
        );
    }
    fleet.push(&clock("1.2.0")?, &QUICK)?.expect(0).map(drop)
}

#[test]
fn hosts_that_are_named_wrongly_are_refused_once_there_are_assignments() -> Result<()> {
    let fleet = fleet(2)?;
    let plugin = subject(&fleet, "1.0.0", &[])?;
    for hosts in ["number=1", "number=2"] {
        fleet.push(&plugin, &[&QUICK[..], &["--hosts", hosts]].concat())?.expect(0)?;
    }
    let next = subject(&fleet, "1.1.0", &[])?;
    refused(&fleet, &next, &[], 2, "ASSIGNMENT_AMBIGUOUS")?;
    refused(&fleet, &next, &["--hosts", "all"], 6, "ASSIGNMENT_OVERLAP")?;
    refused(&fleet, &next, &["--hosts", "number=7"], 2, "NO_HOSTS_MATCH")?;
    let back = ["rollback", "subject", "--reason", "test", "-o", "json"];
    for (more, exit, expected) in [
        (&[][..], 2, "ASSIGNMENT_AMBIGUOUS"),
        (&["--hosts", "number=7"], 1, "ASSIGNMENT_UNKNOWN"),
        (&["--hosts", "number=1"], 1, "ROLLBACK_NO_TARGET"),
    ] {
        for dry in [&["--dry-run"][..], &[]] {
            let outcome = fleet.controller([&back, more, dry].concat())?.expect(exit)?;
            assert_eq!(code(&outcome)?, expected, "{}", outcome.stdout);
        }
    }
    Ok(())
}
