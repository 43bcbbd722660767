//! Why metadata was refused, in the words that an operator reads.

use std::{fmt, time::Duration};

use crate::StoreError;

/// The four roles of TUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Says which keys sign what.
    Root,
    /// Says which snapshot is current; signed anew every hour.
    Timestamp,
    /// Says which targets are current.
    Snapshot,
    /// Lists the releases.
    Targets,
}

/// Why metadata was refused. What runs on the host is never affected.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A role's time is over.
    #[error("{} ended {} ago; nothing new is installed, running plugins are unaffected", validity(*role), span(*ago))]
    Expired {
        /// Whose time is over.
        role: Role,
        /// For how long.
        ago: Duration,
    },
    /// Too few valid signatures.
    #[error("{role} v{version} has {valid} of {threshold} valid signatures")]
    Threshold {
        /// Whose signatures.
        role: Role,
        /// Version that was offered.
        version: u64,
        /// Valid signatures by different keys.
        valid: u64,
        /// So many are needed.
        threshold: u64,
    },
    /// One key counts twice, so a threshold would not mean what it says.
    #[error("root v{version} lists one public key twice for the role {role}; one signer would count as two")]
    DuplicateKey {
        /// Version of the root.
        version: u64,
        /// Role with the key.
        role: Role,
    },
    /// Older than what was accepted before.
    #[error(
        "the server offered {role} v{offered}; v{seen} was seen before: a mirror may be behind, or someone replays"
    )]
    Rollback {
        /// Whose version.
        role: Role,
        /// Version that was offered.
        offered: u64,
        /// Version that was accepted earlier.
        seen: u64,
    },
    /// What was accepted before can't be read any more.
    #[error("the stored {part} can't be trusted: {reason}; refusing rather than forgetting what was seen")]
    StoreDamaged {
        /// Which part of the store.
        part: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The next root doesn't follow from the one that is trusted.
    #[error("root v{version} can't follow root v{trusted}: {reason}")]
    RootChain {
        /// Version that was offered.
        version: u64,
        /// Version that stays trusted.
        trusted: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The clock stands before a time that it has shown already.
    #[error("the clock is {} behind the time of the last accepted update", span(*behind))]
    Clock {
        /// By how much.
        behind: Duration,
    },
    /// A root for trying things out, on a host for real work.
    #[error("this root was made by `controller init --dev`; this host doesn't accept such trust")]
    DevRoot,
    /// A file is not what its name says.
    #[error("the offered {role} can't be read: {reason}")]
    Malformed {
        /// Which file.
        role: Role,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that no role has.
    #[error("the server offered a file `{name}`, which is no metadata")]
    UnknownFile {
        /// Its name, cut if long.
        name: String,
    },
    /// More than is allowed.
    #[error("the server offered more metadata than is accepted: at most {limit}")]
    TooLarge {
        /// The limit that was exceeded.
        limit: String,
    },
    /// A file is missing.
    #[error("the server didn't offer {role}")]
    Missing {
        /// Which file.
        role: Role,
    },
    /// Files of different times were mixed.
    #[error("the offered {role} is not the one that the role above it names: {reason}")]
    Mismatch {
        /// Which file.
        role: Role,
        /// The difference.
        reason: String,
    },
    /// The store could not be read or written.
    #[error("the store of trusted metadata failed")]
    Store(#[source] StoreError),
    /// This machine could not do the work, e.g. a full disk.
    #[error("verification could not run: {reason}")]
    Io {
        /// What failed.
        reason: String,
    },
}

impl TrustError {
    /// Stable code with a page in `docs/errors/`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Expired { role: Role::Root, .. } => "TRUST_EXPIRED_ROOT",
            Self::Expired { role: Role::Timestamp, .. } => "TRUST_EXPIRED_TIMESTAMP",
            Self::Expired { role: Role::Snapshot, .. } => "TRUST_EXPIRED_SNAPSHOT",
            Self::Expired { role: Role::Targets, .. } => "TRUST_EXPIRED_TARGETS",
            Self::Threshold { .. } | Self::DuplicateKey { .. } => "TRUST_THRESHOLD",
            Self::Rollback { .. } => "TRUST_ROLLBACK",
            Self::StoreDamaged { .. } => "TRUST_STORE_DAMAGED",
            Self::RootChain { .. } => "TRUST_ROOT_CHAIN",
            Self::Clock { .. } => "TRUST_CLOCK",
            Self::DevRoot => "TRUST_DEV_ROOT",
            Self::Malformed { .. } | Self::UnknownFile { .. } => "TRUST_MALFORMED",
            Self::TooLarge { .. } => "TRUST_TOO_LARGE",
            Self::Missing { .. } => "TRUST_MISSING",
            Self::Mismatch { .. } => "TRUST_MISMATCH",
            Self::Store(_) | Self::Io { .. } => "TRUST_IO",
        }
    }

    /// What to do next.
    #[must_use]
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::Expired { role: Role::Timestamp, .. } => {
                "check that the controller runs and that the clocks of both machines are right; it signs anew every hour"
            }
            Self::Expired { .. } => {
                "the publisher must sign anew: publish a release, or for the root make a newer one"
            }
            Self::Threshold { .. } | Self::DuplicateKey { .. } => {
                "publish from the folder whose keys the fleet's root names; if you did, treat the server as compromised"
            }
            Self::Rollback { .. } => "wait for the mirror, or ask why the server shows old metadata",
            Self::StoreDamaged { .. } => "restore the state folder from a backup, or enroll the host again",
            Self::RootChain { .. } => {
                "publish every root version in order, each signed by the keys of the one before"
            }
            Self::Clock { .. } => {
                "set the clock of this host right, e.g. by NTP; if it is, it was ahead once: wait, a day at most"
            }
            Self::DevRoot => "use the fleet's real root, or set `allow_dev_trust = true` on a host for tests",
            Self::Malformed { .. } | Self::UnknownFile { .. } | Self::TooLarge { .. } => {
                "ask which server answered; a controller of this version doesn't send this"
            }
            Self::Missing { .. } | Self::Mismatch { .. } => "try again; if it stays, publish a release anew",
            Self::Store(_) | Self::Io { .. } => {
                "free disk space and check the permissions of the state folder"
            }
        }
    }

    /// Whether this machine is at fault and not what was offered: its disk, its clock, or its configuration. Other
    /// hosts may well accept the same.
    #[must_use]
    pub const fn is_host_fault(&self) -> bool {
        match self {
            Self::Store(_) | Self::Io { .. } => true,
            Self::StoreDamaged { .. } | Self::Clock { .. } | Self::DevRoot => true,
            Self::Expired { .. } | Self::Threshold { .. } | Self::DuplicateKey { .. } => false,
            Self::Rollback { .. } | Self::RootChain { .. } | Self::Malformed { .. } => false,
            Self::UnknownFile { .. } | Self::TooLarge { .. } => false,
            Self::Missing { .. } | Self::Mismatch { .. } => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
        })
    }
}

/// What a role's time limits, in words.
fn validity(role: Role) -> &'static str {
    match role {
        Role::Root => "the validity of the root keys",
        Role::Timestamp => "the repository's freshness proof",
        Role::Snapshot => "the validity of the snapshot",
        Role::Targets => "the validity of the list of releases",
    }
}

/// A duration by its largest unit.
fn span(span: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "min")];
    let seconds = span.as_secs();
    UNITS
        .iter()
        .find(|(unit, _)| seconds >= *unit)
        .map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_timestamp_says_that_what_runs_is_unaffected() {
        let error = TrustError::Expired { role: Role::Timestamp, ago: Duration::from_secs(3 * 3600 + 5) };
        assert_eq!(
            error.to_string(),
            "the repository's freshness proof ended 3 h ago; nothing new is installed, running plugins are unaffected"
        );
        assert_eq!(error.code(), "TRUST_EXPIRED_TIMESTAMP");
    }

    #[test]
    fn a_span_is_told_by_its_largest_unit() {
        let texts = [0, 59, 61, 7200, 200_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(texts, ["0 s", "59 s", "1 min", "2 h", "2 d"]);
    }
}
