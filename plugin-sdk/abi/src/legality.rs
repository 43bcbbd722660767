//! Which function of the table may be called when: the legality matrix, one `match` per question.

/// A function of the table that needs an instance, or makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// `health`
    Health,
    /// `call` of a function that is marked `probe_safe`
    CallProbeSafe,
    /// `call` of any other function
    Call,
    /// `activate`
    Activate,
    /// `deactivate`
    Deactivate,
    /// `save_state`
    SaveState,
    /// `restore_state`
    RestoreState,
    /// `destroy`
    Destroy,
}

/// Where an instance stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// After `create`, before the first `activate`.
    Created,
    /// After `activate`.
    Active,
    /// After `deactivate`.
    Deactivated,
}

/// The thread that the host calls from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The one thread that also called `create`.
    Control,
    /// A thread of its own, so that slow calls don't hide a sick instance and a slow check doesn't hold calls.
    Health,
    /// Any thread of a pool of as many threads as the descriptor's `concurrency`, at most
    /// [`POOL_MAX`](crate::POOL_MAX).
    Pool,
}

impl Function {
    /// All functions, in the order of the matrix.
    pub const ALL: [Self; 8] = [
        Self::Health,
        Self::CallProbeSafe,
        Self::Call,
        Self::Activate,
        Self::Deactivate,
        Self::SaveState,
        Self::RestoreState,
        Self::Destroy,
    ];

    /// Whether the function may be called in this phase. `save_state` in [`Phase::Active`] also demands that
    /// no `call` is in flight.
    #[must_use]
    pub const fn legal_in(self, phase: Phase) -> bool {
        match phase {
            Phase::Created => matches!(
                self,
                Self::Health | Self::CallProbeSafe | Self::RestoreState | Self::Activate | Self::Destroy
            ),
            Phase::Active => matches!(
                self,
                Self::Health | Self::CallProbeSafe | Self::Call | Self::Deactivate | Self::SaveState
            ),
            Phase::Deactivated => matches!(self, Self::SaveState | Self::Activate | Self::Destroy),
        }
    }

    /// Whether the function may run beside other functions of the same instance: calls among themselves up to
    /// the declared `concurrency`, `health` beside everything except `destroy`.
    #[must_use]
    pub const fn concurrent(self) -> bool {
        matches!(self, Self::Health | Self::CallProbeSafe | Self::Call)
    }

    /// The thread that the host calls the function from.
    #[must_use]
    pub const fn thread(self) -> Thread {
        match self {
            Self::Health => Thread::Health,
            Self::CallProbeSafe | Self::Call => Thread::Pool,
            Self::Activate | Self::Deactivate | Self::SaveState | Self::RestoreState | Self::Destroy => {
                Thread::Control
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_active_instance_is_deactivated_before_it_is_destroyed() {
        assert!(!Function::Destroy.legal_in(Phase::Active));
        assert!(Function::Destroy.legal_in(Phase::Created));
        assert!(Function::Destroy.legal_in(Phase::Deactivated));
    }

    #[test]
    fn only_probe_safe_functions_run_before_activate() {
        assert!(Function::CallProbeSafe.legal_in(Phase::Created));
        assert!(!Function::Call.legal_in(Phase::Created));
    }

    #[test]
    fn a_deactivated_instance_can_be_saved_and_activated_again() {
        assert!(Function::SaveState.legal_in(Phase::Deactivated));
        assert!(Function::Activate.legal_in(Phase::Deactivated));
        assert!(!Function::RestoreState.legal_in(Phase::Deactivated));
    }
}
