//! What was accepted before, and the trait that keeps it durably.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::{
    Role, TrustError,
    state::{self, State},
};

/// The format of [`Stored::encode`].
const FORMAT: u32 = 1;

/// Version numbers of the four roles; 0 = none seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Of the root.
    pub root: u64,
    /// Of the timestamp.
    pub timestamp: u64,
    /// Of the snapshot.
    pub snapshot: u64,
    /// Of the targets.
    pub targets: u64,
}

/// Everything that was accepted so far: it is saved as a whole or not at all. Metadata is JSON, kept as the text
/// that was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    format: u32,
    pub(crate) root: String,
    pub(crate) timestamp: Option<String>,
    pub(crate) snapshot: Option<String>,
    pub(crate) targets: Option<String>,
    /// Versions below these are refused. Only a newer root that changes a role's keys lowers that role's floor.
    pub(crate) floors: Versions,
    /// Time of the last complete update, in seconds since 1970; 0 = none yet.
    pub(crate) verified_at: u64,
}

/// Keeps what was accepted. `save` is called once per update, with everything that it accepted; it is durable, and
/// all or nothing, when it returns. Damage is an error of `load`, never an empty store.
pub trait TrustedStore: Send + Sync {
    /// What was saved last; on a new host [`Stored::from_root`] of the root that came with its config.
    fn load(&self) -> Result<Stored, StoreError>;
    /// Replaces what was saved.
    fn save(&self, stored: &Stored) -> Result<(), StoreError>;
}

/// Why a [`TrustedStore`] could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What is stored can't be read.
    #[error("what is stored is damaged: {0}")]
    Damaged(String),
    /// Reading or writing failed.
    #[error("reading or writing failed")]
    Io(#[from] std::io::Error),
}

/// A store in memory, for a caller that keeps the result itself.
#[derive(Debug)]
pub struct MemoryStore(Mutex<Stored>);

impl Stored {
    /// The start on a new host: a root that the operator trusts, and nothing else. The root must be signed by its
    /// own keys; `TRUST_STORE_DAMAGED` if it isn't.
    pub fn from_root(root: &[u8]) -> Result<Self, TrustError> {
        let text = state::text(root, Role::Root)?;
        let version = crate::root::read_trusted(root)?.signed.version.get();
        Ok(Self {
            format: FORMAT,
            root: text,
            timestamp: None,
            snapshot: None,
            targets: None,
            floors: Versions { root: version, ..Versions::default() },
            verified_at: 0,
        })
    }

    /// What a server keeps as files and has published itself; every signature is verified, nothing is asked about
    /// time. To take in what a publisher uploads, sign a timestamp for it, and [`crate::update`] a [`MemoryStore`] of
    /// this with all three files.
    pub fn from_files(
        root: &[u8],
        timestamp: &[u8],
        snapshot: &[u8],
        targets: &[u8],
    ) -> Result<Self, TrustError> {
        let mut stored = Self::from_root(root)?;
        stored.timestamp = Some(state::text(timestamp, Role::Timestamp)?);
        stored.snapshot = Some(state::text(snapshot, Role::Snapshot)?);
        stored.targets = Some(state::text(targets, Role::Targets)?);
        let state = State::read(stored)?;
        Ok(Self { floors: state.versions, ..state.stored })
    }

    /// The newest trusted root, as it was signed.
    #[must_use]
    pub fn root(&self) -> &[u8] {
        self.root.as_bytes()
    }

    /// The newest timestamp, as it was signed.
    #[must_use]
    pub fn timestamp(&self) -> Option<&[u8]> {
        self.timestamp.as_deref().map(str::as_bytes)
    }

    /// The newest snapshot, as it was signed.
    #[must_use]
    pub fn snapshot(&self) -> Option<&[u8]> {
        self.snapshot.as_deref().map(str::as_bytes)
    }

    /// The newest targets, as they were signed.
    #[must_use]
    pub fn targets(&self) -> Option<&[u8]> {
        self.targets.as_deref().map(str::as_bytes)
    }

    /// Versions below these are refused.
    #[must_use]
    pub const fn floors(&self) -> Versions {
        self.floors
    }

    /// As bytes for a file; whoever writes them adds its own checksum.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::json!(self).to_string().into_bytes()
    }

    /// Reads what [`Stored::encode`] wrote. Whether the signatures hold is checked where it is used.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let stored: Self =
            serde_json::from_slice(bytes).map_err(|cause| StoreError::Damaged(cause.to_string()))?;
        if stored.format == FORMAT {
            Ok(stored)
        } else {
            Err(StoreError::Damaged(format!("it has format {}; this program knows {FORMAT}", stored.format)))
        }
    }
}

impl MemoryStore {
    /// A store that holds `stored`.
    #[must_use]
    pub const fn new(stored: Stored) -> Self {
        Self(Mutex::new(stored))
    }

    /// What is stored now.
    #[must_use]
    pub fn stored(&self) -> Stored {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TrustedStore for MemoryStore {
    fn load(&self) -> Result<Stored, StoreError> {
        Ok(self.stored())
    }

    fn save(&self, stored: &Stored) -> Result<(), StoreError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stored.clone();
        Ok(())
    }
}

impl From<StoreError> for TrustError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(reason) => Self::StoreDamaged { part: "metadata".to_owned(), reason },
            StoreError::Io(_) => Self::Store(error),
        }
    }
}
