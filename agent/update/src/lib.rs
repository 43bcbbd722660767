//! The life of one plugin on one host, as a pure state machine.
//!
//! The loop of its shell: wait for one [`Event`]; [`Plugin::step`]; save the state if it
//! [must be saved](Plugin::must_be_saved); do its [`Plugin::work`], whose outcome is the next event. Work follows
//! from the state and is no list of its own, so that after a crash the shell loads the state, steps
//! [`Fact::Started`], and goes on. Time, chance and I/O are outside: time comes in events.
//!
//! A plugin is [`Service::Empty`] or [`Service::Serving`] a committed release, plus at most one [`Trial`]:
//!
//! | Step | Outcome | Leads to |
//! |---|---|---|
//! | (next waits) | the host's slot is granted | Fetching; Switching for the retained previous; Empty for nothing |
//! | Fetching | fetched | Verifying |
//! | | failed: link, before the deadline | Fetching, later |
//! | Verifying | verified, and the host's own rules agree | Loading |
//! | | this host's part did not change | committed without a swap |
//! | Loading | loaded | Probing |
//! | Probing | probed | Switching: Preparing |
//! | Switching: Preparing | prepared | Pausing |
//! | Pausing | saved | Saved |
//! | Preparing, Pausing | failed: host, up to 5 times | Busy, then Preparing again |
//! | Saved | restored | Restored |
//! | Restored | activated | Activated |
//! | Saved, Restored | failed: host, up to 5 times | GivingUp |
//! | GivingUp | went back | Busy; rejected if the old release does not answer |
//! | | failed | ended: rejected |
//! | Activated | switched | Probation; committed on the way back to the previous release |
//! | Probation | proven | committed |
//! | any up to Pausing | failed, or the deadline ran out | ended: rejected |
//! | Saved to Probation | failed, or the candidate died | RollingBack |
//! | RollingBack | went back, or failed to | ended: rolled back, or rejected if the pointer had not moved |
//! | any up to Preparing, and Busy | another target was told | ended: withdrawn |
//! | Probation | what runs was told again | RollingBack: withdrawn |
//!
//! | Committed release | Event | Leads to |
//! |---|---|---|
//! | Running | died | Restarting after 0.1 s to 30 s |
//! | Restarting | ready | Running |
//! | Running, Restarting | third death in 60 s, there is a previous release | that one for good; this one is denied |
//! | Restarting, Down | its files are gone, those of the previous release are not | that one for good; nobody is denied |
//! | Running, Restarting | third death in 60 s, there is none | Down: callers are refused, starts are tried up to every 30 s |
//! | Down | ready | Running |
//!
//! What an operator on the host orders stands above all of this: the table of `hold.rs`.
//!
//! **Order of durable steps.** (1) the artifact is on disk; (2) the record says Loading, then a worker is
//! started; (3) the record says Switching: Pausing, then the gate closes and (4) the pointer moves; (5) the record
//! says committed; (6) that is reported; (7) the old worker ends. A kill between two of them resumes at the last one
//! written; what that means is in the table of `recovery.rs`.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod event;
mod failure;
mod hold;
mod offer;
mod plugin;
mod recovery;
mod release;
mod service;
mod settle;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod trial;
mod work;

pub use event::{Event, Fact, Outcome, Proof, Time};
pub use failure::{Failure, Fault, LOG_TAIL_MAX, Problem, Stage, TEXT_MAX};
pub use hold::{LocalOverride, ORDERED_BY_MAX, Order, OverrideKind, REASON_MAX};
pub use offer::{Generation, Offer, Target};
pub use plugin::{DENIED_MAX, Denied, Plugin};
pub use release::{BadReleaseId, Carry, Installed, Release, ReleaseId, StateVersions, is_one_way};
pub use service::{BACKOFF_MAX_MS, BACKOFF_MIN_MS, DEATH_WINDOW_MS, DEATHS_MAX, Life, Service, Serving};
pub use state::{Beginning, OnDisk, SavedState, Until};
pub use status::{ServiceStatus, Status, TrialStatus, Verdict};
pub use trial::{
    BUSY_TRIES_MAX, BUSY_WAIT_MS, FETCH_WAIT_MAX_MS, FETCH_WAIT_MS, HEALTHY_DEADLINE_MS, INTERRUPTIONS_MAX,
    Step, Switch, Trial, Way,
};
pub use work::{Serve, Swap, Task, Work};

/// Format version of a saved [`Plugin`]. A shell that reads a greater one leaves the file untouched.
/// What a record is written in: [`Plugin::record_format`].
pub const RECORD_FORMAT: u32 = 2;
