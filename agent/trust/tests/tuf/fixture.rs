//! A small signer: it makes metadata as good or as bad as a test wants it.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use fleetswap_trust::{
    Bundle, Digest, MemoryStore, Policy, StoreError, Stored, TrustError, Trusted, TrustedStore, update,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tough::schema::{Role, Root, Signature, Signed, Snapshot, Targets, Timestamp, key::Key};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// The manifest that every repository lists.
pub(crate) const NAME: &str = "clock-1.0.0-r1.json";

/// A key pair, and how a root lists it.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    listed: Vec<Value>,
}

impl Signer {
    pub(crate) fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let public = hex::encode(pair.public_key());
        let key = json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": public } });
        Self { pair, listed: vec![key] }
    }

    /// Lists the same public key once more, under another key id.
    pub(crate) fn listed_twice(mut self) -> Self {
        let mut again = self.listed[0].clone();
        again["x-note"] = json!("the same key");
        self.listed.push(again);
        self
    }

    fn ids(&self) -> Vec<String> {
        let id = |key: &Value| serde_json::from_value::<Key>(key.clone()).unwrap().key_id().unwrap();
        self.listed.iter().map(|key| hex::encode(id(key))).collect()
    }

    fn sign(&self, message: &[u8]) -> Vec<Signature> {
        let sig = self.pair.sign(message).as_ref().to_vec();
        let signature = |id: String| Signature { keyid: id.parse().unwrap(), sig: sig.clone().into() };
        self.ids().into_iter().map(signature).collect()
    }
}

/// A repository that can be changed field by field before its files are made.
pub(crate) struct Repo {
    pub(crate) now: SystemTime,
    pub(crate) root_keys: Vec<Signer>,
    pub(crate) timestamp_key: Signer,
    pub(crate) snapshot_key: Signer,
    pub(crate) targets_key: Signer,
    pub(crate) root_threshold: u64,
    pub(crate) targets_threshold: u64,
    pub(crate) environment: Option<&'static str>,
    pub(crate) root: u64,
    pub(crate) timestamp: u64,
    pub(crate) snapshot: u64,
    pub(crate) targets: u64,
    pub(crate) valid: Valid,
    pub(crate) listed: Value,
}

/// The validity of each role from `Repo::now` on.
#[derive(Clone, Copy)]
pub(crate) struct Valid {
    pub(crate) root: Duration,
    pub(crate) timestamp: Duration,
    pub(crate) snapshot: Duration,
    pub(crate) targets: Duration,
}

/// The three files below a root.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) timestamp: Vec<u8>,
    pub(crate) snapshot: Vec<u8>,
    pub(crate) targets: Vec<u8>,
}

impl Repo {
    /// All versions 1, one key per role.
    pub(crate) fn new() -> Self {
        Self {
            now: SystemTime::now(),
            root_keys: vec![Signer::new()],
            timestamp_key: Signer::new(),
            snapshot_key: Signer::new(),
            targets_key: Signer::new(),
            root_threshold: 1,
            targets_threshold: 1,
            environment: None,
            root: 1,
            timestamp: 1,
            snapshot: 1,
            targets: 1,
            valid: Valid { root: 365 * DAY, timestamp: DAY, snapshot: 30 * DAY, targets: 90 * DAY },
            listed: json!({ NAME: listed(b"manifest") }),
        }
    }

    /// Raises the versions of the three files by one.
    pub(crate) fn bump(&mut self) {
        self.timestamp += 1;
        self.snapshot += 1;
        self.targets += 1;
    }

    /// The root, signed by its own keys.
    pub(crate) fn root(&self) -> Vec<u8> {
        self.root_signed_by(&self.root_keys.iter().collect::<Vec<_>>())
    }

    pub(crate) fn root_signed_by(&self, signers: &[&Signer]) -> Vec<u8> {
        let mut fields = json!({ "consistent_snapshot": false, "keys": {}, "roles": {} });
        if let Some(environment) = self.environment {
            fields["x-env"] = json!(environment);
        }
        let roots: Vec<&Signer> = self.root_keys.iter().collect();
        for (role, keys, threshold) in [
            ("root", roots, self.root_threshold),
            ("timestamp", vec![&self.timestamp_key], 1),
            ("snapshot", vec![&self.snapshot_key], 1),
            ("targets", vec![&self.targets_key], self.targets_threshold),
        ] {
            let ids: Vec<String> = keys.iter().flat_map(|key| key.ids()).collect();
            fields["roles"][role] = json!({ "keyids": ids, "threshold": threshold });
            for key in keys {
                for (id, listed) in key.ids().into_iter().zip(&key.listed) {
                    fields["keys"][id] = listed.clone();
                }
            }
        }
        self.make::<Root>((self.root, self.valid.root), fields, signers)
    }

