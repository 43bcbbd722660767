//! A rollout: one attempt to move an assignment to a release, with its waves and hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{AssignmentKey, Desired, Elapsed, Failure, Generation, HostId, Policy, Release, RolloutId};

/// A rollout with everything that the planner remembers of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// What was asked for; never changes.
    pub spec: Spec,
    /// How far it is.
    pub progress: Progress,
    /// Its hosts.
    pub members: BTreeMap<HostId, Member>,
}

impl Rollout {
    /// A rollout that has not begun. Its hosts are found by the first plan.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        let names = if spec.policy.canary.is_some() { &WaveName::WITH_CANARY } else { &WaveName::ALONE[..] };
        let waves = names.iter().map(|name| Wave { name: *name, state: WaveState::Pending }).collect();
        let progress = Progress { state: RolloutState::Pending, waves, failed: None };
        Self { spec, progress, members: BTreeMap::new() }
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its number.
    pub id: RolloutId,
    /// The assignment that it moves.
    pub key: AssignmentKey,
    /// What the assignment had.
    pub from: Option<Release>,
    /// Where it moves; `None`: the plugin is removed.
    pub to: Option<Release>,
    /// Platforms that `to` is built for; empty = any.
    pub platforms: BTreeSet<String>,
    /// What started it.
    pub trigger: Trigger,
    /// Its rules.
    pub policy: Policy,
}

/// What started a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// `controller push`
    Push,
    /// `controller rollback`
    Rollback,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Push => "push",
            Self::Rollback => "rollback",
        })
    }
}

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The whole.
    pub state: RolloutState,
    /// In order.
    pub waves: Vec<Wave>,
    /// The failure that ended it, or is ending it.
    pub failed: Option<FailedHost>,
}

impl Progress {
    /// Whether offers have stopped for good although the rollout has not ended yet.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.waves.iter().any(|wave| wave.state == WaveState::Halted)
    }
}

/// A failure and the host on which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedHost {
    /// `None` if no single host is to blame.
    pub host: Option<HostId>,
    /// What happened.
    pub failure: Failure,
}

/// State of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RolloutState {
    /// No host has been offered anything yet.
    Pending,
    /// Offers go out, or trials end.
    Running,
    /// Waits for an operator.
    Paused,
    /// Committed hosts go back.
    RollingBack,
    /// Every host that was offered the release runs it.
    Succeeded,
    /// It stopped; the failure says why.
    Failed,
    /// An operator ended it.
    Aborted,
    /// Every host is back.
    RolledBack,
    /// A newer rollout took its place.
    Superseded,
}

impl RolloutState {
    /// Whether nothing more happens in it.
    #[must_use]
    pub fn has_ended(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Paused | Self::RollingBack => false,
            Self::Succeeded | Self::Failed | Self::Aborted | Self::RolledBack | Self::Superseded => true,
        }
    }
}

impl fmt::Display for RolloutState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::RollingBack => "ROLLING_BACK",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Aborted => "ABORTED",
            Self::RolledBack => "ROLLED_BACK",
            Self::Superseded => "SUPERSEDED",
        })
    }
}

/// An ordered stage of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// What it is called.
    pub name: WaveName,
    /// How far it is.
    pub state: WaveState,
}

/// What a wave is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaveName {
    /// The hosts that go first, alone.
    Canary,
    /// All others.
    Rest,
}

impl WaveName {
    const WITH_CANARY: [Self; 2] = [Self::Canary, Self::Rest];
    const ALONE: [Self; 1] = [Self::Rest];
}

impl fmt::Display for WaveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Canary => "canary",
            Self::Rest => "rest",
        })
    }
}

/// State of a wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WaveState {
    /// No host of it has been offered anything.
    Pending,
    /// Offers go out.
    Running,
    /// All have committed; the next one waits.
    Soaking,
    /// All that could be offered have answered.
    Done,
    /// A verdict stopped it.
    Halted,
}

/// Where a host stands in a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HostState {
    /// Not offered yet.
    Pending,
    /// Offered, no answer yet.
    Offered,
    /// Gets metadata and blobs.
    Fetching,
    /// Checks signatures and hashes.
    Verifying,
    /// Loads the library.
    Loading,
    /// Probes it beside the old release.
    Probing,
    /// Moves callers over.
    Switching,
    /// Watches it answer callers.
    Probation,
    /// Runs it.
    Committed,
    /// Moves callers back.
    RollingBack,
    /// Failed after callers were moved; the old release answers again.
    RolledBack,
    /// Failed before callers were moved.
    Rejected,
    /// Fell silent after the offer.
    Lost,
    /// Not to be offered.
    Skipped,
}

