//! The trusted store: what `fleetswap_trust` has accepted, all of it in one record of two copies.

use std::{
    io,
    path::{Path, PathBuf},
};

use fleetswap_trust::{StoreError, Stored, TrustError, TrustedStore};

use super::{DurableError, Kind, read, records::Record};

/// Largest stored trust, in bytes: a bundle has at most 4 MiB, and text grows when it is put into JSON.
const TRUSTED_MAX: u64 = 16 * 1024 * 1024;
/// Largest file `trust_root`, in bytes.
const ROOT_MAX: u64 = 1024 * 1024;

/// Accepted metadata and floors, on disk.
#[derive(Clone, Debug)]
pub(crate) struct TrustDir {
    record: Record,
    trust_root: PathBuf,
}

impl TrustDir {
    pub(super) fn new(dir: &Path, trust_root: &Path) -> Self {
        let record = Record::new(dir, "trusted", Kind::Trusted).at_most(TRUSTED_MAX);
        Self { record, trust_root: trust_root.to_owned() }
    }

    /// Whether nothing was accepted yet, so that all trust is the file `trust_root`.
    ///
    /// # Errors
    /// What was accepted can't be read.
    pub(crate) fn is_new(&self) -> Result<bool, DurableError> {
        Ok(self.record.load_bytes()?.is_none())
    }

    /// The first root, from the file that the config names.
    fn first(&self) -> Result<Stored, StoreError> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "trust_root names no file");
        let root = read(&self.trust_root, ROOT_MAX).map_err(store_error)?.ok_or_else(missing)?;
        Stored::from_root(&root)
            .map_err(|error| StoreError::Damaged(format!("trust_root: {}", reason(error))))
    }
}

impl TrustedStore for TrustDir {
    fn load(&self) -> Result<Stored, StoreError> {
        match self.record.load_bytes().map_err(store_error)? {
            Some(bytes) => Stored::decode(&bytes),
            None => self.first(),
        }
    }

    fn save(&self, stored: &Stored) -> Result<(), StoreError> {
        self.record.save_bytes(&stored.encode()).map_err(store_error)
    }
}

/// What is wrong with a first root: nothing was stored yet that could be damaged.
fn reason(error: TrustError) -> String {
    match error {
        TrustError::StoreDamaged { reason, .. } => reason,
        other => other.to_string(),
    }
}

fn store_error(error: DurableError) -> StoreError {
    match error {
        DurableError::Io { doing, path, source } => {
            StoreError::Io(io::Error::new(source.kind(), format!("{doing} {}: {source}", path.display())))
        }
        other => StoreError::Damaged(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn store(root: &[u8]) -> (tempfile::TempDir, TrustDir) {
        let dir = tempfile::tempdir().unwrap();
        let trust_root = dir.path().join("root.json");
        fs::write(&trust_root, root).unwrap();
        let store = TrustDir::new(dir.path(), &trust_root);
        (dir, store)
    }

    #[test]
    fn without_a_readable_first_root_nothing_is_trusted() {
        let (_dir, store) = store(b"{}");
        assert!(
            matches!(store.load(), Err(StoreError::Damaged(why)) if why.starts_with("trust_root: missing"))
        );
        assert!(store.is_new().unwrap());
        fs::remove_file(&store.trust_root).unwrap();
        assert!(
            matches!(store.load(), Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn a_damaged_store_is_an_error_and_not_a_new_start() {
        let (_dir, store) = store(b"{}");
        store.record.save_bytes(b"not what was stored").unwrap();
        assert!(matches!(store.load(), Err(StoreError::Damaged(why)) if !why.starts_with("trust_root")));
        assert!(!store.is_new().unwrap());
    }
}
