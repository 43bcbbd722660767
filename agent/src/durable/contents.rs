//! Files named by the SHA-256 of what is in them.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use fleetswap_trust::Digest;
use sha2::{Digest as _, Sha256};

use super::{DurableError, Kind, Operation, Point, ROOM_LEFT, disk, read, remove, replace, sync_folder};

/// Ending of a file that is not complete yet.
const PART: &str = ".part";

/// One folder of such files.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    dir: PathBuf,
    kind: Kind,
    max: u64,
}

/// An incomplete file, open.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    path: PathBuf,
    kind: Kind,
}

impl Contents {
    pub(super) fn new(dir: PathBuf, kind: Kind, max: u64) -> Self {
        Self { dir, kind, max }
    }

    /// Where the file with this SHA-256 is or would be.
    pub(crate) fn path(&self, sha256: Digest) -> PathBuf {
        self.dir.join(sha256.to_string())
    }

    /// Where its first bytes are kept until it is complete.
    pub(crate) fn part(&self, sha256: Digest) -> PathBuf {
        self.dir.join(format!("{sha256}{PART}"))
    }

    /// Opens the incomplete file with what it has, or an empty one; says how many bytes it has.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn open_part(&self, sha256: Digest) -> Result<(Part, u64), DurableError> {
        let (path, kind) = (self.part(sha256), self.kind);
        let opened = disk::open(kind, &path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(DurableError::io("opening", &path))?;
        Ok((Part { file, path, kind }, length))
    }

    /// Refuses a file that would fill the disk, before a byte of it is written. A quota is not seen here.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn require_room(&self, sha256: Digest, length: u64) -> Result<(), DurableError> {
        let path = self.part(sha256);
        let held = path.metadata().map_or(0, |part| part.len());
        let more = length.saturating_sub(held);
        // A file system that doesn't tell is written until it refuses.
        let Ok(disk) = rustix::fs::statvfs(&self.dir) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < more.saturating_add(ROOM_LEFT) {
            return Err(DurableError::NoRoom { path, more, free });
        }
        Ok(())
    }

    /// Gives up the incomplete file.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn drop_part(&self, sha256: Digest) -> Result<(), DurableError> {
        remove(self.kind, &self.part(sha256))
    }

    /// Whether there is a file of this name; its bytes are not looked at.
    pub(crate) fn has(&self, sha256: Digest) -> Result<bool, DurableError> {
        let path = self.path(sha256);
        path.try_exists().map_err(|source| DurableError::Io { doing: "looking for", path, source })
    }

    /// Largest file, in bytes.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// Keeps bytes durably and names them.
    ///
    /// # Errors
    /// Too many bytes, or the disk failed.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, DurableError> {
        let name = Digest::of(bytes);
        let (path, length) = (self.path(name), bytes.len() as u64);
        if length > self.max {
            return Err(DurableError::TooLarge { path, length, max: self.max });
        }
        if !self.holds(name, length)? {
            replace(self.kind, &path, bytes)?;
            sync_folder(Point(self.kind, Operation::SyncFolder), &self.dir)?;
        }
        Ok(name)
    }

    /// The bytes with this SHA-256; `None` if they aren't here.
    ///
    /// # Errors
    /// The file holds other bytes, or the disk failed.
    pub(crate) fn get(&self, sha256: Digest) -> Result<Option<Vec<u8>>, DurableError> {
        let path = self.path(sha256);
        let Some(bytes) = read(&path, self.max)? else { return Ok(None) };
        if Digest::of(&bytes) == sha256 {
            return Ok(Some(bytes));
        }
        Err(DurableError::Damaged { path, why: "its bytes are not those of its name".to_owned() })
    }

    /// Whether the file is here and whole; one that holds other bytes is removed.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn holds(&self, sha256: Digest, length: u64) -> Result<bool, DurableError> {
        let path = self.path(sha256);
        match digest_of(&path) {
            Ok(found) if found == (sha256, length) => Ok(true),
            Ok(_) => remove(self.kind, &path).map(|()| false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(DurableError::io("reading", &path)(error)),
        }
    }

    /// Gives the complete `.part` file its final name, if its bytes are the right ones; else removes it.
    /// Says whether they were.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn finish(&self, sha256: Digest, length: u64) -> Result<bool, DurableError> {
        let part = self.part(sha256);
        let found = digest_of(&part).map_err(DurableError::io("reading", &part))?;
        if found != (sha256, length) {
            return remove(self.kind, &part).map(|()| false);
        }
        let synced = File::open(&part).and_then(|file| disk::sync(self.kind, &file, &part));
        synced.map_err(DurableError::io("syncing", &part))?;
        let renamed = disk::rename(self.kind, &part, &self.path(sha256));
        renamed.map_err(DurableError::io("renaming", &part))?;
        sync_folder(Point(self.kind, Operation::SyncFolder), &self.dir).map(|()| true)
    }

    /// The complete files, those written last first.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn newest_first(&self) -> Result<Vec<Digest>, DurableError> {
        let mut found = Vec::new();
        for entry in self.dir.read_dir().map_err(DurableError::io("reading", &self.dir))? {
            let entry = entry.map_err(DurableError::io("reading", &self.dir))?;
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            let written = written.map_err(DurableError::io("reading", &self.dir))?;
            let name = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
            found.extend(name.map(|name| (written, name)));
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        Ok(found.into_iter().map(|(_, name)| name).collect())
    }

    /// Removes every file, complete or not, that isn't named: the folder stays bounded.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn keep_only(&self, names: &BTreeSet<Digest>) -> Result<(), DurableError> {
        for entry in self.dir.read_dir().map_err(DurableError::io("reading", &self.dir))? {
            let entry = entry.map_err(DurableError::io("reading", &self.dir))?;
            let name = entry.file_name();
            let name = name.to_str().map(|name| name.strip_suffix(PART).unwrap_or(name).parse());
            if !matches!(name, Some(Ok(digest)) if names.contains(&digest)) {
                remove(self.kind, &entry.path())?;
            }
        }
        Ok(())
    }
}

impl Part {
    /// Writes bytes from an offset on. They are durable only when the file is finished.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), DurableError> {
        let written = disk::write_at(self.kind, &self.file, &self.path, (bytes, at));
        written.map_err(DurableError::io("writing", &self.path))
    }

    /// Keeps only the first `length` bytes.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn cut(&self, length: u64) -> Result<(), DurableError> {
        disk::cut(self.kind, &self.file, &self.path, length).map_err(DurableError::io("cutting", &self.path))
    }
}

/// SHA-256 and length.
fn digest_of(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let length = io::copy(&mut file, &mut Hashing(&mut hash))?;
    Ok((Digest::from(<[u8; 32]>::from(hash.finalize())), length))
}

/// Feeds what is written to it into a hash.
struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
