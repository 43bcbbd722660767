//! The newest stream of each host: when it takes over, the older one ends.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Session;

/// The open streams, one per host.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<Uuid, (u64, CancellationToken)>>);

impl Sessions {
    /// Takes over. The token is cancelled as soon as a newer stream does the same, which may be already.
    pub(super) fn take(&self, session: &Session) -> CancellationToken {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let token = CancellationToken::new();
        match open.get(&session.host.id) {
            Some((newer, _)) if *newer > session.number => token.cancel(),
            _ => {
                if let Some((_, older)) = open.insert(session.host.id, (session.number, token.clone())) {
                    older.cancel();
                }
            }
        }
        token
    }

    /// Ends; a newer stream stays.
    pub(super) fn release(&self, session: &Session) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&session.host.id).is_some_and(|(number, _)| *number == session.number) {
            open.remove(&session.host.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::HostIdentity;

    fn session(number: u64) -> Session {
        Session { host: HostIdentity { id: Uuid::from_u128(1), name: "host-1".to_owned() }, number }
    }

    #[test]
    fn a_newer_stream_ends_the_older_one() {
        let sessions = Sessions::default();
        let first = sessions.take(&session(1));
        let second = sessions.take(&session(2));
        assert!(first.is_cancelled() && !second.is_cancelled());
    }

    #[test]
    fn a_stream_that_comes_late_does_not_end_a_newer_one() {
        let sessions = Sessions::default();
        let newer = sessions.take(&session(2));
        let late = sessions.take(&session(1));
        assert!(late.is_cancelled() && !newer.is_cancelled());
    }

    #[test]
    fn the_end_of_a_replaced_stream_leaves_the_newer_one_in_place() {
        let sessions = Sessions::default();
        sessions.take(&session(1));
        let second = sessions.take(&session(2));
        sessions.release(&session(1));
        sessions.take(&session(3));
        assert!(second.is_cancelled());
    }
}
