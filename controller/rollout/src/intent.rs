//! What an operator asks for, and whether it may begin: the choice of the assignment, conflicts, the way back.

use std::collections::BTreeSet;

use semver::Version;

use crate::{
    Assignment, AssignmentKey, Failure, Fleet, Host, HostId, InvalidPolicy, Policy, Release, Rollout,
    RolloutId, RolloutState, Selector, Spec, Trigger,
};

/// The wish to move an assignment to a release.
#[derive(Clone, Debug)]
pub struct Push {
    /// `None`: the only assignment of the plugin.
    pub selector: Option<Selector>,
    /// Where to.
    pub release: Release,
    /// Platforms that it is built for.
    pub platforms: BTreeSet<String>,
    /// The rules.
    pub policy: Policy,
}

/// The wish to go back.
#[derive(Clone, Debug)]
pub struct Rollback {
    /// Which plugin.
    pub plugin: String,
    /// `None`: the only assignment of the plugin.
    pub selector: Option<Selector>,
    /// `None`: the release before the present one; if a failed push has left hosts elsewhere, the present one; after a
    /// rollback that failed, where that one went.
    pub to: Option<Version>,
    /// The rules.
    pub policy: Policy,
}

/// What a wish comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Started {
    /// Every host runs it already, or is told to.
    NothingToDo(AssignmentKey),
    /// To be stored, in one transaction.
    Start(Box<Change>),
}

/// A rollout that begins, with its assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Set if the rollout is the first of its assignment: it is made with it.
    pub assignment: Option<Assignment>,
    /// The rollout.
    pub rollout: Rollout,
}

/// Why a wish is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A first push has to say which hosts it is for.
    #[error("{plugin} is not assigned to any host yet")]
    HostsRequired {
        /// Which plugin.
        plugin: String,
    },
    /// Several assignments and none named.
    #[error("{plugin} has {} assignments: {}", selectors.len(), selectors.join("; "))]
    Ambiguous {
        /// Which plugin.
        plugin: String,
        /// Their selectors.
        selectors: Vec<String>,
    },
    /// No such assignment to go back.
    #[error("{plugin} has no assignment for `{selector}`")]
    Unknown {
        /// Which plugin.
        plugin: String,
        /// What was asked for.
        selector: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A host would have two assignments of one plugin.
    #[error("`{selector}` and the assignment `{other}` of {plugin} both match host {host}")]
    Overlap {
        /// Which plugin.
        plugin: String,
        /// What was asked for.
        selector: String,
        /// The assignment that is there.
        other: String,
        /// A host that matches both.
        host: String,
    },
    /// No host matches a selector that would become an assignment.
    #[error("no known host matches `{selector}`")]
    NoHostsMatch {
        /// What was asked for.
        selector: String,
    },
    /// One rollout of an assignment at a time.
    #[error("{rollout} ({plugin} {version}, {state}) holds this assignment")]
    InProgress {
        /// The one that goes on.
        rollout: RolloutId,
        /// Which plugin.
        plugin: String,
        /// Where it goes.
        version: String,
        /// How far it is.
        state: RolloutState,
    },
    /// A push can't go below what hosts run.
    #[error("{plugin} {version} is below {committed}, which {host} runs")]
    Downgrade {
        /// Which plugin.
        plugin: String,
        /// Asked for.
        version: String,
        /// What runs.
        committed: String,
        /// Where it runs.
        host: String,
        /// Of the assignment.
        selector: String,
    },
    /// The release failed on every host that lacks it.
    #[error("{plugin} {version} failed before on each host that lacks it, on {host} with {failure}")]
    Denied {
        /// Which plugin.
        plugin: String,
        /// Asked for.
        version: String,
        /// One of the hosts.
        host: String,
        /// Code of the failure that it had there.
        failure: String,
    },
    /// There is nothing before the present release.
    #[error("no release of {plugin} succeeded before the present one for `{selector}`")]
    NoTarget {
        /// Which plugin.
        plugin: String,
        /// Which assignment.
        selector: String,
    },
    /// The version never succeeded in this assignment.
    #[error("{plugin} {version} is not in the history of `{selector}`")]
    TargetUnknown {
        /// Which plugin.
        plugin: String,
        /// Which assignment.
        selector: String,
        /// Asked for.
        version: String,
        /// Versions that can be asked for.
        known: Vec<String>,
    },
    /// Rules that can't work.
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
}

