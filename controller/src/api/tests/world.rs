//! A controller on a free port, with folders of its own.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fleetswap_proto::{
    Explained, HOST_ID_KEY, HOST_NAME_KEY,
    v1::{
        self, agent_service_client::AgentServiceClient, bytes_service_client::BytesServiceClient,
        operator_service_client::OperatorServiceClient,
    },
};
use fleetswap_trust::{
    Bundle, Manifest,
    manifest::{BlobRef, HealthRule, Platform},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Server, server::TcpIncoming},
};

use super::fake::FakeFleet;
use crate::{
    api::{Shared, routes},
    blobs::Blobs,
    publish::{Publisher, init_dev},
    published::Published,
    store::{Sqlite, Store},
};

/// Longer than anything here takes.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// A running controller.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) shared: Arc<Shared>,
    pub(super) fleet: Arc<FakeFleet>,
    pub(super) channel: Channel,
    pub(super) server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl World {
    /// Starts it.
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, now) = (dir.path().join("data"), SystemTime::now());
        init_dev(&data, &dir.path().join("publisher"), now).unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&data.join("store.db")).unwrap());
        let fleet = Arc::new(FakeFleet::new(Arc::clone(&store)));
        let shared = Arc::new(Shared {
            store,
            blobs: Blobs::open(&data, now).unwrap(),
            published: Arc::new(Published::open(&data, now).await.unwrap()),
            fleet: Arc::clone(&fleet) as Arc<_>,
            mutations: tokio::sync::Mutex::new(()),
            stop: CancellationToken::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder()
            .add_routes(routes(Arc::clone(&shared)).await.unwrap())
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), shared.stop.clone().cancelled_owned());
        let server = tokio::spawn(server);
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { dir, shared, fleet, channel, server }
    }

    pub(super) fn operator(&self) -> OperatorServiceClient<Channel> {
        OperatorServiceClient::new(self.channel.clone()).max_encoding_message_size(usize::MAX)
    }

    pub(super) fn bytes(&self) -> BytesServiceClient<Channel> {
        BytesServiceClient::new(self.channel.clone())
    }

    /// A stream of the agent `name`.
    pub(super) async fn agent(&self, name: &str) -> Agent {
        let mut metadata = Request::new(()).metadata().clone();
        metadata.insert(HOST_ID_KEY, "7c5f3c1e-54ad-4b8c-9a39-0f6a3f8c2d10".parse().unwrap());
        metadata.insert(HOST_NAME_KEY, name.parse().unwrap());
        self.agent_with(metadata).await.unwrap()
    }

    /// A stream with this metadata.
    pub(super) async fn agent_with(&self, metadata: tonic::metadata::MetadataMap) -> Result<Agent, Status> {
        let (outbound, messages) = mpsc::channel(8);
        let mut request = Request::new(ReceiverStream::new(messages));
        *request.metadata_mut() = metadata;
        let mut client = AgentServiceClient::new(self.channel.clone()).max_encoding_message_size(usize::MAX);
        let inbound = client.connect(request).await?.into_inner();
        Ok(Agent { outbound, inbound })
    }

    pub(super) fn publisher(&self) -> Publisher {
        Publisher::open(&self.dir.path().join("publisher")).unwrap()
    }

    /// The metadata as a publisher fetches it.
    pub(super) async fn bundle(&self) -> Bundle {
        let known = v1::GetMetadataRequest { known: None };
        let mut files = self.bytes().get_metadata(known).await.unwrap().into_inner();
        let mut bundle = Bundle::new();
        while let Some(chunk) = files.message().await.unwrap() {
            // The first root came with the publisher's folder.
            if chunk.name != "1.root.json" {
                bundle.append(&chunk.name, &chunk.data).unwrap();
            }
        }
        bundle
    }

    /// The request that publishes a manifest, signed by this world's publisher on top of what is current.
    pub(super) async fn publish_request(&self, id: &str, manifest: &Manifest) -> v1::PublishRequest {
        let bundle = self.bundle().await;
        let signed = self.publisher().add_release(&bundle, manifest, SystemTime::now()).await;
        let signed = signed.unwrap().unwrap();
        let expected = signed.expected;
        v1::PublishRequest {
            request_id: id.to_owned(),
            expected: Some(v1::MetadataVersions {
                root: expected.root,
                timestamp: expected.timestamp,
                snapshot: expected.snapshot,
                targets: expected.targets,
            }),
            targets: signed.targets,
            snapshot: signed.snapshot,
            manifests: vec![manifest.canonical()],
        }
    }

    /// Stores the blobs of [`manifest`] as an upload would.
    pub(super) fn upload_blobs(&self, artifact: &[u8]) {
        self.shared.blobs.put(artifact).unwrap();
        self.shared.blobs.put(DESCRIPTOR).unwrap();
    }
}

/// One open stream, from the agent's side.
pub(super) struct Agent {
    pub(super) outbound: mpsc::Sender<v1::ConnectRequest>,
    pub(super) inbound: Streaming<v1::ConnectResponse>,
}

impl Agent {
    pub(super) async fn say(&self, message: v1::connect_request::Message) {
        self.outbound.send(v1::ConnectRequest { message: Some(message) }).await.unwrap();
    }

    /// The next message; `None` if the stream ended well.
    pub(super) async fn hear(&mut self) -> Result<Option<v1::connect_response::Message>, Status> {
        let message = tokio::time::timeout(LONG, self.inbound.message()).await.expect("nothing came")?;
        Ok(message.map(|message| message.message.unwrap()))
    }

    /// The code with which the stream ends, whatever comes before.
    pub(super) async fn end(&mut self) -> String {
        self.refusal().await.map_or_else(|| "ended".to_owned(), |status| code(&status))
    }

    /// The refusal with which the stream ends, whatever comes before; `None` if it ends well.
    pub(super) async fn refusal(&mut self) -> Option<Status> {
        loop {
            match self.hear().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }
}

const DESCRIPTOR: &[u8] = br#"{"format":1}"#;

/// A manifest of `clock` for one platform.
pub(super) fn manifest(version: &str, revision: u64, artifact: &[u8]) -> Manifest {
    let platform = Platform { artifact: BlobRef::to(artifact), descriptor: BlobRef::to(DESCRIPTOR) };
    Manifest {
        format: fleetswap_trust::manifest::FORMAT,
        plugin: "clock".to_owned(),
        version: version.parse().unwrap(),
        revision,
        min_agent: "0.1.0".parse().unwrap(),
        floor: None,
        probes: Vec::new(),
        health: HealthRule::default(),
        config: None,
        data: Vec::new(),
        platforms: [("x86_64-linux-gnu".to_owned(), platform)].into(),
    }
}

/// The refusal is `REQUEST_INVALID`, about this field.
pub(super) fn names(field: &str, status: &Status) {
    assert_eq!(code(status), "REQUEST_INVALID", "{field}");
    let error = Explained::from_status(status).unwrap();
    assert!(error.what.contains(&format!("`{field}`")), "{field}: {}", error.what);
    assert_eq!(status.code(), Code::InvalidArgument, "{field}");
}

/// The stable code of a refusal; every one must have all its parts.
pub(super) fn code(status: &Status) -> String {
    let Some(error) = Explained::from_status(status) else { panic!("not explained: {status:?}") };
    assert!(!error.what.is_empty() && !error.why.is_empty() && !error.fix.is_empty(), "{error:?}");
    error.code.into_owned()
}
