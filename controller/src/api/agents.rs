//! The agents' streams: one long-lived stream per agent; hello and reports in, desired state out.

use std::{pin::Pin, sync::Arc, time::Duration};

use fleetswap_proto::{
    Explained,
    v1::{
        self, ConnectRequest, ConnectResponse, agent_service_server::AgentService,
        connect_request::Message as In, connect_response::Message as Out,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Connected, HostIdentity, Session, Shared, agent_fields, identity::identity, limits, sessions::Sessions,
    validate,
};
use crate::explain;

/// Seconds between two signs of life of an agent.
pub(crate) const HEARTBEAT_SECONDS: u32 = 10;

/// An agent that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(3 * HEARTBEAT_SECONDS as u64);

/// The hello must come within this time.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// A message must be taken within this time.
const SEND_MAX: Duration = Duration::from_secs(30);

/// Messages that wait for the connection.
const OUTBOUND_MAX: usize = 16;

/// The service of the agents.
pub(crate) struct Agents {
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
}

impl Agents {
    /// The service over the parts of a server.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, sessions: Arc::default() }
    }
}

#[tonic::async_trait]
impl AgentService for Agents {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let host = identity(request.metadata()).map_err(|error| explain::status(&error))?;
        let (outbound, messages) = mpsc::channel(OUTBOUND_MAX);
        let link = Link { inbound: request.into_inner(), outbound, stop: self.shared.stop.clone() };
        let (shared, sessions) = (Arc::clone(&self.shared), Arc::clone(&self.sessions));
        tokio::spawn(async move { serve(&shared, &sessions, host, link).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// Both directions of one stream.
struct Link {
    inbound: Streaming<ConnectRequest>,
    outbound: mpsc::Sender<Result<ConnectResponse, Status>>,
    stop: CancellationToken,
}

impl Link {
    /// Hands a message over; `Err` ends the stream without a word, since nobody takes any.
    async fn send(&self, message: Out) -> Result<(), End> {
        let message = ConnectResponse { message: Some(message) };
        match timeout(SEND_MAX, self.outbound.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }
}

/// Why a stream ends.
enum End {
    /// The agent closed it, or is gone.
    Gone,
    /// The agent is told why.
    Told(Explained),
}

impl From<Explained> for End {
    fn from(error: Explained) -> Self {
        Self::Told(error)
    }
}

async fn serve(shared: &Shared, sessions: &Sessions, host: HostIdentity, mut link: Link) {
    let name = host.name.clone();
    match greet(shared, host, &mut link).await {
        Ok(connected) => {
            let session = connected.session.clone();
            tracing::info!(host = name, session = session.number, "agent connected");
            let replaced = sessions.take(&session);
            let end = talk(shared, connected, &replaced, &mut link).await;
            sessions.release(&session);
            shared.fleet.agent_gone(&session).await;
            finish(&name, end, &link);
        }
        Err(end) => finish(&name, end, &link),
    }
}

/// The hello, which the fleet has stored when this returns.
async fn greet(shared: &Shared, host: HostIdentity, link: &mut Link) -> Result<Connected, End> {
    let first = tokio::select! {
        () = link.stop.cancelled() => return Err(explain::stopping().into()),
        first = timeout(HELLO_MAX, link.inbound.message()) => first,
    };
    let message = first.map_err(|_| silent(HELLO_MAX))?.map_err(|status| lost(&status))?;
    let Some(In::Hello(hello)) = message.ok_or(End::Gone)?.message else {
        return Err(validate::invalid("message", "a stream begins with a hello").into());
    };
    agent_fields::hello(&hello)?;
    Ok(shared.fleet.agent_connected(host, hello).await?)
}

/// Everything after the hello, until one side ends it.
async fn talk(shared: &Shared, connected: Connected, replaced: &CancellationToken, link: &mut Link) -> End {
    let Connected { session, welcome, mut desired } = connected;
    if let Err(end) = link.send(Out::Welcome(welcome)).await {
        return end;
    }
    // What is there already is news for this stream.
    desired.mark_changed();
    let mut heard = Instant::now();
    loop {
        let step = tokio::select! {
            () = link.stop.cancelled() => Err(explain::stopping().into()),
            () = replaced.cancelled() => Err(another_session().into()),
            () = sleep_until(heard + SILENCE_MAX) => Err(silent(SILENCE_MAX).into()),
            changed = desired.changed() => match changed {
                Ok(()) => send_desired(&mut desired, link).await,
                // The fleet has let go of this stream.
                Err(_) => Err(another_session().into()),
            },
            message = link.inbound.message() => {
                heard = Instant::now();
                match message {
                    Ok(Some(message)) => take_in(shared, &session, message, link).await,
                    Ok(None) => Err(End::Gone),
                    Err(status) => Err(lost(&status)),
                }
            }
        };
        if let Err(end) = step {
            return end;
        }
    }
}

async fn send_desired(
    desired: &mut tokio::sync::watch::Receiver<Option<v1::DesiredState>>,
    link: &Link,
) -> Result<(), End> {
    let state = desired.borrow_and_update().clone();
    match state {
        Some(state) => link.send(Out::Desired(state)).await,
        None => Ok(()),
    }
}

/// One message of the agent; a report is acknowledged when it is durable.
async fn take_in(
    shared: &Shared,
    session: &Session,
    message: ConnectRequest,
    link: &Link,
) -> Result<(), End> {
    match message.message {
        Some(In::Report(report)) => {
            agent_fields::report(&report)?;
            let sequence = report.sequence;
            shared.fleet.agent_report(session, report).await?;
            link.send(Out::Ack(v1::ReportAck { sequence })).await
        }
        Some(In::Heartbeat(v1::Heartbeat {})) => {
            shared.fleet.agent_heartbeat(session);
            Ok(())
        }
        Some(In::Hello(_)) => Err(validate::invalid("message", "a stream has one hello").into()),
        None => Err(validate::invalid("message", "this controller does not know the kind of message").into()),
    }
}

/// Tells the agent why, where it can still hear it.
fn finish(host: &str, end: End, link: &Link) {
    match end {
        End::Gone => tracing::info!(host, "agent gone"),
        End::Told(error) => {
            tracing::info!(host, code = %error.code, why = error.why, "stream ended");
            // A full queue means that nobody listens.
            let _ = link.outbound.try_send(Err(explain::status(&error)));
        }
    }
}

/// A stream that broke is an agent that is gone; a message that was refused on the way in gets its reason.
fn lost(status: &Status) -> End {
    limits::explained(status).map_or(End::Gone, End::Told)
}

fn another_session() -> Explained {
    Explained::new(
        "SESSION_REPLACED",
        "another stream of this host has taken over",
        "the newest stream of a host counts; a copied state_dir makes two agents fight for it",
        "if it happens again and again, find the second agent with the same state_dir/host-id and give it a folder of its own",
    )
}

fn silent(waited: Duration) -> Explained {
    Explained::new(
        "AGENT_SILENT",
        "the agent said nothing",
        format!("nothing came for {} s", waited.as_secs()),
        "the agent connects again by itself; look at the network if it happens often",
    )
}
