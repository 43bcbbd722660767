//! The conductor: stands in for the controller of one host, and tells it what to run as fast as it reports.
//!
//! A rollout of the real controller takes half a second and more; hundreds of swaps in a test need a faster hand. Releases
//! are published once with the real controller, which goes on to serve metadata and blobs: only the deciding is replaced.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use fleetswap_proto::v1::{
    ConnectRequest, ConnectResponse, DesiredPlugin, DesiredState, Generation, GetBlobRequest,
    GetBlobResponse, GetMetadataRequest, GetMetadataResponse, HostState, PluginStatus, Release, ReportAck,
    TrialStatus, Welcome,
    agent_service_server::{AgentService, AgentServiceServer},
    bytes_service_client::BytesServiceClient,
    bytes_service_server::{BytesService, BytesServiceServer},
    connect_request, connect_response, desired_plugin,
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::{
    StreamExt,
    wrappers::{TcpListenerStream, UnboundedReceiverStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use super::{Agent, Fleet, Plugin};

/// Longest wait for a verdict.
const PATIENCE: Duration = Duration::from_secs(60);

/// A conductor; it ends with the runtime that it runs on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Conductor {
    address: String,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    controller: Channel,
    score: Mutex<Score>,
    /// How the host's plugins stand, as it reported last.
    plugins: watch::Sender<BTreeMap<String, PluginStatus>>,
}

/// What the host was told.
#[derive(Debug, Default)]
struct Score {
    n: u64,
    desired: DesiredState,
    /// Of the newest stream.
    session: Option<mpsc::UnboundedSender<Result<ConnectResponse, Status>>>,
}

/// A release that was published.
#[derive(Clone, Debug, PartialEq)]
pub struct Published(pub Release);

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// It leads to a release that ran before.
    pub rollback: bool,
    /// Length of the probation, in milliseconds.
    pub min_healthy_ms: u64,
}

impl Conductor {
    /// Starts on a loopback port, before a fleet's controller.
    ///
    /// # Errors
    /// There is no port.
    pub fn start(runtime: &Runtime, fleet: &Fleet) -> Result<Self> {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?.to_string();
        let endpoint = Endpoint::from_shared(format!("http://{}", fleet.address()))?;
        let controller = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        let inner =
            Inner { controller, score: Mutex::default(), plugins: watch::Sender::new(BTreeMap::new()) };
        let conductor = Self { address, inner: Arc::new(inner) };
        let router = Server::builder()
            .add_service(AgentServiceServer::new(conductor.clone()))
            .add_service(BytesServiceServer::new(conductor.clone()));
        runtime.spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(conductor)
    }

    /// Publishes a release with the fleet's controller; `more` are arguments of `controller publish`.
    ///
    /// # Errors
    /// It is refused.
    pub fn publish(fleet: &Fleet, plugin: &Plugin, more: &[&str]) -> Result<Published> {
        let mut arguments = Fleet::push_arguments(plugin, more);
        arguments[0] = "publish".to_owned();
        arguments.extend(["-o".to_owned(), "json".to_owned()]);
        let release = fleet.controller(arguments)?.expect(0)?.json()?["release"].clone();
        let text = |field: &str| release[field].as_str().unwrap_or_default().to_owned();
        Ok(Published(Release {
            plugin: text("plugin"),
            version: text("version"),
            revision: release["revision"].as_u64().context("a revision")?,
            release_id: text("release_id"),
        }))
    }

