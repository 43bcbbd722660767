//! Must hold 4: each failpoint of the agent, and whatever may happen there; then the shipped agent goes on.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{Agent, eventually};
use fleetswap_proto::v1::{Fault, HostState};
use tokio::runtime::Runtime;

use crate::{
    common::{Published, World, active, failpoints, hits, is_whole},
    rows::{Class, Left, ROWS, Row},
    starts, states,
};

/// Hosts that fail at the same time.
const HOSTS: usize = 28;

/// One host's failpoint.
#[derive(Clone, Debug)]
struct Case {
    row: Row,
    point: String,
    action: String,
}

impl Case {
    fn name(&self) -> String {
        format!("{}:{}{}", self.point, self.action, self.row.pass)
    }

    fn class(&self) -> Class {
        match self.action.as_str() {
            "kill" => self.row.killed,
            // The rest of the bytes is written.
            "short" if self.row.candidate_dies => self.row.failed,
            "short" => Class::Committed,
            _ => self.row.failed,
        }
    }
}

/// The cases of the table; a failpoint without a row is an error, and so is a row without a failpoint.
fn cases(world: &World) -> Result<Vec<Case>> {
    let listed = failpoints(&world.failing)?;
    let mut cases = Vec::new();
    let mut in_rows = starts::points();
    in_rows.extend(states::points());
    for row in ROWS {
        for operation in row.operations {
            let point = format!("{}.{operation}", row.kind);
            let (_, actions) = listed
                .iter()
                .find(|(name, _)| *name == point)
                .with_context(|| format!("the table has a row for {point}, which is no failpoint"))?;
            let actions = actions.iter().filter(|action| *action != "hold");
            cases.extend(actions.map(|action| Case {
                row: *row,
                point: point.clone(),
                action: action.clone(),
            }));
            in_rows.insert(point);
        }
    }
    let listed: BTreeSet<String> = listed.into_iter().map(|(name, _)| name).collect();
    let without: Vec<_> = listed.difference(&in_rows).collect();
    ensure!(without.is_empty(), "failpoints without a row in the table: {without:?}");
    Ok(cases)
}

#[test]
fn whatever_happens_at_a_failpoint_the_host_runs_the_old_or_the_new_release() -> Result<()> {
    let mut world = World::start(HOSTS)?;
    let runtime = Runtime::new()?;
    let (mut wrong, mut count) = (Vec::new(), 0);
    let (dying, living): (Vec<Case>, Vec<Case>) =
        cases(&world)?.into_iter().partition(|case| case.row.candidate_dies);
    for (cases, defines) in [(living, &[][..]), (dying, &["CRASHES_ACTIVE"][..])] {
        for cases in cases.chunks(HOSTS) {
            let candidate = world.publish(defines)?;
            wrong.extend(wave(&mut world, &candidate, cases, &runtime)?);
            count += cases.len();
        }
    }
    ensure!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
    println!("{count} cases");
    Ok(())
}