    pub(crate) fn files(&self) -> Files {
        let targets = self.make::<Targets>(
            (self.targets, self.valid.targets),
            json!({ "targets": self.listed }),
            &[&self.targets_key],
        );
        self.files_with(targets)
    }

    /// Targets with other content than `Repo::files` gives, signed by the targets key.
    pub(crate) fn resign_targets(&self, targets: Value) -> Vec<u8> {
        self.make::<Targets>(
            (self.targets, self.valid.targets),
            targets["signed"].clone(),
            &[&self.targets_key],
        )
    }

    /// Snapshot and timestamp that name these targets.
    pub(crate) fn files_with(&self, targets: Vec<u8>) -> Files {
        let meta = json!({ "meta": { "targets.json": described(&targets, self.targets) } });
        let snapshot =
            self.make::<Snapshot>((self.snapshot, self.valid.snapshot), meta, &[&self.snapshot_key]);
        let timestamp = self.timestamp_for(&snapshot);
        Files { timestamp, snapshot, targets }
    }

    pub(crate) fn timestamp_for(&self, snapshot: &[u8]) -> Vec<u8> {
        let meta = json!({ "meta": { "snapshot.json": described(snapshot, self.snapshot) } });
        self.make::<Timestamp>((self.timestamp, self.valid.timestamp), meta, &[&self.timestamp_key])
    }

    fn make<T: Role + DeserializeOwned>(
        &self,
        (version, valid): (u64, Duration),
        fields: Value,
        signers: &[&Signer],
    ) -> Vec<u8> {
        let mut all = json!({
            "_type": T::TYPE,
            "spec_version": "1.0.34",
            "version": version,
            "expires": humantime::format_rfc3339_seconds(self.now + valid).to_string(),
        });
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let signed: T = serde_json::from_value(all).unwrap();
        let message = signed.canonical_form().unwrap();
        let signatures = signers.iter().flat_map(|signer| signer.sign(&message)).collect();
        json!(Signed { signed, signatures }).to_string().into_bytes()
    }
}

/// A target as it is listed.
pub(crate) fn listed(manifest: &[u8]) -> Value {
    json!({
        "length": manifest.len(),
        "hashes": { "sha256": Digest::of(manifest) },
        "custom": { "withdrawn": false },
    })
}

fn described(bytes: &[u8], version: u64) -> Value {
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": Digest::of(bytes) } })
}

/// The files and these roots by version, as a server would offer them.
pub(crate) fn bundle(files: &Files, roots: &[(u64, &[u8])]) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.append("timestamp.json", &files.timestamp).unwrap();
    bundle.append("snapshot.json", &files.snapshot).unwrap();
    bundle.append("targets.json", &files.targets).unwrap();
    for (version, root) in roots {
        bundle.append(&format!("{version}.root.json"), root).unwrap();
    }
    bundle
}

/// A host: its store, and how often it was written.
pub(crate) struct Host {
    pub(crate) store: MemoryStore,
    pub(crate) saves: Mutex<u32>,
}

impl Host {
    pub(crate) fn new(root: &[u8]) -> Self {
        Self::with(Stored::from_root(root).unwrap())
    }

    pub(crate) fn with(stored: Stored) -> Self {
        Self { store: MemoryStore::new(stored), saves: Mutex::new(0) }
    }

    pub(crate) fn stored(&self) -> Stored {
        self.store.stored()
    }

    pub(crate) fn saves(&self) -> u32 {
        *self.saves.lock().unwrap()
    }

    pub(crate) async fn offer(&self, bundle: &Bundle, now: SystemTime) -> Result<Trusted, TrustError> {
        update(self, bundle, now, Policy::default()).await
    }

    /// The code of the refusal.
    pub(crate) async fn refusal(&self, bundle: &Bundle, now: SystemTime) -> &'static str {
        self.offer(bundle, now).await.map(|trusted| trusted.versions()).unwrap_err().code()
    }
}

impl TrustedStore for Host {
    fn load(&self) -> Result<Stored, StoreError> {
        self.store.load()
    }

    fn save(&self, stored: &Stored) -> Result<(), StoreError> {
        *self.saves.lock().unwrap() += 1;
        self.store.save(stored)
    }
}
