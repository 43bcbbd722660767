//! What the shell must do now. It follows from the saved state alone; doing it twice is harmless.

use crate::{
    Carry, Fault, Installed, Life, Plugin, Release, ReleaseId, Service, Step, Switch, Target, Time, Trial,
};

/// The two things that go on for a plugin at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Who answers callers.
    pub serve: Serve,
    /// The next thing to do for the trial.
    pub trial: Task,
}

/// Who answers callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serve {
    /// Nobody: the plugin does not run here.
    Nothing,
    /// The committed release does.
    Run(ReleaseId),
    /// Nobody yet: the committed release is to be started. Its outcome is [`crate::Fact::Ready`] or
    /// [`crate::Fact::StartFailed`].
    Start {
        /// The committed release.
        release: Box<Installed>,
        /// Not before.
        at: Time,
        /// Callers are refused meanwhile, instead of waiting.
        down: bool,
    },
    /// The trial decides; leave the gate to its work.
    Trial,
}

/// The next thing to do for a trial. Its outcome carries the serial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Nothing.
    Idle,
    /// Wait for the host's one trial slot; then [`crate::Fact::SlotGranted`].
    AwaitSlot,
    /// Wait for [`Plugin::wakes_at`].
    Wait,
    /// Get metadata, manifest and blobs of a release onto the disk.
    Fetch {
        /// Which.
        release: Release,
        /// Not before.
        at: Time,
    },
    /// Decide from signatures, hashes and the library's form whether it may be loaded.
    Verify(Release),
    /// Load it into a throw-away worker.
    Load(Box<Installed>),
    /// Probe it there, then throw the worker away.
    Probe(Box<Installed>),
    /// Make a fresh instance of it beside the release that answers.
    Prepare(Box<Installed>),
    /// Close the gate if `excludes`, bring the old instance to rest, save its state.
    Pause(Box<Swap>),
    /// Hand the state to the new instance.
    Restore(Box<Swap>),
    /// Activate the new instance.
    Activate(Box<Swap>),
    /// Move the pointer and open the gate.
    Move(Box<Swap>),
    /// Watch over the new release; then [`crate::Outcome::Proven`] or the first bad sign.
    Watch {
        /// On probation.
        release: Box<Installed>,
        /// Until then.
        until: Time,
    },
    /// Give the old release its place again, with the state if `carry` says so.
    GoBack {
        /// From the candidate to the old release.
        swap: Box<Swap>,
        /// The candidate does nothing wrong: going back may not cost a call either.
        planned: bool,
    },
}

/// The two ends of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Leaves.
    pub from: Option<Installed>,
    /// Comes. `None` only on the way back from a first install.
    pub to: Option<Installed>,
    /// How state goes from the one to the other.
    pub carry: Carry,
    /// Callers must wait meanwhile.
    pub excludes: bool,
}

impl Plugin {
    /// What the shell must do now.
    #[must_use]
    pub fn work(&self) -> Work {
        Work { serve: self.serve(), trial: self.task() }
    }

