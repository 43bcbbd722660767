//! One attempt to put a release in its place: its steps, and which outcome leads from one to the next.

use serde::{Deserialize, Serialize};

use crate::{Failure, Fault, Installed, Offer, Outcome, Problem, Proof, Stage, Time};

/// Time from the offer to the switch where the offer names none, in milliseconds.
pub const HEALTHY_DEADLINE_MS: u64 = 300_000;
/// So often a switch that would cost a call is tried again.
pub const BUSY_TRIES_MAX: u32 = 5;
/// Wait before the first further try of a switch, in milliseconds; it doubles.
pub const BUSY_WAIT_MS: u64 = 500;
/// Code of a switch that was given up because it would have cost a call.
const SWAP_BUSY: &str = "SWAP_BUSY";
/// So often a trial that was cut by a clean stop or a reboot begins anew.
pub const INTERRUPTIONS_MAX: u32 = 1;
/// Wait before the first further try of a fetch, in milliseconds; it doubles.
pub const FETCH_WAIT_MS: u64 = 500;
/// Longest wait before a further try of a fetch, in milliseconds.
pub const FETCH_WAIT_MAX_MS: u64 = 30_000;

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Grows with each beginning, so that late outcomes of an earlier one are known as such.
    pub serial: u64,
    /// What it is for; the target is a release.
    pub offer: Offer,
    /// Where it leads.
    pub way: Way,
    /// The release, once it was verified.
    pub candidate: Option<Installed>,
    /// Where it stands.
    pub step: Step,
    /// The switch must have begun by then.
    pub deadline: Time,
    /// Switches that were given up.
    pub busy: u32,
    /// Cuts by a clean stop or a reboot.
    pub interruptions: u32,
    /// Gate closed to gate open, in microseconds.
    pub pause_us: u64,
    /// What of the state was lost, in words.
    pub lost: String,
}

/// Where a trial leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// To a release that has to prove itself.
    Install,
    /// To the retained previous release, which has: no fetch, no probes, no probation, no blame.
    Back,
}

/// Where a trial stands; each step is saved before its work is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Gets what the release needs.
    Fetching {
        /// Tries that failed.
        tries: u32,
        /// Not before.
        at: Time,
    },
    /// Decides whether the release may be loaded.
    Verifying,
    /// Loads it into a throw-away worker.
    Loading,
    /// Probes it there.
    Probing,
    /// Puts a fresh instance in the old one's place.
    Switching(Switch),
    /// It answers callers and has to prove itself.
    Probation {
        /// Until then.
        until: Time,
    },
    /// The old release takes its place again; the verdict stands.
    RollingBack {
        /// Why.
        failure: Box<Failure>,
        /// How the trial ends: [`Stage::Rejected`] or [`Stage::RolledBack`].
        verdict: Stage,
    },
}

/// The parts of a switch. From `Pausing` on all are one on disk: callers may be waiting, and the disk is not theirs
/// to wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Switch {
    /// It would have cost a call and was given up; the old release answers as before.
    Busy {
        /// Tried again then.
        at: Time,
    },
    /// A fresh instance is made beside the old one.
    Preparing,
    /// The gate closes, the old instance comes to rest and saves its state. From here on the pointer may move.
    Pausing,
    /// Going on would cost a call: the old release wakes with the state that it has; then `Busy`.
    GivingUp(Box<Problem>),
    /// The new instance takes the state over.
    Saved,
    /// The new instance becomes active.
    Restored,
    /// The pointer moves, and the gate opens.
    Activated,
}

/// What an outcome leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// The outcome does not belong to this step.
    Stay,
    /// On to another step.
    To(Step),
    /// The host's rules decide about a verified release.
    Judge(Box<Installed>),
    /// The state is saved; what of it is lost.
    Save(String),
    /// Callers are answered by the candidate; the pause in microseconds.
    Switched(u64),
    /// The old release has to answer again before the switch is tried once more.
    GiveUp(Problem),
    /// It stays.
    Commit(Proof),
    /// It ends here; the old release was never touched.
    Fail(Problem),
    /// It ends, and the old release takes its place again.
    GoBack(Problem),
    /// The old release has its place again; whether it answers, and what was lost.
    End(bool, String),
    /// A switch was given up and the old release does not answer; what was lost.
    Abandon(Problem, String),
    /// The way back failed in itself: whatever is in place is no release's any more.
    Strand,
}

