//! Every argument, config key and message field, wrong, too long or missing: an error that says what, why, and
//! what to do, under a code that has its page.

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use fleetswap_integration_tests::harness::{Binaries, Fleet, Outcome, repository};
use fleetswap_proto::{
    Explained,
    v1::{
        GetReleaseRequest, GetRolloutRequest, ListRolloutsRequest, PublishRequest, PushRequest,
        RollbackRequest, StatBlobRequest, WatchRolloutRequest,
        operator_service_client::OperatorServiceClient,
    },
};
use tonic::{Status, transport::Endpoint};

use crate::common::{block_on, fleet};

/// The error object of a refused command, after a look at its parts.
fn explained(outcome: &Outcome, case: &str) -> Result<String> {
    let error = outcome.json()?["error"].clone();
    for part in ["what", "why", "fix"] {
        ensure!(error[part].as_str().is_some_and(|text| !text.is_empty()), "{case}: no `{part}` in {error}");
    }
    let code = error["code"].as_str().unwrap_or_default().to_owned();
    has_page(&code)?;
    Ok(code)
}

fn has_page(code: &str) -> Result<()> {
    let page = repository().join(format!("docs/errors/{code}.md"));
    let text = fs::read_to_string(&page)?;
    ensure!(text.starts_with(&format!("# {code}\n")), "{} has another title", page.display());
    Ok(())
}

fn refused(fleet: &Fleet, arguments: &[&str], exit: i32) -> Result<()> {
    let case = arguments.join(" ");
    let case: String = case.chars().take(160).collect();
    let outcome = fleet.controller([arguments, &["-o", "json"]].concat())?;
    ensure!(outcome.code == exit, "{case}: exit {} instead of {exit}\n{}", outcome.code, outcome.stdout);
    explained(&outcome, &case).map(drop)
}

