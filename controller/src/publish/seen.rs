//! What the publisher has seen of the server, and what it has signed itself: a stolen server can't show it the past.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use fleetswap_trust::{Digest, StoreError, Stored, TrustError, TrustedStore};
use serde::{Deserialize, Serialize};

use super::{PublishError, keys::io_error};
use crate::durable;

/// Name of the file with the metadata that was seen last.
const SEEN_FILE: &str = "seen.json";
/// Name of the file with the versions that were signed last.
const SIGNED_FILE: &str = "signed.json";
/// Name of the file that is locked while something is signed.
const LOCK_FILE: &str = "lock";
/// Permission bits of these files.
const MODE: u32 = 0o600;

/// The memory of a publisher's folder.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    dir: PathBuf,
}

/// The highest versions that this publisher has signed. A version is never signed twice, even if the server never
/// got to see the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignedVersions {
    pub(super) targets: u64,
    pub(super) snapshot: u64,
}

/// `Stored` with a checksum.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checked {
    sha256: Digest,
    stored: String,
}

impl Seen {
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Remembers the first root and that nothing was signed.
    pub(super) fn start(&self, stored: &Stored) -> Result<(), PublishError> {
        self.save(stored).map_err(TrustError::from)?;
        self.save_signed(SignedVersions::default())
    }

    /// Keeps other processes from signing until the guard is dropped.
    pub(super) fn lock(&self) -> Result<File, PublishError> {
        let path = self.dir.join(LOCK_FILE);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|cause| io_error(&path, cause))
    }

    pub(super) fn signed(&self) -> Result<SignedVersions, PublishError> {
        let path = self.dir.join(SIGNED_FILE);
        let bytes = fs::read(&path).map_err(|cause| io_error(&path, cause))?;
        serde_json::from_slice(&bytes).map_err(|cause| io_error(&path, cause.into()))
    }

    pub(super) fn save_signed(&self, versions: SignedVersions) -> Result<(), PublishError> {
        let path = self.dir.join(SIGNED_FILE);
        let bytes = serde_json::json!(versions).to_string();
        durable::write(durable::Kind::Seen, &path, bytes.as_bytes(), MODE)
            .map_err(|cause| io_error(&path, cause))
    }
}

impl TrustedStore for Seen {
    fn load(&self) -> Result<Stored, StoreError> {
        let damaged = |reason: &str| StoreError::Damaged(reason.to_owned());
        let bytes = fs::read(self.dir.join(SEEN_FILE))?;
        let checked: Checked = serde_json::from_slice(&bytes).map_err(|cause| damaged(&cause.to_string()))?;
        if Digest::of(checked.stored.as_bytes()) == checked.sha256 {
            Stored::decode(checked.stored.as_bytes())
        } else {
            Err(damaged("its checksum doesn't fit"))
        }
    }

    fn save(&self, stored: &Stored) -> Result<(), StoreError> {
        let stored = String::from_utf8(stored.encode()).map_err(io::Error::other)?;
        let checked = Checked { sha256: Digest::of(stored.as_bytes()), stored };
        let bytes = serde_json::json!(checked).to_string();
        Ok(durable::write(durable::Kind::Seen, &self.dir.join(SEEN_FILE), bytes.as_bytes(), MODE)?)
    }
}
