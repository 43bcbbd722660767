//! Releases on their way out: out of their place, and not yet ended. One that must not be active beside them waits.

use std::sync::Arc;

use fleetswap_update::Installed;
use tokio::sync::watch;

use super::Live;

/// Those that one plugin has.
#[derive(Clone, Default)]
pub(super) struct Leaving(watch::Sender<Vec<Arc<Live>>>);

/// One that leaves; it has left when this is dropped.
pub(crate) struct Leave {
    live: Arc<Live>,
    all: Leaving,
}

impl Leaving {
    pub(super) fn enter(&self, live: &Arc<Live>) -> Leave {
        self.0.send_modify(|all| all.push(Arc::clone(live)));
        Leave { live: Arc::clone(live), all: self.clone() }
    }

    /// Waits until all have left that exclude this one.
    pub(super) async fn cleared_for(&self, installed: &Installed) {
        let mut all = self.0.subscribe();
        let is_clear = |all: &Vec<Arc<Live>>| !all.iter().any(|live| live.installed.excludes(installed));
        // An error would mean that the sender is gone, which `self` holds.
        let _ = all.wait_for(is_clear).await;
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.all.0.send_modify(|all| all.retain(|live| !Arc::ptr_eq(live, &self.live)));
    }
}
