//! A release's state: from disk to a start, from an instance to disk.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fleetswap_host::{CallError, Retired};
use fleetswap_update::{Beginning, Carry, Fault, Installed, Problem, Release, ReleaseId};
use tokio::time::timeout;

use super::{Tools, problem, swap::while_held};
use crate::{
    keeper::{After, Found},
    service::{Live, Service, disk},
};

/// Longest wait at the agent's end for calls that the fronts have given up.
const LAST_CALLS_MAX: Duration = Duration::from_secs(1);

/// What a release begins with where no worker hands it its state.
#[derive(Default)]
pub(super) struct FromDisk {
    /// State version and state.
    pub(super) state: Option<(u32, Bytes)>,
    /// There is a file that this release can't begin with.
    is_foreign: bool,
    /// What is lost, in words.
    pub(super) lost: String,
}

/// The state on disk, as this release can take it over. If it never `had` one, none is missed.
pub(super) async fn from_disk(tools: &Tools, installed: &Installed, had: bool) -> Result<FromDisk, Problem> {
    let found = tools.keeper.find(&installed.release.plugin).await.map_err(|error| disk(&error))?;
    let (saved, state, why) = match found {
        Found::Nothing(why) => (None, None, why),
        Found::State(saved, state) => (Some(saved), Some(state), String::new()),
    };
    let version = saved.as_ref().map(|saved| saved.version);
    Ok(match installed.beginning(saved.as_ref()) {
        Beginning::Anew => FromDisk::default(),
        Beginning::With { lost } => FromDisk { state: version.zip(state), is_foreign: false, lost },
        Beginning::Without { lost: _ } if !why.is_empty() => FromDisk { lost: why, ..FromDisk::default() },
        Beginning::Without { lost: _ } if state.is_none() && !had => FromDisk::default(),
        Beginning::Without { lost } => FromDisk { state: None, is_foreign: state.is_some(), lost },
    })
}

/// Hands a new instance of the committed release the state on disk. Says what is lost.
///
/// A state that the release refuses is kept aside, and it begins anew: callers are served, and the operator is told. One
/// that it dies of, or does not finish with, may be none of its fault, so that is a start that failed.
pub(super) async fn take_over(tools: &Tools, live: &Live) -> Result<String, Problem> {
    let release = &live.installed.release;
    let FromDisk { state, is_foreign, lost } = from_disk(tools, &live.installed, true).await?;
    if is_foreign {
        put_aside(tools, release, &lost).await?;
    }
    let Some((version, state)) = state else { return Ok(lost) };
    let worker = &*live.instance;
    match worker.restore_state(version, state).await {
        Ok(()) => Ok(lost),
        Err(error @ (CallError::Died { .. } | CallError::Deadline)) => {
            let check = "restore_state at its start";
            Err(problem::asking(Fault::Release, "RESTORE_STATE_FAILED", check, (&error, worker)))
        }
        Err(error) => {
            let lost = format!("its state: {release} refused it: {error}");
            put_aside(tools, release, &lost).await?;
            anew(live).await?;
            Ok(lost)
        }
    }
}

async fn put_aside(tools: &Tools, release: &Release, why: &str) -> Result<(), Problem> {
    tools.keeper.set_aside(&release.plugin, why.to_owned()).await.map_err(|error| disk(&error))
}

/// A new instance in the same worker: the one before may have taken over a part.
async fn anew(live: &Live) -> Result<(), Problem> {
    let worker = &*live.instance;
    let made = async {
        worker.destroy().await?;
        worker.create(live.package.config.clone()).await
    };
    made.await.map_err(|error| problem::asking(Fault::Release, "CREATE_FAILED", "create", (&error, worker)))
}

