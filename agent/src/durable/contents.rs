//! Files named by the SHA-256 of what is in them.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use fleetswap_trust::Digest;
use sha2::{Digest as _, Sha256};

use super::{DurableError, atomic_write, publish, read, remove};

/// Ending of a file that is not complete yet.
const PART: &str = ".part";

/// One folder of such files.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    dir: PathBuf,
    max: u64,
}

impl Contents {
    pub(super) fn new(dir: PathBuf, max: u64) -> Self {
        Self { dir, max }
    }

    /// Where the file with this SHA-256 is or would be.
    pub(crate) fn path(&self, sha256: Digest) -> PathBuf {
        self.dir.join(sha256.to_string())
    }

    /// Where its first bytes are kept until it is complete.
    pub(crate) fn part(&self, sha256: Digest) -> PathBuf {
        self.dir.join(format!("{sha256}{PART}"))
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
            atomic_write(&path, bytes)?;
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
            Ok(_) => remove(&path).map(|()| false),
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
            return remove(&part).map(|()| false);
        }
        publish(&part, &self.path(sha256)).map(|()| true)
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
                remove(&entry.path())?;
            }
        }
        Ok(())
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
