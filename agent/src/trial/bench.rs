//! What the tasks of one plugin's trial leave for each other. It lives as long as the agent's process.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fleetswap_host::Retired;
use fleetswap_update::ReleaseId;
use tokio::time::{Instant, timeout};

use crate::service::{Instance, Live, Package, Service};

/// Longest wait for the calls of a release that was replaced: a call may last 60 s.
const LAST_CALLS_MAX: Duration = Duration::from_secs(61);

/// The bench.
#[derive(Default)]
pub(crate) struct Bench(Mutex<On>);

/// What lies on it.
#[derive(Default)]
pub(super) struct On {
    /// The candidate, read and hashed.
    pub(super) package: Option<Arc<Package>>,
    /// The throw-away worker.
    pub(super) throwaway: Option<Arc<dyn Instance>>,
    /// The instance that is about to serve.
    pub(super) fresh: Option<Arc<Live>>,
    /// The state of the old release, and its version.
    pub(super) saved: Option<(u32, Bytes)>,
    /// Since when callers wait.
    pub(super) held_since: Option<Instant>,
    /// The old release, warm until the verdict.
    pub(super) warm: Option<Replaced>,
}

/// A release that no longer answers; calls may still be in flight on it.
pub(crate) struct Replaced {
    pub(super) live: Arc<Live>,
    pub(super) calls: Option<Retired<Arc<Live>>>,
}

impl Bench {
    pub(super) fn lock(&self) -> MutexGuard<'_, On> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The candidate, if it lies here.
    pub(super) fn package(&self, id: ReleaseId) -> Option<Arc<Package>> {
        self.lock().package.clone().filter(|package| package.release().id == id)
    }

    /// The trial is over: everything goes. A release that was replaced finishes its calls first.
    pub(crate) fn clear(&self, service: &Service) {
        let on = std::mem::take(&mut *self.lock());
        if let Some(warm) = on.warm {
            warm.dismiss(service);
        }
    }
}

impl Replaced {
    /// A release that was taken out of the gate.
    pub(crate) fn of(calls: Retired<Arc<Live>>) -> Self {
        Self { live: Arc::clone(&calls), calls: Some(calls) }
    }

    /// Waits for its last calls, then ends its worker in order. Until then none becomes active that it excludes.
    pub(crate) fn dismiss(self, service: &Service) {
        let leave = service.leaves(&self.live);
        tokio::spawn(async move {
            self.end().await;
            drop(leave);
        });
    }

    /// As [`Replaced::dismiss`], to be waited for.
    pub(crate) async fn end(self) {
        if let Some(calls) = &self.calls {
            let drained = timeout(LAST_CALLS_MAX, calls.drained()).await;
            if drained.is_err() {
                let release = &self.live.installed.release;
                tracing::warn!(plugin = release.plugin, %release, "calls never ended; their worker is killed");
            }
        }
        // One that was never active, or is broken, says no to this; it ends all the same.
        let _ = self.live.instance.deactivate().await;
        self.live.instance.close().await;
    }
}