impl HostState {
    /// Whether an offer is out and unanswered.
    #[must_use]
    pub fn is_open(self) -> bool {
        match self {
            Self::Offered
            | Self::Fetching
            | Self::Verifying
            | Self::Loading
            | Self::Probing
            | Self::Switching
            | Self::Probation
            | Self::RollingBack => true,
            Self::Pending
            | Self::Committed
            | Self::RolledBack
            | Self::Rejected
            | Self::Lost
            | Self::Skipped => false,
        }
    }

    /// Whether an offer ended otherwise than by a commit.
    #[must_use]
    pub fn has_failed(self) -> bool {
        matches!(self, Self::RolledBack | Self::Rejected | Self::Lost)
    }

    /// Whether code of the release may have run, in a trial that goes on.
    pub(crate) fn has_loaded(self) -> bool {
        matches!(self, Self::Loading | Self::Probing | Self::Switching | Self::Probation | Self::RollingBack)
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "PENDING",
            Self::Offered => "OFFERED",
            Self::Fetching => "FETCHING",
            Self::Verifying => "VERIFYING",
            Self::Loading => "LOADING",
            Self::Probing => "PROBING",
            Self::Switching => "SWITCHING",
            Self::Probation => "PROBATION",
            Self::Committed => "COMMITTED",
            Self::RollingBack => "ROLLING_BACK",
            Self::RolledBack => "ROLLED_BACK",
            Self::Rejected => "REJECTED",
            Self::Lost => "LOST",
            Self::Skipped => "SKIPPED",
        })
    }
}

/// Why a host is not offered a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// It runs the release already.
    AlreadyInstalled,
    /// The release is not built for its platform.
    Platform(String),
    /// It no longer belongs to the assignment.
    NoLongerMatches,
    /// A newer rollout has moved it.
    Moved(RolloutId),
    /// The release failed there before, with this code; the host would refuse it unseen.
    Denied(String),
    /// An operator on the host holds the plugin, for this reason.
    Held(String),
    /// Its agent starts no plugin.
    SafeMode,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyInstalled => f.write_str("runs it already"),
            Self::Platform(platform) => write!(f, "the release is not built for {platform}"),
            Self::NoLongerMatches => f.write_str("no longer matches the selector"),
            Self::Moved(by) => write!(f, "moved by {by}"),
            Self::Denied(code) => write!(f, "failed there before: {code}"),
            Self::Held(reason) => write!(f, "held there: {reason}"),
            Self::SafeMode => f.write_str("its agent is in safe mode"),
        }
    }
}

/// One host in a rollout: a row of its own in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its place: lower goes first.
    pub order: u64,
    /// Index of its wave; settled when it is offered.
    pub wave: u32,
    /// Where it stands.
    pub state: HostState,
    /// Why it is SKIPPED.
    pub skip: Option<SkipReason>,
    /// Offers that it has had.
    pub attempt: u32,
    /// When the last offer was made.
    pub offered_elapsed_ms: Option<Elapsed>,
    /// The generation that carried the last offer.
    pub offered_generation: Generation,
    /// What the host was told before the offer; goes back into force if the offer fails.
    pub back: Option<Desired>,
    /// The offer was taken back; the host has not answered that yet.
    pub withdrawn: bool,
    /// Why the last offer failed.
    pub failure: Option<Failure>,
    /// Gate closed to gate open, in microseconds.
    pub swap_pause_us: u64,
    /// `calls` or `probes`.
    pub proven_by: String,
    /// What of the state could not be carried.
    pub state_lost: String,
}

impl Member {
    /// A host that joins a rollout.
    pub(crate) fn joining(order: u64, wave: u32) -> Self {
        Self {
            order,
            wave,
            state: HostState::Pending,
            skip: None,
            attempt: 0,
            offered_elapsed_ms: None,
            offered_generation: Generation::default(),
            back: None,
            withdrawn: false,
            failure: None,
            swap_pause_us: 0,
            proven_by: String::new(),
            state_lost: String::new(),
        }
    }

    /// Whether the host belongs to the rollout, so that shares are counted over it.
    #[must_use]
    pub fn counts(&self) -> bool {
        match &self.skip {
            None | Some(SkipReason::AlreadyInstalled) => true,
            Some(SkipReason::Platform(_) | SkipReason::Denied(_)) => false,
            Some(SkipReason::NoLongerMatches | SkipReason::Moved(_)) => false,
            Some(SkipReason::Held(_) | SkipReason::SafeMode) => false,
        }
    }
}
