//! The connection to the controller.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use fleetswap_proto::{
    Explained, address,
    v1::{
        bytes_service_client::BytesServiceClient, operator_service_client::OperatorServiceClient,
        operator_service_server::SERVICE_NAME,
    },
};
use tokio::time::timeout;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::exit::Failure;

/// How long it may take until a controller has answered for the first time, with all attempts. A controller on this
/// machine answers in milliseconds; what accepts and stays silent would be waited for as long as a call may take.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one call may take; a stream only until it begins.
const CALL_MAX: Duration = Duration::from_secs(300);
/// Largest answer, in bytes: a rollout has a line for each of its hosts, and for those that failed a record.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
/// Attempts before the controller counts as unreachable.
const ATTEMPTS: usize = 3;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(300);
/// How often a call is sent again while the controller is away: for half a minute, the time of a restart.
pub(super) const RESENDS: usize = 30;
/// Pause between two of these.
pub(super) const RESEND_PAUSE: Duration = Duration::from_secs(1);

/// A connected client.
#[derive(Clone, Debug)]
pub(super) struct Client {
    address: String,
    channel: Channel,
}

impl Client {
    /// Connects, with a few attempts, and makes sure that a controller answers. An address of another machine is
    /// refused before any socket is made.
    pub(super) async fn connect(address: &str) -> Result<Self, Failure> {
        let endpoint = endpoint(address)?;
        let attempt = || greet(&endpoint, address);
        let policy = ConstantBuilder::default().with_delay(PAUSE).with_max_times(ATTEMPTS - 1);
        let greeted = timeout(FIRST_ANSWER_MAX, attempt.retry(policy)).await;
        let channel = greeted.unwrap_or_else(|_| {
            let how = format!("it gave no answer within {} s", FIRST_ANSWER_MAX.as_secs());
            Err(Failure::not_a_controller(address, &how))
        })?;
        Ok(Self { address: address.to_owned(), channel })
    }

    /// The operator's calls.
    pub(super) fn operator(&self) -> OperatorServiceClient<Channel> {
        OperatorServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX)
    }

    /// Metadata and blobs.
    pub(super) fn bytes(&self) -> BytesServiceClient<Channel> {
        BytesServiceClient::new(self.channel.clone())
    }

    /// The controller's address.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Makes a call again while the controller is away. Only for calls that change nothing when they come twice: a
    /// request with an id is carried out once.
    pub(super) async fn resend<T, C>(&self, call: impl FnMut() -> C) -> Result<T, Failure>
    where
        C: Future<Output = Result<Response<T>, Status>>,
    {
        let mut call = call;
        let attempt = || {
            let answer = call();
            async move { answer.await.map(Response::into_inner).map_err(|status| self.failure(&status)) }
        };
        let policy = ConstantBuilder::default().with_delay(RESEND_PAUSE).with_max_times(RESENDS);
        attempt.retry(policy).when(Failure::is_away).await
    }

    /// Puts a failed call into words.
    pub(super) fn failure(&self, status: &Status) -> Failure {
        Failure::status(status, &self.address)
    }
}

/// How connections to the address are made; only to this machine as long as they carry no identity.
fn endpoint(address: &str) -> Result<Endpoint, Failure> {
    let target = address::loopback(address).map_err(|_| {
        Explained::new(
            "ADDRESS_NOT_LOOPBACK",
            format!("{address} is not a loopback address, so no connection was tried"),
            "this version has no TLS: on the way to another machine everybody could read and change what is sent",
            "name 127.0.0.1:PORT, [::1]:PORT or localhost:PORT with --controller or FLEETSWAP_CONTROLLER; reach another \
             machine through a tunnel: ssh -L 7443:127.0.0.1:7443 HOST",
        )
    })?;
    let endpoint = Endpoint::from_shared(format!("http://{target}"))
        .map_err(|error| Failure::unreachable(address, &error.to_string()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_MAX)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10)))
}

/// Connects and asks the controller how it is; whatever it says, it speaks.
async fn greet(endpoint: &Endpoint, address: &str) -> Result<Channel, Failure> {
    let channel = endpoint.connect().await.map_err(|error| Failure::unreachable(address, &causes(&error)))?;
    let question = HealthCheckRequest { service: SERVICE_NAME.to_owned() };
    let answer = HealthClient::new(channel.clone()).check(question).await;
    answer.map_err(|status| {
        let broken = std::error::Error::source(&status).map(causes);
        let how = broken.unwrap_or_else(|| format!("it answered {:?}", status.code()));
        Failure::not_a_controller(address, &how)
    })?;
    Ok(channel)
}

/// The innermost cause says what happened; the outer ones only that something did.
fn causes(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener, thread};

    use tokio::time::Instant;

    use super::{super::exit::Exit, *};

    #[test]
    fn an_address_of_another_machine_is_refused_before_there_is_a_connection() {
        for foreign in ["192.0.2.1:7443", "0.0.0.0:7443", "[2001:db8::1]:7443", "controller.example.net:7443"]
        {
            let failure = endpoint(foreign).unwrap_err();
            assert_eq!(
                (&*failure.error.code, failure.exit),
                ("ADDRESS_NOT_LOOPBACK", Exit::Usage),
                "{foreign}"
            );
        }
        for (own, dialled) in [("localhost:7443", "http://127.0.0.1:7443/"), ("[::1]:1", "http://[::1]:1/")] {
            assert_eq!(endpoint(own).unwrap().uri().to_string(), dialled);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_accepts_and_stays_silent_is_given_up_after_seconds() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let begun = Instant::now();
        let failure = Client::connect(&silent.local_addr().unwrap().to_string()).await.unwrap_err();
        assert!(begun.elapsed() <= FIRST_ANSWER_MAX + PAUSE, "{:?}", begun.elapsed());
        assert_eq!(failure.error.code, "UNREACHABLE");
        assert!(failure.error.why.starts_with("something listens there, but"), "{:?}", failure.error);
    }

    #[tokio::test]
    async fn a_server_of_another_kind_is_no_controller() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for connection in other.incoming().flatten() {
                let mut connection = connection;
                drop(connection.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
            }
        });
        let failure = Client::connect(&address).await.unwrap_err();
        assert!(failure.error.why.starts_with("something listens there, but"), "{:?}", failure.error);
    }

    fn client() -> Client {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        Client { address: "127.0.0.1:1".to_owned(), channel }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_sent_again_while_the_controller_is_away_and_not_after_an_answer() {
        let client = client();
        let mut sent = 0;
        let answer = client.resend(|| {
            sent += 1;
            std::future::ready(match sent {
                1 | 2 => Err(Status::unavailable("connection refused")),
                _ => Ok(Response::new(sent)),
            })
        });
        assert_eq!(answer.await.unwrap(), 3);
        let mut sent = 0;
        let refused = client.resend(|| {
            sent += 1;
            std::future::ready(Err::<Response<()>, _>(Status::internal("no")))
        });
        assert!(refused.await.is_err());
        assert_eq!(sent, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_stays_away_is_given_up() {
        let client = client();
        let away = client.resend(|| std::future::ready(Err::<Response<()>, _>(Status::unavailable("gone"))));
        assert_eq!(away.await.unwrap_err().error.code, "UNREACHABLE");
    }
}
