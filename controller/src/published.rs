//! Published metadata: what hosts are shown, verified before it is, and signed as fresh every hour.
//!
//! The folder `metadata` has the chain of roots (`N.root.json`) and `state.json`, the one file that says what is
//! current; it is replaced as a whole. The three other files are those that `init` wrote: only the start.

use std::{
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use fleetswap_proto::{Explained, v1};
use fleetswap_trust::{
    Bundle, Digest, MemoryStore, Policy, Role, StoreError, Stored, TrustError, Trusted, TrustedStore,
    Versions, update,
};
use tokio::sync::watch;

use crate::{
    durable, explain,
    publish::{PublishError, timestamp::Timestamper},
};

/// The folder inside the data folder.
const FOLDER: &str = "metadata";

/// Name of the file that says what is current.
const STATE: &str = "state.json";

/// Permission bits of metadata, which is public.
const PUBLIC_MODE: u32 = 0o644;

/// Most roots that are kept and shown.
const ROOTS_MAX: u64 = 64;

/// The mark of a root for development is for hosts to refuse; the controller serves what its folder was made for.
const POLICY: Policy = Policy { allow_dev: true };

/// What is current, and the key that says so.
pub(crate) struct Published {
    store: FileStore,
    timestamper: Timestamper,
    dev: bool,
    current: Mutex<Arc<Current>>,
    versions: watch::Sender<Versions>,
}

/// Metadata that was verified as a whole.
#[derive(Debug)]
pub(crate) struct Current {
    stored: Stored,
    trusted: Trusted,
}

impl Current {
    /// The releases that are listed.
    pub(crate) fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// The targets as they were signed.
    pub(crate) fn targets(&self) -> &[u8] {
        self.stored.targets().unwrap_or_default()
    }

    /// The snapshot as it was signed.
    pub(crate) fn snapshot(&self) -> &[u8] {
        self.stored.snapshot().unwrap_or_default()
    }
}

/// One file as a host is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetadataFile {
    /// e.g. `2.root.json`
    pub(crate) name: String,
    /// All of it.
    pub(crate) bytes: Vec<u8>,
}

impl Published {
    /// Opens the metadata of a data folder. `NOT_INITIALISED` if `init` never made it; on the first start after
    /// `init` the files that it wrote are verified and taken over.
    pub(crate) async fn open(data_dir: &Path, now: SystemTime) -> Result<Self, Explained> {
        require_initialised(data_dir)?;
        let folder = data_dir.join(FOLDER);
        let timestamper = Timestamper::open(data_dir)?;
        durable::settle(durable::Kind::Metadata, &folder)
            .map_err(|error| no_data_dir(data_dir, &error, true))?;
        let store = FileStore { folder };
        if !store.state().is_file() {
            Box::pin(take_over(&store, &timestamper, now)).await?;
        }
        let stored = store.load().map_err(|error| explain::trust(&error.into()))?;
        timestamper.check(stored.root())?;
        let trusted = fleetswap_trust::trusted(&store).map_err(|error| explain::trust(&error))?;
        let dev = Box::pin(is_dev(&stored, now)).await;
        let (versions, _) = watch::channel(trusted.versions());
        let current = Mutex::new(Arc::new(Current { stored, trusted }));
        Ok(Self { store, timestamper, dev, current, versions })
    }

    /// What is current.
    pub(crate) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Version numbers of the four roles; changes are seen by [`watch::Receiver::changed`].
    pub(crate) fn versions(&self) -> watch::Receiver<Versions> {
        self.versions.subscribe()
    }

    /// Version numbers of the four roles, as they travel.
    pub(crate) fn wire_versions(&self) -> v1::MetadataVersions {
        let Versions { root, timestamp, snapshot, targets } = *self.versions.borrow();
        v1::MetadataVersions { root, timestamp, snapshot, targets }
    }

    /// Whether the root was made by `init --dev`.
    pub(crate) fn is_dev(&self) -> bool {
        self.dev
    }

