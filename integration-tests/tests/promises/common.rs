//! What the tests have in common: a fleet, the test subject, a runtime for callers.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fleetswap_integration_tests::harness::{
    Agent, Binaries, Caller, Fleet, FleetOptions, Plugin, Reply, compile_c, eventually, repository,
};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Arguments of a push that doesn't keep a test waiting.
pub(crate) const QUICK: [&str; 6] =
    ["--min-healthy-time", "200ms", "--max-parallel", "4", "--health-interval", "20ms"];
/// How long a test's caller waits.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Calls after which a test believes that one release answers.
const CALLS_TO_BE_SURE: u32 = 5;

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

/// A push that the controller has acknowledged and that nobody follows.
#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    plugin: String,
    /// Its rollout.
    pub(crate) id: String,
    /// The release it brings.
    pub(crate) to: Value,
}

impl Pushed {
    /// Pushes, and doesn't wait for the end.
    pub(crate) fn detached(fleet: &Fleet, plugin: &Plugin, more: &[&str]) -> Result<Self> {
        let outcome = fleet.push(plugin, &[more, &["--detach"]].concat())?.expect(0)?;
        let rollout = &outcome.json()?["rollout"];
        let id = rollout["rollout_id"].as_str().context("the acknowledged rollout has an id")?.to_owned();
        Ok(Self { plugin: plugin.name.clone(), id, to: rollout["to"].clone() })
    }

    /// Waits until a host's trial in this very rollout is in this state: the verdict of the one before is still shown
    /// when a push begins.
    pub(crate) fn wait_for_trial(&self, agent: &Agent, state: &str) -> Result<()> {
        eventually(&format!("the trial of {} on {} is {state}", self.id, agent.name), || {
            Ok((self.trial(agent)?["state"] == state).then_some(()))
        })
    }

    /// What a host says about its trial in this rollout; `Null` if it knows none.
    pub(crate) fn trial(&self, agent: &Agent) -> Result<Value> {
        let trial = plugin_status(agent, &self.plugin)?["trial"].clone();
        let is_ours =
            trial["rollout_id"] == *self.id && trial["candidate"]["release_id"] == self.to["release_id"];
        Ok(if is_ours { trial } else { Value::Null })
    }

    /// Waits until the newest rollout has ended, which must be this one, and returns it.
    pub(crate) fn wait_for_the_end(&self, fleet: &Fleet) -> Result<Value> {
        let rollout = wait_for_the_end(fleet)?;
        ensure!(rollout["rollout_id"] == *self.id, "{} was acknowledged, and forgotten: {rollout}", self.id);
        ensure!(rollout["to"] == self.to, "{} brings another release than acknowledged: {rollout}", self.id);
        Ok(rollout)
    }
}

/// Waits until a host runs exactly this release of the test subject: it says so, and calls are answered by it.
pub(crate) fn runs(agent: &Agent, release: &Value) -> Result<()> {
    let version = &release["version"];
    eventually(&format!("{} runs {version}", agent.name), || {
        let active = plugin_status(agent, "subject")?["active"]["release_id"].clone();
        Ok((active == release["release_id"]).then_some(()))
    })?;
    for _ in 0..CALLS_TO_BE_SURE {
        let reply = call(&agent.caller(), "subject", "echo", "")?;
        ensure!(reply.status == 200, "{reply:?}");
        ensure!(
            reply.release == release["release_id"] && reply.version == *version,
            "{reply:?}, not {release}"
        );
        ensure!(reply.body == *version, "the library is that of {}, not of {version}", reply.body);
    }
    Ok(())
}

/// Waits until a host's trial of a plugin is in one of these states, of those that a trial passes on its way.
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
