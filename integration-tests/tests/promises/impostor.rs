//! A man in the middle: he stands between an agent and its controller and changes what passes.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use fleetswap_integration_tests::harness::Fleet;
use fleetswap_proto::v1::{
    ConnectRequest, ConnectResponse, GetBlobRequest, GetBlobResponse, GetMetadataRequest,
    GetMetadataResponse,
    agent_service_client::AgentServiceClient,
    agent_service_server::{AgentService, AgentServiceServer},
    bytes_service_client::BytesServiceClient,
    bytes_service_server::{BytesService, BytesServiceServer},
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::{
    Iter, StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

/// Changes a metadata file; the first argument is its name.
type MetadataLie = Box<dyn Fn(&str, Vec<u8>) -> Vec<u8> + Send>;
/// Changes a blob; the first argument is its SHA-256.
type BlobLie = Box<dyn Fn(&str, Vec<u8>) -> Vec<u8> + Send>;

/// What he does, and what he has seen.
#[derive(Default)]
pub(crate) struct Lies {
    pub(crate) metadata: Option<MetadataLie>,
    pub(crate) blob: Option<BlobLie>,
    /// The last honest metadata files, by name.
    pub(crate) seen: Vec<(String, Vec<u8>)>,
}

/// The man in the middle; he ends with the runtime that he runs on.
#[derive(Clone)]
pub(crate) struct Impostor {
    controller: Channel,
    pub(crate) lies: Arc<Mutex<Lies>>,
}

impl Impostor {
    /// Steps between the fleet's first agent and the controller.
    pub(crate) fn step_between(runtime: &Runtime, fleet: &mut Fleet) -> Result<Self> {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let endpoint = Endpoint::from_shared(format!("http://{}", fleet.address()))?;
        let controller = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        let impostor = Self { controller, lies: Arc::default() };
        let router = Server::builder()
            .add_service(AgentServiceServer::new(impostor.clone()))
            .add_service(BytesServiceServer::new(impostor.clone()));
        runtime.spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        let honest = fleet.address().to_owned();
        let agent = fleet.agents.first_mut().context("an agent")?;
        let config = fs::read_to_string(agent.config())?.replace(&honest, &address.to_string());
        fs::write(agent.config(), config)?;
        agent.kill();
        agent.start()?;
        Ok(impostor)
    }

    /// Tells these lies from now on.
    pub(crate) fn lie(&self, metadata: Option<MetadataLie>, blob: Option<BlobLie>) {
        let mut lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        (lies.metadata, lies.blob) = (metadata, blob);
    }

    /// The honest files that passed last.
    pub(crate) fn seen(&self) -> Vec<(String, Vec<u8>)> {
        self.lies.lock().unwrap_or_else(PoisonError::into_inner).seen.clone()
    }
}

#[tonic::async_trait]
impl AgentService for Impostor {
    type ConnectStream = Streaming<ConnectResponse>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (identity, _, messages) = request.into_parts();
        let mut onward = Request::new(messages.filter_map(Result::ok));
        *onward.metadata_mut() = identity;
        AgentServiceClient::new(self.controller.clone()).connect(onward).await
    }
}

#[tonic::async_trait]
impl BytesService for Impostor {
    type GetMetadataStream = Iter<std::vec::IntoIter<Result<GetMetadataResponse, Status>>>;
    type GetBlobStream = ReceiverStream<Result<GetBlobResponse, Status>>;

    async fn get_metadata(
        &self,
        request: Request<GetMetadataRequest>,
    ) -> Result<Response<Self::GetMetadataStream>, Status> {
        let mut stream =
            BytesServiceClient::new(self.controller.clone()).get_metadata(request).await?.into_inner();
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        while let Some(chunk) = stream.message().await? {
            match files.last_mut().filter(|(name, _)| *name == chunk.name) {
                Some((_, data)) => data.extend(chunk.data),
                None => files.push((chunk.name, chunk.data)),
            }
        }
        let mut lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        lies.seen.clone_from(&files);
        let told = files.into_iter().map(|(name, data)| {
            let data = lies.metadata.as_ref().map_or_else(|| data.clone(), |lie| lie(&name, data.clone()));
            Ok(GetMetadataResponse { name, data, last: true })
        });
        Ok(Response::new(tokio_stream::iter(told.collect::<Vec<_>>())))
    }

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let GetBlobRequest { sha256, offset } = request.into_inner();
        let whole = GetBlobRequest { sha256: sha256.clone(), offset: 0 };
        let mut stream = BytesServiceClient::new(self.controller.clone()).get_blob(whole).await?.into_inner();
        let mut blob = Vec::new();
        let mut total = 0;
        while let Some(chunk) = stream.message().await? {
            total = chunk.total;
            blob.extend(chunk.data);
        }
        let lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        let told = lies.blob.as_ref().map_or_else(|| blob.clone(), |lie| lie(&sha256, blob.clone()));
        let rest = told.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let chunks: Vec<_> = rest.chunks(64 * 1024).map(<[u8]>::to_vec).collect();
        let (sender, receiver) = tokio::sync::mpsc::channel(chunks.len().max(1));
        for data in chunks {
            drop(sender.try_send(Ok(GetBlobResponse { data, total })));
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
