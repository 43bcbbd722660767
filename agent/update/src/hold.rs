//! Break-glass: what an operator on the host decides, and the controller can't undo.
//!
//! | An override stands | Event | Leads to |
//! |---|---|---|
//! | any | told something | it waits; only what runs already, or is on trial already, is taken in |
//! | any | a trial before its switch | it never began: its offer waits |
//! | any | the committed release dies | as ever: restarts, the previous release, or Down |
//! | hold | a trial past its pause | it ends by its own verdict |
//! | rolling back | a trial past its pause | RollingBack: withdrawn |
//! | rolling back | the committed release answers | a trial on the way back, without the host's slot |
//! | rolling back | it does not | the previous release is the committed one at once |
//! | rolling back | the way back is done | rolled back |
//! | rolling back | the way back has failed | hold: it is tried once |
//! | any | released | what waits takes its course |

use serde::{Deserialize, Serialize};

use crate::{
    Fault, Generation, Life, Offer, Plugin, Problem, Proof, Release, Service, Step, Switch, Target, Time,
    Trial, Verdict, Way, plugin::deadline,
};

/// Longest reason of an override, in bytes.
pub const REASON_MAX: usize = 256;
/// Longest name of who ordered one, in bytes.
pub const ORDERED_BY_MAX: usize = 96;

/// An operator's word on the host: nothing that the controller says changes what runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalOverride {
    /// What was ordered, and how far it is.
    pub kind: OverrideKind,
    /// Who, why and when.
    pub order: Order,
}

/// What was ordered, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverrideKind {
    /// What runs stays.
    Hold,
    /// On the way back.
    RollingBack {
        /// What answered callers when it was ordered.
        from: Release,
        /// The one before.
        to: Release,
        /// The way back was begun; it is tried once.
        begun: bool,
    },
    /// Back, and held there.
    RolledBack {
        /// What answered callers when it was ordered.
        from: Release,
        /// The one before.
        to: Release,
    },
}

/// Who ordered it, why and when; for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// In the operator's words; at most [`REASON_MAX`] bytes.
    pub reason: String,
    /// A user of the host; at most [`ORDERED_BY_MAX`] bytes.
    pub by: String,
    /// Unix milliseconds.
    pub at_ms: u64,
}

impl LocalOverride {
    /// Whether the way back goes on.
    #[must_use]
    pub const fn is_rolling_back(&self) -> bool {
        matches!(self.kind, OverrideKind::RollingBack { .. })
    }
}

impl Plugin {
    /// What an operator on the host has ordered.
    #[must_use]
    pub const fn local_override(&self) -> Option<&LocalOverride> {
        self.local_override.as_ref()
    }

    /// Where a rollback would go from here: from what answers callers to the release before it. `None`: there is none.
    #[must_use]
    pub fn way_back(&self) -> Option<(Release, Release)> {
        if let Some(OverrideKind::RollingBack { from, to, .. } | OverrideKind::RolledBack { from, to }) =
            self.local_override.as_ref().map(|it| &it.kind)
        {
            return Some((from.clone(), to.clone()));
        }
        let active = self.service.active().map(|active| active.release.clone())?;
        let past_pause = self.trial.as_ref().filter(|trial| !trial.is_before_switch());
        if let Some(Trial { way: Way::Install, candidate: Some(candidate), .. }) = past_pause {
            return Some((candidate.release.clone(), active));
        }
        self.service.previous().map(|previous| (active, previous.release.clone()))
    }

    /// Whether the trial under way is the operator's way back: it does not wait for the host's slot.
    #[must_use]
    pub fn is_on_local_way_back(&self) -> bool {
        let begun = |it: &LocalOverride| matches!(it.kind, OverrideKind::RollingBack { begun: true, .. });
        self.trial.is_some() && self.local_override.as_ref().is_some_and(begun)
    }

    /// The format that a record of this state needs: one with an override is left alone by agents that would not heed it.
    #[must_use]
    pub const fn record_format(&self) -> u32 {
        if self.local_override.is_some() { crate::RECORD_FORMAT } else { FORMAT_WITHOUT_OVERRIDE }
    }

    pub(crate) fn held(&mut self, order: Order) {
        match &mut self.local_override {
            Some(present) => present.order.renew(order),
            None => self.local_override = Some(LocalOverride { kind: OverrideKind::Hold, order }),
        }
    }

    pub(crate) fn released(&mut self) {
        self.local_override = None;
    }

    pub(crate) fn ordered_back(&mut self, order: Order) {
        let Some((from, to)) = self.way_back() else { return };
        let kind = match self.local_override.take() {
            Some(mut present) if !matches!(present.kind, OverrideKind::Hold) => {
                present.order.renew(order);
                self.local_override = Some(present);
                return;
            }
            Some(_) | None => OverrideKind::RollingBack { from, to, begun: false },
        };
        self.local_override = Some(LocalOverride { kind, order });
    }

