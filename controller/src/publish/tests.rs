//! From `init` to a host that accepts what was published, and what is refused on the way.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fleetswap_trust::{
    Bundle, Manifest, MemoryStore, Policy, Stored, TrustError, Trusted, manifest::BlobRef,
    manifest::HealthRule, manifest::Platform, update,
};
use semver::Version;

use super::{
    init::METADATA_DIR,
    timestamp::{Timestamper, VALIDITY},
    *,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A data folder, a publisher's folder, and a server that keeps what is uploaded.
struct World {
    folder: tempfile::TempDir,
    now: SystemTime,
    server: Stored,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let (data, publisher) = (folder.path().join("data"), folder.path().join("publisher"));
        init_dev(&data, &publisher, now).unwrap();
        let file = |name: &str| fs::read(data.join(METADATA_DIR).join(name)).unwrap();
        let [root, timestamp, snapshot, targets] =
            ["1.root.json", "timestamp.json", "snapshot.json", "targets.json"].map(file);
        let server = Stored::from_files(&root, &timestamp, &snapshot, &targets).unwrap();
        Self { folder, now, server }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn publisher_dir(&self) -> PathBuf {
        self.folder.path().join("publisher")
    }

    fn publisher(&self) -> Publisher {
        Publisher::open(&self.publisher_dir()).unwrap()
    }

    fn shown(&self) -> Bundle {
        offered(&self.server)
    }

    async fn sign(&self, manifest: &Manifest) -> Result<Option<Signed>, PublishError> {
        self.publisher().add_release(&self.shown(), manifest, self.now).await
    }

    /// What the server does with an upload: compare, sign a timestamp, verify as a host would, store.
    async fn upload(&mut self, signed: &Signed) -> Result<Trusted, TrustError> {
        assert_eq!(signed.expected, self.server.floors(), "somebody else was first");
        let timestamper = Timestamper::open(&self.data()).unwrap();
        let version = self.server.floors().timestamp;
        let timestamp = timestamper.sign(&signed.snapshot, version, self.now).unwrap();
        let mut bundle = Bundle::new();
        bundle.append("timestamp.json", &timestamp).unwrap();
        bundle.append("snapshot.json", &signed.snapshot).unwrap();
        bundle.append("targets.json", &signed.targets).unwrap();
        let store = MemoryStore::new(self.server.clone());
        let trusted = update(&store, &bundle, self.now, Policy { allow_dev: true }).await?;
        self.server = store.stored();
        Ok(trusted)
    }

    async fn publish(&mut self, manifest: &Manifest) -> Trusted {
        let signed = self.sign(manifest).await.unwrap().unwrap();
        self.upload(&signed).await.unwrap()
    }
}

fn offered(stored: &Stored) -> Bundle {
    let mut bundle = Bundle::new();
    for (name, bytes) in [
        ("timestamp.json", stored.timestamp()),
        ("snapshot.json", stored.snapshot()),
        ("targets.json", stored.targets()),
    ] {
        bundle.append(name, bytes.unwrap()).unwrap();
    }
    bundle
}

fn manifest(version: &str, artifact: &[u8]) -> Manifest {
    let platform = Platform { artifact: BlobRef::to(artifact), descriptor: BlobRef::to(b"{}") };
    Manifest {
        format: 1,
        plugin: "clock".to_owned(),
        version: version.parse().unwrap(),
        revision: 1,
        min_agent: Version::new(0, 1, 0),
        floor: None,
        probes: Vec::new(),
        health: HealthRule::default(),
        config: None,
        data: Vec::new(),
        platforms: BTreeMap::from([("x86_64-linux-gnu".to_owned(), platform)]),
    }
}

#[tokio::test]
async fn what_is_published_is_what_a_host_accepts() {
    let mut world = World::new();
    let first = manifest("1.0.0", b"one");
    world.publish(&first).await;
    let second = manifest("1.1.0", b"two");
    world.publish(&second).await;

    let root = fs::read(world.publisher_dir().join("root.json")).unwrap();
    let host = MemoryStore::new(Stored::from_root(&root).unwrap());
    let refused = update(&host, &world.shown(), world.now, Policy::default()).await.unwrap_err();
    assert_eq!(refused.code(), "TRUST_DEV_ROOT");
    let trusted = update(&host, &world.shown(), world.now, Policy { allow_dev: true }).await.unwrap();
    for manifest in [first, second] {
        let target = trusted.release(&manifest.target_name()).unwrap();
        assert_eq!((target.sha256, target.withdrawn), (manifest.release_id(), false));
    }
    assert_eq!((trusted.versions().snapshot, trusted.versions().targets), (3, 3));
}

#[tokio::test]
async fn publishing_the_same_manifest_again_is_no_work() {
    let mut world = World::new();
    let release = manifest("1.0.0", b"one");
    world.publish(&release).await;
    assert!(world.sign(&release).await.unwrap().is_none());
}

#[tokio::test]
async fn other_bytes_under_a_published_version_and_platform_are_refused() {
    let mut world = World::new();
    world.publish(&manifest("1.0.0", b"one")).await;
    let mut other = manifest("1.0.0", b"other");
    other.revision = 2;
    let error = world.sign(&other).await.unwrap_err();
    assert_eq!(error.code(), "VERSION_PUBLISHED");
    assert_eq!(
        error.to_string(),
        "clock 1.0.0 is published for x86_64-linux-gnu already, with another artifact"
    );
    let mut more_platforms = manifest("1.0.0", b"one");
    more_platforms.revision = 2;
    more_platforms
        .platforms
        .insert("aarch64-linux-gnu".to_owned(), other.platforms["x86_64-linux-gnu"].clone());
    world.publish(&more_platforms).await;
}

#[tokio::test]
async fn other_content_under_a_published_revision_is_refused() {
    let mut world = World::new();
    world.publish(&manifest("1.0.0", b"one")).await;
    let mut other = manifest("1.0.0", b"one");
    other.health.green = 5;
    assert_eq!(world.sign(&other).await.unwrap_err().code(), "REVISION_PUBLISHED");
}

#[tokio::test]
async fn of_two_publishers_at_once_one_must_sign_again() {
    let mut world = World::new();
    let one = world.sign(&manifest("1.0.0", b"one")).await.unwrap().unwrap();
    let two = world.sign(&manifest("1.1.0", b"two")).await.unwrap().unwrap();
    assert_eq!(one.expected, two.expected);
    world.upload(&one).await.unwrap();
    assert_ne!(two.expected, world.server.floors());
    let trusted = world.publish(&manifest("1.1.0", b"two")).await;
    assert!(trusted.release("clock-1.0.0-r1.json").is_some());
}

#[tokio::test]
async fn no_version_is_signed_twice_although_the_first_was_never_uploaded() {
    let world = World::new();
    let one = world.sign(&manifest("1.0.0", b"one")).await.unwrap().unwrap();
    let two = world.sign(&manifest("1.1.0", b"two")).await.unwrap().unwrap();
    let versions = |signed: &Signed| {
        let version = |bytes: &[u8]| {
            serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["signed"]["version"].as_u64()
        };
        (version(&signed.targets), version(&signed.snapshot))
    };
    assert_eq!(versions(&one), (Some(2), Some(2)));
    assert_eq!(versions(&two), (Some(3), Some(3)));
}

#[tokio::test]
async fn a_server_that_goes_back_is_refused_by_the_publisher() {
    let mut world = World::new();
    let old = world.server.clone();
    world.publish(&manifest("1.0.0", b"one")).await;
    world.sign(&manifest("1.1.0", b"two")).await.unwrap();
    world.server = old;
    let error = world.sign(&manifest("1.1.0", b"two")).await.unwrap_err();
    assert_eq!(error.code(), "TRUST_ROLLBACK");
}

#[tokio::test]
async fn targets_that_nobody_signed_are_refused_by_the_publisher() {
    let world = World::new();
    let text = String::from_utf8(world.server.targets().unwrap().to_vec()).unwrap();
    let mut shown = Bundle::new();
    shown.append("timestamp.json", world.server.timestamp().unwrap()).unwrap();
    shown.append("snapshot.json", world.server.snapshot().unwrap()).unwrap();
    shown.append("targets.json", text.replace("\"version\":1", "\"version\":9").as_bytes()).unwrap();
    let error =
        world.publisher().add_release(&shown, &manifest("1.0.0", b"one"), world.now).await.unwrap_err();
    assert_eq!(error.code(), "TRUST_MISMATCH");
}

#[tokio::test]
async fn a_root_whose_time_is_over_stops_the_publisher() {
    let mut world = World::new();
    world.now += 31 * DAY;
    let snapshot = world.server.snapshot().unwrap();
    let renewed = Timestamper::open(&world.data()).unwrap().sign(snapshot, 0, world.now).unwrap();
    let targets = world.server.targets().unwrap();
    world.server = Stored::from_files(world.server.root(), &renewed, snapshot, targets).unwrap();
    let error = world.sign(&manifest("1.0.0", b"one")).await.unwrap_err();
    assert_eq!(error.code(), "TRUST_EXPIRED_ROOT");
}

#[tokio::test]
async fn a_renewed_timestamp_is_accepted_and_ends_after_a_day() {
    let world = World::new();
    let timestamper = Timestamper::open(&world.data()).unwrap();
    timestamper.check(world.server.root()).unwrap();
    let version = world.server.floors().timestamp;
    let renewed = timestamper.sign(world.server.snapshot().unwrap(), version, world.now).unwrap();
    let mut bundle = Bundle::new();
    bundle.append("timestamp.json", &renewed).unwrap();
    let store = MemoryStore::new(world.server.clone());
    let policy = Policy { allow_dev: true };
    let trusted = update(&store, &bundle, world.now, policy).await.unwrap();
    assert_eq!(trusted.versions().timestamp, version + 1);
    let late = world.now + VALIDITY + Duration::from_secs(2);
    assert_eq!(update(&store, &bundle, late, policy).await.unwrap_err().code(), "TRUST_EXPIRED_TIMESTAMP");
}

#[test]
fn init_replaces_nothing() {
    let world = World::new();
    let key = fs::read(world.publisher_dir().join("root.key")).unwrap();
    for (data, publisher) in [
        (world.data(), world.publisher_dir()),
        (world.folder.path().join("new"), world.publisher_dir()),
        (world.data(), world.folder.path().join("new")),
    ] {
        let error = init_dev(&data, &publisher, world.now).unwrap_err();
        assert_eq!(error.code(), "INIT_EXISTS");
    }
    assert_eq!(fs::read(world.publisher_dir().join("root.key")).unwrap(), key);
    assert!(!world.folder.path().join("new").exists());
}

#[test]
fn a_publishers_folder_is_not_made_within_reach_of_the_controller() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    fs::create_dir(place("real")).unwrap();
    std::os::unix::fs::symlink(place("real"), place("link")).unwrap();
    for (data, publisher) in [
        ("data", "data"),
        ("data", "data/keys"),
        ("keys/data", "keys"),
        ("real", "link/keys"),
        ("a/..", "b/c"),
    ] {
        let error = init_dev(&place(data), &place(publisher), SystemTime::now()).unwrap_err();
        assert_eq!(error.code(), "INIT_FOLDERS_OVERLAP", "{data} {publisher}");
    }
    assert_eq!(fs::read_dir(place("real")).unwrap().count(), 0);
    init_dev(&place("real/data"), &place("real/data-keys"), SystemTime::now()).unwrap();
}