    /// When [`crate::Fact::TimePassed`] is due.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Time> {
        let trial = self.trial.as_ref()?;
        match trial.step {
            Step::Fetching { .. } | Step::Verifying | Step::Loading | Step::Probing => Some(trial.deadline),
            Step::Switching(Switch::Preparing) => Some(trial.deadline),
            Step::Switching(Switch::Busy { at }) => Some(at),
            Step::Switching(Switch::Pausing | Switch::GivingUp(_) | Switch::Saved) => None,
            Step::Switching(Switch::Restored | Switch::Activated) => None,
            Step::Probation { .. } | Step::RollingBack { .. } => None,
        }
    }

    /// Whether this differs from what is on disk by more than a part of a switch. From the moment before the gate
    /// closes to the one after the pointer moved every cut has the same verdict, so nothing is written while callers
    /// wait.
    #[must_use]
    pub fn must_be_saved(&self, on_disk: &Self) -> bool {
        self.as_written() != on_disk.as_written()
    }

    /// Whether callers may wait at a closed gate for the end of a switch: nothing should be fed now that
    /// [must be saved](Self::must_be_saved) and can wait as well.
    #[must_use]
    pub const fn is_in_the_pause(&self) -> bool {
        match &self.trial {
            Some(trial) => matches!(trial.step, Step::Switching(_)) && !trial.is_before_switch(),
            None => false,
        }
    }

    /// Every release whose files must stay on disk.
    pub fn kept(&self) -> impl Iterator<Item = ReleaseId> {
        let installed = self.service.active().into_iter().chain(self.service.previous());
        let offers = self.trial.as_ref().map(|trial| &trial.offer).into_iter().chain(&self.next);
        let offered = offers.filter_map(|offer| offer.target.release()).map(|release| release.id);
        installed.map(|installed| installed.release.id).chain(offered)
    }

    fn as_written(&self) -> Self {
        let mut written = self.clone();
        if self.is_in_the_pause()
            && let Some(trial) = &mut written.trial
        {
            trial.step = Step::Switching(Switch::Pausing);
            trial.lost.clear();
        }
        written
    }

    fn serve(&self) -> Serve {
        if self.trial_owns_gate() {
            return Serve::Trial;
        }
        match &self.service {
            Service::Empty => Serve::Nothing,
            Service::Serving(serving) => {
                let start = |at, down| Serve::Start { release: Box::new(serving.active.clone()), at, down };
                match serving.life {
                    Life::Running => Serve::Run(serving.active.release.id),
                    Life::Restarting { at } => start(at, false),
                    Life::Down { at } => start(at, true),
                }
            }
        }
    }

    fn task(&self) -> Task {
        let Some(trial) = &self.trial else {
            let may_begin = self.next.is_some() && self.local_override.is_none();
            return if may_begin { Task::AwaitSlot } else { Task::Idle };
        };
        let Target::Release(release) = &trial.offer.target else { return Task::Idle };
        if let Step::Fetching { at, .. } = trial.step {
            return Task::Fetch { release: release.clone(), at };
        }
        let Some(candidate) = &trial.candidate else { return Task::Verify(release.clone()) };
        self.task_with(trial, candidate)
    }

    fn task_with(&self, trial: &Trial, candidate: &Installed) -> Task {
        let swap = || Box::new(Swap::between(self.service.active(), Some(candidate)));
        match trial.step {
            Step::Fetching { .. } => Task::Wait,
            Step::Verifying => Task::Verify(candidate.release.clone()),
            Step::Loading => Task::Load(Box::new(candidate.clone())),
            Step::Probing => Task::Probe(Box::new(candidate.clone())),
            Step::Switching(Switch::Busy { .. }) => Task::Wait,
            Step::Switching(Switch::Preparing) => Task::Prepare(Box::new(candidate.clone())),
            Step::Switching(Switch::Pausing) => Task::Pause(swap()),
            Step::Switching(Switch::GivingUp(_)) => self.give_way(candidate, true),
            Step::Switching(Switch::Saved) => Task::Restore(swap()),
            Step::Switching(Switch::Restored) => Task::Activate(swap()),
            Step::Switching(Switch::Activated) => Task::Move(swap()),
            Step::Probation { until } => Task::Watch { release: Box::new(candidate.clone()), until },
            Step::RollingBack { ref failure, .. } => {
                self.give_way(candidate, is_planned(failure.problem.fault))
            }
        }
    }

    fn give_way(&self, candidate: &Installed, planned: bool) -> Task {
        Task::GoBack { swap: Box::new(Swap::between(Some(candidate), self.service.active())), planned }
    }
}

/// Whether the candidate still does its work.
const fn is_planned(fault: Fault) -> bool {
    match fault {
        Fault::Withdrawn | Fault::Host | Fault::Interrupted => true,
        Fault::Release | Fault::Link | Fault::Trust => false,
    }
}

impl Swap {
    fn between(from: Option<&Installed>, to: Option<&Installed>) -> Self {
        let both = from.zip(to);
        Self {
            from: from.cloned(),
            to: to.cloned(),
            carry: both.map_or(Carry::Nothing, |(from, to)| Carry::between(from, to)),
            excludes: both.is_some_and(|(from, to)| from.excludes(to)),
        }
    }
}
