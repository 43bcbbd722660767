//! Occupancy: who is inside the instance right now, and in which phase it is. The legality matrix at work.
use fleetswap_plugin_abi::{Function, Phase};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Guards an instance. Calls run beside each other and beside health; the functions of the control thread run
/// without calls; `destroy` runs alone.
#[derive(Debug, Default)]
pub(super) struct Occupancy {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    phase: Option<Phase>,
    calls: usize,
    in_health: bool,
    in_control: bool,
    in_destroy: bool,
    /// Threads that wait for a change.
    waiting: usize,
}

/// The function may not be called now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Illegal;

/// A stay in the instance; it ends on drop.
#[derive(Debug)]
pub(super) struct Stay<'a> {
    occupancy: &'a Occupancy,
    function: Option<Function>,
}

impl Occupancy {
    /// Begins a call or a health check. Waits while a control function runs, since that may change the phase.
    pub(super) fn enter(&self, function: Function) -> Result<Stay<'_>, Illegal> {
        let mut state = self.lock();
        let health = function == Function::Health;
        while state.in_destroy || (state.in_control && !health) {
            state = self.wait(state);
        }
        if !state.phase.is_some_and(|phase| function.legal_in(phase)) {
            return Err(Illegal);
        }
        if health {
            state.in_health = true;
        } else {
            state.calls += 1;
        }
        Ok(Stay { occupancy: self, function: Some(function) })
    }

    /// Begins a function of the control thread, of which there is one. Refused while calls are in flight.
    pub(super) fn control(&self, function: Function) -> Result<Stay<'_>, Illegal> {
        let mut state = self.lock();
        if state.calls > 0 || !state.phase.is_some_and(|phase| function.legal_in(phase)) {
            return Err(Illegal);
        }
        state.in_control = true;
        if function == Function::Destroy {
            state.in_destroy = true;
            while state.in_health {
                state = self.wait(state);
            }
        }
        Ok(Stay { occupancy: self, function: Some(function) })
    }

    /// Begins `create`, which is legal where no instance is.
    pub(super) fn create(&self) -> Result<Stay<'_>, Illegal> {
        let mut state = self.lock();
        if state.phase.is_some() {
            return Err(Illegal);
        }
        state.in_control = true;
        Ok(Stay { occupancy: self, function: None })
    }

    /// The instance is in this phase from now on; None: there is none.
    pub(super) fn set_phase(&self, phase: Option<Phase>) {
        self.lock().phase = phase;
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        let mut state = self.occupancy.lock();
        match self.function {
            Some(Function::Health) => state.in_health = false,
            Some(Function::Call | Function::CallProbeSafe) => state.calls -= 1,
            Some(_) | None => {
                state.in_control = false;
                state.in_destroy = false;
            }
        }
        // Telling nobody is a call of the kernel as well.
        if state.waiting > 0 {
            self.occupancy.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_phase(phase: Phase) -> Occupancy {
        let occupancy = Occupancy::default();
        occupancy.set_phase(Some(phase));
        occupancy
    }

    #[test]
    fn without_an_instance_only_create_is_legal() {
        let none = Occupancy::default();
        for function in Function::ALL {
            let refused =
                if function.concurrent() { none.enter(function).err() } else { none.control(function).err() };
            assert_eq!(refused, Some(Illegal), "{function:?}");
        }
        drop(none.create().unwrap());
        assert!(in_phase(Phase::Created).create().is_err());
    }

    #[test]
    fn every_cell_of_the_matrix_is_enforced() {
        for phase in [Phase::Created, Phase::Active, Phase::Deactivated] {
            for function in Function::ALL {
                let occupancy = in_phase(phase);
                let allowed = if function.concurrent() {
                    occupancy.enter(function)
                } else {
                    occupancy.control(function)
                };
                assert_eq!(allowed.is_ok(), function.legal_in(phase), "{function:?} in {phase:?}");
            }
        }
    }

    #[test]
    fn a_control_function_is_refused_while_a_call_is_in_flight() {
        let occupancy = in_phase(Phase::Active);
        let call = occupancy.enter(Function::Call).unwrap();
        let other = occupancy.enter(Function::Call).unwrap();
        drop(call);
        assert_eq!(occupancy.control(Function::SaveState).err(), Some(Illegal));
        drop(other);
        assert!(occupancy.control(Function::SaveState).is_ok());
    }

    #[test]
    fn a_call_that_waited_for_a_control_function_sees_the_new_phase() {
        let occupancy = in_phase(Phase::Active);
        let deactivate = occupancy.control(Function::Deactivate).unwrap();
        std::thread::scope(|scope| {
            let call = scope.spawn(|| occupancy.enter(Function::Call).map(drop));
            occupancy.set_phase(Some(Phase::Deactivated));
            drop(deactivate);
            assert_eq!(call.join().unwrap(), Err(Illegal));
        });
    }

    #[test]
    fn health_runs_beside_a_control_function_and_destroy_waits_for_it() {
        let occupancy = in_phase(Phase::Created);
        let activate = occupancy.control(Function::Activate).unwrap();
        let health = occupancy.enter(Function::Health).unwrap();
        drop(activate);
        std::thread::scope(|scope| {
            let destroy = scope.spawn(|| occupancy.control(Function::Destroy).map(drop));
            drop(health);
            assert_eq!(destroy.join().unwrap(), Ok(()));
        });
    }
}
