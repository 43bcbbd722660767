//! A task that ends with its handle, and one that can't end without an outcome.

use std::panic::AssertUnwindSafe;

use fleetswap_update::{Fault, Outcome, Problem};
use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// A running task; dropping it gives the task up.
#[derive(Debug)]
pub(super) struct Running(JoinHandle<()>);

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

/// The outcome of the work; a bug that panics in it is a failure of this host, and the old release goes on.
pub(super) async fn outcome_of(work: impl Future<Output = Outcome>) -> Outcome {
    let panicked = |_| {
        let words = "the agent itself failed in this step; its log has the place";
        Outcome::Failed(Problem::new(Fault::Host, "AGENT_BUG", words))
    };
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(panicked)
}
