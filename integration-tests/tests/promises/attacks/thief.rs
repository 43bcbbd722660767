//! A thief with every key of the publisher and of the server: whatever he makes has a valid chain around it.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Error, Result, anyhow};
use aws_lc_rs::signature::Ed25519KeyPair;
use fleetswap_inspect::native_platform;
use fleetswap_integration_tests::harness::Fleet;
use fleetswap_proto::{
    Explained,
    v1::{
        BlobHeader, GetMetadataRequest, MetadataVersions, Policy, PublishRequest, PushRequest,
        PutBlobRequest, WatchRolloutRequest, bytes_service_client::BytesServiceClient,
        operator_service_client::OperatorServiceClient,
    },
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::impostor::CHUNK;

/// Pushes so far: each has an id of its own.
static PUSHES: AtomicU64 = AtomicU64::new(0);

/// Uploads, signs and pushes by himself; nothing lints what he has.
pub(crate) struct Thief {
    controller: Channel,
    targets: Ed25519KeyPair,
    snapshot: Ed25519KeyPair,
    timestamp: Ed25519KeyPair,
}

/// The three files below the root, read.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) root: u64,
    pub(crate) timestamp: Value,
    pub(crate) snapshot: Value,
    pub(crate) targets: Value,
}

/// A release of the test subject that nobody has looked at.
#[derive(Clone)]
pub(crate) struct Forged {
    pub(crate) manifest: Value,
    pub(crate) artifact: Vec<u8>,
    pub(crate) descriptor: Vec<u8>,
}

impl Forged {
    /// A library of the test subject. Its descriptor is read from its bytes.
    pub(crate) fn subject(version: &str, artifact: Vec<u8>) -> Result<Self> {
        let good = artifact.clone();
        Self::bent(version, artifact, &good)
    }

    /// What became of a good library, with that one's descriptor.
    pub(crate) fn bent(version: &str, artifact: Vec<u8>, good: &[u8]) -> Result<Self> {
        let start = b"{\"format\":1,\"name\":\"subject\"";
        let at = good.windows(start.len()).position(|window| window == start).context("a descriptor")?;
        let descriptor = &good[at..];
        let descriptor = descriptor.split(|byte| *byte == 0).next().context("a descriptor")?.to_vec();
        let platform = json!({ "artifact": blob(&artifact), "descriptor": blob(&descriptor) });
        let manifest = json!({
            "format": 1, "plugin": "subject", "version": version, "revision": 1, "min_agent": "0.1.0",
            "floor": null, "probes": [], "health": { "interval_ms": 10, "green": 1, "timeout_ms": 2000 },
            "config": null, "data": [], "platforms": { native_platform().to_string(): platform },
        });
        Ok(Self { manifest, artifact, descriptor })
    }

    /// The manifest's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.manifest.to_string().into_bytes()
    }

    /// The release id.
    pub(crate) fn id(&self) -> String {
        sha256(&self.bytes())
    }

    pub(crate) fn version(&self) -> &str {
        self.manifest["version"].as_str().unwrap_or_default()
    }

    fn target_name(&self) -> String {
        format!("subject-{}-r1.json", self.version())
    }
}

impl Chain {
    /// As a server shows it, signed by all that have to.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        [("timestamp", &self.timestamp), ("snapshot", &self.snapshot), ("targets", &self.targets)]
            .map(|(name, file)| (format!("{name}.json"), file.to_string().into_bytes()))
            .into()
    }

    /// Lists a manifest under any name.
    pub(crate) fn list(&mut self, name: &str, manifest: &[u8]) {
        let target = json!({
            "length": manifest.len(), "hashes": { "sha256": sha256(manifest) }, "custom": { "withdrawn": false },
        });
        self.targets["signed"]["targets"][name] = target;
    }

    fn versions(&self) -> MetadataVersions {
        let of = |file: &Value| file["signed"]["version"].as_u64().unwrap_or_default();
        let (snapshot, targets) = (of(&self.snapshot), of(&self.targets));
        MetadataVersions { root: self.root, timestamp: of(&self.timestamp), snapshot, targets }
    }
}

impl Thief {
    pub(crate) fn of(runtime: &Runtime, fleet: &Fleet) -> Result<Self> {
        let key = |path: &str| -> Result<_> { Ok(Ed25519KeyPair::from_pkcs8(&fs::read(fleet.path(path))?)?) };
        let _inside = runtime.enter();
        Ok(Self {
            controller: Endpoint::from_shared(format!("http://{}", fleet.address()))?.connect_lazy(),
            targets: key("publisher/targets.key")?,
            snapshot: key("publisher/snapshot.key")?,
            timestamp: key("controller/timestamp.key")?,
        })
    }

    /// The honest metadata of now.
    pub(crate) async fn look(&self) -> Result<Chain> {
        let all = GetMetadataRequest { known: Some(MetadataVersions::default()) };
        let mut stream =
            BytesServiceClient::new(self.controller.clone()).get_metadata(all).await?.into_inner();
        let mut files = std::collections::BTreeMap::<String, Vec<u8>>::new();
        while let Some(chunk) = stream.message().await? {
            files.entry(chunk.name).or_default().extend(chunk.data);
        }
        let read = |name: &str| -> Result<Value> {
            Ok(serde_json::from_slice(files.get(name).context("a metadata file")?)?)
        };
        let root = files.keys().filter_map(|name| name.strip_suffix(".root.json")?.parse().ok()).max();
        Ok(Chain {
            root: root.context("a root")?,
            timestamp: read("timestamp.json")?,
            snapshot: read("snapshot.json")?,
            targets: read("targets.json")?,
        })
    }

