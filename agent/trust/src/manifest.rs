//! The manifest of a release: what the publisher signs and a host installs.
//!
//! A manifest is canonical JSON without times: keys sorted, no spaces, numbers and strings as `serde_json` writes
//! them. So equal contents are equal bytes, and the SHA-256 of the bytes names the release.

mod error;
mod probe;
mod rules;

use std::collections::BTreeMap;

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use error::ManifestError;
pub use probe::{Mismatch, PROBE_MAX, Probe};

use crate::Digest;

/// The format that this program writes and reads.
pub const FORMAT: u32 = 1;
/// Largest manifest, in bytes.
pub const MANIFEST_MAX: usize = 64 * 1024;
/// Most functional probes of a release.
pub const PROBES_MAX: usize = 16;
/// Most data blobs of a release.
pub const DATA_MAX: usize = 64;
/// Most platforms of a release.
pub const PLATFORMS_MAX: usize = 16;
/// Largest artifact or data blob, in bytes.
pub const ARTIFACT_MAX: u64 = 256 * 1024 * 1024;
/// Largest config, in bytes.
pub const CONFIG_MAX: u64 = 1024 * 1024;
/// Largest descriptor, in bytes.
pub const DESCRIPTOR_MAX: u64 = 256 * 1024;

/// What names a release: the SHA-256 of its manifest's bytes.
pub type ReleaseId = Digest;

/// Everything that a host must know to install a release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the plugin.
    pub plugin: String,
    /// Version of the plugin; without build metadata.
    pub version: Version,
    /// From 1 on; a change of config, probes, data or platforms under the same version is the next revision.
    pub revision: u64,
    /// Lowest agent version that may install the release.
    pub min_agent: Version,
    /// Once the release is committed, no version below this one is installed.
    pub floor: Option<Version>,
    /// Calls that must give the expected answers before the release serves.
    pub probes: Vec<Probe>,
    /// When the release counts as healthy.
    pub health: HealthRule,
    /// What `create` is given.
    pub config: Option<BlobRef>,
    /// Files that the plugin needs beside its artifact.
    pub data: Vec<DataBlob>,
    /// By platform, e.g. `x86_64-linux-gnu`.
    pub platforms: BTreeMap<String, Platform>,
}

/// A blob by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// SHA-256 of the bytes.
    pub sha256: Digest,
    /// Count of the bytes.
    pub length: u64,
}

/// A data blob and the name that the plugin knows it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataBlob {
    /// A flat file name.
    pub name: String,
    /// SHA-256 of the bytes.
    pub sha256: Digest,
    /// Count of the bytes.
    pub length: u64,
}

/// What one platform loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// The shared library.
    pub artifact: BlobRef,
    /// Its descriptor; `describe()` must return the same bytes.
    pub descriptor: BlobRef,
}

/// When a worker counts as healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthRule {
    /// Time between two checks, in milliseconds: 10 to 60,000.
    pub interval_ms: u64,
    /// So many good checks in a row: 1 to 100.
    pub green: u32,
    /// Time for one check, in milliseconds: 1 to 60,000.
    pub timeout_ms: u64,
}

impl Default for HealthRule {
    fn default() -> Self {
        Self { interval_ms: 1000, green: 3, timeout_ms: 2000 }
    }
}

impl BlobRef {
    /// The reference to `bytes`.
    #[must_use]
    pub fn to(bytes: &[u8]) -> Self {
        Self { sha256: Digest::of(bytes), length: bytes.len() as u64 }
    }
}

impl Manifest {
    /// Reads the bytes of a manifest: canonical, within all bounds, of a known format.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_MAX {
            return Err(ManifestError::TooLarge { length: bytes.len() });
        }
        refuse_other_formats(bytes)?;
        let manifest: Self = serde_json::from_slice(bytes).map_err(|cause| invalid(cause.to_string()))?;
        manifest.check()?;
        if manifest.canonical() != bytes {
            return Err(invalid("its bytes are not in canonical form".to_owned()));
        }
        Ok(manifest)
    }

    /// The lowest agent version that may install the release, whatever else the bytes say; `None` if it can't be
    /// read. A program that is too old for a release may not understand the rest of its manifest.
    #[must_use]
    pub fn min_agent_in(bytes: &[u8]) -> Option<Version> {
        #[derive(Deserialize)]
        struct Head {
            min_agent: Version,
        }
        if bytes.len() > MANIFEST_MAX {
            return None;
        }
        serde_json::from_slice(bytes).ok().map(|Head { min_agent }| min_agent)
    }

    /// Checks every bound that a manifest has; what passes is read back by [`Manifest::parse`].
    pub fn check(&self) -> Result<(), ManifestError> {
        rules::check(self).map_err(invalid)?;
        let length = self.canonical().len();
        if length > MANIFEST_MAX { Err(ManifestError::TooLarge { length }) } else { Ok(()) }
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        sorted(&serde_json::json!(self)).to_string().into_bytes()
    }

    /// The name of the release.
    #[must_use]
    pub fn release_id(&self) -> ReleaseId {
        Digest::of(&self.canonical())
    }

    /// The manifest as a blob.
    #[must_use]
    pub fn blob(&self) -> BlobRef {
        BlobRef::to(&self.canonical())
    }

    /// The name under which TUF lists the manifest: `NAME-VERSION-rREVISION.json`.
    #[must_use]
    pub fn target_name(&self) -> String {
        target_name(&self.plugin, &self.version, self.revision)
    }
}

/// The TUF target name of a release.
#[must_use]
pub fn target_name(plugin: &str, version: &Version, revision: u64) -> String {
    format!("{plugin}-{version}-r{revision}.json")
}

/// Whether `name` is the name of a plugin: `[a-z][a-z0-9_-]*`, at most 64 bytes.
#[must_use]
pub fn is_plugin_name(name: &str) -> bool {
    rules::is_name(name, b"_-")
}

/// Whether a TUF target may have this name: flat, plain ASCII, ending in `.json`, at most 256 bytes.
pub(crate) fn is_target_name(name: &str) -> bool {
    const NAME_MAX: usize = 256;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.len() <= NAME_MAX
        && name.ends_with(".json")
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(plain)
}

/// Says clearly that a manifest is newer than this program, before its unknown fields are found fault with.
fn refuse_other_formats(bytes: &[u8]) -> Result<(), ManifestError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|cause| invalid(cause.to_string()))?;
    if head.format == FORMAT { Ok(()) } else { Err(ManifestError::UnknownFormat { format: head.format }) }
}

fn invalid(reason: String) -> ManifestError {
    ManifestError::Invalid { reason }
}

/// The value with the keys of every object in order, whatever order the map type of `serde_json` keeps.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<&String, Value> =
                fields.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests;
