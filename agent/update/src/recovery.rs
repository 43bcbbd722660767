//! What a start of the agent means for what was under way.
//!
//! | The agent ended by | before Loading | Loading to Probation | rolling back |
//! |---|---|---|---|
//! | a clean stop, or the host booted anew | goes on | begins anew once, then `interrupted` | the verdict stands |
//! | a kill | goes on | fault `release`, one verdict | the verdict stands |
//!
//! A way back blames nobody: a kill counts as an interruption there, and once its gate may have closed the way back
//! is done. Anywhere else a cut from then on can't know whether a caller was answered, and counts as if one was.

use crate::{
    Fault, INTERRUPTIONS_MAX, Plugin, Problem, Proof, Service, Stage, Step, Switch, Time, Way,
    plugin::{deadline, first_step},
};

impl Plugin {
    pub(crate) fn started(&mut self, now: Time, boot_id: String, clean_stop: bool) {
        let afresh = clean_stop || self.boot_id != boot_id;
        self.boot_id = boot_id;
        if let Service::Serving(serving) = &mut self.service {
            serving.started(now, afresh);
        }
        let Some(trial) = &self.trial else { return };
        match &trial.step {
            Step::Fetching { .. } | Step::Verifying => self.begin_anew(now),
            // No worker is left to hand callers over from.
            Step::Switching(_) if self.is_on_local_way_back() => self.finish_way_back(now),
            Step::Switching(Switch::Busy { .. } | Switch::Preparing) => self.cut(now, afresh),
            Step::Switching(_) if trial.way == Way::Back => self.finish_way_back(now),
            Step::Switching(_) => {
                self.go_to(Step::Switching(Switch::Activated));
                self.cut(now, afresh);
            }
            Step::Loading | Step::Probing | Step::Probation { .. } => self.cut(now, afresh),
            Step::RollingBack { .. } => self.went_back(now, false),
        }
    }

    fn cut(&mut self, now: Time, afresh: bool) {
        let way_back = self.trial.as_ref().is_some_and(|trial| trial.way == Way::Back);
        if afresh || way_back { self.interrupted(now) } else { self.killed(now) }
    }

    /// The same trial from its first step on; outcomes of the old run are strangers to it.
    fn begin_anew(&mut self, now: Time) {
        self.serial += 1;
        let serial = self.serial;
        let Some(trial) = &mut self.trial else { return };
        trial.serial = serial;
        trial.step = first_step(trial.way, now);
        trial.deadline = deadline(&trial.offer, now);
        trial.busy = 0;
        trial.lost.clear();
    }

    fn interrupted(&mut self, now: Time) {
        let Some(trial) = &mut self.trial else { return };
        if trial.interruptions < INTERRUPTIONS_MAX {
            trial.interruptions += 1;
            return self.begin_anew(now);
        }
        let words =
            format!("the agent was stopped {} times while {}", trial.interruptions + 1, doing(trial.stage()));
        self.end(now, Problem::new(Fault::Interrupted, "INTERRUPTED", words));
    }

    fn killed(&mut self, now: Time) {
        let Some(trial) = &self.trial else { return };
        let words = format!("the agent was killed while {}", doing(trial.stage()));
        self.end(now, Problem::new(Fault::Release, "KILLED_ON_TRIAL", words));
    }

    /// The old worker ended with the agent, so the committed release is simply started.
    fn end(&mut self, now: Time, problem: Problem) {
        self.go_back(problem);
        self.went_back(now, false);
    }

    fn finish_way_back(&mut self, now: Time) {
        self.commit(Proof::Before);
        if let Service::Serving(serving) = &mut self.service {
            serving.started(now, true);
        }
    }
}

const fn doing(stage: Stage) -> &'static str {
    match stage {
        Stage::Offered | Stage::Fetching => "it fetched the release",
        Stage::Verifying => "it verified the release",
        Stage::Loading => "it loaded the release",
        Stage::Probing => "it probed the release",
        Stage::Switching => "it switched to the release",
        Stage::Probation => "the release was on probation",
        Stage::Committed => "the release was committed",
        Stage::RollingBack | Stage::RolledBack | Stage::Rejected => "it went back to the old release",
    }
}
