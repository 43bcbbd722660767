//! The operators' service: publishing, pushes, and the views of the fleet.

use std::{pin::Pin, sync::Arc};

use fleetswap_proto::{
    Explained,
    v1::{self, operator_service_server::OperatorService},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Failed, Shared, mutate, publish, uploads, validate, views, watch};
use crate::explain;

/// The service of the operators.
pub(crate) struct Operator {
    shared: Arc<Shared>,
}

impl Operator {
    /// The service over the parts of a server.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// An answer of ours as an answer of gRPC.
fn answer<T>(result: Result<T, Explained>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| explain::status(&error))
}

/// Carries a change out to its end even if the caller goes away meanwhile: half of one would be left with the lock
/// given back.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Explained>> + Send + 'static,
) -> Result<Response<T>, Status> {
    match tokio::spawn(change).await {
        Ok(result) => answer(result),
        Err(_) => Err(Failed.into()),
    }
}

#[tonic::async_trait]
impl OperatorService for Operator {
    type WatchRolloutStream = Pin<Box<dyn Stream<Item = Result<v1::WatchRolloutResponse, Status>> + Send>>;

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let (shared, request) = (Arc::clone(&self.shared), request.into_inner());
        to_the_end(async move { publish::publish(&shared, request).await }).await
    }

    async fn stat_blob(
        &self,
        request: Request<v1::StatBlobRequest>,
    ) -> Result<Response<v1::StatBlobResponse>, Status> {
        answer(views::stat_blob(&self.shared, &request.into_inner()).await)
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::PutBlobRequest>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        uploads::put(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn get_assignment(
        &self,
        request: Request<v1::GetAssignmentRequest>,
    ) -> Result<Response<v1::GetAssignmentResponse>, Status> {
        answer(views::get_assignment(&self.shared, &request.into_inner()).await)
    }

    async fn push(&self, request: Request<v1::PushRequest>) -> Result<Response<v1::PushResponse>, Status> {
        let (shared, request) = (Arc::clone(&self.shared), request.into_inner());
        to_the_end(async move { mutate::push(&shared, request).await }).await
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::PushResponse>, Status> {
        let (shared, request) = (Arc::clone(&self.shared), request.into_inner());
        to_the_end(async move { mutate::rollback(&shared, request).await }).await
    }

    async fn get_rollout(
        &self,
        request: Request<v1::GetRolloutRequest>,
    ) -> Result<Response<v1::GetRolloutResponse>, Status> {
        answer(views::get_rollout(&self.shared, &request.into_inner()).await)
    }

    async fn watch_rollout(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        let id = validate::rollout_id("rollout_id", &request.into_inner().rollout_id);
        let id = id.map_err(|error| explain::status(&error))?;
        let states = watch::start(&self.shared, id).await.map_err(|error| explain::status(&error))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(states))))
    }

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        answer(views::get_status(&self.shared).await)
    }

    async fn list_rollouts(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        answer(views::list_rollouts(&self.shared, request.into_inner()).await)
    }

    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        answer(views::list_hosts(&self.shared, request.into_inner()).await)
    }

    async fn list_plugins(
        &self,
        _request: Request<v1::ListPluginsRequest>,
    ) -> Result<Response<v1::ListPluginsResponse>, Status> {
        answer(views::list_plugins(&self.shared).await)
    }

    async fn get_release(
        &self,
        request: Request<v1::GetReleaseRequest>,
    ) -> Result<Response<v1::GetReleaseResponse>, Status> {
        answer(views::get_release(&self.shared, &request.into_inner()).await)
    }
}