impl Refusal {
    /// The stable code, with a page in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::HostsRequired { .. } => "ASSIGNMENT_MISSING",
            Self::Ambiguous { .. } => "ASSIGNMENT_AMBIGUOUS",
            Self::Unknown { .. } => "ASSIGNMENT_UNKNOWN",
            Self::Overlap { .. } => "ASSIGNMENT_OVERLAP",
            Self::NoHostsMatch { .. } => "NO_HOSTS_MATCH",
            Self::InProgress { .. } => "ROLLOUT_IN_PROGRESS",
            Self::Downgrade { .. } => "PUSH_DOWNGRADE",
            Self::Denied { .. } => Failure::RELEASE_DENIED,
            Self::NoTarget { .. } => "ROLLBACK_NO_TARGET",
            Self::TargetUnknown { .. } => "ROLLBACK_TARGET_UNKNOWN",
            Self::Policy(_) => "POLICY_INVALID",
        }
    }
}

impl Push {
    /// Decides what the push comes to. `rollouts` are those that a plan gets.
    pub fn start(&self, fleet: &Fleet, rollouts: &[Rollout], id: RolloutId) -> Result<Started, Refusal> {
        self.policy.check()?;
        let plugin = &self.release.plugin;
        let (assignment, is_new) = match chosen(fleet, plugin, self.selector.as_ref()) {
            Ok(assignment) => (assignment.clone(), false),
            Err(Refusal::Unknown { .. }) => (self.assign(fleet)?, true),
            Err(refusal) => return Err(refusal),
        };
        free(rollouts, &assignment.key)?;
        if assignment.release() == Some(&self.release) && !has_strays(fleet, rollouts, &assignment) {
            return Ok(Started::NothingToDo(assignment.key));
        }
        self.refuse_downgrade(fleet, &assignment)?;
        self.refuse_denied(fleet, &assignment)?;
        let spec = Spec {
            id,
            from: assignment.release().cloned(),
            to: Some(self.release.clone()),
            key: assignment.key.clone(),
            platforms: self.platforms.clone(),
            trigger: Trigger::Push,
            policy: self.policy,
        };
        let assignment = is_new.then_some(assignment);
        Ok(Started::Start(Box::new(Change { assignment, rollout: Rollout::new(spec) })))
    }

    /// A new assignment, if no known host would then have two.
    fn assign(&self, fleet: &Fleet) -> Result<Assignment, Refusal> {
        let plugin = &self.release.plugin;
        let Some(selector) = self.selector.clone() else {
            return Err(Refusal::HostsRequired { plugin: plugin.clone() });
        };
        let is_match = |selector: &Selector, host: &Host| selector.matches(&host.labels, &host.name);
        for other in fleet.of_plugin(plugin) {
            let both = |host: &&Host| is_match(&selector, host) && is_match(&other.key.selector, host);
            if let Some(host) = fleet.hosts.values().find(both) {
                return Err(Refusal::Overlap {
                    plugin: plugin.clone(),
                    selector: selector.to_string(),
                    other: other.key.selector.to_string(),
                    host: host.name.clone(),
                });
            }
        }
        if !selector.is_all() && !fleet.hosts.values().any(|host| is_match(&selector, host)) {
            return Err(Refusal::NoHostsMatch { selector: selector.to_string() });
        }
        Ok(Assignment { key: AssignmentKey { plugin: plugin.clone(), selector }, history: Vec::new() })
    }

    /// Hosts would refuse a lower version in an offer that isn't a rollback, so it is said before any is asked.
    fn refuse_downgrade(&self, fleet: &Fleet, assignment: &Assignment) -> Result<(), Refusal> {
        let key = &assignment.key;
        for (_, host) in fleet.members(key) {
            let active = host.reported(&key.plugin).and_then(|reported| reported.active.as_ref());
            if let Some(active) = active.filter(|active| self.release.is_below(active)) {
                return Err(Refusal::Downgrade {
                    plugin: key.plugin.clone(),
                    version: self.release.version.to_string(),
                    committed: active.version.to_string(),
                    host: host.name.clone(),
                    selector: key.selector.to_string(),
                });
            }
        }
        Ok(())
    }