/// One case on each host; says which went wrong, and how.
fn wave(world: &mut World, candidate: &Published, cases: &[Case], runtime: &Runtime) -> Result<Vec<String>> {
    let (old, hit_before) = arm(world, candidate, cases)?;
    let hosts: Vec<String> = world.fleet.agents.iter().map(|agent| agent.name.clone()).collect();
    let mut rollouts = Vec::new();
    for (case, host) in cases.iter().zip(&hosts) {
        let pushed = world.operator.push(super::common::PLUGIN, host, &candidate.manifest, 0);
        rollouts.push(pushed.with_context(|| case.name())?);
    }
    let failing = world.failing.clone();
    for (case, agent) in cases.iter().zip(&mut world.fleet.agents) {
        agent.spawn_as(&failing, &[("FLEETSWAP_TEST_FAILPOINT", &case.name())])?;
    }
    let World { fleet, operator, shipped, .. } = world;
    eventually("each host has failed or finished", || {
        let ended = operator.ended(&rollouts)?;
        let mut agents = fleet.agents.iter_mut().zip(ended);
        Ok(agents.all(|(agent, ended)| ended || has_ended(agent)).then_some(()))
    })?;
    fleet.agents.iter_mut().for_each(Agent::kill);
    fleet.agents.iter_mut().try_for_each(|agent| agent.spawn_as(shipped, &[]))?;
    fleet.agents.iter().try_for_each(Agent::wait_ready)?;
    operator.wait_for(&rollouts)?;
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let agent = &fleet.agents[index];
        let log = agent.folder().join("agent.log");
        let checked = (|| {
            ensure!(hits(&log, &case.point) > hit_before[index], "it was never hit");
            let (_, host) = operator.rollout(&rollouts[index])?;
            let fault = host.failure.as_ref().map(|failure| (failure.fault(), failure.code.clone()));
            has_class(case, host.state(), fault)?;
            let expected = if case.class() == Class::Committed { &candidate.id } else { &old[index] };
            eventually("the release answers", || {
                let (id, version) = is_whole(agent, runtime)?;
                ensure!(id == *expected, "{version} runs");
                Ok(Some(()))
            })
        })();
        if let Err(error) = checked {
            wrong.push(format!("{} on {}: {error:#}", case.name(), agent.name));
        }
    }
    Ok(wrong)
}

/// Stops the agents; says what each runs, and how often its failpoint was hit before.
fn arm(world: &mut World, candidate: &Published, cases: &[Case]) -> Result<(Vec<String>, Vec<usize>)> {
    let (mut old, mut hit_before) = (Vec::new(), Vec::new());
    for (index, agent) in world.fleet.agents.iter_mut().enumerate() {
        old.push(active(agent)?.0);
        agent.kill();
        let Some(case) = cases.get(index) else { continue };
        hit_before.push(hits(&agent.folder().join("agent.log"), &case.point));
        leave(&agent.folder().join("state"), candidate, case.row.left)?;
    }
    // Hosts without a case have no part in this.
    Ok((old, hit_before))
}

fn leave(state: &Path, candidate: &Published, left: Left) -> Result<()> {
    let (blobs, length) = (state.join("blobs"), candidate.manifest.len());
    let part = blobs.join(format!("{}.part", candidate.id));
    match left {
        Left::Nothing => {}
        Left::LongPart => fs::write(part, vec![b'x'; length + 1])?,
        Left::WrongPart => fs::write(part, vec![b'x'; length])?,
        Left::WrongManifest => fs::write(state.join("manifests").join(&candidate.id), b"{}")?,
        Left::Stray => fs::write(blobs.join("stray"), b"x")?,
    }
    Ok(())
}

fn has_ended(agent: &mut Agent) -> bool {
    agent.process.as_mut().is_none_or(|process| process.has_ended().unwrap_or(false))
}

fn has_class(case: &Case, state: HostState, fault: Option<(Fault, String)>) -> Result<()> {
    let class = case.class();
    let (wanted, blamed) = match class {
        Class::Committed => (HostState::Committed, None),
        Class::RejectedRelease => (HostState::Rejected, Some(Fault::Release)),
        Class::RejectedHost => (HostState::Rejected, Some(Fault::Host)),
        Class::RolledBackRelease => (HostState::RolledBack, Some(Fault::Release)),
        Class::RolledBackHost => (HostState::RolledBack, Some(Fault::Host)),
    };
    let found = fault.as_ref().map(|(fault, _)| *fault);
    ensure!((state, found) == (wanted, blamed), "{state:?} {fault:?}, not {class:?}");
    let Some((Fault::Host, code)) = fault else { return Ok(()) };
    let codes: &[&str] = match case.action.as_str() {
        "enospc" => &["DISK_FULL"],
        _ => &["STATE_DIR_FAILED"],
    };
    let is_trust = case.point.starts_with("trusted-") && code == "TRUST_IO";
    ensure!(is_trust || codes.contains(&code.as_str()), "code {code}, not {codes:?}");
    Ok(())
}
