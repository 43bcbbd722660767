//! Turnstile: lets a function of an instance through when the legality matrix allows it now.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use fleetswap_plugin_abi::{Function, Phase};

/// Where an instance stands, and what runs in it.
#[derive(Debug)]
pub(crate) struct Turnstile {
    inside: Mutex<Inside>,
    someone_left: Condvar,
    concurrency: u32,
}

#[derive(Debug)]
struct Inside {
    phase: Phase,
    calls: u32,
    /// A health check runs, and there is never a second one beside it.
    checking: bool,
    /// A function that tolerates no call beside it.
    exclusive: bool,
    destroyed: bool,
}

/// Why a function may not run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not in this phase, or not beside what runs.
    Illegal,
    /// As many calls run as the plugin takes, or a health check.
    Full,
}

/// Leave to run one function; gives its place back when dropped.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    turnstile: &'a Turnstile,
    function: Function,
}

impl Turnstile {
    pub(crate) const fn new(concurrency: u32) -> Self {
        let inside =
            Inside { phase: Phase::Created, calls: 0, checking: false, exclusive: false, destroyed: false };
        Self { inside: Mutex::new(inside), someone_left: Condvar::new(), concurrency }
    }

    /// Lets the function in, or says why not.
    pub(crate) fn enter(&self, function: Function) -> Result<Pass<'_>, Refused> {
        self.lock().enter(function, self.concurrency)?;
        Ok(Pass { turnstile: self, function })
    }

    /// As [`enter`](Self::enter), but waits for its turn when too many run, as a host does. None: illegal.
    pub(crate) fn queue(&self, function: Function) -> Option<Pass<'_>> {
        let mut inside = self.lock();
        loop {
            match inside.enter(function, self.concurrency) {
                Err(Refused::Full) => {
                    inside = self.someone_left.wait(inside).unwrap_or_else(PoisonError::into_inner);
                }
                Err(Refused::Illegal) => return None,
                Ok(()) => return Some(Pass { turnstile: self, function }),
            }
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn enter(&mut self, function: Function, concurrency: u32) -> Result<(), Refused> {
        if self.destroyed || !function.legal_in(self.phase) {
            return Err(Refused::Illegal);
        }
        match function {
            Function::Health => {
                if self.checking {
                    return Err(Refused::Full);
                }
                self.checking = true;
            }
            Function::Call | Function::CallProbeSafe => {
                if self.exclusive {
                    return Err(Refused::Illegal);
                }
                if self.calls >= concurrency {
                    return Err(Refused::Full);
                }
                self.calls += 1;
            }
            Function::Destroy => {
                if self.exclusive || self.calls > 0 || self.checking {
                    return Err(Refused::Illegal);
                }
                self.destroyed = true;
            }
            Function::Activate | Function::Deactivate | Function::SaveState | Function::RestoreState => {
                if self.exclusive || self.calls > 0 {
                    return Err(Refused::Illegal);
                }
                self.exclusive = true;
            }
        }
        Ok(())
    }

    fn leave(&mut self, function: Function) {
        match function {
            Function::Health => self.checking = false,
            Function::Call | Function::CallProbeSafe => self.calls -= 1,
            Function::Destroy => {}
            Function::Activate | Function::Deactivate | Function::SaveState | Function::RestoreState => {
                self.exclusive = false;
            }
        }
    }
}

impl Pass<'_> {
    /// The function has succeeded, and the instance is in the phase that it leads to.
    pub(crate) fn done(self) {
        match self.function {
            Function::Activate => self.turnstile.lock().phase = Phase::Active,
            Function::Deactivate => self.turnstile.lock().phase = Phase::Deactivated,
            Function::Health
            | Function::Call
            | Function::CallProbeSafe
            | Function::SaveState
            | Function::RestoreState
            | Function::Destroy => {}
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.turnstile.lock().leave(self.function);
        self.turnstile.someone_left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An instance that has come to this phase.
    fn in_phase(phase: Phase) -> Turnstile {
        let turnstile = Turnstile::new(2);
        turnstile.lock().phase = phase;
        turnstile
    }

    #[test]
    fn every_function_runs_alone_exactly_where_the_matrix_says() {
        for phase in [Phase::Created, Phase::Active, Phase::Deactivated] {
            for function in Function::ALL {
                let entered = in_phase(phase).enter(function).is_ok();
                assert_eq!(entered, function.legal_in(phase), "{function:?} in {phase:?}");
            }
        }
    }

    #[test]
    fn calls_run_side_by_side_up_to_the_limit() {
        let turnstile = in_phase(Phase::Active);
        let first = turnstile.enter(Function::Call).unwrap();
        let _second = turnstile.enter(Function::Call).unwrap();
        assert_eq!(turnstile.enter(Function::Call).unwrap_err(), Refused::Full);
        assert!(turnstile.enter(Function::Health).is_ok(), "health runs beside slow calls");
        drop(first);
        assert!(turnstile.enter(Function::Call).is_ok());
    }

    #[test]
    fn a_second_health_check_waits_for_the_first() {
        let turnstile = in_phase(Phase::Active);
        let first = turnstile.enter(Function::Health).unwrap();
        assert_eq!(turnstile.enter(Function::Health).unwrap_err(), Refused::Full);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| turnstile.queue(Function::Health).is_some());
            drop(first);
            assert!(second.join().unwrap());
        });
    }

    #[test]
    fn state_is_not_saved_beside_a_call_nor_a_call_begun_beside_saving() {
        let turnstile = in_phase(Phase::Active);
        let call = turnstile.enter(Function::Call).unwrap();
        assert_eq!(turnstile.enter(Function::SaveState).unwrap_err(), Refused::Illegal);
        drop(call);
        let _saving = turnstile.enter(Function::SaveState).unwrap();
        assert_eq!(turnstile.enter(Function::Call).unwrap_err(), Refused::Illegal);
    }

    #[test]
    fn only_success_moves_the_phase() {
        let turnstile = in_phase(Phase::Created);
        drop(turnstile.enter(Function::Activate).unwrap());
        assert_eq!(turnstile.phase(), Phase::Created);
        turnstile.enter(Function::Activate).unwrap().done();
        assert_eq!(turnstile.phase(), Phase::Active);
    }

    #[test]
    fn nothing_follows_destroy() {
        let turnstile = in_phase(Phase::Created);
        turnstile.enter(Function::Destroy).unwrap().done();
        for function in Function::ALL {
            assert!(turnstile.enter(function).is_err(), "{function:?}");
        }
    }
}
