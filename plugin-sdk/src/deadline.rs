//! Deadline: how long the caller of a function waits.

use std::time::{Duration, Instant};

/// When the caller gives up. A function that may take long looks at it now and then, and stops when it has passed.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// None: further away than the clock can say.
    at: Option<Instant>,
}

impl Deadline {
    pub(crate) fn in_ns(left: u64) -> Self {
        Self { at: Instant::now().checked_add(Duration::from_nanos(left)) }
    }

    /// The time left; zero when the deadline has passed.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.at.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether the caller has given up.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.time_left().is_zero()
    }
}
