//! The connection to the controller.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use fleetswap_proto::v1::{
    bytes_service_client::BytesServiceClient, operator_service_client::OperatorServiceClient,
};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use super::exit::Failure;

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
    /// Connects, with a few attempts.
    pub(super) async fn connect(address: &str) -> Result<Self, Failure> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Failure::unreachable(address, &error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_MAX)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        let policy = ConstantBuilder::default().with_delay(PAUSE).with_max_times(ATTEMPTS - 1);
        let channel = (|| endpoint.connect())
            .retry(policy)
            .await
            .map_err(|error| Failure::unreachable(address, &causes(&error)))?;
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
    use super::*;

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
