//! How long to wait before the next try: doubling ceilings with full jitter, so that a fleet does not come back at once.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Waits that are drawn evenly from zero to a ceiling; the ceiling doubles.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The ceilings.
    plain: ExponentialBackoff,
    /// The same ceilings, each with a random part of itself added.
    jittered: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// First and longest ceiling.
    pub(super) fn new((first, longest): (Duration, Duration)) -> Self {
        let builder =
            ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).without_max_times();
        Self { plain: builder.build(), jittered: builder.with_jitter().build(), longest }
    }

    /// The next wait.
    pub(super) fn next_wait(&mut self) -> Duration {
        let ceiling = self.plain.next().unwrap_or(self.longest);
        let jittered = self.jittered.next().unwrap_or(self.longest);
        jittered.saturating_sub(ceiling).min(ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

    #[test]
    fn waits_stay_below_doubling_ceilings() {
        for _ in 0..100 {
            let mut backoff = Backoff::new(BOUNDS);
            for ceiling in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
                assert!(backoff.next_wait() <= Duration::from_secs_f64(ceiling));
            }
        }
    }

    #[test]
    fn waits_use_the_whole_range() {
        let waits: Vec<_> = (0..200).map(|_| Backoff::new(BOUNDS).next_wait()).collect();
        assert!(waits.iter().any(|wait| *wait < Duration::from_millis(125)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_millis(375)));
    }
}
