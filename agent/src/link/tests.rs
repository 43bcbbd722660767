//! The stream, against a controller that each test scripts.

use std::{pin::Pin, sync::Arc};

use fleetswap_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use tokio::{net::TcpListener, sync::Mutex};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Response, transport::Server};

use super::*;

type Responses = mpsc::Sender<Result<v1::ConnectResponse, Status>>;

/// One stream as the controller has it.
struct Accepted {
    requests: Streaming<v1::ConnectRequest>,
    responses: Responses,
    host_id: String,
}

/// Hands every accepted stream to the test.
struct Scripted {
    accepted: mpsc::Sender<Accepted>,
}

#[tonic::async_trait]
impl AgentService for Scripted {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<v1::ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let host_id = request.metadata().get(HOST_ID_KEY).unwrap().to_str().unwrap().to_owned();
        let (responses, outbound) = mpsc::channel(16);
        let accepted = Accepted { requests: request.into_inner(), responses, host_id };
        self.accepted.send(accepted).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }
}

/// A link that runs, and the controller's side of it.
struct World {
    standing: watch::Sender<Standing>,
    desired: watch::Receiver<Option<v1::DesiredState>>,
    state: watch::Receiver<LinkState>,
    accepted: Mutex<mpsc::Receiver<Accepted>>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn world(standing: Standing) -> Arc<World> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, accepted) = mpsc::channel(4);
    let service = AgentServiceServer::new(Scripted { accepted: sender });
    tokio::spawn(
        Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let (standing, standing_seen) = watch::channel(standing);
    let (desired_sender, desired) = watch::channel(None);
    let (state_sender, state) = watch::channel(LinkState::default());
    let identity = Identity::new("id-1", "host-1").unwrap();
    let labels = BTreeMap::from([("zone".to_owned(), "eu".to_owned())]);
    let mut link = Link::new(address, identity, labels, host_facts("standard"));
    link.timing.backoff = (Duration::from_millis(1), Duration::from_millis(2));
    link.timing.welcome = Duration::from_secs(1);
    let stop = CancellationToken::new();
    tokio::spawn(
        link.run(
            Ends { standing: standing_seen, desired: desired_sender, state: state_sender },
            stop.clone(),
        ),
    );
    Arc::new(World { standing, desired, state, accepted: Mutex::new(accepted), stop })
}

impl World {
    async fn stream(&self) -> (Accepted, v1::Hello) {
        let mut accepted = self.accepted.lock().await.recv().await.unwrap();
        match accepted.next().await {
            Some(connect_request::Message::Hello(hello)) => (accepted, hello),
            other => panic!("wanted a hello, got {other:?}"),
        }
    }

    async fn welcomed(&self) -> Accepted {
        let (accepted, _) = self.stream().await;
        accepted.welcome(PROTOCOL, 1).await;
        accepted
    }
}

impl Accepted {
    async fn next(&mut self) -> Option<connect_request::Message> {
        self.requests.message().await.ok().flatten().and_then(|request| request.message)
    }

    async fn report(&mut self) -> v1::Report {
        loop {
            match self.next().await.expect("the stream must be open") {
                connect_request::Message::Report(report) => return report,
                connect_request::Message::Heartbeat(_) => {}
                connect_request::Message::Hello(_) => panic!("a second hello"),
            }
        }
    }

    async fn say(&self, message: connect_response::Message) {
        self.responses.send(Ok(v1::ConnectResponse { message: Some(message) })).await.unwrap();
    }

    async fn welcome(&self, protocol: u32, heartbeat_seconds: u32) {
        let welcome = v1::Welcome { protocol, heartbeat_seconds, epoch: 1, ..v1::Welcome::default() };
        self.say(connect_response::Message::Welcome(welcome)).await;
    }

    async fn desire(&self, epoch: u64, n: u64) {
        let generation = Some(v1::Generation { epoch, n });
        let desired = v1::DesiredState { generation, ..v1::DesiredState::default() };
        self.say(connect_response::Message::Desired(desired)).await;
    }
}

fn standing(n: u64, service: v1::ServiceState) -> Standing {
    let status = v1::PluginStatus {
        plugin: "clock".to_owned(),
        service: service.into(),
        ..v1::PluginStatus::default()
    };
    let plugins = BTreeMap::from([("clock".to_owned(), status)]);
    Standing { highest: v1::Generation { epoch: 1, n }, plugins, ..Standing::default() }
}

#[tokio::test]
async fn the_hello_tells_everything_and_says_who_speaks() {
    let world = world(standing(7, v1::ServiceState::Serving)).await;
    let (accepted, hello) = world.stream().await;
    assert_eq!((accepted.host_id.as_str(), hello.protocol), ("id-1", PROTOCOL));
    assert_eq!(hello.highest, Some(v1::Generation { epoch: 1, n: 7 }));
    assert_eq!((hello.plugins.len(), hello.labels["zone"].as_str()), (1, "eu"));
    assert_eq!(hello.facts.unwrap().sandbox, "standard");
    accepted.welcome(PROTOCOL, 10).await;
    let mut state = world.state.clone();
    state.wait_for(|state| state.connected).await.unwrap();
}

fn n(desired: &Option<v1::DesiredState>) -> Option<u64> {
    desired.as_ref().and_then(|desired| desired.generation).map(|generation| generation.n)
}

