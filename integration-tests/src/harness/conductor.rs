//! A conductor: takes a controller's place before one agent, and has it change releases as fast as it can.
//!
//! Releases are pushed to the real controller once, which signs, stores and serves them. Afterwards the agent's stream
//! comes here, where no rollout stands between two orders; metadata and blobs still come from the controller.

use std::{collections::BTreeMap, fs, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use fleetswap_proto::{
    PROTOCOL,
    v1::{
        ConnectRequest, ConnectResponse, DesiredPlugin, DesiredState, Generation, GetBlobRequest,
        GetBlobResponse, GetMetadataRequest, GetMetadataResponse, HostState, MetadataVersions, PluginStatus,
        Release, ReportAck, TrialStatus, Welcome,
        agent_service_server::{AgentService, AgentServiceServer},
        bytes_service_client::BytesServiceClient,
        bytes_service_server::{BytesService, BytesServiceServer},
        connect_request, connect_response, desired_plugin,
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use super::{Agent, Fleet};

/// How long a host may take to carry an order out.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time that a trial may take, in milliseconds.
const HEALTHY_DEADLINE_MS: u64 = 30_000;
/// Messages that wait for the stream.
const MESSAGES_MAX: usize = 64;

/// The conductor of one agent; it ends when it is dropped.
#[derive(Debug)]
pub struct Conductor {
    hall: Hall,
    server: JoinHandle<()>,
}

/// What an agent is to run.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which release.
    pub release: Release,
    /// Whether this is the way back to it.
    pub rollback: bool,
    /// How long it must stay healthy before it is committed, in milliseconds.
    pub min_healthy_ms: u64,
}

/// What the conductor's services share.
#[derive(Clone, Debug)]
struct Hall {
    controller: Channel,
    host: Arc<watch::Sender<Host>>,
    desired: Arc<watch::Sender<Option<DesiredState>>>,
}

/// The agent as it tells of itself.
#[derive(Clone, Debug, Default)]
struct Host {
    streams: u64,
    highest: Generation,
    metadata: MetadataVersions,
    plugins: BTreeMap<String, PluginStatus>,
}

impl Conductor {
    /// Takes the controller's place before an agent of the fleet, which is started again for it.
    ///
    /// # Errors
    /// No port, or the agent does not come.
    pub async fn take_over(fleet: &mut Fleet, host: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let controller = Endpoint::from_shared(format!("http://{}", fleet.address()))?.connect_lazy();
        let hall = Hall { controller, host: Arc::default(), desired: Arc::default() };
        let router = Server::builder()
            .add_service(AgentServiceServer::new(hall.clone()))
            .add_service(BytesServiceServer::new(hall.clone()));
        let server = tokio::spawn(async move {
            // The agents of a server that can't go on say so themselves.
            drop(router.serve_with_incoming(TcpListenerStream::new(listener)).await);
        });
        let conductor = Self { hall, server };
        let honest = fleet.address().to_owned();
        let agent = fleet.agents.get_mut(host).context("an agent of this number")?;
        move_to(agent, &honest, address)?;
        conductor.wait_for("its stream", |host| (host.streams > 0).then_some(())).await?;
        Ok(conductor)
    }

    /// Gives an order, and waits for its end: committed, rejected or rolled back.
    ///
    /// # Errors
    /// The agent does not end it within a minute.
    pub async fn order(&self, order: &Order) -> Result<TrialStatus> {
        let rollout = self.tell(order);
        let plugin = &order.release.plugin;
        let ended = |host: &Host| {
            let trial = host.plugins.get(plugin)?.trial.clone()?;
            (trial.rollout_id == rollout && has_ended(trial.state())).then_some(trial)
        };
        self.wait_for(&format!("the end of {rollout} ({plugin} {})", order.release.version), ended).await
    }

    /// Waits until the agent reports the trial of an order in one of these states.
    ///
    /// # Errors
    /// It does not within a minute.
    pub async fn reached(&self, plugin: &str, rollout: &str, states: &[HostState]) -> Result<TrialStatus> {
        let reached = |host: &Host| {
            let trial = host.plugins.get(plugin)?.trial.clone()?;
            (trial.rollout_id == rollout && states.contains(&trial.state())).then_some(trial)
        };
        self.wait_for(&format!("{rollout} in {states:?}"), reached).await
    }

    /// Gives an order and does not wait. Returns the rollout under which the agent reports it.
    pub fn tell(&self, order: &Order) -> String {
        let (highest, metadata) = {
            let host = self.hall.host.borrow();
            (host.highest, host.metadata)
        };
        let mut rollout = String::new();
        self.hall.desired.send_modify(|desired| {
            let last = desired.as_ref().and_then(|desired| desired.generation).unwrap_or_default();
            let n = last.n.max(highest.n) + 1;
            rollout = format!("r-{n:06}");
            let generation = Generation { epoch: highest.epoch.max(last.epoch).max(1), n };
            let plugin = DesiredPlugin {
                plugin: order.release.plugin.clone(),
                target: Some(desired_plugin::Target::Release(order.release.clone())),
                rollout_id: rollout.clone(),
                attempt: 1,
                rollback: order.rollback,
                min_healthy_ms: order.min_healthy_ms,
                healthy_deadline_ms: HEALTHY_DEADLINE_MS,
            };
            let mut plugins = desired.take().map(|desired| desired.plugins).unwrap_or_default();
            plugins.retain(|other| other.plugin != plugin.plugin);
            plugins.push(plugin);
            *desired = Some(DesiredState { generation: Some(generation), metadata: Some(metadata), plugins });
        });
        rollout
    }

    /// What the agent last said of a plugin.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<PluginStatus> {
        self.hall.host.borrow().plugins.get(name).cloned()
    }

    async fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Host) -> Option<T>) -> Result<T> {
        let mut host = self.hall.host.subscribe();
        let wait = async {
            loop {
                if let Some(found) = look(&host.borrow_and_update()) {
                    return Some(found);
                }
                host.changed().await.ok()?;
            }
        };
        let found = timeout(PATIENCE, wait).await.ok().flatten();
        found.with_context(|| format!("the agent never reported {what}: {:?}", self.hall.host.borrow()))
    }
}