    /// Signs the chain anew under the next versions, each file naming the one below it.
    pub(crate) fn sign(&self, chain: &mut Chain) {
        for file in [&mut chain.targets, &mut chain.snapshot, &mut chain.timestamp] {
            file["signed"]["version"] = json!(file["signed"]["version"].as_u64().unwrap_or_default() + 1);
        }
        sign(&mut chain.targets, &self.targets);
        chain.snapshot["signed"]["meta"]["targets.json"] = described(&chain.targets);
        self.sign_snapshot(chain);
    }

    /// Signs snapshot and timestamp as they are now.
    pub(crate) fn sign_snapshot(&self, chain: &mut Chain) {
        sign(&mut chain.snapshot, &self.snapshot);
        chain.timestamp["signed"]["meta"]["snapshot.json"] = described(&chain.snapshot);
        sign(&mut chain.timestamp, &self.timestamp);
    }

    /// Signs the timestamp as it is now.
    pub(crate) fn sign_timestamp(&self, chain: &mut Chain) {
        sign(&mut chain.timestamp, &self.timestamp);
    }

    /// Uploads the release and publishes a chain that lists it.
    pub(crate) async fn publish(&self, release: &Forged) -> Result<()> {
        self.upload(&release.artifact).await?;
        self.upload(&release.descriptor).await?;
        let before = self.look().await?;
        let mut chain = before.clone();
        chain.list(&release.target_name(), &release.bytes());
        self.sign(&mut chain);
        self.show(&before, &chain, vec![release.bytes()]).await
    }

    /// Gives a chain to the controller, as a publisher does.
    pub(crate) async fn show(&self, before: &Chain, chain: &Chain, manifests: Vec<Vec<u8>>) -> Result<()> {
        let targets = chain.targets.to_string().into_bytes();
        self.show_bytes(before, (targets, chain.snapshot.to_string().into_bytes()), manifests).await
    }

    /// Gives any bytes to the controller as targets and snapshot.
    pub(crate) async fn show_bytes(
        &self,
        before: &Chain,
        (targets, snapshot): (Vec<u8>, Vec<u8>),
        manifests: Vec<Vec<u8>>,
    ) -> Result<()> {
        let request = PublishRequest {
            request_id: sha256(&[&targets[..], &snapshot[..]].concat()),
            expected: Some(before.versions()),
            targets,
            snapshot,
            manifests,
        };
        self.operator().publish(request).await.map(drop).map_err(|status| in_words(&status))
    }

    /// Starts the rollout of a published release, and returns its id.
    pub(crate) async fn push(&self, release: &Forged, deadline_ms: u64) -> Result<String> {
        let policy = Policy { max_parallel: 4, min_healthy_ms: 200, healthy_deadline_ms: deadline_ms };
        let request = PushRequest {
            request_id: format!("push-{}", PUSHES.fetch_add(1, Ordering::Relaxed)),
            plugin: "subject".to_owned(),
            selector: "all".to_owned(),
            manifest: release.bytes(),
            policy: Some(policy),
            reason: String::new(),
            actor: "thief".to_owned(),
            dry_run: false,
        };
        let answer = self.operator().push(request).await.map_err(|status| in_words(&status))?.into_inner();
        Ok(answer.rollout.context("a rollout")?.rollout_id)
    }

    /// Waits until a rollout has ended.
    pub(crate) async fn watch(&self, rollout_id: &str) -> Result<()> {
        let request = WatchRolloutRequest { rollout_id: rollout_id.to_owned() };
        let mut states = self.operator().watch_rollout(request).await?.into_inner();
        while states.message().await?.is_some() {}
        Ok(())
    }

    async fn upload(&self, bytes: &[u8]) -> Result<()> {
        let length = bytes.len() as u64;
        let mut header = Some(BlobHeader { sha256: sha256(bytes), length, offset: 0 });
        let chunks: Vec<PutBlobRequest> = bytes
            .chunks(CHUNK)
            .map(|data| PutBlobRequest { header: header.take(), data: data.to_vec() })
            .collect();
        self.operator().put_blob(tokio_stream::iter(chunks)).await?;
        Ok(())
    }

    fn operator(&self) -> OperatorServiceClient<Channel> {
        OperatorServiceClient::new(self.controller.clone())
    }
}

/// A refusal with its code.
fn in_words(status: &Status) -> Error {
    match Explained::from_status(status) {
        Some(refusal) => anyhow!("{}: {}; {}", refusal.code, refusal.what, refusal.why),
        None => anyhow!("{status}"),
    }
}

fn sign(file: &mut Value, key: &Ed25519KeyPair) {
    let signature = key.sign(canonical(&file["signed"]).as_bytes());
    file["signatures"][0]["sig"] = hex(signature.as_ref()).into();
}

/// Canonical JSON, in which only quotes and backslashes are escaped.
fn canonical(value: &Value) -> String {
    let text = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields =
                fields.into_iter().map(|(name, value)| format!("{}:{}", text(name), canonical(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

fn described(file: &Value) -> Value {
    let bytes = file.to_string().into_bytes();
    json!({ "version": file["signed"]["version"], "length": bytes.len(), "hashes": { "sha256": sha256(&bytes) } })
}

fn blob(bytes: &[u8]) -> Value {
    json!({ "sha256": sha256(bytes), "length": bytes.len() })
}

/// In hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