    /// The config of a host that isn't started yet: from its start on, it is told by this conductor.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn take_over(&self, fleet: &Fleet, agent: &Agent) -> Result<()> {
        let config = fs::read_to_string(agent.config())?.replace(fleet.address(), &self.address);
        fs::write(agent.config(), config).context("writing the config")
    }

    /// Tells the host to run a release; returns the id by which its verdict is known.
    #[must_use]
    pub fn tell(&self, release: &Published, order: Order) -> String {
        let mut score = self.score();
        score.n += 1;
        let rollout_id = format!("c-{:06}", score.n);
        let plugin = DesiredPlugin {
            plugin: release.0.plugin.clone(),
            target: Some(desired_plugin::Target::Release(release.0.clone())),
            rollout_id: rollout_id.clone(),
            attempt: 1,
            rollback: order.rollback,
            min_healthy_ms: order.min_healthy_ms,
            healthy_deadline_ms: 0,
        };
        let generation = Some(Generation { epoch: 1, n: score.n });
        score.desired.generation = generation;
        score.desired.plugins.retain(|other| other.plugin != plugin.plugin);
        score.desired.plugins.push(plugin);
        let message = connect_response::Message::Desired(score.desired.clone());
        score.send(message);
        rollout_id
    }

    /// Waits until the trial of this id has ended on the host.
    ///
    /// # Errors
    /// It has not within a minute.
    pub async fn verdict(&self, plugin: &str, id: &str) -> Result<TrialStatus> {
        self.trial(plugin, id, |state| {
            matches!(state, HostState::Committed | HostState::RolledBack | HostState::Rejected)
        })
        .await
    }

    /// Waits until the trial of this id is in a state that `is` accepts.
    ///
    /// # Errors
    /// It is not within a minute.
    pub async fn trial(&self, plugin: &str, id: &str, is: impl Fn(HostState) -> bool) -> Result<TrialStatus> {
        let mut plugins = self.inner.plugins.subscribe();
        let found = |plugins: &BTreeMap<String, PluginStatus>| {
            let trial = plugins.get(plugin)?.trial.clone()?;
            (trial.rollout_id == id && is(trial.state())).then_some(trial)
        };
        let seen = timeout(PATIENCE, plugins.wait_for(|plugins| found(plugins).is_some())).await;
        match seen {
            Ok(plugins) => found(&*plugins?).context("it was there"),
            Err(_) => bail!("no such report of {id}; the last is {:?}", self.inner.plugins.borrow()),
        }
    }

    /// How a plugin stood when the host reported it last.
    #[must_use]
    pub fn status(&self, plugin: &str) -> Option<PluginStatus> {
        self.inner.plugins.borrow().get(plugin).cloned()
    }

    fn score(&self) -> MutexGuard<'_, Score> {
        self.inner.score.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in one message of a host.
    fn hear(&self, message: connect_request::Message) {
        match message {
            connect_request::Message::Hello(hello) => {
                let told = hello.plugins.into_iter().map(|status| (status.plugin.clone(), status));
                self.inner.plugins.send_replace(told.collect());
            }
            connect_request::Message::Report(report) => {
                self.score().send(connect_response::Message::Ack(ReportAck { sequence: report.sequence }));
                if let Some(status) = report.status {
                    self.inner.plugins.send_modify(|plugins| {
                        plugins.insert(status.plugin.clone(), status);
                    });
                }
            }
            connect_request::Message::Heartbeat(_) => {}
        }
    }
}

impl Score {
    fn send(&self, message: connect_response::Message) {
        if let Some(session) = &self.session {
            // A host that is gone is told again when it comes back.
            drop(session.send(Ok(ConnectResponse { message: Some(message) })));
        }
    }
}

#[tonic::async_trait]
impl AgentService for Conductor {
    type ConnectStream = UnboundedReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut messages = request.into_inner();
        let (session, outbound) = mpsc::unbounded_channel();
        {
            let mut score = self.score();
            score.session = Some(session);
            score.send(connect_response::Message::Welcome(Welcome {
                protocol: fleetswap_proto::PROTOCOL,
                controller_version: env!("CARGO_PKG_VERSION").to_owned(),
                features: Vec::new(),
                epoch: 1,
                heartbeat_seconds: 10,
            }));
            if score.n > 0 {
                score.send(connect_response::Message::Desired(score.desired.clone()));
            }
        }
        let conductor = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(request)) = messages.next().await {
                if let Some(message) = request.message {
                    conductor.hear(message);
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(outbound)))
    }
}

#[tonic::async_trait]
impl BytesService for Conductor {
    type GetMetadataStream = Streaming<GetMetadataResponse>;
    type GetBlobStream = Streaming<GetBlobResponse>;

    async fn get_metadata(
        &self,
        request: Request<GetMetadataRequest>,
    ) -> Result<Response<Self::GetMetadataStream>, Status> {
        BytesServiceClient::new(self.inner.controller.clone()).get_metadata(request).await
    }

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        BytesServiceClient::new(self.inner.controller.clone()).get_blob(request).await
    }
}
