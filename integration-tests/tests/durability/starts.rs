//! The first start of an agent, failing at each step of it: the next start makes a host of it.

use std::{collections::BTreeSet, fs};

use anyhow::{Result, ensure};
use fleetswap_integration_tests::harness::{Agent, Binaries, Fleet, FleetOptions, eventually};
use tokio::runtime::Runtime;

use crate::{
    common::{PLUGIN, failpoints, hits, is_whole},
    operator::Operator,
};

/// What is only done when the state folder is made.
const FIRST: [&str; 9] = [
    "folder.make",
    "folder.sync-folder",
    "format.write",
    "format.sync",
    "format.rename",
    "host-id.write",
    "host-id.sync",
    "host-id.rename",
    "host-id.sync-folder",
];

/// The failpoints that are tried here.
pub(crate) fn points() -> BTreeSet<String> {
    FIRST.map(str::to_owned).into()
}

#[test]
fn a_first_start_that_fails_anywhere_is_followed_by_one_that_works() -> Result<()> {
    let binaries = Binaries::find()?;
    let failing = binaries.agent_with_failpoints()?;
    let mut fleet = Fleet::start(&binaries, &FleetOptions::default())?;
    let (mut agents, mut kept): (Vec<Agent>, Vec<Option<String>>) = (Vec::new(), Vec::new());
    for (point, actions) in
        failpoints(&failing)?.into_iter().filter(|(name, _)| FIRST.contains(&name.as_str()))
    {
        for action in actions {
            let mut agent = fleet.add_agent(&format!("host-{}", agents.len() + 1), "")?;
            agent.spawn_as(&failing, &[("FLEETSWAP_TEST_FAILPOINT", &format!("{point}:{action}"))])?;
            let process = agent.process.as_mut().expect("it was spawned");
            let ended = match action.as_str() {
                "short" => process.wait_for_line(" ready").map(drop),
                _ => process.wait().map(drop),
            };
            let log = agent.folder().join("agent.log");
            ensure!(ended.is_ok() && hits(&log, &point) == 1, "{point}:{action} was not hit, or did nothing");
            kept.push(fs::read_to_string(agent.folder().join("state/host-id")).ok());
            agent.kill();
            agents.push(agent);
        }
    }
    fleet.agents = agents;
    for (agent, kept) in fleet.agents.iter_mut().zip(kept) {
        agent.start()?;
        let id = fs::read_to_string(agent.folder().join("state/host-id"))?;
        ensure!(kept.is_none_or(|kept| kept == id), "the host has another id");
    }
    install_everywhere(&fleet)
}

/// Every one of them is a host like any other.
fn install_everywhere(fleet: &Fleet) -> Result<()> {
    let mut operator = Operator::of(fleet)?;
    let plugin = crate::common::subject(fleet, "1.0.0", &[])?;
    let manifest = operator.publish(fleet, &plugin)?;
    let mut rollouts = Vec::new();
    for agent in &fleet.agents {
        eventually("the host is known", || Ok(operator.push(PLUGIN, &agent.name, &manifest, 0).ok()))
            .map(|rollout| rollouts.push(rollout))?;
    }
    operator.wait_for(&rollouts)?;
    let runtime = Runtime::new()?;
    for agent in &fleet.agents {
        ensure!(is_whole(agent, &runtime)?.1 == "1.0.0", "{} does not run it", agent.name);
    }
    Ok(())
}
