//! The open streams, one per host, and what each was sent.

use std::collections::BTreeMap;

use fleetswap_proto::v1;
use fleetswap_trust::Versions;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{api::Session, store::Generation};

/// The streams.
#[derive(Default)]
pub(super) struct Links(BTreeMap<Uuid, Link>);

struct Link {
    /// The newest session.
    session: u64,
    /// Whether the stream still is open.
    is_open: bool,
    desired: watch::Sender<Option<v1::DesiredState>>,
    /// What the stream was handed last.
    handed: Option<Edition>,
    /// Unix milliseconds.
    last_seen_ms: u64,
}

/// Tells one desired state of a host from another without building it.
pub(super) type Edition = (Generation, Versions);

impl Links {
    /// A new stream takes over from an older one; a late one doesn't. What it is sent comes from the receiver.
    pub(super) fn open(
        &mut self,
        session: &Session,
        now_ms: u64,
    ) -> watch::Receiver<Option<v1::DesiredState>> {
        let (desired, receiver) = watch::channel(None);
        let is_late = self.0.get(&session.host.id).is_some_and(|link| link.session > session.number);
        if !is_late {
            let link =
                Link { session: session.number, is_open: true, desired, handed: None, last_seen_ms: now_ms };
            self.0.insert(session.host.id, link);
        }
        receiver
    }

    /// Whether a session is the newest of its host, and open.
    pub(super) fn is_current(&self, session: &Session) -> bool {
        self.0.get(&session.host.id).is_some_and(|link| link.is_open && link.session == session.number)
    }

    /// Takes note of a sign of life.
    pub(super) fn heard(&mut self, session: &Session, now_ms: u64) {
        if let Some(link) = self.0.get_mut(&session.host.id).filter(|link| link.session == session.number) {
            link.last_seen_ms = now_ms;
        }
    }

    /// Ends a stream. False if a newer one has taken over.
    pub(super) fn close(&mut self, session: &Session) -> bool {
        match self.0.get_mut(&session.host.id).filter(|link| link.session == session.number) {
            Some(link) => {
                link.is_open = false;
                true
            }
            None => false,
        }
    }

    /// Whether a host has a stream.
    pub(super) fn is_open(&self, host: Uuid) -> bool {
        self.0.get(&host).is_some_and(|link| link.is_open)
    }

    /// When a host was last heard, in Unix milliseconds; 0: not since the controller started.
    pub(super) fn last_seen_ms(&self, host: Uuid) -> u64 {
        self.0.get(&host).map_or(0, |link| link.last_seen_ms)
    }

    /// Hands each open stream what its host should run, if its edition is another than the stream was handed before.
    pub(super) fn send(
        &mut self,
        edition: impl Fn(Uuid) -> Option<Edition>,
        desired: impl Fn(Uuid) -> Option<v1::DesiredState>,
    ) {
        for (host, link) in self.0.iter_mut().filter(|(_, link)| link.is_open) {
            let next = edition(*host);
            if next.is_some() && next != link.handed {
                link.handed = next;
                link.desired.send_replace(desired(*host));
            }
        }
    }
}
