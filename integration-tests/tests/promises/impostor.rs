//! A man in the middle: he stands between an agent and its controller and changes what passes.

use std::{
    collections::BTreeMap,
    fs,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use fleetswap_integration_tests::harness::Fleet;
use fleetswap_proto::v1::{
    ConnectRequest, ConnectResponse, DesiredState, GetBlobRequest, GetBlobResponse, GetMetadataRequest,
    GetMetadataResponse, MetadataVersions,
    agent_service_client::AgentServiceClient,
    agent_service_server::{AgentService, AgentServiceServer},
    bytes_service_client::BytesServiceClient,
    bytes_service_server::{BytesService, BytesServiceServer},
    connect_response::Message,
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::mpsc::{self, Sender},
    time::interval,
};
use tokio_stream::{
    Stream, StreamExt,
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

/// Changes what the host is told to run.
type OfferLie = Box<dyn Fn(&mut DesiredState) + Send>;

/// Bytes of a chunk that he sends.
pub(crate) const CHUNK: usize = 64 * 1024;
/// Chunks that wait to be sent: more would hide when the agent hung up.
const WAITING: usize = 1;

/// A stream that is not to be read to its end.
#[derive(Clone, Debug)]
pub(crate) enum Flood {
    /// The blob with this SHA-256 goes on and on.
    EndlessBlob(String),
    /// The blob with this SHA-256 comes one byte a second.
    SlowBlob(String),
    /// The targets go on and on.
    EndlessTargets,
}

/// What he does, and what he has seen.
#[derive(Default)]
pub(crate) struct Lies {
    pub(crate) metadata: Option<MetadataLie>,
    pub(crate) blob: Option<BlobLie>,
    pub(crate) offer: Option<OfferLie>,
    /// Shown instead of the controller's metadata, by name.
    pub(crate) files: Option<Vec<(String, Vec<u8>)>>,
    /// Blobs of his own, by SHA-256.
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) flood: Option<Flood>,
    /// The last honest metadata files, by name.
    pub(crate) seen: Vec<(String, Vec<u8>)>,
}

/// The man in the middle; he ends with the runtime that he runs on.
#[derive(Clone)]
pub(crate) struct Impostor {
    controller: Channel,
    pub(crate) lies: Arc<Mutex<Lies>>,
    /// Bytes of the flood that were taken off his hands, by the agent or by the system on its behalf.
    pub(crate) flooded: Arc<AtomicUsize>,
    /// Floods that the agent has ended.
    pub(crate) hung_up: Arc<AtomicUsize>,
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
        let impostor =
            Self { controller, lies: Arc::default(), flooded: Arc::default(), hung_up: Arc::default() };
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

    /// Changes the lies of all other kinds.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Lies)) {
        change(&mut self.lies.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Sends so many bytes of a flood; `false` when the agent has hung up.
    async fn flood<T>(&self, sender: &Sender<Result<T, Status>>, chunk: T, bytes: usize) -> bool {
        let taken = sender.send(Ok(chunk)).await.is_ok();
        let counted = if taken { (&self.flooded, bytes) } else { (&self.hung_up, 1) };
        counted.0.fetch_add(counted.1, Ordering::SeqCst);
        taken
    }

    /// Sends a blob that has no end, or that takes for ever.
    async fn flood_blob(self, sender: Sender<Result<GetBlobResponse, Status>>, blob: Vec<u8>, slow: bool) {
        let total = blob.len() as u64;
        let chunks = blob.chunks(if slow { 1 } else { CHUNK }).map(<[u8]>::to_vec);
        let mut ticks = interval(Duration::from_secs(1));
        for data in chunks.chain(std::iter::repeat_with(|| vec![0; CHUNK])) {
            if slow {
                ticks.tick().await;
            }
            let bytes = data.len();
            if !self.flood(&sender, GetBlobResponse { data, total }, bytes).await {
                return;
            }
        }
    }

    /// Sends targets that have no end.
    async fn flood_targets(self, sender: Sender<Result<GetMetadataResponse, Status>>) {
        loop {
            let data = vec![b' '; CHUNK];
            let chunk = GetMetadataResponse { name: "targets.json".to_owned(), data, last: false };
            if !self.flood(&sender, chunk, CHUNK).await {
                return;
            }
        }
    }

    /// The honest blob, or one of his own.
    async fn whole_blob(&self, sha256: &str) -> Result<Vec<u8>, Status> {
        let own = self.lies.lock().unwrap_or_else(PoisonError::into_inner).blobs.get(sha256).cloned();
        if let Some(own) = own {
            return Ok(own);
        }
        let whole = GetBlobRequest { sha256: sha256.to_owned(), offset: 0 };
        let mut stream = BytesServiceClient::new(self.controller.clone()).get_blob(whole).await?.into_inner();
        let mut blob = Vec::new();
        while let Some(chunk) = stream.message().await? {
            blob.extend(chunk.data);
        }
        Ok(blob)
    }

    /// The honest files that passed last.
    pub(crate) fn seen(&self) -> Vec<(String, Vec<u8>)> {
        self.lies.lock().unwrap_or_else(PoisonError::into_inner).seen.clone()
    }
}

#[tonic::async_trait]
impl AgentService for Impostor {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<ConnectResponse, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (identity, _, messages) = request.into_parts();
        let mut onward = Request::new(messages.filter_map(Result::ok));
        *onward.metadata_mut() = identity;
        let answer = AgentServiceClient::new(self.controller.clone()).connect(onward).await?;
        let lies = Arc::clone(&self.lies);
        let told = answer.into_inner().map(move |message| {
            let mut message = message?;
            if let Some(Message::Desired(state)) = &mut message.message
                && let Some(lie) = &lies.lock().unwrap_or_else(PoisonError::into_inner).offer
            {
                lie(state);
            }
            Ok(message)
        });
        Ok(Response::new(Box::pin(told)))
    }
}

#[tonic::async_trait]
impl BytesService for Impostor {
    type GetMetadataStream = ReceiverStream<Result<GetMetadataResponse, Status>>;
    type GetBlobStream = ReceiverStream<Result<GetBlobResponse, Status>>;

    async fn get_metadata(
        &self,
        _request: Request<GetMetadataRequest>,
    ) -> Result<Response<Self::GetMetadataStream>, Status> {
        // Everything each time: what the agent has may be a lie of earlier.
        let all = GetMetadataRequest { known: Some(MetadataVersions::default()) };
        let mut stream =
            BytesServiceClient::new(self.controller.clone()).get_metadata(all).await?.into_inner();
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        while let Some(chunk) = stream.message().await? {
            match files.last_mut().filter(|(name, _)| *name == chunk.name) {
                Some((_, data)) => data.extend(chunk.data),
                None => files.push((chunk.name, chunk.data)),
            }
        }
        let (told, endless) = {
            let mut lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
            lies.seen.clone_from(&files);
            let files = lies.files.clone().unwrap_or(files);
            let lie = |(name, data): (String, Vec<u8>)| {
                let data =
                    lies.metadata.as_ref().map_or_else(|| data.clone(), |lie| lie(&name, data.clone()));
                (name, data)
            };
            let told: Vec<_> = files.into_iter().map(lie).collect();
            (told, matches!(lies.flood, Some(Flood::EndlessTargets)))
        };
        let (sender, receiver) = mpsc::channel(WAITING);
        let impostor = self.clone();
        tokio::spawn(async move {
            for (name, data) in told.into_iter().filter(|(name, _)| !endless || name != "targets.json") {
                let chunks = data.chunks(CHUNK).map(<[u8]>::to_vec).collect::<Vec<_>>();
                let count = chunks.len();
                for (data, number) in chunks.into_iter().zip(1..) {
                    let chunk = GetMetadataResponse { name: name.clone(), data, last: number == count };
                    drop(sender.send(Ok(chunk)).await);
                }
            }
            if endless {
                impostor.flood_targets(sender).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let GetBlobRequest { sha256, offset } = request.into_inner();
        let blob = self.whole_blob(&sha256).await?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let total = blob.len() as u64;
        let (told, flood) = {
            let lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
            let told = lies.blob.as_ref().map_or_else(|| blob.clone(), |lie| lie(&sha256, blob.clone()));
            (told, lies.flood.clone())
        };
        match flood {
            Some(Flood::EndlessBlob(flooded)) if flooded == sha256 => {
                tokio::spawn(self.clone().flood_blob(sender, told, false));
            }
            Some(Flood::SlowBlob(flooded)) if flooded == sha256 => {
                tokio::spawn(self.clone().flood_blob(sender, told, true));
            }
            _ => {
                let rest = told.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
                let chunks: Vec<_> = rest.chunks(CHUNK).map(<[u8]>::to_vec).collect();
                tokio::spawn(async move {
                    for data in chunks {
                        drop(sender.send(Ok(GetBlobResponse { data, total })).await);
                    }
                });
            }
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
