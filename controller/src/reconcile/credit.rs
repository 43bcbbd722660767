//! The clock of deadlines: milliseconds that the controller has been listening, over all its lives.

use std::time::Duration;

use tokio::time::Instant;

/// Most time that is credited at once. If the loop has not come round for longer, the process was stopped or starved,
/// and then nobody could have reported.
const STEP_MAX: Duration = Duration::from_secs(2);

/// Credited time.
pub(super) struct Credit {
    total: Duration,
    stored: Duration,
    last: Instant,
}

impl Credit {
    /// Goes on from what is stored.
    pub(super) fn new(elapsed_ms: u64, now: Instant) -> Self {
        let total = Duration::from_millis(elapsed_ms);
        Self { total, stored: total, last: now }
    }

    /// Credits the time since the last call if hosts could be heard in it, and returns the sum in milliseconds.
    pub(super) fn now(&mut self, now: Instant, is_listening: bool) -> u64 {
        if is_listening {
            self.total += now.saturating_duration_since(self.last).min(STEP_MAX);
        }
        self.last = now;
        u64::try_from(self.total.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether more than `most` was credited since it was last stored.
    pub(super) fn is_store_due(&self, most: Duration) -> bool {
        self.total.saturating_sub(self.stored) >= most
    }

    /// Takes note that a sum is durable.
    pub(super) fn stored(&mut self, elapsed_ms: u64) {
        self.stored = Duration::from_millis(elapsed_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_what_is_stored_and_a_gap_is_not_credited() {
        let start = Instant::now();
        let mut credit = Credit::new(5_000, start);
        assert_eq!(credit.now(start + Duration::from_secs(1), true), 6_000);
        assert_eq!(credit.now(start + Duration::from_secs(3_601), true), 8_000);
        assert_eq!(credit.now(start + Duration::from_secs(3_602), false), 8_000);
    }

    #[test]
    fn a_sum_is_stored_again_when_enough_has_come_together() {
        let start = Instant::now();
        let mut credit = Credit::new(0, start);
        credit.now(start + Duration::from_secs(1), true);
        assert!(!credit.is_store_due(Duration::from_secs(2)));
        let sum = credit.now(start + Duration::from_secs(2), true);
        assert!(credit.is_store_due(Duration::from_secs(2)));
        credit.stored(sum);
        assert!(!credit.is_store_due(Duration::from_secs(2)));
    }
}
