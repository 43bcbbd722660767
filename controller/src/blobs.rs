//! Blobs: artifacts, descriptors, configs and manifests as files named by their SHA-256.
//!
//! An upload grows in `<sha256>.part`, can go on after any cut, and gets its name only when its bytes have been
//! checked and are durable. What has a name is whole.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use fleetswap_trust::Digest;
use sha2::{Digest as _, Sha256};

use crate::durable::{self, Kind};

/// Largest blob, in bytes.
pub(crate) const BLOB_MAX: u64 = 256 * 1024 * 1024;

/// An upload that nobody went on with for so long is forgotten at the next start.
const PART_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Ends the name of an upload that isn't whole.
const PART: &str = "part";

/// Bytes read at once when a begun upload is hashed again.
const READ_SIZE: usize = 64 * 1024;

/// The folder of blobs. All calls block on the disk.
#[derive(Clone)]
pub(crate) struct Blobs {
    folder: PathBuf,
    uploading: Arc<Mutex<BTreeSet<Digest>>>,
}

/// How much of a blob is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Whole and checked.
    pub(crate) complete: bool,
    /// Bytes that are here: where an upload goes on.
    pub(crate) offset: u64,
}

/// Why a blob was not stored or not found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// Longer than [`BLOB_MAX`], or empty.
    #[error("a blob has 1 to {BLOB_MAX} bytes; this one has {length}")]
    Length {
        /// As announced.
        length: u64,
    },
    /// The upload does not go on where the stored part ends.
    #[error("the upload goes on at byte {asked}, but {held} bytes are here")]
    Offset {
        /// As announced.
        asked: u64,
        /// Bytes that are here.
        held: u64,
    },
    /// Other bytes, or another count of bytes, than announced; they were thrown away.
    #[error("the bytes are not those of blob {sha256}")]
    Mismatch {
        /// The announced digest.
        sha256: Digest,
    },
    /// Another upload of the same blob is under way.
    #[error("blob {sha256} is being uploaded by someone else")]
    Busy {
        /// Its digest.
        sha256: Digest,
    },
    /// There is no such blob.
    #[error("there is no blob {sha256}")]
    NotFound {
        /// Its digest.
        sha256: Digest,
    },
    /// No room left on the disk.
    #[error("no room is left on the disk for the blob")]
    DiskFull,
    /// The disk refused.
    #[error("the blob could not be read or written")]
    Io(#[source] io::Error),
}

impl BlobError {
    /// Stable code with a page in `docs/errors/`.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Length { .. } => "BLOB_TOO_LARGE",
            Self::Offset { .. } => "BLOB_OFFSET",
            Self::Mismatch { .. } => "BLOB_MISMATCH",
            Self::Busy { .. } => "BLOB_BUSY",
            Self::NotFound { .. } => "BLOB_NOT_FOUND",
            Self::DiskFull => "DISK_FULL",
            Self::Io(_) => "STORE_FAILED",
        }
    }
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io(error),
        }
    }
}

impl Blobs {
    /// Opens `data_dir/blobs`, makes it if it isn't there, and forgets uploads that were given up long ago.
    pub(crate) fn open(data_dir: &Path, now: SystemTime) -> io::Result<Self> {
        let folder = data_dir.join("blobs");
        durable::create_folder(&folder, 0o700)?;
        durable::settle(Kind::Blob, &folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let old = now.duration_since(entry.metadata()?.modified()?).is_ok_and(|age| age > PART_AGE_MAX);
            if old && entry.path().extension().is_some_and(|end| end == PART) {
                durable::remove(Kind::Blob, &entry.path())?;
            }
        }
        Ok(Self { folder, uploading: Arc::default() })
    }

    /// How much of a blob is here.
    pub(crate) fn stat(&self, sha256: Digest) -> Result<Stat, BlobError> {
        if let Some(offset) = length(&self.path(sha256))? {
            return Ok(Stat { complete: true, offset });
        }
        Ok(Stat { complete: false, offset: length(&self.part(sha256))?.unwrap_or(0) })
    }

