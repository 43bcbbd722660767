//! The one stream to the controller: what the host should run comes in, how it stands goes out.
//!
//! Nothing here decides anything. A stream that breaks is opened again, for ever; what the host runs goes on meanwhile.

mod backoff;
mod facts;
mod hello;
mod reports;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use fleetswap_proto::{
    Explained, HOST_ID_KEY, HOST_NAME_KEY, PROTOCOL,
    v1::{self, agent_service_client::AgentServiceClient, connect_request, connect_response},
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::explain::root_cause;
use backoff::Backoff;
use reports::Reports;

pub(crate) use facts::host_facts;

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// HTTP/2 pings, also while idle, and how long an answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Messages that wait to be sent; more make the writer wait.
const OUTBOUND_MAX: usize = 64;
/// Shortest and longest heartbeat interval that a welcome may ask for, in seconds.
const HEARTBEAT_SECONDS: (u32, u32) = (1, 300);
/// Heartbeat interval if the welcome names none, in seconds.
const HEARTBEAT_DEFAULT: u32 = 10;

/// Who this host is, in the metadata of every request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    id: MetadataValue<Ascii>,
    name: MetadataValue<Ascii>,
}

impl Identity {
    /// `None` if one of the two has characters that a header can't carry.
    pub(crate) fn new(id: &str, name: &str) -> Option<Self> {
        Some(Self { id: id.parse().ok()?, name: name.parse().ok()? })
    }

    /// A request from this host.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(HOST_ID_KEY, self.id.clone());
        request.metadata_mut().insert(HOST_NAME_KEY, self.name.clone());
        request
    }
}

/// How to reach a controller; each stream and the bytes use a connection of their own.
pub(crate) fn endpoint(controller: SocketAddr) -> Endpoint {
    Endpoint::from(http_uri(controller))
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

fn http_uri(controller: SocketAddr) -> tonic::transport::Uri {
    let authority = controller.to_string();
    let parts = tonic::transport::Uri::builder().scheme("http").authority(authority).path_and_query("/");
    parts.build().expect("a socket address is a valid authority")
}

/// How the host stands, as the controller should see it: reports follow from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Standing {
    /// Highest generation that the host has accepted.
    pub(crate) highest: v1::Generation,
    /// Versions of the metadata that the host has accepted.
    pub(crate) metadata: v1::MetadataVersions,
    /// Every plugin that the host knows.
    pub(crate) plugins: BTreeMap<String, v1::PluginStatus>,
    /// Nothing is started: the agent runs with --safe.
    pub(crate) safe_mode: bool,
}

/// Whether there is a stream, for `agent status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct LinkState {
    /// A welcome has come and the stream is open.
    pub(crate) connected: bool,
    /// The controller's version; empty before the first welcome.
    pub(crate) controller_version: String,
    /// Why the last stream ended or could not be opened; empty if none did.
    pub(crate) last_error: String,
}

/// What the link reads and what it feeds.
#[derive(Debug)]
pub(crate) struct Ends {
    /// How the host stands now.
    pub(crate) standing: watch::Receiver<Standing>,
    /// What the host should run; only ever a higher generation than before.
    pub(crate) desired: watch::Sender<Option<v1::DesiredState>>,
    /// Whether there is a stream.
    pub(crate) state: watch::Sender<LinkState>,
}

/// What stays the same over all streams.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) endpoint: Endpoint,
    pub(crate) identity: Identity,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) facts: v1::HostFacts,
    timing: Timing,
}

/// Waits that tests shorten.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// First and longest ceiling of the wait between two streams.
    backoff: (Duration, Duration),
    /// A stream that lived this long starts the backoff anew.
    healthy: Duration,
    /// Longest wait for the welcome.
    welcome: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            healthy: Duration::from_secs(60),
            welcome: Duration::from_secs(10),
        }
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("no connection to the controller: {}", root_cause(.0))]
    Connect(tonic::transport::Error),
    #[error("{}", told(.0))]
    Refused(Box<Status>),
    #[error("the controller closed the stream")]
    Closed,
    #[error("the controller sent no welcome in time")]
    NoWelcome,
    #[error("the controller's first message is not a welcome")]
    NotAWelcome,
    #[error(
        "the controller speaks protocol {theirs} and this agent {PROTOCOL}; upgrade the older of the two \
         (PROTOCOL_MISMATCH, docs/errors/PROTOCOL_MISMATCH.md)"
    )]
    Protocol { theirs: u32 },
}