impl Drop for Conductor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

const fn has_ended(state: HostState) -> bool {
    matches!(state, HostState::Committed | HostState::Rejected | HostState::RolledBack)
}

fn move_to(agent: &mut Agent, from: &str, to: SocketAddr) -> Result<()> {
    let config = fs::read_to_string(agent.config())?;
    ensure!(config.contains(from), "the agent's config names another controller than {from}");
    fs::write(agent.config(), config.replace(from, &to.to_string()))?;
    agent.stop()?;
    agent.start()
}

impl Hall {
    fn take(&self, message: connect_request::Message) -> Option<connect_response::Message> {
        match message {
            connect_request::Message::Hello(hello) => {
                self.host.send_modify(|host| {
                    host.streams += 1;
                    host.highest = hello.highest.unwrap_or_default();
                    host.metadata = hello.metadata.unwrap_or_default();
                    host.plugins = hello.plugins.into_iter().map(|it| (it.plugin.clone(), it)).collect();
                });
                Some(connect_response::Message::Welcome(Welcome {
                    protocol: PROTOCOL,
                    controller_version: "conductor".to_owned(),
                    features: Vec::new(),
                    epoch: 1,
                    heartbeat_seconds: 1,
                }))
            }
            connect_request::Message::Report(report) => {
                if let Some(status) = report.status {
                    self.host.send_modify(|host| {
                        host.plugins.insert(status.plugin.clone(), status);
                    });
                }
                Some(connect_response::Message::Ack(ReportAck { sequence: report.sequence }))
            }
            connect_request::Message::Heartbeat(_) => None,
        }
    }

    async fn converse(
        self,
        mut inbound: Streaming<ConnectRequest>,
        outbound: mpsc::Sender<Result<ConnectResponse, Status>>,
    ) {
        let mut desired = self.desired.subscribe();
        desired.mark_changed();
        loop {
            let answer = tokio::select! {
                biased;
                message = inbound.message() => match message {
                    Ok(Some(ConnectRequest { message: Some(message) })) => self.take(message),
                    Ok(Some(ConnectRequest { message: None })) => None,
                    Ok(None) | Err(_) => return,
                },
                changed = desired.changed() => match changed {
                    Ok(()) => desired.borrow_and_update().clone().map(connect_response::Message::Desired),
                    Err(_) => return,
                },
            };
            if let Some(message) = answer
                && outbound.send(Ok(ConnectResponse { message: Some(message) })).await.is_err()
            {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl AgentService for Hall {
    type ConnectStream = ReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut inbound = request.into_inner();
        let (outbound, stream) = mpsc::channel(MESSAGES_MAX);
        // The welcome comes before everything else.
        let hello = inbound.message().await?.and_then(|first| first.message);
        let welcome = hello.and_then(|hello| self.take(hello));
        let first = Ok(ConnectResponse { message: welcome });
        outbound.send(first).await.map_err(|_| Status::internal("the stream ended early"))?;
        tokio::spawn(self.clone().converse(inbound, outbound));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl BytesService for Hall {
    type GetMetadataStream = Streaming<GetMetadataResponse>;
    type GetBlobStream = Streaming<GetBlobResponse>;

    async fn get_metadata(
        &self,
        request: Request<GetMetadataRequest>,
    ) -> Result<Response<Self::GetMetadataStream>, Status> {
        BytesServiceClient::new(self.controller.clone()).get_metadata(onward(request)).await
    }

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        BytesServiceClient::new(self.controller.clone()).get_blob(onward(request)).await
    }
}

/// The same request with the identity that it came with.
fn onward<T>(request: Request<T>) -> Request<T> {
    let (identity, _, message) = request.into_parts();
    let mut onward = Request::new(message);
    *onward.metadata_mut() = identity;
    onward
}