    /// The files that a host lacks: roots after the one that it knows, a timestamp, and what differs of the rest.
    pub(crate) fn files_after(&self, known: Versions) -> Vec<MetadataFile> {
        let current = self.current();
        let have = current.trusted.versions();
        let first = known.root.saturating_add(1).max(have.root.saturating_sub(ROOTS_MAX));
        let roots = (first..=have.root).filter_map(|version| {
            let name = format!("{version}.root.json");
            let bytes = fs::read(self.store.folder.join(&name)).ok()?;
            Some(MetadataFile { name, bytes })
        });
        let stored = &current.stored;
        let file = |name: &str, bytes: Option<&[u8]>| {
            bytes.map(|bytes| MetadataFile { name: name.to_owned(), bytes: bytes.to_vec() })
        };
        let differs = |known: u64, have: u64, bytes| if known == have { None } else { bytes };
        let rest = [
            file("timestamp.json", stored.timestamp()),
            file("snapshot.json", differs(known.snapshot, have.snapshot, stored.snapshot())),
            file("targets.json", differs(known.targets, have.targets, stored.targets())),
        ];
        roots.chain(rest.into_iter().flatten()).collect()
    }

    /// Verifies what a publisher signed, under a fresh timestamp, as a host would. Nothing is shown or stored yet.
    pub(crate) async fn verify(
        &self,
        targets: &[u8],
        snapshot: &[u8],
        now: SystemTime,
    ) -> Result<Current, Explained> {
        let current = self.current();
        verify(&current.stored, &self.timestamper, (targets, snapshot), now).await
    }

    /// Makes verified metadata durable, then shows it.
    pub(crate) fn show(&self, next: Current) -> Result<(), Explained> {
        self.store.save(&next.stored).map_err(|error| explain::trust(&error.into()))?;
        let versions = next.trusted.versions();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.versions.send_replace(versions);
        Ok(())
    }

    /// Signs anew that what is current is current. The caller keeps publishes out meanwhile.
    pub(crate) async fn renew(&self, now: SystemTime) -> Result<(), Explained> {
        durable::Moment::BeforeRenewal.pass();
        let current = self.current();
        let files = (current.targets(), current.snapshot());
        let next = verify(&current.stored, &self.timestamper, files, now).await?;
        self.show(next)
    }

    /// When the timestamp was signed, as far as its version tells: that is the time in seconds, or a little more.
    pub(crate) fn signed_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.versions.borrow().timestamp)
    }
}

/// Refuses a folder that `init` never made (`NOT_INITIALISED`), and one that can't be looked into
/// (`DATA_DIR_UNUSABLE`); nothing in it is touched.
pub(crate) fn require_initialised(data_dir: &Path) -> Result<(), Explained> {
    let looked =
        fs::read_dir(data_dir).and_then(|_| fs::File::open(data_dir.join(FOLDER).join("1.root.json")));
    match looked {
        Ok(_) => Ok(()),
        Err(error) => Err(no_data_dir(data_dir, &error, data_dir.is_dir())),
    }
}

/// Why a folder can't be the data folder; `is_there` if the system shows a folder under this name.
fn no_data_dir(data_dir: &Path, error: &io::Error, is_there: bool) -> Explained {
    let name = data_dir.display();
    let init =
        "check --data-dir; for a new fleet, once: controller init --dev --data-dir D --publisher-dir P";
    match error.kind() {
        io::ErrorKind::NotFound if is_there => Explained::new(
            "NOT_INITIALISED",
            format!("{name} is not a controller's data folder"),
            "it has no metadata and no timestamp key, which `init` makes",
            init,
        ),
        io::ErrorKind::NotFound => {
            Explained::new("NOT_INITIALISED", format!("{name} does not exist"), error.to_string(), init)
        }
        io::ErrorKind::PermissionDenied => Explained::new(
            "DATA_DIR_UNUSABLE",
            format!("the controller may not read {name}"),
            format!("{error}: it belongs to another user, or a folder above it is closed"),
            format!(
                "run `serve` as the user who ran `init` (`ls -ld {name}` names the owner), or change the owner"
            ),
        ),
        io::ErrorKind::NotADirectory => Explained::new(
            "DATA_DIR_UNUSABLE",
            format!("{name} is not a folder"),
            error.to_string(),
            "point --data-dir to the folder that `controller init` made, not to a file",
        ),
        _ => Explained::new(
            "DATA_DIR_UNUSABLE",
            format!("{name} can't be read"),
            error.to_string(),
            "look at the disk of the data folder, then start the controller again",
        ),
    }
}

