//! Which bytes a host may trust: release manifests, and TUF metadata that says which manifests are current.
//!
//! The caller brings everything in: the bytes that a server offered ([`Bundle`]), the time, and a durable place for
//! what was accepted ([`TrustedStore`]). Signatures are verified by `tough`; around it stand the checks that it
//! leaves out ([`update`] lists them). Nothing here signs.
#![forbid(unsafe_code)]

mod bundle;
mod digest;
mod error;
mod files;
pub mod manifest;
mod root;
mod state;
mod stored;
mod transport;
mod trusted;
mod update;
mod verdict;

pub use bundle::{BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX, Bundle};
pub use digest::{Digest, DigestError};
pub use error::{Role, TrustError};
pub use manifest::{Manifest, ManifestError, ReleaseId};
pub use stored::{MemoryStore, StoreError, Stored, TrustedStore, Versions};
pub use trusted::{Target, Trusted, trusted};
pub use update::{Policy, update, update_for_signing};
