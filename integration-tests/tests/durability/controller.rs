//! Each failpoint of the controller: after a restart its store is whole, and a second push succeeds or says why.

use std::{collections::BTreeSet, fs, path::Path, process::Command, sync::Mutex, thread};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{Binaries, Fleet, FleetOptions, Outcome, Plugin, eventually};
use tokio::runtime::Runtime;

use crate::common::{failpoints, hex, hits, is_whole, subject};

/// Fleets that fail at the same time.
const FLEETS: usize = 4;
/// Pushes that don't keep the test waiting.
const QUICK: [&str; 4] = ["--min-healthy-time", "200ms", "--hosts", "all"];

/// Which process has the failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// The server, while something is published.
    Publishing,
    /// The server, as it starts.
    Starting,
    /// The server, as it starts with an old timestamp.
    Renewing,
    /// The publisher's own command.
    Publisher,
    /// `init`.
    Init,
}

/// Where each failpoint is hit.
const ROWS: &[(Where, &[&str])] = &[
    (Where::Init, &["folder.make", "folder.sync-folder"]),
    (Where::Init, &["init.remove", "init.write", "init.sync", "init.rename", "init.sync-folder"]),
    (Where::Publisher, &["seen.remove", "seen.write", "seen.sync", "seen.rename", "seen.sync-folder"]),
    (Where::Starting, &["metadata.sync-at-start", "blob.sync-at-start"]),
    (Where::Renewing, &["metadata.remove", "metadata.write", "metadata.sync", "metadata.rename"]),
    (Where::Renewing, &["metadata.sync-folder", "timestamp.before-renewal"]),
    (Where::Publishing, &["blob.open", "blob.cut", "blob.write", "blob.sync", "blob.rename"]),
    (Where::Publishing, &["blob.sync-folder", "blob.remove"]),
    (Where::Publishing, &["metadata.remove", "metadata.write", "metadata.sync", "metadata.rename"]),
    (Where::Publishing, &["metadata.sync-folder"]),
    (Where::Publishing, &["publish.before-rows", "publish.before-show", "publish.after-show"]),
];

#[derive(Clone, Debug)]
struct Case {
    at: Where,
    point: String,
    action: String,
}

fn cases(program: &Path) -> Result<Vec<Case>> {
    let listed = failpoints(program)?;
    let mut cases = Vec::new();
    let mut in_rows = BTreeSet::new();
    for (at, points) in ROWS {
        for point in *points {
            let actions = listed.iter().find(|(name, _)| name == point).map(|(_, actions)| actions);
            let actions = actions.with_context(|| format!("the table has {point}, which is no failpoint"))?;
            // One error stands for all: whatever the system says, the file is not written.
            let actions =
                actions.iter().filter(|action| ["kill", "enospc", "short"].contains(&action.as_str()));
            cases.extend(actions.map(|it| Case { at: *at, point: (*point).to_owned(), action: it.clone() }));
            in_rows.insert((*point).to_owned());
        }
    }
    let listed: BTreeSet<String> = listed.into_iter().map(|(name, _)| name).collect();
    let without: Vec<_> = listed.difference(&in_rows).collect();
    ensure!(without.is_empty(), "failpoints without a row in the table: {without:?}");
    Ok(cases)
}

#[test]
fn whatever_happens_at_a_failpoint_of_the_controller_its_store_is_whole_and_the_next_push_works() -> Result<()>
{
    let program = Binaries::find()?.controller_with_failpoints()?;
    let (init, mut others): (Vec<Case>, Vec<Case>) =
        cases(&program)?.into_iter().partition(|case| case.at == Where::Init);
    for case in init {
        init_fails(&program, &case).with_context(|| format!("{case:?}"))?;
    }
    others.reverse();
    let (left, wrong) = (Mutex::new(others), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let work = || -> Result<()> {
            let mut fleet =
                Fleet::start(&Binaries::find()?, &FleetOptions { agents: 1, ..FleetOptions::default() })?;
            let runtime = Runtime::new()?;
            for round in 1.. {
                let Some(case) = left.lock().expect("no thread panics").pop() else { break };
                let plugin = subject(&fleet, &format!("1.{round}.0"), &[])?;
                let done = fails(&mut fleet, &program, &case, &plugin, &runtime);
                if let Err(error) = done {
                    wrong.lock().expect("no thread panics").push(format!("{case:?}: {error:#}"));
                }
            }
            Ok(())
        };
        let threads: Vec<_> = (0..FLEETS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|it| it.join().expect("no thread panics"))
    })?;
    let wrong = wrong.into_inner().expect("no thread panics");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// `init` fails in empty folders; the next one either works, or says that something is there.
