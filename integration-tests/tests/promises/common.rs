//! What the tests have in common: a fleet, the test subject, a runtime for callers.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use fleetswap_integration_tests::harness::{
    Agent, Binaries, Caller, Fleet, FleetOptions, Plugin, Reply, compile_c, eventually, repository,
};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Arguments of a push that doesn't keep a test waiting.
pub(crate) const QUICK: [&str; 4] = ["--min-healthy-time", "200ms", "--max-parallel", "4"];
/// How long a test's caller waits.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// A fleet of so many hosts.
pub(crate) fn fleet(agents: usize) -> Result<Fleet> {
    fleet_with(agents, "")
}

/// A fleet with lines at the top of each agent's config.
pub(crate) fn fleet_with(agents: usize, agent_config: &str) -> Result<Fleet> {
    let options = FleetOptions { agents, agent_config: agent_config.to_owned() };
    Fleet::start(&Binaries::find()?, &options)
}

/// The test subject in a version, with the macros that make it misbehave.
pub(crate) fn subject(fleet: &Fleet, version: &str, defines: &[&str]) -> Result<Plugin> {
    let version_define = format!("VERSION=\"{version}\"");
    let defines = [&[version_define.as_str()], defines].concat();
    let source = repository().join("integration-tests/zoo/subject.c");
    compile_c(&source, "subject", version, &defines, &fleet.path(""))
}

/// Pushes with [`QUICK`] to all hosts for the first time.
pub(crate) fn install(fleet: &Fleet, plugin: &Plugin) -> Result<Value> {
    let outcome = fleet.push(plugin, &[&QUICK[..], &["--hosts", "all"]].concat())?.expect(0)?;
    Ok(outcome.json()?["rollout"].clone())
}

/// Runs a future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    Ok(Runtime::new().context("a runtime")?.block_on(future))
}

/// One call on a host.
pub(crate) fn call(caller: &Caller, plugin: &str, function: &str, input: &str) -> Result<Reply> {
    let input = Bytes::copy_from_slice(input.as_bytes());
    Ok(block_on(caller.call(plugin, function, input, CALL_LIMIT))??)
}

/// The version of a plugin that a host says is active; empty if there is none.
pub(crate) fn active_version(agent: &Agent, plugin: &str) -> Result<String> {
    let found = plugin_status(agent, plugin)?;
    Ok(found["active"]["version"].as_str().unwrap_or_default().to_owned())
}

/// What a host says about a plugin.
pub(crate) fn plugin_status(agent: &Agent, plugin: &str) -> Result<Value> {
    let status = agent.status()?;
    let found = status["plugins"].as_array().into_iter().flatten().find(|status| status["plugin"] == plugin);
    Ok(found.cloned().unwrap_or_default())
}

/// Waits until a host's trial of a plugin is in one of these states.
pub(crate) fn wait_for_trial(agent: &Agent, plugin: &str, states: &[&str]) -> Result<()> {
    eventually(&format!("the trial of {plugin} on {} is {states:?}", agent.name), || {
        let status = plugin_status(agent, plugin)?;
        Ok(states.iter().any(|state| status["trial"]["state"] == *state).then_some(()))
    })
}

/// Waits until the newest rollout has ended, and returns it.
pub(crate) fn wait_for_the_end(fleet: &Fleet) -> Result<Value> {
    let id = eventually("the rollout ends", || {
        let history = fleet.controller(["history", "--limit", "1", "-o", "json"])?.expect(0)?.json()?;
        let rollout = &history["rollouts"][0];
        let ended = ["SUCCEEDED", "FAILED"].iter().any(|state| rollout["state"] == *state);
        Ok(ended.then(|| rollout["rollout_id"].as_str().unwrap_or_default().to_owned()))
    })?;
    let outcome = fleet.controller(["status", &id, "-o", "json"])?;
    Ok(outcome.json()?["rollout"].clone())
}
