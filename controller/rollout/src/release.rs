//! A release as the planner sees it: a name for a manifest.

use std::fmt;

use semver::Version;
use serde::{Deserialize, Serialize};

/// What a host runs. Two releases are the same if their ids are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Release {
    /// Name of the plugin.
    pub plugin: String,
    /// Version of the plugin.
    pub version: Version,
    /// Beside the version; grows with config, probes, data or platforms.
    pub revision: u64,
    /// SHA-256 of the manifest's bytes, 64 hex digits.
    pub id: String,
}

impl PartialEq for Release {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Release {}

impl Release {
    /// Whether this is a lower version than `other`; the revision doesn't count.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.version.cmp_precedence(&other.version).is_lt()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.plugin, self.version)?;
        if self.revision > 1 { write!(f, "-r{}", self.revision) } else { Ok(()) }
    }
}
