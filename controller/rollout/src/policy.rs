//! How fast and how careful a rollout goes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number of hosts, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// So many hosts; 0 counts as 1.
    Count(u32),
    /// So many of a hundred, rounded up.
    Percent(u8),
}

impl Amount {
    /// How many hosts that is out of `all`: rounded up, at least one.
    #[must_use]
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).max(1),
            Self::Percent(percent) => all.saturating_mul(usize::from(percent)).div_ceil(100).max(1),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The rules of one rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Hosts that go first, alone; `None`: there is no canary.
    pub canary: Option<Amount>,
    /// Hosts on trial at once.
    pub max_parallel: Amount,
    /// How long a host must stay healthy before it commits, in milliseconds.
    pub min_healthy_ms: u64,
    /// By when a host must have answered an offer, in milliseconds.
    pub healthy_deadline_ms: u64,
}

impl Policy {
    /// Share of hosts that a push changes at once by default.
    pub const PUSH_PARALLEL: Amount = Amount::Percent(10);
    /// Share of hosts that a rollback changes at once by default: wider, since its release has been proven.
    pub const ROLLBACK_PARALLEL: Amount = Amount::Percent(25);
    /// Probation by default, in milliseconds.
    pub const MIN_HEALTHY_MS: u64 = 10_000;
    /// Deadline of a trial by default, in milliseconds.
    pub const HEALTHY_DEADLINE_MS: u64 = 300_000;
    /// Longest time of either, in milliseconds: a day.
    pub const TIME_MAX_MS: u64 = 86_400_000;
    /// Most hosts at once.
    pub const PARALLEL_MAX: u32 = 100_000;

    /// The default rules of a push: a canary of one host, then the rest.
    #[must_use]
    pub fn push() -> Self {
        Self {
            canary: Some(Amount::Count(1)),
            max_parallel: Self::PUSH_PARALLEL,
            min_healthy_ms: Self::MIN_HEALTHY_MS,
            healthy_deadline_ms: Self::HEALTHY_DEADLINE_MS,
        }
    }

    /// The default rules of a rollback: no canary, wider.
    #[must_use]
    pub fn rollback() -> Self {
        Self { canary: None, max_parallel: Self::ROLLBACK_PARALLEL, ..Self::push() }
    }

    /// Refuses rules by which no host could ever commit.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        if let Amount::Count(count) = self.max_parallel
            && !(1..=Self::PARALLEL_MAX).contains(&count)
        {
            return Err(InvalidPolicy::Parallel(count));
        }
        if self.healthy_deadline_ms > Self::TIME_MAX_MS {
            return Err(InvalidPolicy::Deadline(self.healthy_deadline_ms));
        }
        if self.min_healthy_ms >= self.healthy_deadline_ms {
            return Err(InvalidPolicy::Never {
                min_healthy_ms: self.min_healthy_ms,
                healthy_deadline_ms: self.healthy_deadline_ms,
            });
        }
        Ok(())
    }
}

/// Rules that can't work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// Too many at once.
    #[error("max_parallel is {0}, not 1 to {max}", max = Policy::PARALLEL_MAX)]
    Parallel(u32),
    /// Too long.
    #[error("healthy_deadline is {0} ms, more than a day")]
    Deadline(u64),
    /// Probation outlasts the deadline.
    #[error(
        "min_healthy_time ({min_healthy_ms} ms) is not below healthy_deadline ({healthy_deadline_ms} ms)"
    )]
    Never {
        /// Probation, in milliseconds.
        min_healthy_ms: u64,
        /// Deadline, in milliseconds.
        healthy_deadline_ms: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_is_at_least_one_host() {
        for (percent, all, hosts) in [(10, 0, 1), (10, 5, 1), (10, 11, 2), (25, 5, 2), (100, 7, 7), (0, 9, 1)]
        {
            assert_eq!(Amount::Percent(percent).of(all), hosts, "{percent} % of {all}");
        }
        assert_eq!(Amount::Count(4).of(2), 4);
        assert_eq!(Amount::Count(0).of(2), 1);
    }

    #[test]
    fn a_probation_that_outlasts_the_deadline_is_refused() {
        let never = Policy { min_healthy_ms: 5, healthy_deadline_ms: 5, ..Policy::push() };
        assert!(matches!(never.check(), Err(InvalidPolicy::Never { .. })));
        assert_eq!(Policy::push().check(), Ok(()));
        assert_eq!(Policy::rollback().check(), Ok(()));
    }

    #[test]
    fn rules_beyond_their_bounds_are_refused() {
        let wide = Policy { max_parallel: Amount::Count(Policy::PARALLEL_MAX + 1), ..Policy::push() };
        assert!(matches!(wide.check(), Err(InvalidPolicy::Parallel(_))));
        let long = Policy { healthy_deadline_ms: Policy::TIME_MAX_MS + 1, ..Policy::push() };
        assert!(matches!(long.check(), Err(InvalidPolicy::Deadline(_))));
    }
}
