//! The whole of one plugin on one host: how its parts move together at each event.

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::{
    DEATHS_MAX, Event, Fact, Failure, Fault, Generation, HEALTHY_DEADLINE_MS, Installed, LocalOverride,
    Offer, Outcome, Problem, Proof, Release, ReleaseId, Service, Serving, Stage, Step, Switch, Target, Time,
    Trial, Verdict, Way, service::AfterDeath, trial::Move,
};

/// Releases that a host remembers as bad; the oldest is forgotten first.
pub const DENIED_MAX: usize = 128;

/// One plugin on one host. The record on disk is this, and work follows from it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// The plugin's name.
    pub(crate) name: String,
    /// The highest that was accepted.
    pub(crate) generation: Generation,
    /// The boot in which the agent last started.
    pub(crate) boot_id: String,
    /// Count of beginnings of trials.
    pub(crate) serial: u64,
    /// What answers between trials.
    pub(crate) service: Service,
    /// The attempt under way.
    pub(crate) trial: Option<Trial>,
    /// What comes after it, or waits for the host's trial slot.
    pub(crate) next: Option<Offer>,
    /// How the last attempt ended.
    pub(crate) last: Option<Verdict>,
    /// Releases that failed here by their own fault; at most [`DENIED_MAX`].
    pub(crate) denied: Vec<Denied>,
    /// The lowest version that may be installed.
    pub(crate) floor: Option<Version>,
    /// What an operator on the host has ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) local_override: Option<LocalOverride>,
}

/// A release that is never loaded here again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// Which.
    pub release: Release,
    /// The code of its failure.
    pub code: String,
    /// One sentence.
    pub reason: String,
}

