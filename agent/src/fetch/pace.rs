//! How fast a source sends, and when it is given up.

use std::time::Duration;

use tokio::time::Instant;

use super::source::Fault;

/// What a source is held to; tests shorten it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Longest time without a byte, the answer's head included.
    pub(super) no_progress: Duration,
    /// Over each such time at least `window_bytes` must come.
    pub(super) window: Duration,
    pub(super) window_bytes: u64,
    /// What mirrors are held to while another source stands behind them.
    pub(super) share: Share,
}

/// What mirrors may take of the time that a host has for an update, by default
/// [`fleetswap_update::HEALTHY_DEADLINE_MS`]: the better part is the controller's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Longest wait for the head of an answer.
    pub(super) head: Duration,
    /// So much later than the pace asks for may bytes come.
    pub(super) grace: Duration,
    /// Longest time for one blob, of all mirrors together; and the pace: the whole blob in this time.
    pub(super) time: Duration,
    /// Lowest pace, in bytes a second: a small blob does not get all the time.
    pub(super) rate_min: u64,
}

impl Default for Timing {
    fn default() -> Self {
        let share = Share {
            head: Duration::from_secs(10),
            grace: Duration::from_secs(3),
            time: Duration::from_secs(60),
            rate_min: 16 * 1024,
        };
        Self {
            no_progress: Duration::from_secs(30),
            window: Duration::from_secs(20),
            window_bytes: 64 * 1024,
            share,
        }
    }
}

impl Share {
    /// When a transfer that began then must have brought more than `brought` bytes of a blob of this length.
    fn due(&self, began: Instant, brought: u64, length: u64) -> Instant {
        let rate = self.rate_min.max(length / self.time.as_secs().max(1)).max(1);
        began + self.grace + Duration::from_millis(brought.saturating_mul(1_000) / rate)
    }
}

/// One transfer's pace.
#[derive(Debug)]
pub(super) struct Pace {
    timing: Timing,
    began: Instant,
    last: Instant,
    brought: u64,
    window_start: Instant,
    window_bytes: u64,
    /// For a mirror with another source behind it: the blob's length, and when the time of all such is over.
    share: Option<(u64, Instant)>,
}

impl Pace {
    /// `share`: see the field.
    pub(super) fn new(timing: Timing, share: Option<(u64, Instant)>, now: Instant) -> Self {
        Self { timing, began: now, last: now, brought: 0, window_start: now, window_bytes: 0, share }
    }

    /// When the next byte must have come.
    pub(super) fn next_due(&self) -> Instant {
        let stalled = self.last + self.timing.no_progress;
        self.too_late().map_or(stalled, |too_late| too_late.min(stalled))
    }

    /// What is wrong with a source from which nothing came until it was due.
    pub(super) fn overdue(&self, now: Instant) -> Fault {
        if now - self.last >= self.timing.no_progress { Fault::Stalled } else { Fault::TooSlow }
    }

    /// Counts bytes that came; `false` if they came too slowly.
    pub(super) fn took(&mut self, bytes: u64, now: Instant) -> bool {
        // An empty chunk is no progress.
        if bytes > 0 {
            self.last = now;
        }
        self.brought = self.brought.saturating_add(bytes);
        self.window_bytes = self.window_bytes.saturating_add(bytes);
        if self.too_late().is_some_and(|too_late| now > too_late) {
            return false;
        }
        if now - self.window_start < self.timing.window {
            return true;
        }
        let enough = self.window_bytes >= self.timing.window_bytes;
        (self.window_start, self.window_bytes) = (now, 0);
        enough
    }

    fn too_late(&self) -> Option<Instant> {
        self.share.map(|(length, until)| self.timing.share.due(self.began, self.brought, length).min(until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Timing {
        let share = Share {
            head: Duration::from_secs(1),
            grace: Duration::from_secs(2),
            time: Duration::from_secs(50),
            rate_min: 10,
        };
        let (no_progress, window) = (Duration::from_secs(3), Duration::from_secs(10));
        Timing { no_progress, window, window_bytes: 1_000, share }
    }

    #[test]
    fn a_window_with_enough_bytes_passes_and_a_trickle_does_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(timing(), None, start);
        assert!(pace.took(1, at(9)));
        assert!(pace.took(999, at(10)));
        assert!(!pace.took(999, at(20)), "a new window starts from zero");
    }

    #[test]
    fn empty_chunks_are_no_progress() {
        let start = Instant::now();
        let later = start + Duration::from_secs(2);
        let mut pace = Pace::new(timing(), None, start);
        let due = pace.next_due();
        pace.took(0, later);
        assert_eq!(pace.next_due(), due);
        pace.took(1, later);
        assert_eq!(pace.next_due(), due + Duration::from_secs(2));
        assert_eq!(pace.overdue(pace.next_due()), Fault::Stalled);
    }

    #[test]
    fn with_somebody_behind_it_the_whole_blob_must_come_in_the_share() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(timing(), Some((50_000, at(50))), start);
        assert_eq!((pace.next_due(), pace.overdue(at(2))), (at(2), Fault::TooSlow));
        assert!(pace.took(2_000, at(1)), "1,000 bytes a second are asked for");
        assert_eq!(pace.next_due(), at(4), "what came early counts for it");
        assert!(!pace.took(100, at(5)), "late, although no window was missed");
    }

    #[test]
    fn a_small_blob_has_no_more_time_than_the_lowest_pace_gives() {
        let start = Instant::now();
        let mut pace = Pace::new(timing(), Some((100, start + Duration::from_secs(50))), start);
        assert!(pace.took(10, start));
        assert_eq!(
            pace.next_due(),
            start + Duration::from_secs(3),
            "1 s at 10 bytes a second, and the grace"
        );
        assert!(!pace.took(1, start + Duration::from_secs(4)));
    }

    #[test]
    fn no_pace_outlasts_the_time_of_all_mirrors_together() {
        let start = Instant::now();
        let until = start + Duration::from_secs(1);
        let mut pace = Pace::new(timing(), Some((50_000, until)), start);
        assert!(pace.took(40_000, start));
        assert_eq!(pace.next_due(), until);
        assert!(!pace.took(9_000, until + Duration::from_secs(1)));
    }
}
