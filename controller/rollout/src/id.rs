//! Names and numbers: hosts, rollouts, generations, and the controller's own time.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A host, by the id that its connection carries; never by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostId(pub String);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A rollout; greater is younger. Shown as `r-000007`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RolloutId(pub u64);

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r-{:06}", self.0)
    }
}

/// The text is no rollout id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rollout id such as r-000007")]
pub struct InvalidRolloutId(String);

impl FromStr for RolloutId {
    type Err = InvalidRolloutId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("r-").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok());
        number.map(Self).ok_or_else(|| InvalidRolloutId(text.to_owned()))
    }
}

/// What a host was told; ever growing per host. A greater epoch is greater whatever `n` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Generation {
    /// Opened anew when the store was behind its hosts.
    pub epoch: u64,
    /// Grows by one with each thing that the host is told.
    pub n: u64,
}

impl Generation {
    /// The generation after this one, in `epoch` if that is newer.
    #[must_use]
    pub fn next(self, epoch: u64) -> Self {
        if epoch > self.epoch { Self { epoch, n: 1 } } else { Self { n: self.n.saturating_add(1), ..self } }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.n)
    }
}

/// Milliseconds that the controller has been listening, over all its lives. It is credited and stored by the shell,
/// so that time when nobody could have reported counts against nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Elapsed(pub u64);

impl Elapsed {
    /// This instant and `ms` milliseconds more.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_id_reads_back_as_it_is_shown() {
        assert_eq!(RolloutId(7).to_string(), "r-000007");
        assert_eq!("r-000007".parse(), Ok(RolloutId(7)));
        assert_eq!("r-12345678".parse(), Ok(RolloutId(12_345_678)));
        for wrong in ["", "r-", "7", "r-+7", "r-99999999999999999999", "R-000007"] {
            assert_eq!(RolloutId::from_str(wrong), Err(InvalidRolloutId(wrong.to_owned())), "{wrong}");
        }
    }

    #[test]
    fn a_new_epoch_is_greater_whatever_came_before() {
        let old = Generation { epoch: 1, n: 900 };
        assert_eq!(old.next(1), Generation { epoch: 1, n: 901 });
        assert!(old.next(2) > old.next(1));
    }
}
