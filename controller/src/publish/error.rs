//! Why nothing was signed, in the words that an operator reads.

use std::{io, path::PathBuf};

use fleetswap_proto::Explained;
use fleetswap_trust::{ManifestError, TrustError};
use semver::Version;

use crate::explain;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// `init` would have replaced keys or metadata.
    #[error("{} exists already", path.display())]
    InitExists { path: PathBuf },
    /// The publisher's keys would stand where the controller reads.
    #[error("{} and {} are not apart", data_dir.display(), publisher_dir.display())]
    FoldersOverlap { data_dir: PathBuf, publisher_dir: PathBuf },
    /// Other bytes under a published version and platform.
    #[error("{plugin} {version} is published for {platform} already, with another artifact")]
    VersionPublished { plugin: String, version: Version, platform: String },
    /// Other content under a published version and revision.
    #[error("{plugin} {version} revision {revision} is published already, with other content")]
    RevisionPublished { plugin: String, version: Version, revision: u64 },
    /// The server's metadata is not what the publisher may sign on top of.
    #[error("the server's metadata was refused")]
    Refused(#[from] TrustError),
    /// The manifest breaks a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A key that others may read.
    #[error("{} may be read by other users", path.display())]
    KeyOpen { path: PathBuf },
    /// A key that is missing or no key.
    #[error("{} can't be used as a key: {reason}", path.display())]
    KeyUnusable { path: PathBuf, reason: String },
    /// A key that the root doesn't name.
    #[error("{} is not the key that the root names for {role}", path.display())]
    KeyForeign { path: PathBuf, role: &'static str },
    /// The folder of keys and metadata could not be read or written.
    #[error("{} could not be read or written: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    /// Signing itself failed.
    #[error("signing failed: {0}")]
    Sign(String),
}

impl PublishError {
    /// Stable code with a page in `docs/errors/`.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::InitExists { .. } => "INIT_EXISTS",
            Self::FoldersOverlap { .. } => "INIT_FOLDERS_OVERLAP",
            Self::VersionPublished { .. } => "VERSION_PUBLISHED",
            Self::RevisionPublished { .. } => "REVISION_PUBLISHED",
            Self::Refused(error) => error.code(),
            Self::Manifest(error) => error.code(),
            Self::KeyOpen { .. } => "KEY_OPEN",
            Self::KeyUnusable { .. } => "KEY_UNUSABLE",
            Self::KeyForeign { .. } => "KEY_FOREIGN",
            Self::Io { .. } => "PUBLISHER_IO",
            Self::Sign(_) => "SIGNING_FAILED",
        }
    }

    const fn why(&self) -> &'static str {
        match self {
            Self::InitExists { .. } => {
                "`init` never replaces keys: whoever trusts the old root would refuse the new one"
            }
            Self::FoldersOverlap { .. } => {
                "whoever takes over the controller must not find a key that ships code, so no folder holds the other"
            }
            Self::VersionPublished { .. } => "the artifact of a plugin, version and platform never changes",
            Self::RevisionPublished { .. } => {
                "a release never changes; somebody else may have published this revision"
            }
            Self::Refused(_) => {
                "the publisher signs only on top of metadata that it can verify and that isn't older than what it has seen"
            }
            Self::Manifest(_) => "hosts would refuse the release",
            Self::KeyOpen { .. } => "whoever reads a key can sign in the publisher's name",
            Self::KeyUnusable { .. } => "a key is an Ed25519 key in PKCS#8 (DER), as `init` writes it",
            Self::KeyForeign { .. } => "hosts would refuse what it signs",
            Self::Io { .. } => "the folder is missing, full, or belongs to another user",
            Self::Sign(_) => "the metadata could not be put into the form that is signed",
        }
    }

    const fn fix(&self) -> &'static str {
        match self {
            Self::InitExists { .. } => "use other folders, or remove these two if nobody trusts their root",
            Self::FoldersOverlap { .. } => "name two folders beside each other, better on two machines",
            Self::VersionPublished { .. } => "raise the version of the plugin, build it and push again",
            Self::RevisionPublished { .. } => "push again; it takes the next revision",
            Self::Refused(error) => error.fix(),
            Self::Manifest(error) => error.fix(),
            Self::KeyOpen { .. } => {
                "run `chmod 600` on the key, and make new keys if others may have read it"
            }
            Self::KeyUnusable { .. } | Self::KeyForeign { .. } => {
                "point --publisher-dir (FLEETSWAP_PUBLISHER_DIR) to the folder that `controller init` made"
            }
            Self::Io { .. } => "check --publisher-dir and --data-dir, free space and permissions",
            Self::Sign(_) => "report this as a bug",
        }
    }
}

impl From<PublishError> for Explained {
    fn from(error: PublishError) -> Self {
        Self::new(error.code(), explain::chain(&error), error.why(), error.fix())
    }
}
