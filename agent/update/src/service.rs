//! What runs between trials: the committed release, how it is restarted, and when it is given up.

use serde::{Deserialize, Serialize};

use crate::{Installed, Offer, ReleaseId, Time};

/// So many deaths within [`DEATH_WINDOW_MS`] mean that a release can't stay.
pub const DEATHS_MAX: usize = 3;
/// Within this time deaths are counted together, in milliseconds.
pub const DEATH_WINDOW_MS: u64 = 60_000;
/// Shortest wait before a restart, in milliseconds; it doubles with each death in a row.
pub const BACKOFF_MIN_MS: u64 = 100;
/// Longest wait before a restart, in milliseconds.
pub const BACKOFF_MAX_MS: u64 = 30_000;

/// What answers callers, once no trial is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// No release is committed.
    Empty,
    /// One is.
    Serving(Box<Serving>),
}

/// The committed release and how it fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The committed release.
    pub active: Installed,
    /// The one before, kept for the way back.
    pub previous: Option<Installed>,
    /// The offer that `active` was committed for.
    pub offer: Offer,
    /// How `active` fares.
    pub life: Life,
    /// Deaths within the window, oldest first; fewer than [`DEATHS_MAX`] unless it is down.
    pub deaths: Vec<Time>,
    /// Deaths and failed starts in a row.
    pub restarts: u32,
    /// What of its state the last start that lost some could not give it, in words; empty if nothing was lost.
    #[serde(default)]
    pub lost: String,
    /// It was lost while a trial was under way, whose verdict has to tell it.
    #[serde(default)]
    pub lost_on_trial: bool,
}

/// How the committed release fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// Its worker answers.
    Running,
    /// A worker is started at this time; callers wait in the queue.
    Restarting {
        /// Not before.
        at: Time,
    },
    /// It died too often; callers are refused, and a start is tried at this time.
    Down {
        /// Not before.
        at: Time,
    },
}

/// What a death led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterDeath {
    /// The same release is started again.
    Restart,
    /// It died too often and there is a previous release to return to.
    GiveUp,
}

impl Service {
    /// The committed release.
    #[must_use]
    pub fn active(&self) -> Option<&Installed> {
        self.serving().map(|serving| &serving.active)
    }

    /// The release before it.
    #[must_use]
    pub fn previous(&self) -> Option<&Installed> {
        self.serving().and_then(|serving| serving.previous.as_ref())
    }

    /// What serves, if anything does.
    #[must_use]
    pub fn serving(&self) -> Option<&Serving> {
        match self {
            Self::Empty => None,
            Self::Serving(serving) => Some(serving),
        }
    }

    /// The same, to change it; only if `id` is the committed release.
    pub(crate) fn serving_as(&mut self, id: ReleaseId) -> Option<&mut Serving> {
        match self {
            Self::Empty => None,
            Self::Serving(serving) => Some(serving.as_mut()).filter(|it| it.active.release.id == id),
        }
    }
}

impl Serving {
    /// A release that was just committed and answers.
    pub(crate) fn committed(active: Installed, previous: Option<Installed>, offer: Offer) -> Self {
        Self {
            active,
            previous,
            offer,
            life: Life::Running,
            deaths: Vec::new(),
            restarts: 0,
            lost: String::new(),
            lost_on_trial: false,
        }
    }

    /// The agent starts: so does the release, at once. A new boot or a clean stop forgets old deaths.
    pub(crate) fn started(&mut self, now: Time, afresh: bool) {
        if afresh {
            self.deaths.clear();
            self.restarts = 0;
        }
        self.deaths.retain(|death| *death <= now);
        self.life = Life::Restarting { at: now };
    }

    /// A worker answers.
    pub(crate) fn ready(&mut self) {
        self.life = Life::Running;
    }

    /// The worker ended, or its start failed by its own fault.
    pub(crate) fn died(&mut self, now: Time, may_give_up: bool) -> AfterDeath {
        self.forget_old_deaths(now);
        self.deaths.push(now);
        let too_often = self.deaths.len() >= DEATHS_MAX;
        if too_often && may_give_up && self.previous.is_some() {
            return AfterDeath::GiveUp;
        }
        self.wait(now, too_often);
        AfterDeath::Restart
    }

    /// A start failed for a reason that is not the release's.
    pub(crate) fn start_failed(&mut self, now: Time) {
        let down = matches!(self.life, Life::Down { .. });
        self.wait(now, down);
    }

    fn wait(&mut self, now: Time, down: bool) {
        let at = now.after(backoff_ms(self.restarts));
        self.restarts = self.restarts.saturating_add(1);
        self.life = if down { Life::Down { at } } else { Life::Restarting { at } };
    }

    /// A release that is down keeps its deaths until it has run for a whole window.
    fn forget_old_deaths(&mut self, now: Time) {
        let last = self.deaths.last().copied();
        if last.is_none_or(|last| now.since(last) >= DEATH_WINDOW_MS) {
            self.deaths.clear();
            self.restarts = 0;
        } else if self.deaths.len() >= DEATHS_MAX {
            self.deaths.remove(0);
        } else {
            self.deaths.retain(|death| now.since(*death) < DEATH_WINDOW_MS);
        }
    }
}

/// The wait before the restart after so many in a row. The first restart is no repetition: callers wait for it.
fn backoff_ms(restarts: u32) -> u64 {
    let Some(repeated) = restarts.checked_sub(1) else { return 0 };
    let doubled =
        1_u64.checked_shl(repeated).map_or(BACKOFF_MAX_MS, |factor| factor.saturating_mul(BACKOFF_MIN_MS));
    doubled.min(BACKOFF_MAX_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound() {
        let waits: Vec<u64> = [0, 1, 2, 3, 9, 10, 64, 65, u32::MAX].into_iter().map(backoff_ms).collect();
        assert_eq!(waits, [0, 100, 200, 400, 25_600, 30_000, 30_000, 30_000, 30_000]);
    }
}
