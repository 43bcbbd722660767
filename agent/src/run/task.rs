//! Tasks that end with their handle, and can't end without an outcome.

use std::panic::AssertUnwindSafe;

use fleetswap_update::{Fault, Outcome, Problem};
use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running task; dropping it gives the task up.
#[derive(Debug)]
pub(super) struct Running(JoinHandle<()>);

/// A start under way. It is never cut, as it may have made its release active: it is told, and ends by itself.
#[derive(Debug)]
pub(super) struct Starting {
    given_up: DropGuard,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Starting {
    pub(super) fn spawn<F>(start: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let given_up = CancellationToken::new();
        Self { task: tokio::spawn(start(given_up.clone())), given_up: given_up.drop_guard() }
    }

    /// Returns when its release is in place, or has ended.
    pub(super) async fn give_up(self) {
        drop(self.given_up);
        // An error means that the runtime is ending, and every worker with it.
        let _ = self.task.await;
    }
}

/// The outcome of the work; a bug that panics in it is a failure of this host, and the old release goes on.
pub(super) async fn outcome_of(work: impl Future<Output = Outcome>) -> Outcome {
    unless_it_panics(work).await.unwrap_or_else(Outcome::Failed)
}

/// What the work gives; a bug that panics in it is a problem of this host.
pub(super) async fn unless_it_panics<T>(work: impl Future<Output = T>) -> Result<T, Problem> {
    let panicked = |_| {
        let words = "the agent itself failed in this step; its log has the place";
        Problem::new(Fault::Host, "AGENT_BUG", words)
    };
    AssertUnwindSafe(work).catch_unwind().await.map_err(panicked)
}
