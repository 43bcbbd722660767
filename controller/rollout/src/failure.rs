//! Why a trial failed, and whose fault it was.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{HostState, SkipReason};

/// Whose fault a failure is; decides what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The release is bad; the host refuses it from now on.
    Release,
    /// The host can't (disk full, kernel too old).
    Host,
    /// The connection broke.
    Link,
    /// Refused before loading, by signature, expiry or downgrade.
    Trust,
    /// A clean stop or a reboot: no verdict.
    Interrupted,
    /// The offer was taken back: no verdict.
    Withdrawn,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Release => "release",
            Self::Host => "host",
            Self::Link => "link",
            Self::Trust => "trust",
            Self::Interrupted => "interrupted",
            Self::Withdrawn => "withdrawn",
        })
    }
}

/// The record of a failed trial: the same on the wire, on screen and in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The state in which it failed.
    pub failed_state: HostState,
    /// Whose fault it was.
    pub fault: Fault,
    /// Stable UPPER_SNAKE code.
    pub code: String,
    /// What was checked.
    pub check: String,
    /// What came.
    pub got: String,
    /// What should have come.
    pub wanted: String,
    /// How often it was tried.
    pub tries: u32,
    /// One sentence: what happened and why.
    pub message: String,
    /// The last lines of the plugin's log.
    pub log_tail: String,
    /// What the host did next.
    pub next: String,
}

impl Failure {
    /// Code of a host that fell silent after an offer.
    pub const HOST_LOST: &'static str = "HOST_LOST";
    /// Code of a rollout for which no host has a fitting platform.
    pub const NO_HOST_FITS: &'static str = "NO_HOST_FITS";
    /// Code of a release that failed on the host before.
    pub const RELEASE_DENIED: &'static str = "RELEASE_DENIED";
    /// Code of a host that committed and then went back by itself.
    pub const FELL_BACK: &'static str = "FELL_BACK";
    /// Code of a failure that came without a record.
    pub const UNEXPLAINED: &'static str = "FAILURE_UNEXPLAINED";
    /// Code of an offer that ended because the rollout did.
    pub const OFFER_WITHDRAWN: &'static str = "OFFER_WITHDRAWN";

    /// Code of a release that an operator on the host has taken back; and of a rollout whose hosts are all held.
    pub const HELD_LOCALLY: &'static str = "HELD_LOCALLY";

    /// Whether an operator on the host has taken the release back from probation.
    pub(crate) fn is_taken_back_locally(&self) -> bool {
        self.code == Self::HELD_LOCALLY
    }

    /// No host takes anything now.
    pub(crate) fn held(reason: &SkipReason) -> Self {
        let message = format!("no host takes it now: {reason}");
        Self {
            next: "it keeps what it runs; push again when it is released".to_owned(),
            ..Self::of(HostState::Pending, Self::HELD_LOCALLY, message)
        }
    }

    /// Whether the host refused the release unseen.
    pub(crate) fn is_denial(&self) -> bool {
        self.code == Self::RELEASE_DENIED
    }

    /// A host that did not answer by its deadline. From LOADING on that speaks against the release: something may
    /// have taken the host down.
    pub(crate) fn lost(state: HostState, deadline_ms: u64) -> Self {
        let loaded = state.has_loaded();
        let doubt =
            if loaded { "the release may have taken it down" } else { "the release was not loaded yet" };
        Self {
            fault: if loaded { Fault::Release } else { Fault::Link },
            wanted: format!("a verdict within {deadline_ms} ms of the offer"),
            got: format!("nothing since {state}"),
            next: "the host is told to go back when it returns".to_owned(),
            ..Self::of(state, Self::HOST_LOST, format!("the host fell silent in {state}; {doubt}"))
        }
    }

    /// A host that knows of the withdrawal and never began.
    pub(crate) fn withdrawn(state: HostState) -> Self {
        let message = "the rollout ended before the host began".to_owned();
        Self { fault: Fault::Withdrawn, ..Self::of(state, Self::OFFER_WITHDRAWN, message) }
    }

    /// A failure without a record counts against the release: nothing shows that it is innocent.
    pub(crate) fn unexplained(state: HostState) -> Self {
        let message = "the host reported a failure without saying why".to_owned();
        Self { fault: Fault::Release, ..Self::of(state, Self::UNEXPLAINED, message) }
    }

    /// A host that committed and was back on another release when it could report.
    pub(crate) fn fell_back() -> Self {
        let message = "the host committed and then went back by itself".to_owned();
        Self { fault: Fault::Release, ..Self::of(HostState::Committed, Self::FELL_BACK, message) }
    }

    /// The release failed on every host that could be asked; they refuse it unseen.
    pub(crate) fn denied(code: &str) -> Self {
        let message = format!("the release failed before on each host that could be asked, here with {code}");
        Self { fault: Fault::Release, ..Self::of(HostState::Pending, Self::RELEASE_DENIED, message) }
    }

    /// No host has a platform that the release is built for.
    pub(crate) fn no_host_fits() -> Self {
        let message = "the release is built for none of the hosts' platforms".to_owned();
        Self { fault: Fault::Host, ..Self::of(HostState::Pending, Self::NO_HOST_FITS, message) }
    }

    fn of(failed_state: HostState, code: &str, message: String) -> Self {
        Self {
            failed_state,
            fault: Fault::Host,
            code: code.to_owned(),
            check: String::new(),
            got: String::new(),
            wanted: String::new(),
            tries: 0,
            message,
            log_tail: String::new(),
            next: String::new(),
        }
    }
}
