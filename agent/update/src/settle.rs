//! What is decided without an event of its own: whether the newest offer is met, refused, waits, or calls
//! off what is under way.

use crate::{Failure, Fault, Offer, Plugin, Problem, Stage, Step, Target, Trial, Verdict};

impl Plugin {
    /// Brings `next` to rest against trial and service. Doing it twice changes nothing.
    pub(crate) fn settle(&mut self) {
        self.end_trial_of_what_runs();
        if self.local_override.is_some() {
            return;
        }
        let Some(next) = self.next.clone() else { return };
        if let Some(trial) = &mut self.trial {
            if trial.offer.target.same(&next.target) && !matches!(trial.step, Step::RollingBack { .. }) {
                trial.offer = next;
                self.next = None;
            } else if trial.is_before_switch() {
                self.fail(withdrawn(&next));
            } else if matches!(trial.step, Step::Probation { .. }) && self.runs(&next.target) {
                self.go_back(withdrawn(&next));
            }
        }
        if self.trial.is_none() {
            self.settle_waiting();
        }
    }

    /// A crash loop may have returned to the very release that a waiting trial leads to.
    fn end_trial_of_what_runs(&mut self) {
        let met = |trial: &Trial| trial.is_before_switch() && self.runs(&trial.offer.target);
        if self.trial.as_ref().is_some_and(met)
            && let Some(trial) = self.trial.take()
        {
            self.last = Some(Verdict::committed(trial.offer, None));
        }
    }

    fn settle_waiting(&mut self) {
        let Some(offer) = self.next.take() else { return };
        if self.last.as_ref().is_some_and(|last| last.answers(&offer)) {
            return;
        }
        if self.runs(&offer.target) {
            self.conclude(Verdict::committed(offer, None));
        } else if let Some(problem) = self.refusal(&offer) {
            self.reject(offer, problem);
        } else {
            self.next = Some(offer);
        }
    }

    /// What waits is not begun: the host can't take this plugin in.
    #[must_use]
    pub fn refused(mut self, problem: Problem) -> Self {
        if let Some(offer) = self.next.take() {
            self.reject(offer, problem);
        }
        self
    }

    fn reject(&mut self, offer: Offer, problem: Problem) {
        let failure = Failure { stage: Stage::Verifying, problem: problem.bounded(), next: self.stays() };
        self.conclude(Verdict { failure: Some(failure), ..Verdict::of(offer, Stage::Rejected) });
    }

    /// A steady state has no rollout that waits for a verdict; the last one stays readable.
    pub(crate) fn conclude(&mut self, verdict: Verdict) {
        if !verdict.offer.rollout.is_empty() || self.last.is_none() {
            self.last = Some(verdict);
        }
    }

    /// Whether the committed release is the target.
    pub(crate) fn runs(&self, target: &Target) -> bool {
        self.service.active().map(|active| active.release.id) == target.release().map(|release| release.id)
    }

    /// Why this host does not take the offer, by its own memory. The retained previous release is exempt in a rollback.
    pub(crate) fn refusal(&self, offer: &Offer) -> Option<Problem> {
        let release = offer.target.release()?;
        if let Some(denied) = self.is_denied(release.id) {
            let words = format!("{release} failed on this host before ({}): {}", denied.code, denied.reason);
            return Some(Problem::new(Fault::Release, "RELEASE_DENIED", words));
        }
        let previous = self.service.previous().filter(|_| offer.rollback);
        if previous.is_some_and(|previous| previous.release.id == release.id) {
            return None;
        }
        if let Some(floor) = self.floor.as_ref().filter(|floor| release.version < **floor) {
            let words = format!("{release} is below the floor {floor} that a committed release has set");
            let problem = Problem::new(Fault::Trust, "BELOW_FLOOR", words);
            return Some(Problem {
                got: release.to_string().into(),
                wanted: format!(">= {floor}").into(),
                ..problem
            });
        }
        let active = self.service.active().map(|active| &active.release)?;
        if release.version < active.version && !offer.rollback {
            let words = format!("{release} is below {active}, and the offer is not a rollback");
            return Some(Problem::new(Fault::Trust, "DOWNGRADE_REFUSED", words));
        }
        None
    }
}

fn withdrawn(next: &Offer) -> Problem {
    let words = next.target.release().map_or_else(
        || "the plugin is to be removed".to_owned(),
        |release| format!("the host was told to run {release} instead"),
    );
    Problem::new(Fault::Withdrawn, "WITHDRAWN", words)
}
