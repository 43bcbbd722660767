//! `controller init --dev`: keys, a root and empty metadata, for trying things out on one machine.

use std::{
    io,
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use fleetswap_trust::Stored;
use serde_json::{Value, json};
use tough::schema::{Root, Snapshot, Targets};

use super::{
    PublishError,
    keys::{SigningKey, io_error, refuse_existing},
    metadata::{days, describe, make, sign},
    publisher::{ROOT_FILE, ROOT_KEY, SNAPSHOT_DAYS, SNAPSHOT_KEY, TARGETS_DAYS, TARGETS_KEY},
    seen::Seen,
    timestamp::{KEY_FILE, Timestamper},
};
use crate::durable;

/// The folder of published metadata inside the data folder.
pub(crate) const METADATA_DIR: &str = "metadata";
/// So many days is a root for development valid.
const ROOT_DAYS: u64 = 30;
/// Permission bits of a folder with keys.
const FOLDER_MODE: u32 = 0o700;
/// Permission bits of metadata, which is public.
const PUBLIC_MODE: u32 = 0o644;

/// What `init` made.
#[derive(Debug)]
pub(crate) struct Initialised {
    /// The root that agents are to be given as `trust_root`.
    pub(crate) trust_root: PathBuf,
}

/// Makes keys and metadata for development: marked as such, one key per role, valid for 30 days. Nothing that stands
/// in one of the folders already is replaced (`INIT_EXISTS`), and neither folder holds the other
/// (`INIT_FOLDERS_OVERLAP`).
pub(crate) fn init_dev(
    data_dir: &Path,
    publisher_dir: &Path,
    now: SystemTime,
) -> Result<Initialised, PublishError> {
    refuse_overlap(data_dir, publisher_dir)?;
    let metadata_dir = data_dir.join(METADATA_DIR);
    let taken = [ROOT_KEY, TARGETS_KEY, SNAPSHOT_KEY, ROOT_FILE].map(|name| publisher_dir.join(name));
    taken.iter().try_for_each(|path| refuse_existing(path))?;
    refuse_existing(&data_dir.join(KEY_FILE))?;
    refuse_existing(&metadata_dir)?;
    for folder in [data_dir, publisher_dir, &metadata_dir] {
        durable::create_folder(folder, FOLDER_MODE).map_err(|cause| io_error(folder, cause))?;
    }
    let root = make_root(data_dir, publisher_dir, now)?;
    let (targets, snapshot) = make_empty(publisher_dir, now)?;
    let timestamp = Timestamper::open(data_dir)?.sign(&snapshot, 0, now)?;
    let files = [("1.root.json", &root), ("targets.json", &targets), ("snapshot.json", &snapshot)];
    for (name, bytes) in files.into_iter().chain([("timestamp.json", &timestamp)]) {
        write(&metadata_dir.join(name), bytes)?;
    }
    Seen::in_dir(publisher_dir).start(&Stored::from_root(&root)?)?;
    let trust_root = publisher_dir.join(ROOT_FILE);
    write(&trust_root, &root)?;
    Ok(Initialised { trust_root })
}

/// Keeps the publisher's keys out of the controller's reach, also by way of a link.
fn refuse_overlap(data_dir: &Path, publisher_dir: &Path) -> Result<(), PublishError> {
    let resolve = |path: &Path| resolved(path).map_err(|cause| io_error(path, cause));
    let (data, publisher) = (resolve(data_dir)?, resolve(publisher_dir)?);
    if !data.starts_with(&publisher) && !publisher.starts_with(&data) {
        return Ok(());
    }
    let (data_dir, publisher_dir) = (data_dir.to_owned(), publisher_dir.to_owned());
    Err(PublishError::FoldersOverlap { data_dir, publisher_dir })
}

/// A path without links, of which the last parts need not exist.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find(|part| part.exists()).unwrap_or_else(|| Path::new("/"));
    let missing = path.strip_prefix(there).map_err(io::Error::other)?;
    let mut resolved = there.canonicalize()?;
    for part in missing.components() {
        // What does not exist is no link, so the words of the path tell where it leads.
        if part == Component::ParentDir {
            resolved.pop();
        } else {
            resolved.push(part);
        }
    }
    Ok(resolved)
}

fn make_root(data_dir: &Path, publisher_dir: &Path, now: SystemTime) -> Result<Vec<u8>, PublishError> {
    let root_key = SigningKey::generate(&publisher_dir.join(ROOT_KEY))?;
    let keys = [
        ("targets", SigningKey::generate(&publisher_dir.join(TARGETS_KEY))?),
        ("snapshot", SigningKey::generate(&publisher_dir.join(SNAPSHOT_KEY))?),
        ("timestamp", SigningKey::generate(&data_dir.join(KEY_FILE))?),
    ];
    let mut fields = json!({ "x-env": "dev", "consistent_snapshot": false, "keys": {}, "roles": {} });
    for (role, key) in keys.iter().map(|(role, key)| (*role, key)).chain([("root", &root_key)]) {
        name_key(&mut fields, role, key)?;
    }
    let root: Root = make(1, now + days(ROOT_DAYS), fields)?;
    sign(root, &root_key)
}

/// Enters a key into a root as the only one of a role.
fn name_key(root: &mut Value, role: &str, key: &SigningKey) -> Result<(), PublishError> {
    let public = key.public();
    let id = public.key_id().map_err(|cause| PublishError::Sign(cause.to_string()))?;
    let id = hex::encode(&id);
    root["roles"][role] = json!({ "keyids": [id], "threshold": 1 });
    root["keys"][id] = json!(public);
    Ok(())
}

fn make_empty(publisher_dir: &Path, now: SystemTime) -> Result<(Vec<u8>, Vec<u8>), PublishError> {
    let key = |name| SigningKey::read(&publisher_dir.join(name));
    let targets: Targets = make(1, now + days(TARGETS_DAYS), json!({ "targets": {} }))?;
    let version = targets.version;
    let targets = sign(targets, &key(TARGETS_KEY)?)?;
    let meta = json!({ "meta": { "targets.json": describe(&targets, version) } });
    let snapshot: Snapshot = make(1, now + days(SNAPSHOT_DAYS), meta)?;
    Ok((targets, sign(snapshot, &key(SNAPSHOT_KEY)?)?))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PublishError> {
    durable::write(durable::Kind::Init, path, bytes, PUBLIC_MODE).map_err(|cause| io_error(path, cause))
}
