//! The connection to the controller.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use fleetswap_proto::v1::{
    bytes_service_client::BytesServiceClient, operator_service_client::OperatorServiceClient,
};
use tonic::transport::{Channel, Endpoint};

use super::exit::Failure;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Attempts before the controller counts as unreachable.
const ATTEMPTS: usize = 3;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(300);

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
        OperatorServiceClient::new(self.channel.clone())
    }

    /// Metadata and blobs.
    pub(super) fn bytes(&self) -> BytesServiceClient<Channel> {
        BytesServiceClient::new(self.channel.clone())
    }

    /// The controller's address.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Puts a failed call into words.
    pub(super) fn failure(&self, status: &tonic::Status) -> Failure {
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
