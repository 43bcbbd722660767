//! The operator's own connection: many rollouts, one host each, without a process for every question.

use anyhow::{Context, Result};
use fleetswap_integration_tests::harness::{Fleet, Plugin, eventually};
use fleetswap_proto::v1::{
    GetReleaseRequest, GetRolloutRequest, ListRolloutsRequest, Policy, PushRequest, Rollout, RolloutHost,
    RolloutState, operator_service_client::OperatorServiceClient,
};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// Probation, in milliseconds.
const HEALTHY_MS: u64 = 200;
/// Rollouts that are looked at together.
const ROLLOUTS_MAX: u32 = 1000;

/// Asks the controller.
#[derive(Debug)]
pub(crate) struct Operator {
    runtime: Runtime,
    client: OperatorServiceClient<Channel>,
    pushes: u32,
}

impl Operator {
    /// Of this fleet; connects when it is used.
    pub(crate) fn of(fleet: &Fleet) -> Result<Self> {
        let runtime = Runtime::new().context("a runtime")?;
        let _entered = runtime.enter();
        let channel = Endpoint::from_shared(format!("http://{}", fleet.address()))?.connect_lazy();
        let client = OperatorServiceClient::new(channel);
        drop(_entered);
        Ok(Self { runtime, client, pushes: 0 })
    }

    /// Signs and uploads a release without a rollout; returns its manifest.
    pub(crate) fn publish(&mut self, fleet: &Fleet, plugin: &Plugin) -> Result<Vec<u8>> {
        let file = plugin.file.display().to_string();
        let arguments = ["publish", &plugin.name, "--version", &plugin.version, "--artifact", &file];
        fleet.controller(arguments)?.expect(0)?;
        let request = GetReleaseRequest { plugin: plugin.name.clone(), version: plugin.version.clone() };
        let answer = self.runtime.block_on(self.client.get_release(request))?;
        Ok(answer.into_inner().manifest)
    }

    /// Starts a rollout to one host; returns its id.
    pub(crate) fn push(
        &mut self,
        plugin: &str,
        host: &str,
        manifest: &[u8],
        healthy_ms: u64,
    ) -> Result<String> {
        self.pushes += 1;
        let request = PushRequest {
            request_id: format!("7d444840-9dc0-11d1-b245-{:012}", self.pushes),
            plugin: plugin.to_owned(),
            selector: format!("name={host}"),
            manifest: manifest.to_owned(),
            policy: Some(Policy { min_healthy_ms: healthy_ms.max(HEALTHY_MS), ..Policy::default() }),
            actor: "test".to_owned(),
            ..PushRequest::default()
        };
        let answer = self.runtime.block_on(self.client.push(request))?.into_inner();
        Ok(answer.rollout.context("a rollout began")?.rollout_id)
    }

    /// The states of the newest rollouts, by id.
    pub(crate) fn states(&mut self) -> Result<Vec<(String, RolloutState)>> {
        let request = ListRolloutsRequest { page_size: ROLLOUTS_MAX, ..ListRolloutsRequest::default() };
        let answer = self.runtime.block_on(self.client.list_rollouts(request))?.into_inner();
        Ok(answer.rollouts.into_iter().map(|it| (it.rollout_id.clone(), it.state())).collect())
    }

    /// Which of these rollouts have ended.
    pub(crate) fn ended(&mut self, ids: &[String]) -> Result<Vec<bool>> {
        let states = self.states()?;
        let has_ended = |id: &String| {
            let state = states.iter().find(|(known, _)| known == id).map(|(_, state)| *state);
            matches!(state, Some(RolloutState::Succeeded | RolloutState::Failed))
        };
        Ok(ids.iter().map(has_ended).collect())
    }

    /// Waits until all of these rollouts have ended.
    pub(crate) fn wait_for(&mut self, ids: &[String]) -> Result<()> {
        eventually("the rollouts end", || Ok(self.ended(ids)?.into_iter().all(|ended| ended).then_some(())))
    }

    /// All of one rollout, and its one host.
    pub(crate) fn rollout(&mut self, id: &str) -> Result<(Rollout, RolloutHost)> {
        let request = GetRolloutRequest { rollout_id: id.to_owned() };
        let answer = self.runtime.block_on(self.client.get_rollout(request))?.into_inner();
        let rollout = answer.rollout.context("the rollout is known")?;
        let host = rollout.hosts.first().cloned().context("it has a host")?;
        Ok((rollout, host))
    }
}
