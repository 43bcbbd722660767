//! A release as the host knows it: its name, and what of it decides how it is swapped.

use std::fmt;

use semver::Version;
use serde::{Deserialize, Serialize};

/// SHA-256 of a manifest's bytes: the identity of a release.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ReleaseId([u8; 32]);

/// A release id that is not 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a release id is 64 hex digits, this is {len} bytes of something else")]
pub struct BadReleaseId {
    /// Length of the text in bytes.
    pub len: usize,
}

impl ReleaseId {
    /// From the hash itself.
    #[must_use]
    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// From 64 hex digits.
    ///
    /// # Errors
    /// [`BadReleaseId`] for anything else.
    pub fn from_hex(text: &str) -> Result<Self, BadReleaseId> {
        let bad = || BadReleaseId { len: text.len() };
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut id = [0; 32];
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Self(id))
    }

    /// The hash itself.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReleaseId({self})")
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = BadReleaseId;

    fn try_from(text: String) -> Result<Self, BadReleaseId> {
        Self::from_hex(&text)
    }
}

/// What is offered to a host, and what it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The plugin's name.
    pub plugin: String,
    /// Its version.
    pub version: Version,
    /// The revision of the version.
    pub revision: u64,
    /// The identity.
    pub id: ReleaseId,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.version)?;
        if self.revision > 1 { write!(f, "-r{}", self.revision) } else { Ok(()) }
    }
}

/// The state versions of a release; both empty = it has no state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateVersions {
    /// Versions that it can save.
    pub writes: Vec<u32>,
    /// Versions that it can take over.
    pub reads: Vec<u32>,
}

impl StateVersions {
    /// Whether there is state that could be lost.
    #[must_use]
    pub const fn has_state(&self) -> bool {
        !self.writes.is_empty()
    }
}

/// A verified release: everything that later steps need, so that the record alone can start it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// What it is.
    pub release: Release,
    /// Its state versions.
    pub state: StateVersions,
    /// Whether it works between calls.
    pub background: bool,
    /// The floor that its manifest asks for.
    pub floor: Option<Version>,
    /// Digest of everything in the manifest that concerns this host: two releases with equal parts run the
    /// same bytes with the same config, probes and health rule.
    pub part: String,
}

impl Installed {
    /// Whether callers must wait while `other` takes this one's place: one of them has state or works in the
    /// background, and at most one may be active.
    #[must_use]
    pub const fn excludes(&self, other: &Self) -> bool {
        self.background || other.background || self.state.has_state() || other.state.has_state()
    }
}

/// How state goes from one release to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carry {
    /// There is no state to carry.
    Nothing,
    /// Saved by the one and taken over by the other in this version.
    Version(u32),
    /// The one saves no version that the other reads; in words.
    Lost(String),
}

impl Carry {
    /// The highest state version that `from` saves and `to` takes over.
    #[must_use]
    pub fn between(from: &Installed, to: &Installed) -> Self {
        if !from.state.has_state() {
            return Self::Nothing;
        }
        let common = from.state.writes.iter().copied().filter(|version| to.state.reads.contains(version));
        common.max().map_or_else(
            || {
                let (wrote, reads) = (&from.state.writes, &to.state.reads);
                let (from, to) = (&from.release, &to.release);
                Self::Lost(format!("{from} saves state versions {wrote:?}, {to} reads {reads:?}"))
            },
            Self::Version,
        )
    }
}

/// Whether state that `to` has written could go back to `from`: if not, the change is one-way.
#[must_use]
pub fn is_one_way(from: &Installed, to: &Installed) -> bool {
    to.state.has_state() && matches!(Carry::between(to, from), Carry::Lost(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(version: &str, writes: &[u32], reads: &[u32]) -> Installed {
        Installed {
            release: Release {
                plugin: "counter".into(),
                version: version.parse().unwrap(),
                revision: 1,
                id: ReleaseId::new([version.len() as u8; 32]),
            },
            state: StateVersions { writes: writes.to_vec(), reads: reads.to_vec() },
            background: false,
            floor: None,
            part: version.into(),
        }
    }

    #[test]
    fn state_travels_in_the_highest_version_that_both_know() {
        let (old, new) = (installed("1.0.0", &[1], &[1]), installed("2.0.0", &[1, 2], &[1, 2]));
        assert_eq!(Carry::between(&old, &new), Carry::Version(1));
        assert_eq!(Carry::between(&new, &old), Carry::Version(1));
        assert_eq!(Carry::between(&new, &new), Carry::Version(2));
    }

    #[test]
    fn a_change_without_a_way_back_is_one_way() {
        let (old, new) = (installed("1.0.0", &[1], &[1]), installed("2.0.0", &[2], &[1, 2]));
        assert_eq!(Carry::between(&old, &new), Carry::Version(1));
        assert!(is_one_way(&old, &new));
        assert!(matches!(Carry::between(&new, &old), Carry::Lost(_)));
    }

    #[test]
    fn a_release_without_state_loses_nothing() {
        let (old, new) = (installed("1.0.0", &[], &[]), installed("1.1.0", &[1], &[1]));
        assert_eq!(Carry::between(&old, &new), Carry::Nothing);
        assert!(new.excludes(&old) && old.excludes(&new));
        assert!(!old.excludes(&old));
    }

    #[test]
    fn a_release_id_reads_back_and_refuses_other_text() {
        let id = ReleaseId::new([0xa5; 32]);
        assert_eq!(ReleaseId::from_hex(&id.to_string()), Ok(id));
        assert!(ReleaseId::from_hex("a5").is_err());
        assert!(ReleaseId::from_hex(&"+5".repeat(32)).is_err());
    }
}