/// Takes the state of the release in place while callers wait, and keeps it once they don't. It gives way as a switch
/// does. `false` if that release is not in place any more.
pub(crate) async fn checkpoint(
    tools: &Tools,
    service: &Service,
    (id, version): (ReleaseId, u32),
) -> Result<bool, Problem> {
    let is_it = |live: &Arc<Live>| live.installed.release.id == id && !live.instance.is_gone();
    let Some(live) = service.live().filter(is_it) else { return Ok(false) };
    let taken = {
        // However this ends, dropped too, callers are let in again.
        let _open = Reopened(service);
        let worker = &*live.instance;
        let save = async {
            let state = worker.save_state(version).await;
            state.map_err(|error| {
                problem::asking(Fault::Host, "SAVE_STATE_FAILED", "save_state", (&error, worker))
            })
        };
        let state = while_held(service, save).await?;
        tools.keeper.handed(&live.installed.release, version, state)
    };
    tools.keeper.keep(taken, After::More).await.map_err(|error| disk(&error))?;
    Ok(true)
}

struct Reopened<'a>(&'a Service);

impl Drop for Reopened<'_> {
    fn drop(&mut self) {
        self.0.reopen();
    }
}

/// Keeps a state that was handed over, away from whoever waits. One that can't be kept is told.
pub(super) fn keep_aside_of_callers(tools: &Tools, release: &Release, (version, state): (u32, Bytes)) {
    let (keeper, release) = (tools.keeper.clone(), release.clone());
    let handed = keeper.handed(&release, version, state);
    tokio::spawn(async move {
        if let Err(error) = keeper.keep(handed, After::More).await {
            tracing::error!(
                plugin = release.plugin,
                code = error.code(),
                "a state could not be kept: {error}"
            );
        }
    });
}

/// Keeps a state for the next instance, which is started instead of the one that should have had it. Says whether it did.
pub(super) async fn keep_for_next(
    tools: &Tools,
    release: &Release,
    (version, state): (u32, Bytes),
) -> Result<(), String> {
    let handed = tools.keeper.handed(release, version, state);
    let kept = tools.keeper.keep(handed, After::Instance).await;
    kept.map_err(|error| {
        tracing::error!(plugin = release.plugin, code = error.code(), "a state could not be kept: {error}");
        error.to_string()
    })
}

/// The agent stops: the last calls end, the state is saved, then the worker ends.
pub(crate) async fn end(tools: &Tools, retired: Retired<Arc<Live>>, carry: Carry) {
    // If they never end, `save_state` is refused, and that is told.
    let _ = timeout(LAST_CALLS_MAX, retired.drained()).await;
    let live = &**retired;
    let release = &live.installed.release;
    let saved = match Box::pin(save_last(live, &carry)).await {
        Ok(Some((version, state))) => {
            let handed = tools.keeper.handed(release, version, state);
            tools.keeper.keep(handed, After::End).await.map_err(|error| error.to_string())
        }
        Ok(None) => Ok(()),
        Err(why) => Err(why),
    };
    if let Err(why) = saved {
        let words =
            format!("its state could not be saved; what came after its last checkpoint is lost: {why}");
        tracing::error!(plugin = release.plugin, %release, code = "SAVE_STATE_FAILED", "{words}");
    }
    live.instance.close().await;
}

async fn save_last(live: &Live, carry: &Carry) -> Result<Option<(u32, Bytes)>, String> {
    let rested = live.instance.deactivate().await;
    match carry {
        Carry::Nothing => Ok(None),
        Carry::Lost(words) => Err(words.clone()),
        Carry::Version(version) => {
            // It may be at rest already, from a switch that was cut; and one that does not come to rest can save all the
            // same, as nothing is in flight.
            let state = live.instance.save_state(*version).await;
            let failed = |error: CallError| match rested {
                Ok(()) | Err(CallError::Illegal) => format!("save_state failed: {error}"),
                Err(first) => format!("deactivate failed: {first}; then save_state: {error}"),
            };
            state.map(|state| Some((*version, state))).map_err(failed)
        }
    }
}
