//! The gRPC services: thin adapters that validate, ask the fleet or the store, and answer.

mod agent_fields;
mod agents;
mod bytes;
mod fleet;
mod identity;
mod limits;
mod mutate;
mod operator;
mod publish;
mod sessions;
mod uploads;
mod validate;
mod views;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::middleware::map_response;
use fleetswap_proto::{
    Explained, FILE_DESCRIPTOR_SET,
    v1::{
        agent_service_server::AgentServiceServer, bytes_service_server::BytesServiceServer,
        operator_service_server::OperatorServiceServer,
    },
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::Routes};

pub(crate) use agents::HEARTBEAT_SECONDS;
pub(crate) use fleet::{Connected, Fleet, RequestKey, Session};
pub(crate) use identity::HostIdentity;

use crate::{blobs::Blobs, explain, published::Published, store::Store};

/// What the services share.
pub(crate) struct Shared {
    /// Rows.
    pub(crate) store: Arc<dyn Store>,
    /// Files by their SHA-256.
    pub(crate) blobs: Blobs,
    /// Signed metadata.
    pub(crate) published: Arc<Published>,
    /// The reconcile loop.
    pub(crate) fleet: Arc<dyn Fleet>,
    /// Held while something is published, pushed or signed anew: these are rare, and one at a time is clear.
    pub(crate) mutations: Mutex<()>,
    /// Cancelled when the server stops; every stream ends with it.
    pub(crate) stop: CancellationToken,
}

/// All services, with health and reflection.
pub(crate) async fn routes(shared: Arc<Shared>) -> Result<Routes, tonic_reflection::server::Error> {
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<OperatorServiceServer<operator::Operator>>().await;
    health.set_serving::<AgentServiceServer<agents::Agents>>().await;
    health.set_serving::<BytesServiceServer<bytes::Bytes>>().await;
    let stop = shared.stop.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        health.set_not_serving::<OperatorServiceServer<operator::Operator>>().await;
        health.set_not_serving::<AgentServiceServer<agents::Agents>>().await;
        health.set_not_serving::<BytesServiceServer<bytes::Bytes>>().await;
    });
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let operator = OperatorServiceServer::new(operator::Operator::new(Arc::clone(&shared)));
    let agents = AgentServiceServer::new(agents::Agents::new(Arc::clone(&shared)));
    let bytes = BytesServiceServer::new(bytes::Bytes::new(shared));
    let routes = Routes::new(health_server)
        .add_service(operator.max_decoding_message_size(limits::OPERATOR_MAX))
        .add_service(agents.max_decoding_message_size(limits::AGENT_MAX))
        .add_service(bytes.max_decoding_message_size(limits::BYTES_MAX))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok(Routes::from(routes.into_axum_router().layer(map_response(limits::explain))))
}

/// Runs what waits for the disk where waiting harms nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failed)
}

/// A piece of work that panicked or was dropped at the end of the program.
#[derive(Debug)]
struct Failed;

impl From<Failed> for Explained {
    fn from(_: Failed) -> Self {
        Self::new(
            "STORE_FAILED",
            "the controller could not do its work on the disk",
            "the work ended unexpectedly; the controller's log says more",
            "ask again; if it stays, start the controller again",
        )
    }
}

impl From<Failed> for Status {
    fn from(failed: Failed) -> Self {
        explain::status(&failed.into())
    }
}