    /// A release that only hosts are left for on which it has failed can't get anywhere.
    fn refuse_denied(&self, fleet: &Fleet, assignment: &Assignment) -> Result<(), Refusal> {
        let plugin = &assignment.key.plugin;
        let mut refused = None;
        for (_, host) in fleet.members(&assignment.key) {
            if host.reported(plugin).and_then(|reported| reported.active.as_ref()) == Some(&self.release) {
                continue;
            }
            let Some(failure) = host.denies(&self.release) else { return Ok(()) };
            refused.get_or_insert_with(|| Refusal::Denied {
                plugin: plugin.clone(),
                version: self.release.version.to_string(),
                host: host.name.clone(),
                failure: failure.to_owned(),
            });
        }
        refused.map_or(Ok(()), Err)
    }
}

impl Rollback {
    /// The assignment that goes back, and where to; `None`: the plugin is removed, since its first rollout failed.
    pub fn target(
        &self,
        fleet: &Fleet,
        rollouts: &[Rollout],
    ) -> Result<(AssignmentKey, Option<Release>), Refusal> {
        let assignment = match chosen(fleet, &self.plugin, self.selector.as_ref()) {
            Err(Refusal::HostsRequired { plugin }) => {
                Err(Refusal::Unknown { plugin, selector: "all".to_owned(), known: Vec::new() })
            }
            other => other,
        }?;
        free(rollouts, &assignment.key)?;
        let key = assignment.key.clone();
        let (plugin, selector) = (key.plugin.clone(), key.selector.to_string());
        if let Some(version) = &self.to {
            let found = assignment.history.iter().find(|release| release.version == *version).cloned();
            let known = || assignment.history.iter().map(|release| release.version.to_string()).collect();
            return found.map(|release| (key, Some(release))).ok_or_else(|| Refusal::TargetUnknown {
                plugin,
                selector,
                version: version.to_string(),
                known: known(),
            });
        }
        if let Some(to) = unsettled(fleet, rollouts, assignment) {
            return Ok((key, to));
        }
        match assignment.history.get(1) {
            Some(release) => Ok((key, Some(release.clone()))),
            None => Err(Refusal::NoTarget { plugin, selector }),
        }
    }

    /// Decides what the rollback comes to; `platforms` are those of its target.
    pub fn start(
        &self,
        fleet: &Fleet,
        rollouts: &[Rollout],
        id: RolloutId,
        platforms: BTreeSet<String>,
    ) -> Result<Started, Refusal> {
        self.policy.check()?;
        let (key, to) = self.target(fleet, rollouts)?;
        let assignment = fleet.assignments.get(&key);
        let from = assignment.and_then(Assignment::release).cloned();
        if from == to && !assignment.is_some_and(|assignment| has_strays(fleet, rollouts, assignment)) {
            return Ok(Started::NothingToDo(key));
        }
        let spec = Spec { id, key, from, to, platforms, trigger: Trigger::Rollback, policy: self.policy };
        Ok(Started::Start(Box::new(Change { assignment: None, rollout: Rollout::new(spec) })))
    }
}

/// The assignment that a selector names, or the only one.
fn chosen<'a>(
    fleet: &'a Fleet,
    plugin: &'a str,
    selector: Option<&Selector>,
) -> Result<&'a Assignment, Refusal> {
    let all: Vec<&Assignment> = fleet.of_plugin(plugin).collect();
    let selectors = || all.iter().map(|assignment| assignment.key.selector.to_string()).collect();
    match selector {
        Some(selector) => {
            let found = all.iter().find(|assignment| assignment.key.selector == *selector);
            found.copied().ok_or_else(|| Refusal::Unknown {
                plugin: plugin.to_owned(),
                selector: selector.to_string(),
                known: selectors(),
            })
        }
        None => match all[..] {
            [] => Err(Refusal::HostsRequired { plugin: plugin.to_owned() }),
            [only] => Ok(only),
            _ => Err(Refusal::Ambiguous { plugin: plugin.to_owned(), selectors: selectors() }),
        },
    }
}