impl Trial {
    /// The step in the words of the wire.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self.step {
            Step::Fetching { .. } => Stage::Fetching,
            Step::Verifying => Stage::Verifying,
            Step::Loading => Stage::Loading,
            Step::Probing => Stage::Probing,
            Step::Switching(_) => Stage::Switching,
            Step::Probation { .. } => Stage::Probation,
            Step::RollingBack { .. } => Stage::RollingBack,
        }
    }

    /// Whether it can still be called off without anybody noticing.
    #[must_use]
    pub const fn is_before_switch(&self) -> bool {
        match self.step {
            Step::Fetching { .. } | Step::Verifying | Step::Loading | Step::Probing => true,
            Step::Switching(Switch::Busy { .. } | Switch::Preparing) => true,
            Step::Switching(Switch::Pausing | Switch::GivingUp(_) | Switch::Saved) => false,
            Step::Switching(Switch::Restored | Switch::Activated) => false,
            Step::Probation { .. } | Step::RollingBack { .. } => false,
        }
    }

    /// Whether the candidate may have answered a caller.
    #[must_use]
    pub(crate) const fn pointer_may_have_moved(&self) -> bool {
        matches!(self.step, Step::Switching(Switch::Activated) | Step::Probation { .. })
    }

    /// Where an outcome leads. One arm a step, in the order of a trial.
    pub(crate) fn take(&self, now: Time, outcome: Outcome) -> Move {
        match &self.step {
            Step::Fetching { tries, .. } => self.fetching(now, *tries, outcome),
            Step::Verifying => verifying(outcome),
            Step::Loading => loading(outcome),
            Step::Probing => probing(outcome),
            Step::Switching(Switch::Busy { .. }) => Move::Stay,
            Step::Switching(Switch::Preparing) => self.preparing(now, outcome),
            Step::Switching(Switch::Pausing) => self.pausing(now, outcome),
            Step::Switching(Switch::GivingUp(problem)) => self.giving_up(now, problem, outcome),
            Step::Switching(Switch::Saved) => self.saved(outcome),
            Step::Switching(Switch::Restored) => self.restored(outcome),
            Step::Switching(Switch::Activated) => activated(outcome),
            Step::Probation { until } => probation(now, *until, outcome),
            Step::RollingBack { .. } => rolling_back(outcome),
        }
    }

    fn fetching(&self, now: Time, tries: u32, outcome: Outcome) -> Move {
        match outcome {
            Outcome::Fetched => Move::To(Step::Verifying),
            Outcome::Failed(problem) => {
                let at = now.after(doubled(FETCH_WAIT_MS, tries).min(FETCH_WAIT_MAX_MS));
                if problem.fault == Fault::Link && at < self.deadline {
                    Move::To(Step::Fetching { tries: tries.saturating_add(1), at })
                } else {
                    Move::Fail(problem)
                }
            }
            Outcome::Verified(_) | Outcome::Loaded | Outcome::Probed => Move::Stay,
            Outcome::Prepared | Outcome::Saved { .. } | Outcome::Restored | Outcome::Activated => Move::Stay,
            Outcome::Switched { .. } | Outcome::Proven(_) | Outcome::WentBack { .. } => Move::Stay,
        }
    }

    fn preparing(&self, now: Time, outcome: Outcome) -> Move {
        match outcome {
            Outcome::Prepared => Move::To(Step::Switching(Switch::Pausing)),
            Outcome::Failed(problem) => self.not_begun(now, problem),
            Outcome::Fetched | Outcome::Verified(_) | Outcome::Loaded | Outcome::Probed => Move::Stay,
            Outcome::Saved { .. } | Outcome::Restored | Outcome::Activated => Move::Stay,
            Outcome::Switched { .. } | Outcome::Proven(_) | Outcome::WentBack { .. } => Move::Stay,
        }
    }

    fn pausing(&self, now: Time, outcome: Outcome) -> Move {
        match outcome {
            Outcome::Saved { lost } => Move::Save(lost),
            // An old release that can't give its state away would be asked for it, and perhaps end for it, each time.
            Outcome::Failed(problem) if &*problem.code != SWAP_BUSY => Move::Fail(problem),
            Outcome::Failed(problem) => self.not_begun(now, problem),
            Outcome::Fetched | Outcome::Verified(_) | Outcome::Loaded | Outcome::Probed => Move::Stay,
            Outcome::Prepared | Outcome::Restored | Outcome::Activated | Outcome::Switched { .. } => {
                Move::Stay
            }
            Outcome::Proven(_) | Outcome::WentBack { .. } => Move::Stay,
        }
    }

    /// The old release answers as before.
    fn not_begun(&self, now: Time, problem: Problem) -> Move {
        if self.may_try_again(&problem) { Move::To(self.busy(now)) } else { Move::Fail(problem) }
    }

    fn giving_up(&self, now: Time, problem: &Problem, outcome: Outcome) -> Move {
        match outcome {
            Outcome::WentBack { answers: true, .. } => Move::To(self.busy(now)),
            // Its worker has to be started again, which is no time for a swap.
            Outcome::WentBack { answers: false, lost } => Move::Abandon(problem.clone(), lost),
            Outcome::Failed(_) => Move::Strand,
            Outcome::Fetched | Outcome::Verified(_) | Outcome::Loaded | Outcome::Probed => Move::Stay,
            Outcome::Prepared | Outcome::Saved { .. } | Outcome::Restored | Outcome::Activated => Move::Stay,
            Outcome::Switched { .. } | Outcome::Proven(_) => Move::Stay,
        }
    }

    fn saved(&self, outcome: Outcome) -> Move {
        match outcome {
            Outcome::Restored => Move::To(Step::Switching(Switch::Restored)),
            Outcome::Failed(problem) => self.leave_the_pause(problem),
            Outcome::Fetched | Outcome::Verified(_) | Outcome::Loaded | Outcome::Probed => Move::Stay,
            Outcome::Prepared | Outcome::Saved { .. } | Outcome::Activated | Outcome::Switched { .. } => {
                Move::Stay
            }
            Outcome::Proven(_) | Outcome::WentBack { .. } => Move::Stay,
        }
    }

    fn restored(&self, outcome: Outcome) -> Move {
        match outcome {
            Outcome::Activated => Move::To(Step::Switching(Switch::Activated)),
            Outcome::Failed(problem) => self.leave_the_pause(problem),
            Outcome::Fetched | Outcome::Verified(_) | Outcome::Loaded | Outcome::Probed => Move::Stay,
            Outcome::Prepared | Outcome::Saved { .. } | Outcome::Restored | Outcome::Switched { .. } => {
                Move::Stay
            }
            Outcome::Proven(_) | Outcome::WentBack { .. } => Move::Stay,
        }
    }

    fn leave_the_pause(&self, problem: Problem) -> Move {
        if self.may_try_again(&problem) { Move::GiveUp(problem) } else { Move::GoBack(problem) }
    }

    /// A switch that fails by the host's fault is tried again, so often.
    fn may_try_again(&self, problem: &Problem) -> bool {
        problem.fault == Fault::Host && self.busy < BUSY_TRIES_MAX
    }

    fn busy(&self, now: Time) -> Step {
        Step::Switching(Switch::Busy { at: now.after(doubled(BUSY_WAIT_MS, self.busy)) })
    }
}

