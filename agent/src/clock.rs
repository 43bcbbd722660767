//! The clock of the core: milliseconds since the host booted, time asleep included.

use std::time::Duration;

use fleetswap_update::Time;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Now.
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let ms = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or_default();
    Time(seconds.saturating_mul(1_000).saturating_add(ms))
}

/// Waits for a time; returns never before it.
pub(crate) async fn until(time: Time) {
    loop {
        let left = time.since(now());
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(left)).await;
    }
}

/// A time as the runtime has it.
pub(crate) fn instant(time: Time) -> Instant {
    Instant::now() + Duration::from_millis(time.since(now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_that_has_passed_is_not_waited_for() {
        let before = now();
        until(Time(0)).await;
        until(before.after(2)).await;
        assert!(now() >= before.after(2));
    }
}
