//! Writing that survives a crash: write, fsync, rename, fsync the folder. Only this file does any of it, with those below
//! it; each operation is a failpoint, and none is without need: `docs/decisions/0010-durable-writing.md`.
//!
//! A state folder belongs to one daemon at a time and looks like this:
//!
//! ```text
//! format  lock  host-id
//! records/NAME.a|b   one record per plugin (and one of the host), two copies
//! trust/trusted.a|b  TUF metadata that was accepted, and the floors; two copies
//! blobs/SHA256[.part] manifests/SHA256
//! states/NAME[.aside]  what a plugin handed over last
//! ```

mod contents;
mod disk;
mod points;
mod records;
mod states;
mod trusted;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use tokio::task::JoinError;
use uuid::Uuid;

pub(crate) use contents::{Contents, Part};
pub(crate) use points::Moment;
#[cfg(feature = "failpoints")]
pub(crate) use points::list;
use points::{Kind, Operation, Point};
pub(crate) use records::{Record, Records};
pub(crate) use states::{About, States};
pub(crate) use trusted::TrustDir;

/// The format of the state folder as a whole. A newer one is refused and left untouched.
const FORMAT: u32 = 1;
/// Largest manifest, in bytes.
const MANIFEST_MAX: u64 = 64 * 1024;
/// Largest blob, in bytes.
const BLOB_MAX: u64 = 256 * 1024 * 1024;
/// So many bytes of the disk no fetch takes: a verdict that can't be written is no verdict.
const ROOM_LEFT: u64 = 1024 * 1024;
/// Largest small file (host id, format), in bytes.
const SMALL_MAX: u64 = 256;

/// Why something durable could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DurableError {
    /// The operating system refused; `source` says why.
    #[error("{doing} {path} failed")]
    Io {
        /// What was tried, e.g. "writing".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// Bytes on disk are not what was written, and there is no good copy.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a newer agent.
    #[error("{path} has format {found}, and this agent knows formats up to {FORMAT}")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Another daemon has the folder.
    #[error("{path} is in use by another agent")]
    Locked {
        /// The state folder.
        path: PathBuf,
    },
    /// It would leave too little room for what has to be remembered.
    #[error("{path} needs {more} bytes, and {free} are free, of which {ROOM_LEFT} are kept for records")]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Bytes that it needs yet.
        more: u64,
        /// Bytes that this user may use.
        free: u64,
    },
    /// More bytes than such a file may have.
    #[error("{length} bytes for {path}; at most {max} are kept")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How many bytes were given.
        length: u64,
        /// How many are allowed.
        max: u64,
    },
}

impl DurableError {
    /// The stable code of the error's page.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if is_disk_full(source) => "DISK_FULL",
            Self::NoRoom { .. } => "DISK_FULL",
            Self::Io { .. } => "STATE_DIR_FAILED",
            Self::Damaged { .. } => "RECORD_DAMAGED",
            Self::NewerFormat { .. } => "FORMAT_TOO_NEW",
            Self::Locked { .. } => "STATE_DIR_LOCKED",
            Self::TooLarge { .. } => "STATE_TOO_LARGE",
        }
    }

    /// Work on a thread of its own did not come to its end.
    pub(crate) fn cut_short(error: JoinError) -> Self {
        Self::Io { doing: "working on", path: PathBuf::from("state_dir"), source: error.into() }
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// No room, or no room for this user.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The state folder, locked for as long as this value or a clone of it lives.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    /// Held, never read: closing it releases the lock.
    _lock: Arc<File>,
}

impl StateDir {
    /// Opens the folder, makes what is missing, and locks it.
    ///
    /// # Errors
    /// The folder can't be made or written, is in use, or was written by a newer agent.
    pub(crate) fn open(root: &Path) -> Result<Self, DurableError> {
        make_dir(root)?;
        let lock = lock(root)?;
        check_format(&root.join("format"))?;
        let folders = [
            (root.join("records"), Kind::Records),
            (root.join("trust"), Kind::Trust),
            (root.join("blobs"), Kind::Blob),
            (root.join("manifests"), Kind::Manifest),
            (root.join("states"), Kind::SavedState),
        ];
        for (folder, _) in &folders {
            disk::make_folder(folder).map_err(DurableError::io("making", folder))?;
        }
        // An agent that was killed may have renamed without having synced: what is found here is acted on from now on,
        // so no power loss may take it back.
        for (folder, kind) in [(root.to_owned(), Kind::State)].into_iter().chain(folders) {
            sync_folder(Point(kind, Operation::SyncAtStart), &folder)?;
        }
        Ok(Self { root: root.to_owned(), _lock: Arc::new(lock) })
    }

