//! Doing what the core asks for: each task of a trial, and its outcome.
//!
//! Nothing here decides what comes next. What one task leaves for a later one lies on the [`Bench`]; after a crash
//! the bench is empty, and the core knows what that means.

mod back;
mod bench;
mod fetch;
mod load;
mod probe;
mod problem;
mod state;
mod swap;
#[cfg(test)]
mod tests;
mod verify;

use std::{fmt, sync::Arc, time::SystemTime};

use fleetswap_host::Retired;
use fleetswap_inspect::Rules;
use fleetswap_proto::v1;
use fleetswap_update::{Carry, Outcome, Problem, Task};
use tokio::sync::watch;

use crate::{
    clock,
    durable::TrustDir,
    fetch::Fetcher,
    keeper::Keeper,
    link::Standing,
    logs::Logs,
    metrics::Metrics,
    service::{Launch, Live, Service, Shelf},
};

pub(crate) use bench::Bench;
pub(crate) use load::{files_are_lost, start};
pub(crate) use state::checkpoint;
#[cfg(test)]
pub(crate) use tests::tools as testing_tools;

/// What every plugin of this host works with.
pub(crate) struct Tools {
    /// Verified releases on disk.
    pub(crate) shelf: Shelf,
    /// Where bytes come from.
    pub(crate) fetcher: Fetcher,
    /// What was verified before.
    pub(crate) trust: TrustDir,
    /// Accept a root that is marked as made for development.
    pub(crate) allow_dev_trust: bool,
    /// What a library is held to here.
    pub(crate) rules: Rules,
    /// States on disk.
    pub(crate) keeper: Keeper,
    /// Starts workers.
    pub(crate) launch: Arc<dyn Launch>,
    /// How the host stands.
    pub(crate) standing: watch::Sender<Standing>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// What plugins said, and what happened to their workers.
    pub(crate) logs: Logs,
    /// One update of the trusted metadata at a time.
    pub(crate) updating: Arc<tokio::sync::Mutex<()>>,
}

impl Tools {
    /// The controller, the link and the operator see which metadata was accepted.
    fn tell_metadata(&self, metadata: v1::MetadataVersions) {
        self.standing.send_if_modified(|standing| {
            let changed = standing.metadata != metadata;
            standing.metadata = metadata;
            changed
        });
    }
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tools").field("shelf", &self.shelf).finish_non_exhaustive()
    }
}

/// Does one task. Doing it twice is harmless; dropping the future gives up what is before the switch.
pub(crate) async fn perform(tools: &Tools, service: &Arc<Service>, bench: &Bench, task: Task) -> Outcome {
    let done: Result<Outcome, Problem> = match task {
        Task::Idle | Task::AwaitSlot | Task::Wait => std::future::pending().await,
        Task::Fetch { release, at } => {
            clock::until(at).await;
            Box::pin(fetch::fetch(tools, &release, SystemTime::now())).await.map(|()| Outcome::Fetched)
        }
        Task::Verify(release) => {
            Box::pin(verify::verify(tools, service, bench, &release)).await.map(Outcome::Verified)
        }
        Task::Load(installed) => {
            Box::pin(load::load(tools, bench, &installed)).await.map(|()| Outcome::Loaded)
        }
        Task::Probe(installed) => {
            Box::pin(probe::probe(tools, bench, &installed)).await.map(|()| Outcome::Probed)
        }
        Task::Prepare(installed) => {
            Box::pin(swap::prepare(tools, service, bench, &installed)).await.map(|()| Outcome::Prepared)
        }
        Task::Pause(swap) => {
            Box::pin(swap::pause(tools, service, bench, &swap)).await.map(|lost| Outcome::Saved { lost })
        }
        Task::Restore(_) => Box::pin(swap::restore(service, bench)).await.map(|()| Outcome::Restored),
        Task::Activate(_) => Box::pin(swap::activate(service, bench)).await.map(|()| Outcome::Activated),
        Task::Move(swap) => {
            swap::move_pointer(tools, service, bench, &swap).map(|pause_us| Outcome::Switched { pause_us })
        }
        Task::Watch { release, until } => {
            Box::pin(probe::watch(service, &release, until)).await.map(Outcome::Proven)
        }
        Task::GoBack { swap, planned } => {
            let back = Box::pin(back::go_back(tools, service, bench, (&swap, planned))).await;
            Ok(Outcome::WentBack { answers: back.answers, lost: back.lost })
        }
    };
    done.unwrap_or_else(Outcome::Failed)
}

/// Ends a release that was taken out of its place, once its calls are answered.
pub(crate) fn dismiss(service: &Service, retired: Retired<Arc<Live>>) {
    bench::Replaced::of(retired).dismiss(service);
}

/// The agent stops: as [`dismiss`], to be waited for, and the state is kept for the next start in the way that `carry`
/// says.
pub(crate) async fn end(tools: &Tools, retired: Retired<Arc<Live>>, carry: Carry) {
    Box::pin(state::end(tools, retired, carry)).await;
}