fn init_fails(program: &Path, case: &Case) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let init = |program: &Path, failpoint: &str| {
        let mut command = Command::new(program);
        let (data, publisher) = (folder.path().join("data"), folder.path().join("publisher"));
        command.args(["init", "--dev", "--data-dir"]).arg(data).arg("--publisher-dir").arg(publisher);
        Outcome::of(command.env("FLEETSWAP_TEST_FAILPOINT", failpoint))
    };
    let first = init(program, &format!("{}:{}", case.point, case.action))?;
    ensure!(first.stderr.contains("is hit"), "it was not hit: {first:?}");
    ensure!((first.code == 0) == (case.action == "short"), "{first:?}");
    let second = init(&Binaries::find()?.controller(), "")?;
    ensure!(second.code == 0 || second.stderr.contains("INIT_EXISTS"), "{second:?}");
    Ok(())
}

fn fails(fleet: &mut Fleet, program: &Path, case: &Case, plugin: &Plugin, runtime: &Runtime) -> Result<()> {
    let failpoint = format!("{}:{}", case.point, case.action);
    let log = fleet.path("controller.log");
    let before = hits(&log, &case.point);
    let armed = [("FLEETSWAP_TEST_FAILPOINT", failpoint.as_str())];
    let renewing = [armed[0], ("FLEETSWAP_TEST_RENEW", "1")];
    let file = plugin.file.display().to_string();
    let publish = ["publish", &plugin.name, "--version", &plugin.version, "--artifact", &file];
    match case.at {
        Where::Publisher => {
            let mut command = fleet.controller_command(publish);
            let mut failing = Command::new(program);
            failing.args(command.get_args());
            let environment = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
            failing.envs(environment).envs(armed);
            let outcome = Outcome::of(&mut failing)?;
            ensure!(outcome.stderr.contains("is hit"), "it was not hit: {outcome:?}");
            drop(Outcome::of(&mut command));
        }
        Where::Publishing => {
            fleet.controller = None;
            wrong_part(fleet, case, plugin)?;
            let process = fleet.spawn_controller_as(program, &armed)?;
            process.wait_for_line("controller ready on ")?;
            let outcome = fleet.controller(publish)?;
            let is_refused = outcome.code != 0;
            ensure!(is_refused || case.action == "short" || case.point == "blob.remove", "{outcome:?}");
        }
        Where::Starting | Where::Renewing => {
            fleet.controller = None;
            let mut process = fleet.spawn_controller_as(program, &renewing)?;
            if case.action == "kill" || case.at == Where::Starting {
                ensure!(!process.wait()?.success(), "it went on");
            } else {
                process.wait_for_line("controller ready on ")?;
            }
        }
        Where::Init => {}
    }
    ensure!(case.at == Where::Publisher || hits(&log, &case.point) > before, "it was not hit");
    fleet.controller = None;
    fleet.start_controller()?;
    // Its link would wait longer and longer for a controller that comes and goes.
    fleet.agents[0].kill();
    fleet.agents[0].start()?;
    is_usable(fleet, plugin, runtime)
}

/// A part of the artifact with other bytes, so that the upload ends with the wrong ones.
fn wrong_part(fleet: &Fleet, case: &Case, plugin: &Plugin) -> Result<()> {
    if case.point == "blob.remove" {
        let sha256 = hex(&fs::read(&plugin.file)?);
        fs::write(fleet.path("controller").join("blobs").join(format!("{sha256}.part")), "wrong")?;
    }
    Ok(())
}

/// The controller knows its host and its history, and the push that was cut works now.
fn is_usable(fleet: &Fleet, plugin: &Plugin, runtime: &Runtime) -> Result<()> {
    eventually("the host is back", || Ok((fleet.status()?["hosts_online"] == 1).then_some(())))?;
    for entry in fs::read_dir(fleet.path("controller").join("blobs"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // One that the controller has just put in order has no bytes.
        let Ok(bytes) = fs::read(&path) else { continue };
        ensure!(name.len() != 64 || hex(&bytes) == name, "{} has other bytes", path.display());
    }
    let mut pushed = fleet.push(plugin, &QUICK)?;
    if pushed.code != 0 {
        // Once it may say why: bytes that a crash spoiled are thrown away when they are found out.
        ensure!(pushed.stdout.contains("BLOB_MISMATCH"), "{pushed:?}");
        pushed = fleet.push(plugin, &QUICK)?;
    }
    pushed.expect(0)?;
    ensure!(is_whole(&fleet.agents[0], runtime)?.1 == plugin.version, "the host does not run it");
    Ok(())
}