impl Plugin {
    /// A plugin that this host has not seen before.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self {
            name,
            generation: Generation { epoch: 0, n: 0 },
            boot_id: String::new(),
            serial: 0,
            service: Service::Empty,
            trial: None,
            next: None,
            last: None,
            denied: Vec::new(),
            floor: None,
            local_override: None,
        }
    }

    /// Takes in one event. Save what comes out before doing its [`Plugin::work`].
    #[must_use]
    pub fn step(mut self, event: Event) -> Self {
        let Event { now, fact } = event;
        let at_rest = fact.is_at_rest();
        match fact {
            Fact::Started { boot_id, clean_stop } => self.started(now, boot_id, clean_stop),
            Fact::Told(offer) => self.told(offer),
            Fact::SlotGranted => self.begin(now),
            Fact::TimePassed => self.time_passed(now),
            Fact::Trial { serial, outcome } => self.outcome(now, serial, outcome),
            Fact::Ready(id) => self.ready(id),
            Fact::StateLost(id, words) => self.state_lost(id, words),
            Fact::Died(id, problem) => self.died(now, id, problem),
            Fact::StartFailed(id, problem) => self.start_failed(now, id, problem),
            Fact::FilesLost(id, problem) => self.files_lost(now, id, problem),
            Fact::Held { order, .. } => self.held(order),
            Fact::OrderedBack { order, .. } => self.ordered_back(order),
            Fact::Released => self.released(),
        }
        self.settle();
        self.settle_override(now, at_rest);
        self
    }

    fn told(&mut self, offer: Offer) {
        if offer.generation >= self.generation {
            self.generation = offer.generation;
            self.next = Some(offer);
        }
    }

    fn begin(&mut self, now: Time) {
        if self.trial.is_some() || self.local_override.is_some() {
            return;
        }
        let Some(offer) = self.next.take() else { return };
        match offer.target.clone() {
            Target::Nothing => {
                self.service = Service::Empty;
                self.last = Some(Verdict::committed(offer, None));
            }
            Target::Release(release) => self.begin_trial(now, offer, &release),
        }
    }

    fn begin_trial(&mut self, now: Time, offer: Offer, release: &Release) {
        // A push wants its trial, also of what ran here before.
        let previous = self.service.previous().filter(|_| offer.rollback);
        let previous = previous.filter(|previous| previous.release.id == release.id);
        let way = if previous.is_some() { Way::Back } else { Way::Install };
        self.serial += 1;
        self.trial = Some(Trial {
            serial: self.serial,
            candidate: previous.cloned(),
            way,
            step: first_step(way, now),
            deadline: deadline(&offer, now),
            offer,
            busy: 0,
            interruptions: 0,
            pause_us: 0,
            lost: String::new(),
        });
    }

    fn time_passed(&mut self, now: Time) {
        let Some(trial) = &mut self.trial else { return };
        if let Step::Switching(Switch::Busy { at }) = trial.step {
            if now >= at {
                trial.step = Step::Switching(Switch::Preparing);
            }
        } else if trial.is_before_switch() && now >= trial.deadline {
            let problem = too_late(trial);
            self.fail(problem);
        }
    }

    fn outcome(&mut self, now: Time, serial: u64, outcome: Outcome) {
        let Some(trial) = self.trial.as_ref().filter(|trial| trial.serial == serial) else { return };
        match trial.take(now, outcome) {
            Move::Stay => {}
            Move::To(step) => self.go_to(step),
            Move::Judge(candidate) => self.judge(*candidate),
            Move::Save(lost) => {
                self.note_lost(lost);
                self.go_to(Step::Switching(Switch::Saved));
            }
            Move::Switched(pause_us) => self.switched(now, pause_us),
            Move::Commit(proof) => self.commit(proof),
            Move::Fail(problem) => self.fail(problem),
            Move::GiveUp(problem) => self.go_to(Step::Switching(Switch::GivingUp(Box::new(problem)))),
            Move::GoBack(problem) => self.go_back(problem),
            Move::Abandon(problem, lost) => {
                self.note_lost(lost);
                self.go_back(problem);
                self.went_back(now, false);
            }
            Move::End(answers, lost) => {
                self.note_lost(lost);
                self.went_back(now, answers);
            }
            Move::Strand => self.strand(now),
        }
    }

    pub(crate) fn go_to(&mut self, step: Step) {
        if let Some(trial) = &mut self.trial {
            if matches!(step, Step::Switching(Switch::Busy { .. })) {
                trial.busy += 1;
                // The next try says for itself what it loses.
                trial.lost.clear();
            }
            trial.step = step;
        }
    }

    pub(crate) fn note_lost(&mut self, lost: String) {
        if let Some(trial) = self.trial.as_mut().filter(|_| !lost.is_empty()) {
            trial.lost = if trial.lost.is_empty() { lost } else { format!("{}; {lost}", trial.lost) };
        }
    }

    /// The host's own rules about a verified release; a part that did not change is adopted without a swap.
    fn judge(&mut self, candidate: Installed) {
        let Some(trial) = &mut self.trial else { return };
        if trial.offer.target.release() != Some(&candidate.release) {
            let words = format!("the manifest describes {}, which was not offered", candidate.release);
            return self.fail(Problem::new(Fault::Trust, "MANIFEST_MISMATCH", words));
        }
        let unchanged = self.service.active().is_some_and(|active| active.part == candidate.part);
        trial.candidate = Some(candidate);
        if let Some(problem) = self.trial.as_ref().and_then(|trial| self.refusal(&trial.offer)) {
            self.fail(problem);
        } else if unchanged {
            self.adopt();
        } else {
            self.go_to(Step::Loading);
        }
    }

    fn adopt(&mut self) {
        let Some(Trial { candidate: Some(candidate), offer, .. }) = self.trial.take() else { return };
        if let Service::Serving(serving) = &mut self.service {
            serving.active = candidate;
            serving.offer = offer.clone();
        }
        self.last = Some(Verdict::committed(offer, Some(Proof::Unchanged)));
    }

    fn switched(&mut self, now: Time, pause_us: u64) {
        let Some(trial) = &mut self.trial else { return };
        trial.pause_us = pause_us;
        match trial.way {
            Way::Install => trial.step = Step::Probation { until: now.after(trial.offer.min_healthy_ms) },
            Way::Back => self.commit(Proof::Before),
        }
    }

    /// The record of this is the commit.
    pub(crate) fn commit(&mut self, proof: Proof) {
        self.tell_lost_on_trial();
        let Some(trial) = self.trial.take() else { return };
        let Trial { candidate: Some(candidate), offer, pause_us, lost, .. } = trial else { return };
        if let Some(floor) = candidate.floor.clone().filter(|floor| *floor <= candidate.release.version) {
            self.floor = self.floor.take().max(Some(floor));
        }
        let old = match std::mem::replace(&mut self.service, Service::Empty) {
            Service::Serving(serving) => Some(serving.active),
            Service::Empty => None,
        };
        // What was left on purpose is nothing to return to.
        let previous = old.filter(|_| !offer.rollback);
        self.service = Service::Serving(Box::new(Serving::committed(candidate, previous, offer.clone())));
        self.last = Some(Verdict { pause_us, lost, ..Verdict::committed(offer, Some(proof)) });
    }

    /// The trial ends; callers never noticed it.
    pub(crate) fn fail(&mut self, problem: Problem) {
        self.blame(&problem);
        self.tell_lost_on_trial();
        let Some(trial) = self.trial.take() else { return };
        // Trust is judged while metadata arrives, and is part of verifying whichever step notices.
        let stage = if problem.fault == Fault::Trust { Stage::Verifying } else { trial.stage() };
        let failure = Failure { stage, problem: problem.bounded(), next: self.stays() };
        self.last = Some(Verdict::failed(trial, Stage::Rejected, failure));
    }

    /// The verdict stands from here on; only the way back is left to do.
    pub(crate) fn go_back(&mut self, problem: Problem) {
        self.blame(&problem);
        let stays = self.stays();
        let Some(trial) = &mut self.trial else { return };
        let moved = trial.pointer_may_have_moved();
        let verdict = if moved { Stage::RolledBack } else { Stage::Rejected };
        let next = if moved { stays.replacen("stays", "back", 1) } else { stays };
        let failure = Box::new(Failure { stage: trial.stage(), problem: problem.bounded(), next });
        trial.step = Step::RollingBack { failure, verdict };
    }

    pub(crate) fn went_back(&mut self, now: Time, answers: bool) {
        self.tell_lost_on_trial();
        let Some(trial) = self.trial.take() else { return };
        let Step::RollingBack { failure, verdict } = trial.step.clone() else {
            self.trial = Some(trial);
            return;
        };
        if let Service::Serving(serving) = &mut self.service {
            if answers { serving.ready() } else { serving.started(now, false) }
        }
        self.last = Some(Verdict::failed(trial, verdict, *failure));
    }

    /// The way back broke off. The old release is started anew, in place of whatever stands there.
    fn strand(&mut self, now: Time) {
        if self.service.active().is_some_and(|active| active.state.has_state()) {
            self.note_lost("what came after the last saved state: the way back broke off".to_owned());
        }
        if let Some(Step::Switching(Switch::GivingUp(problem))) = self.trial.as_ref().map(|it| &it.step) {
            let problem = problem.as_ref().clone();
            self.go_back(problem);
        }
        self.went_back(now, false);
    }

    /// A release fault denies the release. The way back to a release that has proved itself blames nobody.
    fn blame(&mut self, problem: &Problem) {
        let Some(trial) = self.trial.as_ref().filter(|trial| trial.way == Way::Install) else { return };
        if let (Fault::Release, Some(release)) = (problem.fault, trial.offer.target.release()) {
            let release = release.clone();
            self.deny(release, problem);
        }
    }

    fn deny(&mut self, release: Release, problem: &Problem) {
        if let Service::Serving(serving) = &mut self.service {
            // What is denied is nothing to return to.
            serving.previous.take_if(|previous| previous.release.id == release.id);
        }
        if self.is_denied(release.id).is_some() {
            return;
        }
        if self.denied.len() >= DENIED_MAX {
            self.denied.remove(0);
        }
        let bounded = problem.clone().bounded();
        self.denied.push(Denied { release, code: bounded.code.into(), reason: bounded.message.into() });
    }

    pub(crate) fn is_denied(&self, id: ReleaseId) -> Option<&Denied> {
        self.denied.iter().find(|denied| denied.release.id == id)
    }

    fn ready(&mut self, id: ReleaseId) {
        if let Some(serving) = self.service.serving_as(id) {
            serving.ready();
        }
    }

    fn died(&mut self, now: Time, id: ReleaseId, problem: Problem) {
        let on_trial = self.trial.as_ref().is_some_and(|trial| {
            trial.pointer_may_have_moved() && trial.candidate.as_ref().is_some_and(|it| it.release.id == id)
        });
        if on_trial {
            return self.go_back(problem);
        }
        // In the middle of a switch the old release is not given up: it is started again on the way back.
        let owned = self.trial_owns_gate();
        let Some(serving) = self.service.serving_as(id) else { return };
        match serving.died(now, !owned) {
            AfterDeath::Restart => {}
            AfterDeath::GiveUp => self.give_up(now, problem),
        }
    }

    fn start_failed(&mut self, now: Time, id: ReleaseId, problem: Problem) {
        if problem.fault == Fault::Release {
            self.died(now, id, problem);
        } else if let Some(serving) = self.service.serving_as(id) {
            serving.start_failed(now);
        }
    }

    /// No further try brings the files back.
    fn files_lost(&mut self, now: Time, id: ReleaseId, problem: Problem) {
        let owned = self.trial_owns_gate();
        let Some(serving) = self.service.serving_as(id) else { return };
        if serving.previous.is_some() && !owned {
            self.return_to_previous(now, problem);
        } else {
            serving.start_failed(now);
        }
    }

    /// The release that crashed is denied, so that the host never goes back and forth.
    fn give_up(&mut self, now: Time, problem: Problem) {
        let Some(crashed) = self.service.active().map(|active| active.release.clone()) else { return };
        let message = format!("{crashed} died {DEATHS_MAX} times within 60 s: {}", problem.message);
        let problem = Problem {
            fault: Fault::Release,
            code: "CRASH_LOOP".into(),
            message: message.into(),
            tries: 3,
            ..problem
        };
        self.deny(crashed, &problem);
        self.return_to_previous(now, problem);
    }

    /// Returns to the previous release for good.
    fn return_to_previous(&mut self, now: Time, problem: Problem) {
        let Service::Serving(serving) = &mut self.service else { return };
        let Some(previous) = serving.previous.take() else { return };
        serving.active = previous;
        serving.lost.clear();
        serving.started(now, true);
        let next = format!("back on {}", serving.active.release);
        let offer = serving.offer.clone();
        let failure = Failure { stage: Stage::Committed, problem: problem.bounded(), next };
        self.last = Some(Verdict { failure: Some(failure), ..Verdict::of(offer, Stage::RolledBack) });
    }

    /// Whether the trial, not the committed release, decides who answers callers.
    pub(crate) fn trial_owns_gate(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| !trial.is_before_switch())
    }

    pub(crate) fn stays(&self) -> String {
        self.service
            .active()
            .map_or_else(|| "nothing runs".to_owned(), |active| format!("stays on {}", active.release))
    }
}