#[test]
fn every_argument_of_push_is_checked() -> Result<()> {
    let fleet = fleet(1)?;
    let file = Binaries::find()?.example("clock", "1.0.0")?.file.display().to_string();
    let text = repository().join("README.md").display().to_string();
    let long = "x".repeat(600);
    let good = ["push", "clock", "--version", "1.0.0", "--artifact", &file];
    let with = |more: &[&'static str]| [&good[..], more].concat();
    let cases: Vec<(Vec<&str>, i32)> = vec![
        (vec!["push"], 2),
        (vec!["push", "Clock!", "--version", "1.0.0", "--artifact", &file], 2),
        (vec!["push", &long, "--version", "1.0.0", "--artifact", &file], 2),
        (vec!["push", "clock", "--artifact", &file], 2),
        (vec!["push", "clock", "--version", "one", "--artifact", &file], 2),
        (vec!["push", "clock", "--version", "1.0.0+build", "--artifact", &file], 2),
        (vec!["push", "clock", "--version", &long, "--artifact", &file], 2),
        (vec!["push", "clock", "--version", "1.0.0"], 2),
        (vec!["push", "clock", "--version", "1.0.0", "--artifact", ""], 2),
        (vec!["push", "clock", "--version", "1.0.0", "--artifact", "/nowhere/lib.so"], 1),
        (vec!["push", "clock", "--version", "1.0.0", "--artifact", &text], 7),
        (vec!["push", "clock", "--version", "9.9.9", "--artifact", &file], 7),
        (vec!["push", "watch", "--version", "1.0.0", "--artifact", &file], 7),
        (with(&["--artifact", "/nowhere/other.so"]), 1),
        (with(&["--config", "/nowhere/config"]), 1),
        (with(&["--probe", "time"]), 2),
        (with(&["--probe", "time {} => {"]), 2),
        (with(&["--probe", "sing {} => {}"]), 7),
        (with(&["--hosts", "colour"]), 2),
        (with(&["--hosts", "key in (a"]), 2),
        ([&good[..], &["--hosts", &long]].concat(), 2),
        (with(&[]), 2),
        (with(&["--max-parallel", "0"]), 2),
        (with(&["--max-parallel", "many"]), 2),
        (with(&["--min-healthy-time", "5"]), 2),
        (with(&["--healthy-deadline", "0s"]), 2),
        (with(&["--healthy-deadline", "99days"]), 2),
        (with(&["--wait-timeout", "soon"]), 2),
        (with(&["--dry-run", "--detach"]), 2),
        ([&good[..], &["--reason", &long]].concat(), 2),
        (with(&["--reason", "two\nlines"]), 2),
        (with(&["--controller", "nowhere"]), 2),
        (with(&["--controller", "127.0.0.1:1"]), 1),
        (with(&["--publisher-dir", "/nowhere", "--hosts", "all"]), 1),
        (with(&["--verison", "1.0.0"]), 2),
    ];
    cases.iter().try_for_each(|(arguments, exit)| refused(&fleet, arguments, *exit))
}

#[test]
fn every_argument_of_rollback_is_checked() -> Result<()> {
    let fleet = fleet(1)?;
    let long = "x".repeat(600);
    let cases: [(&[&str], i32); 9] = [
        (&["rollback"], 2),
        (&["rollback", "clock"], 2),
        (&["rollback", "Clock", "--reason", "r"], 2),
        (&["rollback", "clock", "--reason", &long], 2),
        (&["rollback", "clock", "--reason", "r", "--to", "one"], 2),
        (&["rollback", "clock", "--reason", "r", "--hosts", &long], 2),
        (&["rollback", "clock", "--reason", "r", "--wait-timeout", "never"], 2),
        (&["rollback", "clock", "--reason", "r", "--controller", "x"], 2),
        (&["rollback", "clock", "--reason", "nothing was pushed"], 1),
    ];
    cases.iter().try_for_each(|(arguments, exit)| refused(&fleet, arguments, *exit))
}

#[test]
fn no_verb_speaks_to_the_controller_of_another_machine() -> Result<()> {
    let fleet = fleet(0)?;
    let file = Binaries::find()?.example("clock", "1.0.0")?.file.display().to_string();
    let verbs: [&[&str]; 8] = [
        &["push", "clock", "--version", "1.0.0", "--artifact", &file],
        &["publish", "clock", "--version", "1.0.0", "--artifact", &file],
        &["rollback", "clock", "--reason", "r"],
        &["status"],
        &["history"],
        &["host", "list"],
        &["plugin", "list"],
        &["diff", "clock", "1.0.0", "1.1.0"],
    ];
    for verb in verbs {
        for foreign in ["192.0.2.1:7443", "controller.example.net:7443"] {
            let mut command = fleet.controller_command([verb, &["-o", "json"]].concat());
            let outcome = Outcome::of(command.env("FLEETSWAP_CONTROLLER", foreign))?.expect(2)?;
            ensure!(explained(&outcome, foreign)? == "ADDRESS_NOT_LOOPBACK", "{verb:?}: {}", outcome.stdout);
        }
    }
    let port = fleet.address().rsplit(':').next().unwrap_or_default().to_owned();
    for own in [format!("http://{}", fleet.address()), format!("localhost:{port}")] {
        fleet.controller(["status", "--controller", &own])?.expect(0)?;
    }
    fleet.controller(["status", "--controller", "192.0.2.1:7443"])?.expect(2).map(drop)
}

#[test]
fn a_port_that_accepts_and_stays_silent_is_given_up_after_seconds() -> Result<()> {
    let fleet = fleet(0)?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let address = silent.local_addr()?.to_string();
    let begun = Instant::now();
    let outcome = fleet.controller(["status", "--controller", &address, "-o", "json"])?.expect(1)?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    ensure!(explained(&outcome, "silent")? == "UNREACHABLE", "{}", outcome.stdout);
    ensure!(outcome.stdout.contains("something listens there"), "{}", outcome.stdout);
    Ok(())
}

#[test]
fn a_rollout_that_never_was_is_not_blamed_on_versions() -> Result<()> {
    let fleet = fleet(0)?;
    for more in [&["-o", "json"][..], &["--watch", "-o", "json"]] {
        let outcome = fleet.controller([&["status", "r-99"], more].concat())?.expect(1)?;
        ensure!(explained(&outcome, "r-99")? == "ROLLOUT_NOT_FOUND", "{}", outcome.stdout);
        let error = outcome.json()?["error"].clone();
        ensure!(error["what"] == "there is no rollout r-000099", "{error}");
        ensure!(error["fix"].as_str().is_some_and(|fix| fix.contains("controller history")), "{error}");
    }
    Ok(())
}

#[test]
fn every_argument_of_serve_is_checked() -> Result<()> {
    let fleet = fleet(0)?;
    let data = fleet.path("controller").display().to_string();
    let empty = fleet.path("empty").display().to_string();
    let file = repository().join("README.md").display().to_string();
    let long = "x".repeat(5000);
    let cases: [(&[&str], i32, &str); 8] = [
        (&["serve"], 2, "USAGE"),
        (&["serve", "--data-dir", &long], 2, "USAGE"),
        (&["serve", "--data-dir", &data, "--listen", "everywhere"], 2, "USAGE"),
        (&["serve", "--data-dir", &data, "--listen", "127.0.0.1:99999"], 2, "USAGE"),
        (&["serve", "--data-dir", &data, "--listen", "0.0.0.0:0"], 2, "ADDRESS_NOT_LOOPBACK"),
        (&["serve", "--data-dir", &empty, "--listen", "127.0.0.1:0"], 1, "NOT_INITIALISED"),
        (&["serve", "--data-dir", &file, "--listen", "127.0.0.1:0"], 1, "DATA_DIR_UNUSABLE"),
        (&["serve", "--data-dir", &data, "--listen", "127.0.0.1:0"], 1, "DATA_DIR_LOCKED"),
    ];
    for (arguments, exit, code) in cases {
        let outcome = fleet.controller(arguments)?.expect(exit)?;
        let as_json = fleet.controller([arguments, &["-o", "json"]].concat())?.expect(exit)?;
        ensure!(explained(&as_json, code)? == code, "{code}: {}", as_json.stdout);
        ensure!(outcome.stderr.starts_with(&format!("error[{code}]: ")), "{code}: {}", outcome.stderr);
        for part in ["\n  why:  ", "\n  fix:  ", "\n  page: "] {
            ensure!(outcome.stderr.contains(part), "{code}: no {part:?} in {}", outcome.stderr);
        }
        has_page(code)?;
    }
    Ok(())
}

#[test]
fn every_config_key_of_the_agent_is_checked() -> Result<()> {
    let fleet = fleet(0)?;
    let agent = fleet.add_agent("host-1", "")?;
    let good = fs::read_to_string(agent.config())?;
    let long = "x".repeat(5000);
    let replaced = |key: &str, line: &str| {
        let lines = good.lines().map(|old| if old.starts_with(&format!("{key} =")) { line } else { old });
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut cases: Vec<(String, String)> = Vec::new();
    for key in ["name", "state_dir", "controller", "trust_root"] {
        cases.push((format!("{key} missing"), replaced(key, "")));
    }
    for key in ["name", "state_dir", "controller", "trust_root", "socket"] {
        cases.push((format!("{key} of a wrong type"), replaced(key, &format!("{key} = 7"))));
        cases.push((format!("{key} empty"), replaced(key, &format!("{key} = \"\""))));
        cases.push((format!("{key} too long"), replaced(key, &format!("{key} = \"{long}\""))));
    }
    cases.push(("a public controller".to_owned(), replaced("controller", "controller = \"192.0.2.1:7443\"")));
    cases
        .push(("a controller without port".to_owned(), replaced("controller", "controller = \"localhost\"")));
    cases.push((
        "a dev flag of a wrong type".to_owned(),
        replaced("allow_dev_trust", "allow_dev_trust = \"yes\""),
    ));
    for (what, line) in [
        ("an unknown key", "colour = \"red\"".to_owned()),
        ("a mirror without scheme", "mirrors = [\"mirror.example\"]".to_owned()),
        ("mirrors of a wrong type", "mirrors = \"http://127.0.0.1:1\"".to_owned()),
        ("a mirror that is too long", format!("mirrors = [\"http://127.0.0.1/{long}\"]")),
    ] {
        cases.push((what.to_owned(), format!("{line}\n{good}")));
    }
    for (what, section) in [
        ("a label of a wrong type", "[labels]\nzone = 1".to_owned()),
        ("a label that is too long", format!("[labels]\nzone = \"{long}\"")),
        ("an unknown sandbox level", "[sandbox]\nmin = \"none\"".to_owned()),
        ("limits of a wrong type", "[limits]\nmemory = \"much\"".to_owned()),
    ] {
        let without_labels = good.replace("[labels]\n", "").replace("number = \"1\"\n", "");
        cases.push((what.to_owned(), format!("{without_labels}{section}\n")));
    }
    for (what, config) in cases {
        fs::write(agent.config(), config)?;
        let outcome = agent.run(["daemon", "-o", "json"])?;
        ensure!(matches!(outcome.code, 1 | 2), "{what}: exit {}\n{}", outcome.code, outcome.stdout);
        explained(&outcome, &what)?;
    }
    Ok(())
}

#[test]
fn trust_that_no_release_could_pass_is_refused_at_the_agents_start() -> Result<()> {
    let fleet = fleet(0)?;
    let agent = fleet.add_agent("host-1", "")?;
    let good = fs::read_to_string(agent.config())?;
    // An agent that went on would end here, with another code, instead of holding the test up.
    fs::write(agent.front(), "no socket")?;
    let elsewhere = |root: &str| {
        let lines = good.lines().map(|line| if line.starts_with("trust_root") { root } else { line });
        lines.collect::<Vec<_>>().join("\n")
    };
    let no_root = format!("trust_root = {:?}", agent.config().display().to_string());
    for (config, code, fix) in [
        (good.replace("allow_dev_trust = true", ""), "TRUST_DEV_ROOT", "`allow_dev_trust = true`"),
        (elsewhere(&no_root), "TRUST_STORE_UNUSABLE", "`controller init` prints its path"),
        (elsewhere("trust_root = \"/nowhere/root.json\""), "TRUST_STORE_UNUSABLE", "`controller init`"),
    ] {
        fs::write(agent.config(), config)?;
        let outcome = agent.run(["daemon", "-o", "json"])?.expect(1)?;
        ensure!(explained(&outcome, code)? == code, "{code}: {}", outcome.stdout);
        let outcome = agent.run(["daemon"])?.expect(1)?;
        ensure!(outcome.stderr.starts_with(&format!("error[{code}]: ")), "{code}: {}", outcome.stderr);
        ensure!(outcome.stderr.contains(fix), "{code}: {}", outcome.stderr);
    }
    Ok(())
}

#[test]
fn every_argument_of_the_agent_is_checked() -> Result<()> {
    let fleet = fleet(0)?;
    let agent = fleet.add_agent("host-1", "")?;
    let cases: [&[&str]; 7] = [
        &[],
        &["statsu"],
        &["logs"],
        &["call", "clock"],
        &["call", "clock", "time", "{}", "--timeout", "soon"],
        &["status", "--colour", "red"],
        &["status", "clock"],
    ];
    for arguments in cases {
        let case = format!("agent {}", arguments.join(" "));
        let outcome = agent.run(arguments)?.expect(2)?;
        ensure!(outcome.stderr.starts_with("error[USAGE]: "), "{case}: {}", outcome.stderr);
        ensure!(
            outcome.stderr.contains("\n  fix:  ") && outcome.stdout.is_empty(),
            "{case}: {}",
            outcome.stderr
        );
        let outcome = agent.run([arguments, &["-o", "json"]].concat())?.expect(2)?;
        ensure!(explained(&outcome, &case)? == "USAGE", "{case}: {}", outcome.stdout);
    }
    Ok(())
}

#[test]
fn every_message_of_an_operator_is_checked() -> Result<()> {
    let fleet = fleet(0)?;
    let address = format!("http://{}", fleet.address());
    let statuses = block_on(async move {
        let channel = Endpoint::from_shared(address)?.connect().await?;
        let mut operator = OperatorServiceClient::new(channel);
        let long = "x".repeat(70_000);
        let push = |plugin: &str, selector: &str| PushRequest {
            request_id: "7d444840-9dc0-11d1-b245-5ffdce74fad2".to_owned(),
            plugin: plugin.to_owned(),
            selector: selector.to_owned(),
            manifest: b"{}".to_vec(),
            ..PushRequest::default()
        };
        let rollout_id = "r-999999".to_owned();
        let mut found: Vec<(&str, Option<Status>)> = Vec::new();
        found.push(("no request id", operator.push(PushRequest::default()).await.err()));
        found.push(("no plugin", operator.push(push("", "all")).await.err()));
        found.push(("a long selector", operator.push(push("clock", &long)).await.err()));
        let oversize = PushRequest { manifest: vec![b' '; 70_000], ..push("clock", "all") };
        found.push(("an oversize manifest", operator.push(oversize).await.err()));
        found.push(("no manifest at all", operator.push(push("clock", "all")).await.err()));
        found.push(("rollback without id", operator.rollback(RollbackRequest::default()).await.err()));
        found.push(("publish without id", operator.publish(PublishRequest::default()).await.err()));
        let stat = StatBlobRequest { sha256: "abc".to_owned() };
        found.push(("a short hash", operator.stat_blob(stat).await.err()));
        found.push(("no rollout id", operator.get_rollout(GetRolloutRequest::default()).await.err()));
        let unknown = GetRolloutRequest { rollout_id: rollout_id.clone() };
        found.push(("an unknown rollout", operator.get_rollout(unknown).await.err()));
        let watch = WatchRolloutRequest { rollout_id };
        found.push(("an unknown rollout to watch", operator.watch_rollout(watch).await.err()));
        let page = ListRolloutsRequest { page_size: 1_000_000, ..ListRolloutsRequest::default() };
        found.push(("a page too large", operator.list_rollouts(page).await.err()));
        let release = GetReleaseRequest { plugin: "clock".to_owned(), version: "one".to_owned() };
        found.push(("a version that is none", operator.get_release(release).await.err()));
        anyhow::Ok(found)
    })??;
    for (case, status) in statuses {
        let status = status.ok_or_else(|| anyhow::anyhow!("{case}: accepted"))?;
        let error =
            Explained::from_status(&status).ok_or_else(|| anyhow::anyhow!("{case}: bare {status:?}"))?;
        ensure!(!error.what.is_empty() && !error.why.is_empty() && !error.fix.is_empty(), "{case}: {error}");
        has_page(&error.code)?;
    }
    Ok(())
}
