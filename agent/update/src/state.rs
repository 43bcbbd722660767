//! State between runs: in which version it is saved, whether it may be saved now, and what a start does with it.
//!
//! | A start finds | The release begins with | Told as lost |
//! |---|---|---|
//! | a state that nothing ran after, in a version that it reads | it | nothing |
//! | a checkpoint, in a version that it reads | it | what came after it |
//! | a state in a version that it doesn't read | nothing | the state; the file is kept aside |
//! | none, although the release has state | nothing | the state |

use serde::{Deserialize, Serialize};

use crate::{Carry, Installed, Life, Plugin, ReleaseId, Service, Step, TEXT_MAX, Trial, Way};

/// A state on disk, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The version of the release that saved it, for people.
    pub saved_by: String,
    /// Its state version.
    pub version: u32,
    /// Nothing was active since it was saved: it is the whole state.
    pub whole: bool,
    /// Milliseconds from its saving to `until`.
    pub age_ms: u64,
    /// What its age is counted to.
    pub until: Until,
}

/// What the age of a state is counted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// The end of the worker that went on after it.
    ItsEnd,
    /// This start: when the worker ended is not known.
    ThisStart,
}

/// What a release begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It has no state, or none yet.
    Anew,
    /// With what was saved; what of it is lost, in words.
    With {
        /// Empty if it is the whole state.
        lost: String,
    },
    /// Without the state that it had; why, in words.
    Without {
        /// Never empty.
        lost: String,
    },
}

/// What is to become of the state on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisk {
    /// It stays.
    Kept,
    /// What runs has no state: it is kept where no start takes it from.
    Aside,
    /// The plugin does not run here: it is removed.
    Gone,
}

impl Installed {
    /// What this release begins with. `saved` is what is on disk.
    #[must_use]
    pub fn beginning(&self, saved: Option<&SavedState>) -> Beginning {
        let Some(saved) = saved else {
            return if self.state.has_state() {
                Beginning::Without { lost: "its state: none was ever saved".to_owned() }
            } else {
                Beginning::Anew
            };
        };
        let SavedState { saved_by, version, whole, age_ms, until } = saved;
        if !self.state.reads.contains(version) {
            let (reads, release) = (&self.state.reads, &self.release);
            let lost = format!(
                "its state: {saved_by} saved it in state version {version}, and {release} reads {reads:?}"
            );
            return Beginning::Without { lost };
        }
        let until = match until {
            Until::ItsEnd => "its end",
            Until::ThisStart => "this start",
        };
        let seconds = age_ms.div_ceil(1_000);
        let lost = if *whole {
            String::new()
        } else {
            format!(
                "what came after its last checkpoint: its state is that of a checkpoint, {seconds} s before {until}"
            )
        };
        Beginning::With { lost }
    }
}

impl Plugin {
    /// How the state of the release that answers is saved at the end of the agent, so that whichever release the next
    /// start runs can take it over.
    #[must_use]
    pub fn keeps(&self, answers: &Installed) -> Carry {
        self.heir().map_or(Carry::Nothing, |heir| Carry::between(answers, heir))
    }

    /// The release that the next start runs first, or whose trial begins anew.
    fn heir(&self) -> Option<&Installed> {
        let candidate = self.trial.as_ref().and_then(|trial| trial.candidate.as_ref());
        let goes_back = |trial: &Trial| trial.way == Way::Back && !trial.is_before_switch();
        if self.trial.as_ref().is_some_and(goes_back) {
            return candidate;
        }
        self.service.active().or(candidate)
    }

    /// The release whose state may be saved while it answers, and the state version: never during a trial.
    #[must_use]
    pub fn may_checkpoint(&self) -> Option<(ReleaseId, u32)> {
        let serving = self.service.serving().filter(|_| self.trial.is_none())?;
        let runs = match serving.life {
            Life::Running => true,
            Life::Restarting { .. } | Life::Down { .. } => false,
        };
        match Carry::between(&serving.active, &serving.active) {
            Carry::Version(version) if runs => Some((serving.active.release.id, version)),
            Carry::Version(_) | Carry::Nothing | Carry::Lost(_) => None,
        }
    }

    /// Whether the agent's end must wait: the state is between two releases, in nobody's hands but the trial's.
    #[must_use]
    pub fn is_between_releases(&self) -> bool {
        let goes_back = |trial: &Trial| matches!(trial.step, Step::RollingBack { .. });
        self.is_in_the_pause() || self.trial.as_ref().is_some_and(goes_back)
    }

    /// What is to become of the state on disk.
    #[must_use]
    pub fn state_on_disk(&self) -> OnDisk {
        if self.trial.is_some() {
            return OnDisk::Kept;
        }
        match &self.service {
            Service::Empty if self.next.is_none() => OnDisk::Gone,
            Service::Empty => OnDisk::Kept,
            Service::Serving(serving) if serving.active.state.has_state() => OnDisk::Kept,
            Service::Serving(_) => OnDisk::Aside,
        }
    }

    pub(crate) fn state_lost(&mut self, id: ReleaseId, mut words: String) {
        words.truncate(words.floor_char_boundary(TEXT_MAX));
        let on_trial = self.trial.is_some();
        if let Some(serving) = self.service.serving_as(id) {
            (serving.lost, serving.lost_on_trial) = (words, on_trial);
        }
    }

    /// A trial ends: its verdict tells what a start has lost meanwhile, as a commit forgets the old release's losses.
    pub(crate) fn tell_lost_on_trial(&mut self) {
        let Service::Serving(serving) = &mut self.service else { return };
        if std::mem::take(&mut serving.lost_on_trial) {
            let lost = serving.lost.clone();
            self.note_lost(lost);
        }
    }
}