    /// The host's id: made at the first start, the same ever after.
    ///
    /// # Errors
    /// The file can't be read or written, or holds no UUID.
    pub(crate) fn host_id(&self) -> Result<String, DurableError> {
        let path = self.root.join("host-id");
        if let Some(bytes) = read(&path, SMALL_MAX)? {
            let text = String::from_utf8_lossy(&bytes);
            let damaged = |error: uuid::Error| DurableError::Damaged { path, why: error.to_string() };
            return Ok(Uuid::from_str(text.trim()).map_err(damaged)?.to_string());
        }
        let id = Uuid::new_v4().to_string();
        replace(Kind::HostId, &path, format!("{id}\n").as_bytes())?;
        sync_folder(Point(Kind::HostId, Operation::SyncFolder), &self.root)?;
        Ok(id)
    }

    /// One record per plugin.
    pub(crate) fn records(&self) -> Records {
        Records::new(self.root.join("records"))
    }

    /// The host's own record: what it was told last.
    pub(crate) fn host_record(&self) -> Record {
        Record::new(&self.root.join("records"), "@host", Kind::HostRecord)
    }

    /// What plugins handed over, one file each.
    pub(crate) fn states(&self) -> States {
        States::new(self.root.join("states"))
    }

    /// What was verified before; at the first start the root in the file `trust_root`.
    pub(crate) fn trust(&self, trust_root: &Path) -> TrustDir {
        TrustDir::new(&self.root.join("trust"), trust_root)
    }

    /// Artifacts, descriptors, configs and data, by SHA-256.
    pub(crate) fn blobs(&self) -> Contents {
        Contents::new(self.root.join("blobs"), Kind::Blob, BLOB_MAX)
    }

    /// Verified manifests, by release id.
    pub(crate) fn manifests(&self) -> Contents {
        Contents::new(self.root.join("manifests"), Kind::Manifest, MANIFEST_MAX)
    }
}

/// Makes a folder and those above it that are missing.
fn make_dir(path: &Path) -> Result<(), DurableError> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if !path.is_dir() {
        above.map_or(Ok(()), make_dir)?;
        disk::make_folder(path).map_err(DurableError::io("making", path))?;
        let point = Point(Kind::Folder, Operation::SyncFolder);
        above.map_or(Ok(()), |above| sync_folder(point, above))?;
    }
    Ok(())
}

fn lock(root: &Path) -> Result<File, DurableError> {
    let path = root.join("lock");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(DurableError::io("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DurableError::Locked { path: root.to_owned() }),
        Err(TryLockError::Error(source)) => Err(DurableError::Io { doing: "locking", path, source }),
    }
}

fn check_format(path: &Path) -> Result<(), DurableError> {
    let Some(bytes) = read(path, SMALL_MAX)? else {
        return replace(Kind::Format, path, format!("{FORMAT}\n").as_bytes());
    };
    match String::from_utf8_lossy(&bytes).trim().parse::<u32>() {
        Ok(FORMAT) => Ok(()),
        Ok(found) if found > FORMAT => Err(DurableError::NewerFormat { path: path.to_owned(), found }),
        _ => Err(DurableError::Damaged { path: path.to_owned(), why: "it holds no known format".to_owned() }),
    }
}

/// Replaces a file: after any crash it holds either the old bytes or the new ones. The new ones for certain only once
/// its folder is synced.
///
/// # Errors
/// Any step failed; the file holds the old bytes.
fn replace(kind: Kind, path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let staged = staging(path);
    let written = disk::write(kind, &staged, bytes).and_then(|file| disk::sync(kind, &file, &staged));
    written.map_err(DurableError::io("writing", &staged))?;
    disk::rename(kind, &staged, path).map_err(DurableError::io("renaming", &staged))
}

fn sync_folder(point: Point, folder: &Path) -> Result<(), DurableError> {
    disk::sync_folder(point, folder).map_err(DurableError::io("syncing", folder))
}

/// Removes a file; one that isn't there is no error. A crash may bring it back, which is harmless: it holds what its name
/// says, or is found out by its hash.
///
/// # Errors
/// The operating system refused.
fn remove(kind: Kind, path: &Path) -> Result<(), DurableError> {
    match disk::remove(kind, path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DurableError::io("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Reads a file of at most `max` bytes; `None` if there is none.
fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>, DurableError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DurableError::io("reading", path)(error)),
    };
    if length > max {
        let why = format!("it has {length} bytes, more than the {max} that it may have");
        return Err(DurableError::Damaged { path: path.to_owned(), why });
    }
    fs::read(path).map(Some).map_err(DurableError::io("reading", path))
}

fn staging(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod losses;
#[cfg(test)]
mod tests;
