//! The agent's work: one loop per plugin, and one that hears what the controller wants.
//!
//! The loop of a plugin is the whole of the agent's deciding: an event comes, the core steps, the record is saved,
//! the core's work is done, and its outcome is the next event. At most one plugin of a host is on trial at a time.

mod checkpoints;
mod files;
mod host;
mod life;
mod lives;
mod narrate;
mod orders;
mod safe;
mod task;
mod teller;
#[cfg(test)]
mod tests;
mod written;

use std::{io, sync::Arc};

use fleetswap_inspect::{Rules, elf::Glibc, native_platform};
use fleetswap_proto::Explained;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    calls::Calls,
    config::CheckpointRules,
    convert,
    daemon::Parts,
    durable::{DurableError, Records, StateDir},
    explain,
    keeper::Keeper,
    service::{Launcher, Registry, Shelf},
    trial::Tools,
};

use files::Files;
use host::HostRecord;
use lives::Lives;
#[cfg(test)]
pub(crate) use lives::PLUGINS_MAX;
pub(crate) use orders::{ANSWER_MAX as ORDER_MAX, Done, Orders, Refused, Verb};
pub(crate) use safe::start as start_safe;

/// Plugins of one host on trial at the same time.
const TRIAL_SLOTS: usize = 1;

/// What the loops share.
pub(crate) struct World {
    pub(crate) tools: Arc<Tools>,
    pub(crate) records: Records,
    pub(crate) registry: Arc<Registry>,
    /// What operators on the host order.
    pub(crate) orders: Orders,
    pub(crate) files: Files,
    /// The host's one trial slot.
    pub(crate) slot: Arc<Semaphore>,
    pub(crate) boot_id: String,
    /// How often each plugin's state is saved while it runs.
    pub(crate) checkpoints: CheckpointRules,
    /// Whether the last run of the agent ended as asked.
    pub(crate) clean_stop: bool,
    pub(crate) stop: CancellationToken,
    /// The one thing that ends the agent: a record that can't be kept.
    pub(crate) failures: mpsc::Sender<Explained>,
}

/// The running agent.
pub(crate) struct Running {
    calls: Arc<dyn Calls>,
    orders: Orders,
    keeper: Keeper,
    stop: CancellationToken,
    teller: JoinHandle<()>,
    failures: mpsc::Receiver<Explained>,
    /// `None` in safe mode, which leaves it as it is.
    host: Option<HostRecord>,
    /// Held, never read: it locks the state folder.
    _state: StateDir,
}

/// Starts every committed release from the records and goes on with what was under way. Needs no controller.
///
/// # Errors
/// A record that can't be read, or no thread to start workers with.
pub(crate) async fn start(parts: Parts) -> Result<Running, Explained> {
    let desired = parts.desired.clone();
    let mut host = HostRecord::open(parts.state.host_record()).map_err(|error| explain::durable(&error))?;
    let (failure, failures) = mpsc::channel(1);
    // Counted before anything runs: what an earlier run ended with is whole for this one only.
    let run = host.begin_run().map_err(|error| explain::durable(&error))?;
    let (world, state) = world(parts, (host.clean_stop(), run), failure)?;
    let calls = Arc::clone(&world.registry) as Arc<dyn Calls>;
    let (orders, stop) = (world.orders.clone(), world.stop.clone());
    let keeper = world.tools.keeper.clone();
    let lives = resume(world, &mut host).await.map_err(|error| explain::durable(&error))?;
    teller::tell_highest(&lives, host.highest().max(lives.highest()));
    let teller = tokio::spawn(teller::run(lives, desired, host.clone()));
    Ok(Running { calls, orders, keeper, stop, teller, failures, host: Some(host), _state: state })
}

/// Every plugin has taken in how the last run ended before an end without a word counts as a kill: until then, a second
/// one would be taken for the first.
async fn resume(world: World, host: &mut HostRecord) -> Result<Lives, DurableError> {
    let lives = Box::pin(Lives::resume(Arc::new(world))).await?;
    host.set_clean_stop(false)?;
    Ok(lives)
}

impl Running {
    /// What the front calls.
    pub(crate) fn calls(&self) -> Arc<dyn Calls> {
        Arc::clone(&self.calls)
    }

    /// Where operators on the host give their orders.
    pub(crate) fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// What is kept of the plugins' states.
    pub(crate) fn keeper(&self) -> Keeper {
        self.keeper.clone()
    }

    /// Waits until the agent can't go on.
    pub(crate) async fn failed(&mut self) -> Explained {
        match self.failures.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Ends every worker in order, then notes that this end was asked for.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = self.teller.await {
            tracing::error!(%error, "the agent's loop did not end in order");
            return;
        }
        let Some(host) = &mut self.host else { return };
        if let Err(error) = host.set_clean_stop(true) {
            tracing::error!(%error, "the next start will take this end for a kill");
        }
    }
}

fn world(
    parts: Parts,
    (clean_stop, run): (bool, u64),
    failures: mpsc::Sender<Explained>,
) -> Result<(World, StateDir), Explained> {
    let Parts {
        state,
        trust,
        allow_dev_trust,
        fetcher,
        limits,
        sandbox,
        checkpoints,
        logs,
        metrics,
        facts,
        desired: _,
        standing,
    } = parts;
    let host = fleetswap_host::Launcher::start_within(sandbox.cgroup).map_err(|error| no_launcher(&error))?;
    let shelf = Shelf { manifests: state.manifests(), blobs: state.blobs(), platform: facts.platform };
    if let Ok(trusted) = fleetswap_trust::trusted(&trust) {
        standing.send_modify(|standing| standing.metadata = convert::versions(trusted.versions()));
    }
    let tools = Tools {
        shelf: shelf.clone(),
        fetcher,
        trust,
        allow_dev_trust,
        keeper: Keeper::new(state.states(), run),
        rules: Rules { platform: Some(native_platform()), glibc: Glibc::parse(&facts.glibc) },
        launch: Arc::new(Launcher { host, limits, level: sandbox.level, logs: logs.clone() }),
        standing,
        metrics,
        logs,
        updating: Arc::default(),
    };
    let world = World {
        tools: Arc::new(tools),
        records: state.records(),
        registry: Arc::default(),
        orders: Orders::default(),
        files: Files::new(shelf),
        slot: Arc::new(Semaphore::new(TRIAL_SLOTS)),
        boot_id: facts.boot_id,
        checkpoints,
        clean_stop,
        stop: CancellationToken::new(),
        failures,
    };
    Ok((world, state))
}

fn no_launcher(error: &io::Error) -> Explained {
    Explained::new(
        "WORKER_START_FAILED",
        "the agent can't start workers",
        error.to_string(),
        "see that threads and descriptors are to be had (ulimit -u, ulimit -n), and that /proc is mounted",
    )
}