/// The first step of a trial on this way.
pub(crate) const fn first_step(way: Way, now: Time) -> Step {
    match way {
        Way::Install => Step::Fetching { tries: 0, at: now },
        Way::Back => Step::Switching(Switch::Preparing),
    }
}

/// When the switch must have begun.
pub(crate) const fn deadline(offer: &Offer, now: Time) -> Time {
    match offer.healthy_deadline_ms {
        0 => now.after(HEALTHY_DEADLINE_MS),
        ms => now.after(ms),
    }
}

fn too_late(trial: &Trial) -> Problem {
    let (fault, code, doing) = match trial.stage() {
        Stage::Fetching => (Fault::Link, "FETCH_DEADLINE", "fetching"),
        Stage::Verifying => (Fault::Host, "VERIFY_DEADLINE", "verifying"),
        Stage::Loading => (Fault::Release, "HEALTHY_DEADLINE", "loading"),
        Stage::Probing => (Fault::Release, "HEALTHY_DEADLINE", "probing"),
        Stage::Offered | Stage::Switching | Stage::Probation | Stage::Committed => {
            (Fault::Host, "HEALTHY_DEADLINE", "switching")
        }
        Stage::RollingBack | Stage::RolledBack | Stage::Rejected => {
            (Fault::Host, "HEALTHY_DEADLINE", "going back")
        }
    };
    Problem::new(fault, code, format!("the host was still {doing} when the healthy deadline ran out"))
}