#[tokio::test]
async fn what_the_host_should_run_is_passed_on() {
    let world = world(standing(7, v1::ServiceState::Serving)).await;
    let accepted = world.welcomed().await;
    let mut desired = world.desired.clone();
    accepted.desire(1, 8).await;
    desired.wait_for(|desired| n(desired) == Some(8)).await.unwrap();
}

#[test]
fn a_lower_generation_is_never_passed_on() {
    let ends = Ends {
        standing: watch::channel(standing(7, v1::ServiceState::Serving)).1,
        desired: watch::channel(None).0,
        state: watch::channel(LinkState::default()).0,
    };
    let told = |epoch, told| {
        let generation = Some(v1::Generation { epoch, n: told });
        pass_on(v1::DesiredState { generation, ..v1::DesiredState::default() }, &ends);
        n(&ends.desired.borrow())
    };
    assert_eq!(told(1, 6), None, "lower than what the host has accepted");
    assert_eq!(told(1, 7), Some(7), "the same again is harmless");
    assert_eq!(told(1, 9), Some(9));
    assert_eq!(told(1, 8), Some(9), "lower than what was passed on");
    assert_eq!(told(0, 99), Some(9), "an older epoch is lower whatever its number");
    assert_eq!(told(2, 1), Some(1));
}

#[tokio::test]
async fn a_report_is_sent_again_until_it_is_acknowledged() {
    let world = world(standing(1, v1::ServiceState::Serving)).await;
    let mut accepted = world.welcomed().await;
    world.standing.send(standing(1, v1::ServiceState::Restarting)).unwrap();
    let first = accepted.report().await;
    assert_eq!(first.status.as_ref().unwrap().service(), v1::ServiceState::Restarting);
    assert_eq!(accepted.report().await, first, "the next heartbeat brings it again");
    accepted.say(connect_response::Message::Ack(v1::ReportAck { sequence: first.sequence })).await;
    world.standing.send(standing(1, v1::ServiceState::Serving)).unwrap();
    let second = loop {
        let report = accepted.report().await;
        if report != first {
            break report;
        }
    };
    assert_eq!(accepted.report().await, second, "only what is not acknowledged comes again");
}

#[tokio::test]
async fn after_a_break_a_new_session_tells_the_newest() {
    let world = world(standing(1, v1::ServiceState::Serving)).await;
    let (accepted, first) = world.stream().await;
    accepted.welcome(PROTOCOL, 10).await;
    drop(accepted);
    world.standing.send(standing(2, v1::ServiceState::Down)).unwrap();
    let second = loop {
        let (accepted, hello) = world.stream().await;
        if hello.highest.unwrap().n == 2 {
            break hello;
        }
        drop(accepted);
    };
    assert_ne!(first.session, second.session);
    assert_eq!(second.plugins[0].service(), v1::ServiceState::Down);
}

#[tokio::test]
async fn another_protocol_is_refused_with_the_reason() {
    let world = world(Standing::default()).await;
    let (accepted, _) = world.stream().await;
    accepted.welcome(PROTOCOL + 1, 10).await;
    accepted.desire(1, 1).await;
    let mut state = world.state.clone();
    state.wait_for(|state| state.last_error.contains("PROTOCOL_MISMATCH")).await.unwrap();
    assert!(world.desired.borrow().is_none());
}

#[tokio::test]
async fn a_controller_that_says_nothing_or_something_else_first_is_left() {
    let world = world(Standing::default()).await;
    let mut state = world.state.clone();
    let (_silent, _) = world.stream().await;
    state.wait_for(|state| state.last_error.contains("no welcome in time")).await.unwrap();
    let (accepted, _) = world.stream().await;
    accepted.desire(1, 1).await;
    state.wait_for(|state| state.last_error.contains("not a welcome")).await.unwrap();
    assert!(world.desired.borrow().is_none());
}

#[tokio::test]
async fn the_controllers_own_words_of_refusal_are_kept() {
    let world = world(Standing::default()).await;
    let (accepted, _) = world.stream().await;
    let error = Explained::new("HOST_REFUSED", "this host is unknown", "it was removed", "join again");
    accepted.responses.send(Err(error.to_status(tonic::Code::PermissionDenied))).await.unwrap();
    let mut state = world.state.clone();
    state.wait_for(|state| state.last_error.contains("HOST_REFUSED")).await.unwrap();
}

#[tokio::test]
async fn what_the_hello_has_no_room_for_is_reported_right_after() {
    let mut large = standing(1, v1::ServiceState::Serving);
    let clock = large.plugins.get_mut("clock").unwrap();
    let failure = v1::Failure { log_tail: "x".repeat(3 * 1024 * 1024), ..v1::Failure::default() };
    clock.trial = Some(v1::TrialStatus { failure: Some(failure), ..v1::TrialStatus::default() });
    let whole = large.plugins["clock"].clone();
    let world = world(large).await;
    let (mut accepted, hello) = world.stream().await;
    assert_eq!((hello.plugins[0] == whole, hello.plugins[0].service()), (false, whole.service()));
    accepted.welcome(PROTOCOL, 300).await;
    let report = timeout(Duration::from_secs(5), accepted.report()).await.expect("a report");
    assert_eq!(report.status, Some(whole));
}