fn free(rollouts: &[Rollout], key: &AssignmentKey) -> Result<(), Refusal> {
    let running = |rollout: &&Rollout| rollout.spec.key == *key && !rollout.progress.state.has_ended();
    match rollouts.iter().find(running) {
        None => Ok(()),
        Some(rollout) => Err(Refusal::InProgress {
            rollout: rollout.spec.id,
            plugin: key.plugin.clone(),
            version: rollout
                .spec
                .to
                .as_ref()
                .map_or_else(|| "nothing".to_owned(), |to| to.version.to_string()),
            state: rollout.progress.state,
        }),
    }
}

/// Whether hosts run something else than the assignment's release, and nothing is on its way to change that: a failed
/// rollout has left them there, they came late and failed, or they have gone back by themselves. Hosts that are merely
/// away are none, and neither are those that refuse the release.
fn has_strays(fleet: &Fleet, rollouts: &[Rollout], assignment: &Assignment) -> bool {
    let last = last_success(rollouts, &assignment.key);
    let failed_late = last.is_some_and(|last| last.members.values().any(|member| member.state.has_failed()));
    let fell_back = |id: &HostId, host: &Host| {
        let member = last.and_then(|last| last.members.get(id));
        let is_coming =
            member.is_some_and(|member| member.state.is_open() || member.state == crate::HostState::Pending);
        let left = |release| host.runs_other_than(release) && host.denies(release).is_none();
        !is_coming && assignment.release().is_some_and(left)
    };
    failed_late
        || left_elsewhere(fleet, rollouts, assignment).next().is_some()
        || fleet.members(&assignment.key).any(|(id, host)| fell_back(id, host))
}

/// Where a rollback goes while the newest rollout has FAILED: on to where a rollback has stopped halfway, or back from
/// where a push has left hosts. `None`: nothing of it is left.
fn unsettled(fleet: &Fleet, rollouts: &[Rollout], assignment: &Assignment) -> Option<Option<Release>> {
    let newest = rollouts.iter().filter(|rollout| rollout.spec.key == assignment.key);
    let newest = newest.max_by_key(|rollout| rollout.spec.id)?;
    if newest.progress.state != RolloutState::Failed {
        return None;
    }
    let mut elsewhere = left_elsewhere(fleet, rollouts, assignment).peekable();
    let is_left = elsewhere.peek().is_some();
    if newest.spec.trigger == Trigger::Rollback
        && (is_left || newest.spec.to.as_ref() != assignment.release())
    {
        return Some(newest.spec.to.clone());
    }
    // No push leaves a host on an earlier release: it was a rollback, before that push.
    let earlier = assignment.history.get(1..).unwrap_or_default();
    let halfway = elsewhere.flatten().find(|target| earlier.contains(target));
    is_left.then(|| halfway.or_else(|| assignment.release()).cloned())
}

/// What hosts were told by rollouts that failed since the last success, where that is not the assignment's release.
fn left_elsewhere<'a>(
    fleet: &'a Fleet,
    rollouts: &[Rollout],
    assignment: &'a Assignment,
) -> impl Iterator<Item = Option<&'a Release>> {
    let key = &assignment.key;
    let since = last_success(rollouts, key).map(|last| last.spec.id);
    let told = fleet.members(key).filter_map(|(_, host)| host.desired(&key.plugin));
    let told = told.filter(move |row| row.rollout > since);
    told.map(|row| row.target.as_ref()).filter(|target| *target != assignment.release())
}

fn last_success<'a>(rollouts: &'a [Rollout], key: &AssignmentKey) -> Option<&'a Rollout> {
    let succeeded =
        |rollout: &&Rollout| rollout.spec.key == *key && rollout.progress.state == RolloutState::Succeeded;
    rollouts.iter().filter(succeeded).max_by_key(|rollout| rollout.spec.id)
}

#[cfg(test)]
mod tests;
