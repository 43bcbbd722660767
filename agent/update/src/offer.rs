//! What the controller tells a host about one plugin.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Release;

/// Ever growing per host: a lower one is refused. A greater epoch is greater whatever `n` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation {
    /// Grows when a controller's store was replaced.
    pub epoch: u64,
    /// Grows with each change of what the host is told.
    pub n: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

/// What the host should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// This release.
    Release(Release),
    /// Nothing: the plugin is to be removed.
    Nothing,
}

impl Target {
    /// The release, if any.
    #[must_use]
    pub const fn release(&self) -> Option<&Release> {
        match self {
            Self::Release(release) => Some(release),
            Self::Nothing => None,
        }
    }

    /// Whether both name the same release, or nothing.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.release().map(|release| release.id) == other.release().map(|release| release.id)
    }
}

/// One assignment as it was told to this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// When it was told, among everything that was.
    pub generation: Generation,
    /// What the host should run.
    pub target: Target,
    /// The rollout that it belongs to; empty for a steady state.
    pub rollout: String,
    /// The attempt within the rollout.
    pub attempt: u32,
    /// Allows a version below the committed one.
    pub rollback: bool,
    /// Length of probation, in milliseconds.
    pub min_healthy_ms: u64,
    /// Time from the offer to the switch, in milliseconds; 0 = [`crate::HEALTHY_DEADLINE_MS`].
    pub healthy_deadline_ms: u64,
}
