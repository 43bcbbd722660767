//! A release that callers can reach: its worker, what it is, and the signs that it gives.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fleetswap_host::CallError;
use fleetswap_update::{Fault, Installed, Problem};
use tokio::sync::Notify;

use super::{Instance, Package};
use crate::calls::ReleaseTag;

/// A call that had less time than this says nothing about the release when it runs out.
const FAIR_TIMEOUT: Duration = Duration::from_millis(250);

/// A release with a worker. Its identity is that of the allocation.
pub(crate) struct Live {
    /// The worker.
    pub(crate) instance: Arc<dyn Instance>,
    /// What was loaded into it.
    pub(crate) package: Arc<Package>,
    /// What the record says about it.
    pub(crate) installed: Installed,
    /// What every reply carries.
    pub(crate) tag: Arc<ReleaseTag>,
    /// What it was seen to do.
    pub(crate) signs: Arc<Signs>,
}

impl Live {
    /// A release without a past.
    pub(crate) fn new(instance: Arc<dyn Instance>, package: Arc<Package>, installed: Installed) -> Self {
        let tag = tag(&installed);
        Self { instance, package, installed, tag, signs: Arc::default() }
    }

    /// Ends the worker, as is wanted: nobody counts it as a death. Returns when it is gone.
    pub(crate) async fn kill(&self) {
        if !self.instance.is_gone() {
            self.signs.take_end();
        }
        self.instance.kill();
        self.instance.ended().await;
    }

    /// The same worker under a new id: nothing that concerns this host has changed.
    pub(crate) fn adopted(&self, installed: Installed) -> Self {
        Self {
            instance: Arc::clone(&self.instance),
            package: Arc::clone(&self.package),
            tag: tag(&installed),
            signs: Arc::clone(&self.signs),
            installed,
        }
    }
}

fn tag(installed: &Installed) -> Arc<ReleaseTag> {
    let release = &installed.release;
    Arc::new(ReleaseTag { release_id: release.id.to_string(), version: release.version.to_string() })
}

/// What a release was seen to do since it is in place.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    answered: AtomicU64,
    ended: AtomicBool,
    on_trial: AtomicBool,
    bad: Mutex<Option<Problem>>,
    changed: Notify,
}

impl Signs {
    /// Calls that were answered, by whatever but a crash.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How a call ended: panics, and deadlines that were fair, are bad signs. A caller's own mistakes and the
    /// plugin's own errors are not.
    pub(crate) fn note_call(&self, function: &str, allowed: Duration, outcome: Result<(), &CallError>) {
        match outcome {
            Ok(()) => self.count(),
            Err(CallError::Panic(message)) => {
                self.count();
                self.note_bad(call_problem("PLUGIN_PANICKED", function, format!("it panicked: {message}")));
            }
            Err(CallError::Deadline) if allowed >= FAIR_TIMEOUT => {
                let words = format!("it gave no answer within {} ms", allowed.as_millis());
                self.note_bad(call_problem("DEADLINE_EXCEEDED", function, words));
            }
            Err(CallError::Deadline | CallError::Died { .. }) => {}
            Err(CallError::UnknownFunction | CallError::BadInput { .. } | CallError::Plugin { .. }) => {
                self.count()
            }
            Err(CallError::Illegal | CallError::Unsupported | CallError::TooLarge) => self.count(),
        }
    }

    fn count(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// The first bad sign stays.
    pub(crate) fn note_bad(&self, problem: Problem) {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem);
        self.changed.notify_waiters();
    }

    /// Takes in that the worker ended, or that it is to end; `true` for the first who does. So each end counts once
    /// at most.
    pub(crate) fn take_end(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }

    /// Whether a trial decides about it.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.on_trial.load(Ordering::Relaxed)
    }

    /// A trial decides about it from now on, or no longer.
    pub(crate) fn set_on_trial(&self, on_trial: bool) {
        self.on_trial.store(on_trial, Ordering::Relaxed);
    }

    /// Waits for a bad sign.
    pub(crate) async fn bad(&self) -> Problem {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(problem) = self.bad.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                return problem;
            }
            changed.await;
        }
    }
}

fn call_problem(code: &str, function: &str, words: String) -> Problem {
    let problem =
        Problem::new(Fault::Release, code, format!("a caller's call of {function} failed: {words}"));
    Problem {
        check: format!("call {function}").into(),
        got: words.into(),
        wanted: "an answer".into(),
        ..problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_and_a_fair_deadline_are_bad_signs_and_the_first_stays() {
        let signs = Signs::default();
        signs.note_call("time", Duration::from_secs(1), Ok(()));
        signs.note_call("time", Duration::from_millis(1), Err(&CallError::Deadline));
        let own = CallError::Plugin { code: "NO".into(), message: "no".into() };
        signs.note_call("time", Duration::from_secs(1), Err(&own));
        assert!(signs.bad.lock().unwrap().is_none());
        signs.note_call("time", Duration::from_secs(1), Err(&CallError::Panic("boom".into())));
        signs.note_call("time", Duration::from_secs(1), Err(&CallError::Deadline));
        assert_eq!(&*signs.bad().await.code, "PLUGIN_PANICKED");
        assert_eq!(signs.answered(), 3);
    }
}
