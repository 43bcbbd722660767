//! Why a trial failed, in the words that an operator reads.

use serde::{Deserialize, Serialize};

/// Longest log tail of a failure, in bytes.
pub const LOG_TAIL_MAX: usize = 4 * 1024;
/// Longest other text of a failure, in bytes.
pub const TEXT_MAX: usize = 1024;

/// Whose fault a failure is: this decides what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The release is deny-listed on this host.
    Release,
    /// Not denied, tried again by a later attempt.
    Host,
    /// Not denied, tried again by a later attempt.
    Link,
    /// Refused before anything was loaded.
    Trust,
    /// A clean stop or a reboot cut the trial: no verdict about the release.
    Interrupted,
    /// A newer assignment took its place: no verdict about the release.
    Withdrawn,
}

/// Where a host stands with a release: the words of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Known to the host, waits for its turn.
    Offered,
    /// Gets metadata, manifest and blobs.
    Fetching,
    /// Checks signatures, hashes, the library's form and the host's rules.
    Verifying,
    /// Loads the library into a throw-away worker.
    Loading,
    /// Health and functional probes in the throw-away worker.
    Probing,
    /// A fresh instance takes the old one's place.
    Switching,
    /// It answers callers and has to prove itself.
    Probation,
    /// It stays.
    Committed,
    /// The old release takes its place again.
    RollingBack,
    /// It had answered callers and was taken back.
    RolledBack,
    /// It never stayed and the pointer is where it was.
    Rejected,
}

/// What went wrong in one step, as the shell saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Whose fault.
    pub fault: Fault,
    /// Stable UPPER_SNAKE code with a page in docs/errors.
    pub code: Box<str>,
    /// What was checked, e.g. the probe's text; may be empty.
    pub check: Box<str>,
    /// What came; may be empty.
    pub got: Box<str>,
    /// What should have come; may be empty.
    pub wanted: Box<str>,
    /// How often it was tried.
    pub tries: u32,
    /// One sentence: what happened and why.
    pub message: Box<str>,
    /// The last lines of the plugin's log, at most [`LOG_TAIL_MAX`] bytes.
    pub log_tail: Box<str>,
}

impl Problem {
    /// A problem without a check.
    pub fn new(fault: Fault, code: &str, message: impl Into<Box<str>>) -> Self {
        Self {
            fault,
            code: code.into(),
            check: Box::default(),
            got: Box::default(),
            wanted: Box::default(),
            tries: 1,
            message: message.into(),
            log_tail: Box::default(),
        }
    }

    /// The same, with every text cut to its bound.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.code, &mut self.check, &mut self.got, &mut self.wanted, &mut self.message] {
            if text.len() > TEXT_MAX {
                *text = text[..text.floor_char_boundary(TEXT_MAX)].into();
            }
        }
        let surplus = self.log_tail.len().saturating_sub(LOG_TAIL_MAX);
        if surplus > 0 {
            self.log_tail = self.log_tail[self.log_tail.ceil_char_boundary(surplus)..].into();
        }
        self
    }
}

/// A problem that ended a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed.
    pub stage: Stage,
    /// What went wrong there.
    pub problem: Problem,
    /// What the host did next, e.g. "back on 1.0.0".
    pub next: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_characters_and_a_log_keeps_its_end() {
        let mut problem = Problem::new(Fault::Host, "X", "é".repeat(TEXT_MAX));
        problem.log_tail = format!("{}end", "é".repeat(LOG_TAIL_MAX)).into();
        let bounded = problem.bounded();
        assert!(bounded.message.len() <= TEXT_MAX);
        assert!(bounded.log_tail.len() <= LOG_TAIL_MAX && bounded.log_tail.ends_with("end"));
    }
}