/// The first start: the files that `init` wrote, verified like any others.
async fn take_over(store: &FileStore, timestamper: &Timestamper, now: SystemTime) -> Result<(), Explained> {
    let read = |name: &str| fs::read(store.folder.join(name)).map_err(|error| unreadable(store, &error));
    let start = Stored::from_root(&read("1.root.json")?).map_err(|error| explain::trust(&error))?;
    let (targets, snapshot) = (read("targets.json")?, read("snapshot.json")?);
    let first = Box::pin(verify(&start, timestamper, (&targets, &snapshot), now)).await?;
    store.save(&first.stored).map_err(|error| explain::trust(&error.into()))?;
    Ok(())
}

async fn verify(
    stored: &Stored,
    timestamper: &Timestamper,
    (targets, snapshot): (&[u8], &[u8]),
    now: SystemTime,
) -> Result<Current, Explained> {
    let timestamp =
        timestamper.sign(snapshot, stored.floors().timestamp, now).map_err(|error| unsignable(&error))?;
    let mut bundle = Bundle::new();
    for (name, bytes) in
        [("timestamp.json", &timestamp[..]), ("snapshot.json", snapshot), ("targets.json", targets)]
    {
        bundle.append(name, bytes).map_err(|error| explain::trust(&error))?;
    }
    // A refused role must leave nothing behind here, since the others go with it; so the trial is in memory.
    let trial = MemoryStore::new(stored.clone());
    let trusted =
        Box::pin(update(&trial, &bundle, now, POLICY)).await.map_err(|error| explain::trust(&error))?;
    Ok(Current { stored: trial.stored(), trusted })
}

/// The key was read before; what can still go wrong is a snapshot that is none.
fn unsignable(error: &PublishError) -> Explained {
    explain::trust(&TrustError::Malformed { role: Role::Snapshot, reason: error.to_string() })
}

async fn is_dev(stored: &Stored, now: SystemTime) -> bool {
    let trial = MemoryStore::new(stored.clone());
    let strict = Box::pin(update(&trial, &Bundle::new(), now, Policy { allow_dev: false })).await;
    matches!(strict, Err(TrustError::DevRoot))
}

fn unreadable(store: &FileStore, error: &io::Error) -> Explained {
    Explained::new(
        "TRUST_STORE_DAMAGED",
        format!("{} can't be read", store.folder.display()),
        error.to_string(),
        "restore the folder from a backup",
    )
}

/// `state.json`: a line with the SHA-256 of the rest, then the rest.
struct FileStore {
    folder: PathBuf,
}

impl FileStore {
    fn state(&self) -> PathBuf {
        self.folder.join(STATE)
    }
}

impl TrustedStore for FileStore {
    fn load(&self) -> Result<Stored, StoreError> {
        let text = fs::read_to_string(self.state())?;
        let (sum, rest) = text.split_once('\n').unwrap_or_default();
        if Digest::from_str(sum).ok() != Some(Digest::of(rest.as_bytes())) {
            return Err(StoreError::Damaged(format!("the checksum of {} is wrong", self.state().display())));
        }
        Stored::decode(rest.as_bytes())
    }

    fn save(&self, stored: &Stored) -> Result<(), StoreError> {
        let rest = stored.encode();
        let mut bytes = format!("{}\n", Digest::of(&rest)).into_bytes();
        bytes.extend(rest);
        Ok(durable::write(durable::Kind::Metadata, &self.state(), &bytes, PUBLIC_MODE)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_not_to_be_a_data_folder_has_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "no folder").unwrap();
        let refused = |path: &Path| require_initialised(path).unwrap_err();
        let empty = refused(dir.path());
        assert_eq!(empty.code, "NOT_INITIALISED");
        assert!(empty.what.ends_with("is not a controller's data folder"), "{empty}");
        let missing = refused(&dir.path().join("missing"));
        assert_eq!(missing.code, "NOT_INITIALISED");
        assert!(missing.what.ends_with("does not exist"), "{missing}");
        for path in [file.clone(), file.join("below")] {
            let error = refused(&path);
            assert_eq!(error.code, "DATA_DIR_UNUSABLE");
            assert!(error.what.ends_with("is not a folder"), "{error}");
        }
    }

    #[test]
    fn a_folder_of_somebody_else_is_not_called_empty() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = no_data_dir(Path::new("/var/lib/fleet"), &denied, true);
        assert_eq!(
            (&*error.code, &*error.what),
            ("DATA_DIR_UNUSABLE", "the controller may not read /var/lib/fleet")
        );
        assert!(error.fix.contains("`ls -ld /var/lib/fleet` names the owner"), "{error}");
    }
}
