//! How fast a source sends, and when it is given up.

use tokio::time::Instant;

use super::Timing;

/// One transfer's pace.
#[derive(Debug)]
pub(super) struct Pace {
    timing: Timing,
    last: Instant,
    window_start: Instant,
    window_bytes: u64,
}

impl Pace {
    pub(super) fn new(timing: Timing, now: Instant) -> Self {
        Self { timing, last: now, window_start: now, window_bytes: 0 }
    }

    /// When the next byte must have come.
    pub(super) fn next_due(&self) -> Instant {
        self.last + self.timing.no_progress
    }

    /// Counts bytes that came; `false` if the window that ends now had too few.
    pub(super) fn took(&mut self, bytes: u64, now: Instant) -> bool {
        // An empty chunk is no progress.
        if bytes > 0 {
            self.last = now;
        }
        self.window_bytes = self.window_bytes.saturating_add(bytes);
        if now - self.window_start < self.timing.window {
            return true;
        }
        let enough = self.window_bytes >= self.timing.window_bytes;
        (self.window_start, self.window_bytes) = (now, 0);
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TIMING: Timing =
        Timing { no_progress: Duration::from_secs(3), window: Duration::from_secs(10), window_bytes: 1_000 };

    #[test]
    fn a_window_with_enough_bytes_passes_and_a_trickle_does_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(TIMING, start);
        assert!(pace.took(1, at(9)));
        assert!(pace.took(999, at(10)));
        assert!(!pace.took(999, at(20)), "a new window starts from zero");
    }

    #[test]
    fn empty_chunks_are_no_progress() {
        let start = Instant::now();
        let later = start + Duration::from_secs(2);
        let mut pace = Pace::new(TIMING, start);
        let due = pace.next_due();
        pace.took(0, later);
        assert_eq!(pace.next_due(), due);
        pace.took(1, later);
        assert_eq!(pace.next_due(), due + Duration::from_secs(2));
    }
}
