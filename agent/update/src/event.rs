//! What can happen to a plugin: past facts, each with its time.

use serde::{Deserialize, Serialize};

use crate::{Installed, Offer, Order, Problem, ReleaseId};

/// Milliseconds of a clock that never goes back while the host runs. It may start again at a reboot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// This time and so many milliseconds more.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; 0 if that lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One fact and when it came to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Now.
    pub now: Time,
    /// What happened.
    pub fact: Fact,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The agent started. First of all events after a record was loaded.
    Started {
        /// Changes with every boot of the host.
        boot_id: String,
        /// The agent's last run ended as asked.
        clean_stop: bool,
    },
    /// The controller told what the host should run.
    Told(Offer),
    /// The host's one trial slot is this plugin's, until it has no trial any more.
    SlotGranted,
    /// A time that [`crate::Plugin::wakes_at`] named has come.
    TimePassed,
    /// A step of the trial with this serial came to its end; another serial's outcome is ignored.
    Trial {
        /// [`crate::Plugin::trial_serial`] when the work was given out.
        serial: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// A start of the committed release answered and is healthy.
    Ready(ReleaseId),
    /// The start of the committed release could not give it its whole state; what is lost, in words.
    StateLost(ReleaseId, String),
    /// The worker that answers callers ended.
    Died(ReleaseId, Problem),
    /// A start of the committed release failed.
    StartFailed(ReleaseId, Problem),
    /// The same, since files of it are gone; those of the previous release are all here.
    FilesLost(ReleaseId, Problem),
    /// An operator on the host wants what runs to stay.
    Held {
        /// Who and why.
        order: Order,
        /// No worker of the plugin runs, and none will before the next start of the agent.
        at_rest: bool,
    },
    /// An operator on the host wants the release before the one that answers.
    OrderedBack {
        /// Who and why.
        order: Order,
        /// As in [`Fact::Held`].
        at_rest: bool,
    },
    /// What an operator on the host has ordered stands no more.
    Released,
}

impl Fact {
    /// Whether it says that no worker of the plugin runs.
    pub(crate) const fn is_at_rest(&self) -> bool {
        matches!(self, Self::Held { at_rest: true, .. } | Self::OrderedBack { at_rest: true, .. })
    }
}

/// How a step of a trial ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that the release needs is on disk.
    Fetched,
    /// The release may be loaded.
    Verified(Installed),
    /// The library is loaded in a throw-away worker.
    Loaded,
    /// Health and probes are green; the throw-away worker is gone.
    Probed,
    /// A fresh instance stands beside the old one.
    Prepared,
    /// The gate is closed if it must be, the old state is saved if there is any.
    Saved {
        /// What of the state can't be carried, in words; empty if nothing is lost.
        lost: String,
    },
    /// The new instance has the state.
    Restored,
    /// The new instance is active.
    Activated,
    /// The pointer moved and the gate is open.
    Switched {
        /// Gate closed to gate open, in microseconds; 0 if it was never closed.
        pause_us: u64,
    },
    /// Probation went by without a bad sign.
    Proven(Proof),
    /// The step failed.
    Failed(Problem),
    /// The old release has its place again, as far as it could be had.
    WentBack {
        /// Whether a worker of the old release answers.
        answers: bool,
        /// What of the state was lost on the way back, in words; empty if nothing was.
        lost: String,
    },
}

/// What a commit rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// Callers were answered during probation.
    Calls,
    /// There was no traffic: its probes and its health speak for it.
    Probes,
    /// There was no traffic and it brings no probes: only its health speaks for it.
    Health,
    /// This host's part did not change, so nothing was swapped.
    Unchanged,
    /// It had been committed here before.
    Before,
}
