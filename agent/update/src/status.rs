//! How a plugin stands, as reports and `agent status` tell it: a function of the state.

use serde::{Deserialize, Serialize};

use crate::{
    Denied, Failure, Generation, Life, LocalOverride, Offer, Plugin, Proof, Release, Service, Stage, Target,
    Trial,
};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What it was for.
    pub offer: Offer,
    /// [`Stage::Committed`], [`Stage::RolledBack`] or [`Stage::Rejected`].
    pub stage: Stage,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Gate closed to gate open, in microseconds; 0 if it was never closed.
    pub pause_us: u64,
    /// What the commit rests on; `None` where nothing had to be proved.
    pub proof: Option<Proof>,
    /// What of the state was lost, in words.
    pub lost: String,
}

impl Verdict {
    pub(crate) const fn of(offer: Offer, stage: Stage) -> Self {
        Self { offer, stage, failure: None, pause_us: 0, proof: None, lost: String::new() }
    }

    pub(crate) fn committed(offer: Offer, proof: Option<Proof>) -> Self {
        Self { proof, ..Self::of(offer, Stage::Committed) }
    }

    pub(crate) fn failed(trial: Trial, stage: Stage, failure: Failure) -> Self {
        let Trial { offer, pause_us, lost, .. } = trial;
        Self { offer, stage, failure: Some(failure), pause_us, proof: None, lost }
    }

    /// Whether this is the verdict on exactly this attempt, so that the same offer told again begins nothing.
    pub(crate) fn answers(&self, offer: &Offer) -> bool {
        self.offer.rollout == offer.rollout
            && self.offer.attempt == offer.attempt
            && self.offer.target.same(&offer.target)
            && (self.stage != Stage::Committed || !offer.rollout.is_empty())
    }
}

/// How a plugin stands on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The plugin's name.
    pub plugin: String,
    /// The highest generation that was accepted.
    pub generation: Generation,
    /// What callers meet.
    pub service: ServiceStatus,
    /// The committed release.
    pub active: Option<Release>,
    /// The one before.
    pub previous: Option<Release>,
    /// The running attempt, or how the last one ended.
    pub trial: Option<TrialStatus>,
    /// Releases that are never loaded here again.
    pub denied: Vec<Denied>,
    /// What an operator on the host has ordered.
    pub local_override: Option<LocalOverride>,
    /// What of its state the active release lost at a start, in words; empty if nothing was lost.
    pub lost: String,
}

/// What callers meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceStatus {
    /// 404
    Empty,
    /// An answer.
    Serving,
    /// A wait.
    Restarting,
    /// 503
    Down,
}

/// An attempt: the running one, or the verdict on the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialStatus {
    /// The rollout; empty for a steady state.
    pub rollout: String,
    /// The attempt within it.
    pub attempt: u32,
    /// The release; `None` for a removal.
    pub candidate: Option<Release>,
    /// Where it stands.
    pub stage: Stage,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Gate closed to gate open, in microseconds.
    pub pause_us: u64,
    /// What a commit rests on.
    pub proof: Option<Proof>,
    /// What of the state was lost, in words.
    pub lost: String,
}

impl Plugin {
    /// The plugin's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What answers between trials.
    #[must_use]
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// The attempt under way.
    #[must_use]
    pub const fn trial(&self) -> Option<&Trial> {
        self.trial.as_ref()
    }

    /// The highest generation that was accepted.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The serial of the trial under way.
    #[must_use]
    pub fn trial_serial(&self) -> Option<u64> {
        self.trial.as_ref().map(|trial| trial.serial)
    }

    /// What is reported. It changes only when the state does.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            plugin: self.name.clone(),
            generation: self.generation,
            service: self.service_status(),
            active: self.service.active().map(|installed| installed.release.clone()),
            previous: self.service.previous().map(|installed| installed.release.clone()),
            trial: self.trial_status(),
            denied: self.denied.clone(),
            local_override: self.local_override.clone(),
            lost: self.service.serving().map(|serving| serving.lost.clone()).unwrap_or_default(),
        }
    }

    fn service_status(&self) -> ServiceStatus {
        let moved = self.trial.as_ref().is_some_and(Trial::pointer_may_have_moved);
        match &self.service {
            Service::Empty => {
                if moved {
                    ServiceStatus::Serving
                } else {
                    ServiceStatus::Empty
                }
            }
            Service::Serving(_) if self.trial_owns_gate() => ServiceStatus::Serving,
            Service::Serving(serving) => match serving.life {
                Life::Running => ServiceStatus::Serving,
                Life::Restarting { .. } => ServiceStatus::Restarting,
                Life::Down { .. } => ServiceStatus::Down,
            },
        }
    }

    fn trial_status(&self) -> Option<TrialStatus> {
        if let Some(trial) = &self.trial {
            return Some(under_way(trial));
        }
        if let Some(offer) = &self.next {
            return Some(attempt(offer, Stage::Offered));
        }
        let last = self.last.as_ref()?;
        Some(TrialStatus {
            failure: last.failure.clone(),
            pause_us: last.pause_us,
            proof: last.proof,
            lost: last.lost.clone(),
            ..attempt(&last.offer, last.stage)
        })
    }
}

fn under_way(trial: &Trial) -> TrialStatus {
    let failure = match &trial.step {
        crate::Step::RollingBack { failure, .. } => Some(failure.as_ref().clone()),
        crate::Step::Fetching { .. } | crate::Step::Verifying | crate::Step::Loading => None,
        crate::Step::Probing | crate::Step::Switching(_) | crate::Step::Probation { .. } => None,
    };
    TrialStatus {
        failure,
        pause_us: trial.pause_us,
        lost: trial.lost.clone(),
        ..attempt(&trial.offer, trial.stage())
    }
}

fn attempt(offer: &Offer, stage: Stage) -> TrialStatus {
    let candidate = match &offer.target {
        Target::Release(release) => Some(release.clone()),
        Target::Nothing => None,
    };
    TrialStatus {
        rollout: offer.rollout.clone(),
        attempt: offer.attempt,
        candidate,
        stage,
        failure: None,
        pause_us: 0,
        proof: None,
        lost: String::new(),
    }
}