/// Which files may name what reads a publisher's keys: the command line, and publishing itself.
#[test]
fn serve_has_no_path_to_a_publishers_key() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut readers = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&src).unwrap().display().to_string();
            if ["cli", "publish", "cli.rs", "publish.rs"].contains(&&*name) || name.contains("tests") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let keys =
                    ["Publisher::", "SigningKey", "init_dev", "publisher_dir", "targets.key", "snapshot.key"];
                readers
                    .extend(keys.iter().find(|key| text.contains(**key)).map(|key| format!("{name}: {key}")));
            }
        }
    }
    assert_eq!(readers, Vec::<String>::new());
    let timestamp = fs::read_to_string(src.join("publish/timestamp.rs")).unwrap();
    assert!(!timestamp.contains("publisher::") && !timestamp.contains("TARGETS_KEY"));
}

#[test]
fn keys_are_private_and_kept_apart() {
    let world = World::new();
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let keys = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".key"));
        let mut names: Vec<String> = keys
            .inspect(|key| assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600))
            .map(|key| key.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&world.data()), ["timestamp.key"]);
    assert_eq!(names(&world.publisher_dir()), ["root.key", "snapshot.key", "targets.key"]);
}

#[tokio::test]
async fn bad_keys_are_told_apart() {
    let world = World::new();
    let targets_key = world.publisher_dir().join("targets.key");
    let code = || async { world.sign(&manifest("1.0.0", b"one")).await.unwrap_err().code() };
    let open = || Publisher::open(&world.publisher_dir()).unwrap_err().code();

    fs::set_permissions(&targets_key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(open(), "KEY_OPEN");
    fs::set_permissions(&targets_key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(world.publisher_dir().join("snapshot.key"), &targets_key).unwrap();
    assert_eq!(code().await, "KEY_FOREIGN");
    fs::write(&targets_key, b"no key").unwrap();
    assert_eq!(open(), "KEY_UNUSABLE");
    fs::remove_file(&targets_key).unwrap();
    assert_eq!(open(), "KEY_UNUSABLE");
}

#[tokio::test]
async fn a_damaged_memory_stops_the_publisher() {
    let world = World::new();
    let seen = world.publisher_dir().join("seen.json");
    let text = fs::read_to_string(&seen).unwrap();
    for damage in [String::new(), text.replacen("targets", "tragets", 1), text[..text.len() / 2].to_owned()] {
        fs::write(&seen, damage).unwrap();
        let error = Publisher::open(&world.publisher_dir()).unwrap_err();
        assert_eq!(error.code(), "TRUST_STORE_DAMAGED");
    }
}

#[tokio::test]
async fn a_manifest_that_hosts_would_refuse_is_not_signed() {
    let world = World::new();
    let mut bad = manifest("1.0.0", b"one");
    bad.plugin = "../clock".to_owned();
    assert_eq!(world.sign(&bad).await.unwrap_err().code(), "MANIFEST_INVALID");
}