fn verifying(outcome: Outcome) -> Move {
    match outcome {
        Outcome::Verified(installed) => Move::Judge(Box::new(installed)),
        Outcome::Failed(problem) => Move::Fail(problem),
        Outcome::Fetched | Outcome::Loaded | Outcome::Probed => Move::Stay,
        Outcome::Prepared | Outcome::Saved { .. } | Outcome::Restored | Outcome::Activated => Move::Stay,
        Outcome::Switched { .. } | Outcome::Proven(_) | Outcome::WentBack { .. } => Move::Stay,
    }
}

fn loading(outcome: Outcome) -> Move {
    match outcome {
        Outcome::Loaded => Move::To(Step::Probing),
        Outcome::Failed(problem) => Move::Fail(problem),
        Outcome::Fetched | Outcome::Verified(_) | Outcome::Probed => Move::Stay,
        Outcome::Prepared | Outcome::Saved { .. } | Outcome::Restored | Outcome::Activated => Move::Stay,
        Outcome::Switched { .. } | Outcome::Proven(_) | Outcome::WentBack { .. } => Move::Stay,
    }
}

fn probing(outcome: Outcome) -> Move {
    match outcome {
        Outcome::Probed => Move::To(Step::Switching(Switch::Preparing)),
        Outcome::Failed(problem) => Move::Fail(problem),
        Outcome::Fetched | Outcome::Verified(_) | Outcome::Loaded => Move::Stay,
        Outcome::Prepared | Outcome::Saved { .. } | Outcome::Restored | Outcome::Activated => Move::Stay,
        Outcome::Switched { .. } | Outcome::Proven(_) | Outcome::WentBack { .. } => Move::Stay,
    }
}

fn activated(outcome: Outcome) -> Move {
    match outcome {
        Outcome::Switched { pause_us } => Move::Switched(pause_us),
        Outcome::Failed(problem) => Move::GoBack(problem),
        Outcome::Fetched | Outcome::Verified(_) | Outcome::Loaded | Outcome::Probed => Move::Stay,
        Outcome::Prepared | Outcome::Saved { .. } | Outcome::Restored | Outcome::Activated => Move::Stay,
        Outcome::Proven(_) | Outcome::WentBack { .. } => Move::Stay,
    }
}

fn probation(now: Time, until: Time, outcome: Outcome) -> Move {
    match outcome {
        Outcome::Proven(proof) if now >= until => Move::Commit(proof),
        Outcome::Failed(problem) => Move::GoBack(problem),
        Outcome::Fetched | Outcome::Verified(_) | Outcome::Loaded | Outcome::Probed => Move::Stay,
        Outcome::Prepared | Outcome::Saved { .. } | Outcome::Restored | Outcome::Activated => Move::Stay,
        Outcome::Switched { .. } | Outcome::Proven(_) | Outcome::WentBack { .. } => Move::Stay,
    }
}

fn rolling_back(outcome: Outcome) -> Move {
    match outcome {
        Outcome::WentBack { answers, lost } => Move::End(answers, lost),
        Outcome::Failed(_) => Move::Strand,
        Outcome::Fetched | Outcome::Verified(_) | Outcome::Loaded | Outcome::Probed => Move::Stay,
        Outcome::Prepared | Outcome::Saved { .. } | Outcome::Restored | Outcome::Activated => Move::Stay,
        Outcome::Switched { .. } | Outcome::Proven(_) => Move::Stay,
    }
}

/// A wait that doubles with each try.
fn doubled(first_ms: u64, tries: u32) -> u64 {
    1_u64.checked_shl(tries).map_or(u64::MAX, |factor| factor.saturating_mul(first_ms))
}
