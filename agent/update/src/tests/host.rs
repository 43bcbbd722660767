//! A small vocabulary for stories about one plugin on one host.

use crate::{
    Event, Fact, Fault, Generation, Installed, Offer, Order, Outcome, Plugin, Problem, Proof, Release,
    ReleaseId, Stage, StateVersions, Target, Task, Time,
};

/// Release number `n`: version `n.0.0`, with state where `n` is even.
pub(crate) fn release(n: u8) -> Release {
    Release {
        plugin: "clock".into(),
        version: semver::Version::new(u64::from(n), 0, 0),
        revision: 1,
        id: ReleaseId::new([n; 32]),
    }
}

pub(crate) fn installed(n: u8) -> Installed {
    let state = if n.is_multiple_of(2) {
        StateVersions { writes: vec![1], reads: vec![1] }
    } else {
        StateVersions::default()
    };
    Installed { release: release(n), state, background: false, floor: None, part: format!("part-{n}") }
}

pub(crate) fn offer(generation: u64, target: Target) -> Offer {
    Offer {
        generation: Generation { epoch: 1, n: generation },
        rollout: format!("r-{generation:06}"),
        attempt: 1,
        rollback: false,
        min_healthy_ms: 1_000,
        healthy_deadline_ms: 60_000,
        target,
    }
}

pub(crate) fn problem(fault: Fault, code: &str) -> Problem {
    Problem::new(fault, code, "it went wrong")
}

pub(crate) fn order(reason: &str) -> Order {
    Order { reason: reason.into(), by: "alice".into(), at_ms: 7 }
}

/// A host with a disk: what must be saved is written, and a cut reads it back.
pub(crate) struct Host {
    pub(crate) plugin: Plugin,
    pub(crate) disk: Vec<u8>,
    pub(crate) now: Time,
    pub(crate) boot: u32,
    /// Its way back breaks off each time.
    pub(crate) clumsy: bool,
}

impl Host {
    pub(crate) fn new() -> Self {
        let plugin = Plugin::new("clock".into());
        let mut host = Self {
            disk: serde_json::to_vec(&plugin).unwrap(),
            plugin,
            now: Time(1_000_000),
            boot: 1,
            clumsy: false,
        };
        host.start(true);
        host
    }

    /// A host that runs release `n` and has `previous` releases before it.
    pub(crate) fn running(numbers: &[u8]) -> Self {
        let mut host = Self::new();
        for (generation, n) in (1..).zip(numbers) {
            host.tell(generation, *n);
            assert_eq!(host.run_honestly(), Stage::Committed);
        }
        host
    }

    pub(crate) fn feed(&mut self, fact: Fact) {
        self.plugin = self.plugin.clone().step(Event { now: self.now, fact });
        let on_disk: Plugin = serde_json::from_slice(&self.disk).unwrap();
        if self.plugin.must_be_saved(&on_disk) {
            self.disk = serde_json::to_vec(&self.plugin).unwrap();
        }
    }

    pub(crate) fn tell(&mut self, generation: u64, n: u8) {
        self.feed(Fact::Told(offer(generation, Target::Release(release(n)))));
    }

    /// Tells it to go back.
    pub(crate) fn tell_back(&mut self, generation: u64, n: u8) {
        let offer = offer(generation, Target::Release(release(n)));
        self.feed(Fact::Told(Offer { rollback: true, ..offer }));
    }

    pub(crate) fn hold(&mut self) {
        self.feed(Fact::Held { order: order("hands off"), at_rest: false });
    }

    pub(crate) fn order_back(&mut self) {
        self.feed(Fact::OrderedBack { order: order("it is slow"), at_rest: false });
    }

    pub(crate) fn outcome(&mut self, outcome: Outcome) {
        let serial = self.plugin.trial_serial().unwrap_or_default();
        self.feed(Fact::Trial { serial, outcome });
    }

    pub(crate) fn fail(&mut self, fault: Fault, code: &str) {
        self.outcome(Outcome::Failed(problem(fault, code)));
    }

    fn start(&mut self, clean_stop: bool) {
        let boot_id = format!("boot-{}", self.boot);
        self.feed(Fact::Started { boot_id, clean_stop });
        if let Some(active) = self.active() {
            self.feed(Fact::Ready(active.id));
        }
    }

    /// The process ends and starts again from what is on disk.
    pub(crate) fn cut(&mut self, how: Cut) {
        self.plugin = serde_json::from_slice(&self.disk).unwrap();
        match how {
            Cut::Kill => self.start(false),
            Cut::CleanStop => self.start(true),
            Cut::Reboot => {
                self.boot += 1;
                self.now = Time(0);
                self.start(false);
            }
        }
    }

    /// Does the present task well. `false` when there is none.
    pub(crate) fn step_honestly(&mut self) -> bool {
        self.now = self.now.after(10);
        match self.plugin.work().trial {
            Task::Idle => return false,
            Task::AwaitSlot => self.feed(Fact::SlotGranted),
            Task::Wait => {
                self.now = self.plugin.wakes_at().unwrap();
                self.feed(Fact::TimePassed);
            }
            Task::Fetch { at, .. } => {
                self.now = self.now.max(at);
                self.outcome(Outcome::Fetched);
            }
            Task::Verify(release) => self.outcome(Outcome::Verified(installed(release.id.bytes()[0]))),
            Task::Load(_) => self.outcome(Outcome::Loaded),
            Task::Probe(_) => self.outcome(Outcome::Probed),
            Task::Prepare(_) => self.outcome(Outcome::Prepared),
            Task::Pause(_) => self.outcome(Outcome::Saved { lost: String::new() }),
            Task::Restore(_) => self.outcome(Outcome::Restored),
            Task::Activate(_) => self.outcome(Outcome::Activated),
            Task::Move(_) => self.outcome(Outcome::Switched { pause_us: 7 }),
            Task::Watch { until, .. } => {
                self.now = self.now.max(until);
                self.outcome(Outcome::Proven(Proof::Calls));
            }
            Task::GoBack { .. } if self.clumsy => self.fail(Fault::Host, "AGENT_BUG"),
            Task::GoBack { .. } => self.outcome(Outcome::WentBack { answers: true, lost: String::new() }),
        }
        true
    }

    /// To the end of everything that is under way; the stage that it ended in.
    pub(crate) fn run_honestly(&mut self) -> Stage {
        for _ in 0..100 {
            if !self.step_honestly() {
                return self.stage();
            }
        }
        panic!("still at work after 100 steps: {:?}", self.plugin.work());
    }

    /// Until the trial stands at this stage.
    pub(crate) fn run_to(&mut self, stage: Stage) {
        for _ in 0..100 {
            if self.stage() == stage {
                return;
            }
            assert!(self.step_honestly(), "ended before {stage:?}");
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.plugin.status().trial.map_or(Stage::Offered, |trial| trial.stage)
    }

    pub(crate) fn active(&self) -> Option<Release> {
        self.plugin.status().active
    }

    pub(crate) fn code(&self) -> String {
        let failure = self.plugin.status().trial.and_then(|trial| trial.failure);
        failure.map(|failure| failure.problem.code.into()).unwrap_or_default()
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        self.plugin.status().trial.and_then(|trial| trial.failure).map(|failure| failure.problem.fault)
    }
}

/// How the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Kill,
    CleanStop,
    Reboot,
}

pub(crate) const STEPS: [Stage; 6] =
    [Stage::Fetching, Stage::Verifying, Stage::Loading, Stage::Probing, Stage::Switching, Stage::Probation];
