//! When the next checkpoint of a plugin is due.

use std::time::Duration;

use fleetswap_update::Problem;
use tokio::time::Instant;

use super::task::Running;

/// Wait before a checkpoint that gave way, or failed, is tried again; it doubles up to the interval.
const AGAIN: Duration = Duration::from_millis(500);

/// The checkpoints of one plugin.
pub(super) struct Checkpoints {
    /// `None`: there are none.
    every: Option<Duration>,
    /// `None`: not planned, as none may be taken.
    due: Option<Instant>,
    again: Duration,
    running: Option<Running>,
}

impl Checkpoints {
    pub(super) const fn new(every: Option<Duration>) -> Self {
        Self { every, due: None, again: AGAIN, running: None }
    }

    /// One may be taken from now on, or may not. The first of a plugin that has none on disk is due at once.
    pub(super) fn plan(&mut self, may: bool, has_one: bool) {
        match self.every {
            Some(every) if may => {
                let first = if has_one { every } else { Duration::ZERO };
                self.due.get_or_insert_with(|| Instant::now() + first);
            }
            Some(_) | None => self.due = None,
        }
    }

    /// When the next one is to begin.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.running.is_none())
    }

    /// One is under way; dropping it gives it up.
    pub(super) fn begun(&mut self, running: Running) {
        self.running = Some(running);
    }

    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// It came to its end.
    pub(super) fn ended(&mut self, plugin: &str, outcome: Result<(), Problem>) {
        self.running = None;
        let every = self.every.unwrap_or(AGAIN);
        let wait = match outcome {
            Ok(()) => {
                self.again = AGAIN;
                every
            }
            Err(problem) => {
                let wait = self.again.min(every);
                self.again = every.min(self.again * 2);
                tell(plugin, &problem, wait);
                wait
            }
        };
        // One that is not planned stays so.
        self.due = self.due.map(|_| Instant::now() + wait);
    }
}

fn tell(plugin: &str, problem: &Problem, wait: Duration) {
    let (code, again_ms) = (&problem.code, wait.as_millis());
    if &**code == "SWAP_BUSY" {
        tracing::debug!(plugin, again_ms, "a checkpoint gave way: {}", problem.got);
    } else {
        tracing::warn!(plugin, code, again_ms, "a checkpoint failed: {}", problem.message);
    }
}

#[cfg(test)]
mod tests {
    use fleetswap_update::Fault;

    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    fn wait(checkpoints: &Checkpoints) -> Option<Duration> {
        checkpoints.due().map(|due| due - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_is_due_at_once_and_later_ones_after_the_interval() {
        let mut checkpoints = Checkpoints::new(Some(EVERY));
        assert_eq!(wait(&checkpoints), None);
        checkpoints.plan(true, false);
        assert_eq!(wait(&checkpoints), Some(Duration::ZERO));
        checkpoints.ended("counter", Ok(()));
        assert_eq!(wait(&checkpoints), Some(EVERY));
        checkpoints.plan(false, true);
        assert_eq!(wait(&checkpoints), None, "a trial is under way");
        checkpoints.plan(true, true);
        assert_eq!(wait(&checkpoints), Some(EVERY), "what the switch carried serves as one");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gave_way_is_tried_again_sooner_but_not_in_a_hot_loop() {
        let mut checkpoints = Checkpoints::new(Some(Duration::from_secs(2)));
        checkpoints.plan(true, true);
        let waits: Vec<_> = (0..4)
            .map(|_| {
                checkpoints.ended("counter", Err(Problem::new(Fault::Host, "SWAP_BUSY", "busy")));
                checkpoints.plan(true, true);
                wait(&checkpoints).unwrap().as_millis()
            })
            .collect();
        assert_eq!(waits, [500, 1_000, 2_000, 2_000]);
    }

    #[tokio::test]
    async fn none_is_taken_where_they_are_off() {
        let mut checkpoints = Checkpoints::new(None);
        checkpoints.plan(true, false);
        assert_eq!(checkpoints.due(), None);
    }
}