    /// Begins an upload, or goes on with one: `offset` is at most what is here; what lies behind it is dropped.
    pub(crate) fn upload(&self, sha256: Digest, length: u64, offset: u64) -> Result<Upload, BlobError> {
        if length == 0 || length > BLOB_MAX {
            return Err(BlobError::Length { length });
        }
        let claim = self.claim(sha256)?;
        let held = self.stat(sha256)?;
        if offset > held.offset.min(length) {
            return Err(BlobError::Offset { asked: offset, held: held.offset });
        }
        if held.complete {
            return if held.offset == length {
                Ok(Upload { state: State::Done, length, claim })
            } else {
                Err(BlobError::Mismatch { sha256 })
            };
        }
        let path = self.part(sha256);
        let (file, hasher) = reopen(&path, offset)?;
        Ok(Upload { state: State::Open { file, path, hasher, written: offset }, length, claim })
    }

    /// Stores a small blob whole.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let sha256 = Digest::of(bytes);
        let mut upload = self.upload(sha256, bytes.len() as u64, 0)?;
        upload.write(bytes)?;
        upload.finish()?;
        Ok(sha256)
    }

    /// Opens a whole blob for reading from `offset` on; also tells its length.
    pub(crate) fn read(&self, sha256: Digest, offset: u64) -> Result<(File, u64), BlobError> {
        let mut file = match File::open(self.path(sha256)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::NotFound { sha256 });
            }
            other => other?,
        };
        let total = file.metadata()?.len();
        if offset > total {
            return Err(BlobError::Offset { asked: offset, held: total });
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok((file, total))
    }

    /// All bytes of a blob of at most `max` bytes.
    pub(crate) fn get(&self, sha256: Digest, max: u64) -> Result<Vec<u8>, BlobError> {
        let (file, total) = self.read(sha256, 0)?;
        if total > max {
            return Err(BlobError::Length { length: total });
        }
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn claim(&self, sha256: Digest) -> Result<Claim, BlobError> {
        if self.uploading.lock().unwrap_or_else(PoisonError::into_inner).insert(sha256) {
            Ok(Claim { blobs: self.clone(), sha256 })
        } else {
            Err(BlobError::Busy { sha256 })
        }
    }

    fn path(&self, sha256: Digest) -> PathBuf {
        self.folder.join(sha256.to_string())
    }

    fn part(&self, sha256: Digest) -> PathBuf {
        self.path(sha256).with_extension(PART)
    }
}

/// An upload under way. Dropped before its end, it leaves its part for the next one.
pub(crate) struct Upload {
    state: State,
    length: u64,
    claim: Claim,
}

enum State {
    /// The blob was whole before: what is sent is ignored.
    Done,
    Open {
        file: File,
        path: PathBuf,
        hasher: Sha256,
        written: u64,
    },
}

impl Upload {
    /// Takes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let State::Open { file, path, hasher, written } = &mut self.state else { return Ok(()) };
        let after = *written + bytes.len() as u64;
        if after > self.length {
            return Err(self.claim.refuse());
        }
        durable::append(Kind::Blob, file, path, (bytes, *written))?;
        hasher.update(bytes);
        *written = after;
        Ok(())
    }

    /// Ends the upload. If all bytes are here, they are checked and made durable under the blob's name before this
    /// returns; else the part stays.
    pub(crate) fn finish(self) -> Result<Stat, BlobError> {
        let State::Open { file, path, hasher, written } = self.state else {
            return Ok(Stat { complete: true, offset: self.length });
        };
        if written < self.length {
            // Not synced: what a crash takes is sent again, and wrong bytes are found out at the end.
            return Ok(Stat { complete: false, offset: written });
        }
        let Claim { blobs, sha256 } = &self.claim;
        if hasher.finalize()[..] != sha256.bytes() {
            return Err(self.claim.refuse());
        }
        durable::commit(Kind::Blob, &file, &path, &blobs.path(*sha256))?;
        Ok(Stat { complete: true, offset: written })
    }
}

/// The right to write one blob; given back when dropped.
struct Claim {
    blobs: Blobs,
    sha256: Digest,
}

impl Claim {
    /// Throws the part away: no byte of it can be trusted.
    fn refuse(&self) -> BlobError {
        match durable::remove(Kind::Blob, &self.blobs.part(self.sha256)) {
            Ok(()) => BlobError::Mismatch { sha256: self.sha256 },
            Err(error) => error.into(),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.blobs.uploading.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.sha256);
    }
}

fn length(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a part, cuts it at `offset`, and hashes what stays.
fn reopen(part: &Path, offset: u64) -> io::Result<(File, Sha256)> {
    let mut file = durable::open(Kind::Blob, part, 0o600)?;
    durable::cut(Kind::Blob, &file, part, offset)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_SIZE];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((file, hasher)),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests;