    /// Brings the override on, as far as it can go now. Doing it twice changes nothing. `at_rest`: no worker of the plugin
    /// runs, and none will before the next start of the agent.
    pub(crate) fn settle_override(&mut self, now: Time, at_rest: bool) {
        let Some(LocalOverride { kind, .. }) = &self.local_override else { return };
        match kind.clone() {
            OverrideKind::Hold | OverrideKind::RolledBack { .. } => self.call_off(at_rest),
            OverrideKind::RollingBack { from, to, begun: false } => {
                self.call_off(at_rest);
                self.bring_back(now, (from, to), at_rest);
            }
            OverrideKind::RollingBack { from, to, begun: true } => self.see_back(from, to),
        }
        self.take_in_what_runs();
    }

    fn bring_back(&mut self, now: Time, (from, to): (Release, Release), at_rest: bool) {
        if let Some(trial) = &self.trial {
            let on_probation = matches!(trial.step, Step::Probation { .. });
            if on_probation && !at_rest && self.is_committed(&to) {
                self.go_back(self.taken_back());
            }
            return;
        }
        let is_kept = self.service.previous().is_some_and(|previous| previous.release.id == to.id);
        if self.is_committed(&to) || !is_kept {
            return self.see_back(from, to);
        }
        self.become_kind(OverrideKind::RollingBack { from, to, begun: true });
        let runs = self.service.serving().is_some_and(|serving| serving.life == Life::Running);
        if runs && !at_rest { self.begin_back(now) } else { self.return_at_rest(now) }
    }

    /// Once no trial is left, the way back is done, or has failed.
    fn see_back(&mut self, from: Release, to: Release) {
        if self.trial.is_none() {
            let is_there = self.is_committed(&to);
            let back = OverrideKind::RolledBack { from, to };
            self.become_kind(if is_there { back } else { OverrideKind::Hold });
        }
    }

    fn is_committed(&self, release: &Release) -> bool {
        self.service.active().is_some_and(|active| active.release.id == release.id)
    }

    /// Where a worker answers, callers are handed over as in any rollback.
    fn begin_back(&mut self, now: Time) {
        let Some(previous) = self.service.previous().cloned() else { return };
        let offer = self.own_offer(&previous.release);
        self.serial += 1;
        self.trial = Some(Trial {
            serial: self.serial,
            candidate: Some(previous),
            way: Way::Back,
            step: Step::Switching(Switch::Preparing),
            deadline: deadline(&offer, now),
            offer,
            busy: 0,
            interruptions: 0,
            pause_us: 0,
            lost: String::new(),
        });
    }

    /// Nobody answers callers, so nobody is to be handed over.
    fn return_at_rest(&mut self, now: Time) {
        let Some(previous) = self.service.previous().cloned() else { return };
        let offer = self.own_offer(&previous.release);
        let Service::Serving(serving) = &mut self.service else { return };
        serving.active = previous;
        // What was left on purpose is nothing to return to.
        serving.previous = None;
        serving.offer = offer.clone();
        serving.started(now, true);
        self.last = Some(Verdict::committed(offer, Some(Proof::Before)));
        if let Some(OverrideKind::RollingBack { from, to, .. }) =
            self.local_override.as_ref().map(|it| &it.kind)
        {
            self.see_back(from.clone(), to.clone());
        }
    }

    fn become_kind(&mut self, kind: OverrideKind) {
        if let Some(present) = &mut self.local_override {
            present.kind = kind;
        }
    }

    /// A trial that callers have not noticed yet has not begun: its offer waits. Where no worker runs, one that a release
    /// was loaded for is left to the next start, which judges it.
    fn call_off(&mut self, at_rest: bool) {
        let may = |trial: &Trial| {
            let loaded = !matches!(trial.step, Step::Fetching { .. } | Step::Verifying);
            trial.is_before_switch() && !(at_rest && loaded)
        };
        if self.is_on_local_way_back() || !self.trial.as_ref().is_some_and(may) {
            return;
        }
        if let Some(trial) = self.trial.take() {
            self.next.get_or_insert(trial.offer);
        }
    }

    /// An offer of what runs, or is on trial, changes nothing on the host; the controller learns that it is met.
    fn take_in_what_runs(&mut self) {
        let Some(next) = self.next.clone() else { return };
        match &mut self.trial {
            Some(trial) => {
                let is_it = trial.offer.target.same(&next.target);
                if is_it && matches!(trial.step, Step::Probation { .. }) {
                    trial.offer = next;
                    self.next = None;
                }
            }
            None => {
                if self.runs(&next.target) {
                    self.next = None;
                    self.conclude(Verdict::committed(next, None));
                }
            }
        }
    }

    fn own_offer(&self, release: &Release) -> Offer {
        let Generation { epoch, n } = self.generation;
        Offer {
            generation: Generation { epoch, n },
            target: Target::Release(release.clone()),
            rollout: String::new(),
            attempt: 0,
            rollback: true,
            min_healthy_ms: 0,
            healthy_deadline_ms: 0,
        }
    }

    fn taken_back(&self) -> Problem {
        let reason = self.local_override.as_ref().map_or("", |it| it.order.reason.as_str());
        let words = format!("an operator took it back on this host: {reason}");
        Problem::new(Fault::Withdrawn, "HELD_LOCALLY", words)
    }
}

/// The format of a record that has no override.
const FORMAT_WITHOUT_OVERRIDE: u32 = 1;

impl Order {
    /// The newest reason stands; the same order given again changes nothing.
    fn renew(&mut self, newer: Self) {
        if self.reason != newer.reason || self.by != newer.by {
            *self = newer;
        }
    }
}
