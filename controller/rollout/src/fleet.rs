//! The fleet as the store and the hosts' reports show it: what the planner looks at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Failure, Generation, HostId, HostState, Release, RolloutId, Selector, SkipReason};

/// Everything that a plan depends on besides the rollouts and the time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// The epoch of new generations.
    pub epoch: u64,
    /// The controller has just started, and hosts have not all had the time to connect again: a host that is offline
    /// may be on its way, so no rollout ends without it.
    pub returning: bool,
    /// All known hosts.
    pub hosts: BTreeMap<HostId, Host>,
    /// All assignments.
    pub assignments: BTreeMap<AssignmentKey, Assignment>,
}

impl Fleet {
    /// Hosts that belong to an assignment: they match its selector, and no earlier one of the plugin.
    pub fn members<'a>(&'a self, key: &'a AssignmentKey) -> impl Iterator<Item = (&'a HostId, &'a Host)> {
        self.hosts.iter().filter(|(_, host)| self.belongs(host, key))
    }

    /// Whether a host belongs to an assignment. A host that matches several (since it joined or was relabelled after
    /// they were made) belongs to the first in the order of their selectors.
    #[must_use]
    pub fn belongs(&self, host: &Host, key: &AssignmentKey) -> bool {
        key.selector.matches(&host.labels, &host.name)
            && !self
                .of_plugin(&key.plugin)
                .take_while(|other| other.key.selector < key.selector)
                .any(|other| other.key.selector.matches(&host.labels, &host.name))
    }

    /// The assignments of a plugin, in the order of their selectors.
    pub fn of_plugin<'a>(&'a self, plugin: &'a str) -> impl Iterator<Item = &'a Assignment> {
        self.assignments.values().filter(move |assignment| assignment.key.plugin == plugin)
    }
}

/// Names an assignment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AssignmentKey {
    /// The plugin's name.
    pub plugin: String,
    /// Which hosts.
    pub selector: Selector,
}

/// A plugin, a set of hosts, and what they should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Its name.
    pub key: AssignmentKey,
    /// Releases that succeeded here, newest first, the present one included; a rollback drops what it left.
    pub history: Vec<Release>,
}

impl Assignment {
    /// Releases that an assignment remembers.
    pub const HISTORY_MAX: usize = 64;

    /// The release that hosts should run; `None` before the first rollout has succeeded.
    #[must_use]
    pub fn release(&self) -> Option<&Release> {
        self.history.first()
    }

    /// The assignment after a rollout to `to` has succeeded.
    pub(crate) fn moved(&self, to: Option<&Release>, back: bool) -> Self {
        let mut history = self.history.clone();
        match to {
            None => history.clear(),
            Some(to) => {
                if back && let Some(at) = history.iter().position(|release| release == to) {
                    history.drain(..at);
                }
                if history.first() != Some(to) {
                    history.insert(0, to.clone());
                }
            }
        }
        history.truncate(Self::HISTORY_MAX);
        Self { key: self.key.clone(), history }
    }
}

/// A host that has connected at least once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Unique over the fleet; for people and selectors.
    pub name: String,
    /// From its config.
    pub labels: BTreeMap<String, String>,
    /// e.g. `x86_64-linux-gnu`
    pub platform: String,
    /// Whether it has a stream now.
    pub online: bool,
    /// Its agent starts no plugin, and begins nothing that it is offered.
    pub safe_mode: bool,
    /// The greatest generation that it was, or will be, told.
    pub generation: Generation,
    /// By plugin.
    pub plugins: BTreeMap<String, HostPlugin>,
}

impl Host {
    pub(crate) fn reported(&self, plugin: &str) -> Option<&Reported> {
        self.plugins.get(plugin)?.reported.as_ref()
    }

    /// The code of the failure for which the host refuses a release.
    #[must_use]
    pub fn denies(&self, release: &Release) -> Option<&str> {
        let denied = &self.reported(&release.plugin)?.denied;
        denied.iter().find(|denied| denied.release == *release).map(|denied| &*denied.code)
    }

    /// Why nothing that the host is offered of a plugin begins now; `None`: it does.
    #[must_use]
    pub fn takes_nothing(&self, plugin: &str) -> Option<SkipReason> {
        if self.safe_mode {
            return Some(SkipReason::SafeMode);
        }
        self.reported(plugin)?.held.clone().map(SkipReason::Held)
    }

    /// Whether the host was told to run a release, has taken that in, and runs something else: it has not begun yet,
    /// or it has gone back by itself.
    #[must_use]
    pub fn runs_other_than(&self, release: &Release) -> bool {
        let Some(HostPlugin { desired: Some(desired), reported: Some(reported) }) =
            self.plugins.get(&release.plugin)
        else {
            return false;
        };
        let knows = desired.target.as_ref() == Some(release) && reported.generation >= desired.generation;
        knows && !reported.on_trial() && reported.active.as_ref() != Some(release)
    }

    pub(crate) fn desired(&self, plugin: &str) -> Option<&Desired> {
        self.plugins.get(plugin)?.desired.as_ref()
    }
}

/// One plugin on one host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostPlugin {
    /// What the host was, or will be, told; `None`: never anything.
    pub desired: Option<Desired>,
    /// What the host last said; `None`: never anything.
    pub reported: Option<Reported>,
}

/// What a host should do about one plugin: a row that is stored before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// `None`: the plugin is to be removed.
    pub target: Option<Release>,
    /// The rollout that brought the row; `None` if no rollout ever did.
    pub rollout: Option<RolloutId>,
    /// Attempt within the rollout; 0 = no offer, the host should just stay so.
    pub attempt: u32,
    /// Allows a version below the committed one.
    pub rollback: bool,
    /// Probation, in milliseconds.
    pub min_healthy_ms: u64,
    /// Deadline of the trial, in milliseconds.
    pub healthy_deadline_ms: u64,
    /// The generation that brings it.
    pub generation: Generation,
}

/// What a host last said about one plugin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// The generation that it answers.
    pub generation: Generation,
    /// The committed release.
    pub active: Option<Release>,
    /// The release before it, if the host still holds that.
    pub previous: Option<Release>,
    /// The running trial, or the verdict of the last one.
    pub trial: Option<Trial>,
    /// Releases that failed there by their own fault: it refuses them unseen.
    pub denied: Vec<Denied>,
    /// Why an operator on the host holds the plugin: nothing that the host is told changes what it runs.
    pub held: Option<String>,
}

/// A release that a host refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Which.
    pub release: Release,
    /// Code of the failure that it had there.
    pub code: String,
}

impl Reported {
    /// Whether a trial goes on, of whatever rollout.
    #[must_use]
    pub fn on_trial(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.state.is_open())
    }
}

/// A trial in the host's own words.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Whose offer it tries; `None` if it wasn't an offer.
    pub rollout: Option<RolloutId>,
    /// Attempt within the rollout.
    pub attempt: u32,
    /// How far it is.
    pub state: HostState,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Gate closed to gate open, in microseconds.
    pub swap_pause_us: u64,
    /// `calls` or `probes`.
    pub proven_by: String,
    /// What of the state could not be carried.
    pub state_lost: String,
}