impl Link {
    pub(crate) fn new(
        controller: SocketAddr,
        identity: Identity,
        labels: BTreeMap<String, String>,
        facts: v1::HostFacts,
    ) -> Self {
        Self { endpoint: endpoint(controller), identity, labels, facts, timing: Timing::default() }
    }

    /// Holds a stream until `stop`; opens it again whenever it ends.
    pub(crate) async fn run(self, mut ends: Ends, stop: CancellationToken) {
        let mut backoff = Backoff::new(self.timing.backoff);
        while !stop.is_cancelled() {
            let started = Instant::now();
            let error = tokio::select! {
                () = stop.cancelled() => return,
                ended = Box::pin(self.stream(&mut ends)) => ended,
            };
            if started.elapsed() >= self.timing.healthy {
                backoff = Backoff::new(self.timing.backoff);
            }
            let wait = backoff.next_wait();
            note(&ends, &error, wait);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// One stream, from hello to its end.
    async fn stream(&self, ends: &mut Ends) -> LinkError {
        let mut session = match self.open(ends).await {
            Ok(session) => session,
            Err(error) => return error,
        };
        match session.run(ends).await {
            Ok(()) => LinkError::Closed,
            Err(error) => error,
        }
    }

    async fn open(&self, ends: &mut Ends) -> Result<Session, LinkError> {
        let channel = self.endpoint.connect().await.map_err(LinkError::Connect)?;
        let standing = hello::within_bounds(ends.standing.borrow_and_update().clone());
        let (sender, outbound) = mpsc::channel(OUTBOUND_MAX);
        let hello = connect_request::Message::Hello(self.hello(&standing));
        send(&sender, hello).await?;
        let (inbound, welcome) = self.welcomed(channel, outbound).await?;
        tracing::info!(
            controller_version = welcome.controller_version,
            epoch = welcome.epoch,
            "controller connected"
        );
        ends.state.send_modify(|state| {
            state.connected = true;
            state.controller_version.clone_from(&welcome.controller_version);
            state.last_error.clear();
        });
        let heartbeat = heartbeat(welcome.heartbeat_seconds);
        Ok(Session { sender, inbound, heartbeat, reports: Reports::after_hello(standing) })
    }

    async fn welcomed(
        &self,
        channel: Channel,
        outbound: mpsc::Receiver<v1::ConnectRequest>,
    ) -> Result<(Streaming<v1::ConnectResponse>, v1::Welcome), LinkError> {
        let request = self.identity.request(ReceiverStream::new(outbound));
        let first = async {
            let mut inbound = AgentServiceClient::new(channel).connect(request).await?.into_inner();
            let message = inbound.message().await?;
            Ok::<_, Status>((inbound, message))
        };
        let (inbound, first) =
            timeout(self.timing.welcome, first).await.map_err(|_| LinkError::NoWelcome)?.map_err(refused)?;
        match first.ok_or(LinkError::Closed)?.message {
            Some(connect_response::Message::Welcome(welcome)) if welcome.protocol == PROTOCOL => {
                Ok((inbound, welcome))
            }
            Some(connect_response::Message::Welcome(welcome)) => {
                Err(LinkError::Protocol { theirs: welcome.protocol })
            }
            _ => Err(LinkError::NotAWelcome),
        }
    }

    /// Everything that the controller must know of the host, complete.
    fn hello(&self, standing: &Standing) -> v1::Hello {
        v1::Hello {
            protocol: PROTOCOL,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            features: Vec::new(),
            session: Uuid::new_v4().to_string(),
            highest: Some(standing.highest),
            metadata: Some(standing.metadata),
            audit_head: None,
            facts: Some(self.facts.clone()),
            labels: self.labels.clone().into_iter().collect(),
            plugins: standing.plugins.values().cloned().collect(),
            safe_mode: standing.safe_mode,
        }
    }
}

/// A stream after its welcome.
struct Session {
    sender: mpsc::Sender<v1::ConnectRequest>,
    inbound: Streaming<v1::ConnectResponse>,
    heartbeat: Duration,
    reports: Reports,
}

impl Session {
    /// Until the stream ends.
    async fn run(&mut self, ends: &mut Ends) -> Result<(), LinkError> {
        let mut beat = interval(self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        // What the hello had no room for.
        self.report(ends).await?;
        loop {
            tokio::select! {
                message = self.inbound.next() => match message {
                    Some(message) => self.take(message.map_err(refused)?, ends),
                    None => return Ok(()),
                },
                changed = ends.standing.changed() => {
                    changed.map_err(|_| LinkError::Closed)?;
                    self.report(ends).await?;
                }
                _ = beat.tick() => self.beat().await?,
            }
        }
    }

    fn take(&mut self, response: v1::ConnectResponse, ends: &Ends) {
        match response.message {
            Some(connect_response::Message::Desired(desired)) => pass_on(desired, ends),
            Some(connect_response::Message::Ack(ack)) => self.reports.acknowledge(ack.sequence),
            Some(connect_response::Message::Welcome(_)) => tracing::debug!("a second welcome is ignored"),
            None => tracing::debug!("a message that this version does not know is ignored"),
        }
    }

    async fn report(&mut self, ends: &mut Ends) -> Result<(), LinkError> {
        let due = self.reports.due(&ends.standing.borrow_and_update());
        for report in due {
            send(&self.sender, connect_request::Message::Report(report)).await?;
        }
        Ok(())
    }

    /// A sign of life, and again whatever was not acknowledged.
    async fn beat(&self) -> Result<(), LinkError> {
        send(&self.sender, connect_request::Message::Heartbeat(v1::Heartbeat {})).await?;
        for report in self.reports.unacknowledged() {
            send(&self.sender, connect_request::Message::Report(report)).await?;
        }
        Ok(())
    }
}

fn heartbeat(seconds: u32) -> Duration {
    let seconds = if seconds == 0 { HEARTBEAT_DEFAULT } else { seconds };
    Duration::from_secs(seconds.clamp(HEARTBEAT_SECONDS.0, HEARTBEAT_SECONDS.1).into())
}

async fn send(
    sender: &mpsc::Sender<v1::ConnectRequest>,
    message: connect_request::Message,
) -> Result<(), LinkError> {
    sender.send(v1::ConnectRequest { message: Some(message) }).await.map_err(|_| LinkError::Closed)
}

/// Hands on what the host should run, unless it was told something newer before.
fn pass_on(desired: v1::DesiredState, ends: &Ends) {
    let order = |generation: &v1::Generation| (generation.epoch, generation.n);
    let told = desired.generation.unwrap_or_default();
    let accepted = order(&ends.standing.borrow().highest);
    let passed_on = ends.desired.borrow().as_ref().and_then(|desired| desired.generation);
    let highest = passed_on.as_ref().map_or(accepted, |passed_on| accepted.max(order(passed_on)));
    if order(&told) < highest {
        tracing::warn!(
            epoch = told.epoch,
            n = told.n,
            highest_epoch = highest.0,
            highest_n = highest.1,
            "a lower generation than before is refused; is the controller's store behind?"
        );
        return;
    }
    ends.desired.send_replace(Some(desired));
}

fn note(ends: &Ends, error: &LinkError, wait: Duration) {
    let (words, wait_ms) = (error.to_string(), u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    if matches!(error, LinkError::Protocol { .. }) {
        tracing::error!(error = words, wait_ms, "the controller can't be used");
    } else {
        tracing::warn!(error = words, wait_ms, "no controller; the plugins go on");
    }
    ends.state.send_modify(|state| {
        state.connected = false;
        state.last_error = words;
    });
}

fn refused(status: Status) -> LinkError {
    LinkError::Refused(Box::new(status))
}

/// The controller's own words where it sent some.
fn told(status: &Status) -> String {
    match Explained::from_status(status) {
        Some(error) => format!("{}: {}; {}; {}", error.code, error.what, error.why, error.fix),
        None => format!("the stream broke: {}", status.message()),
    }
}

#[cfg(test)]
mod tests;
