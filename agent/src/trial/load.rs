//! Loading: a library into a worker, first a throw-away one, later the one that serves.

use std::sync::Arc;

use fleetswap_update::{Fault, Installed, Problem, ReleaseId};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Tools, bench::Bench, problem, state, verify};
use crate::service::{Instance, Live, Package, RELEASE_FILES_MISSING, Service};

/// Loads the candidate into a throw-away worker.
pub(super) async fn load(tools: &Tools, bench: &Bench, installed: &Installed) -> Result<(), Problem> {
    let package = package(tools, bench, installed).await?;
    let worker = launch(tools, &package).await?;
    let mut on = bench.lock();
    on.package = Some(package);
    on.throwaway = Some(worker);
    Ok(())
}

/// The release from the bench, or from disk.
pub(super) async fn package(
    tools: &Tools,
    bench: &Bench,
    installed: &Installed,
) -> Result<Arc<Package>, Problem> {
    match bench.package(installed.release.id) {
        Some(package) => Ok(package),
        None => verify::read(tools, installed.release.id).await,
    }
}

pub(super) async fn launch(tools: &Tools, package: &Package) -> Result<Arc<dyn Instance>, Problem> {
    Box::pin(tools.launch.launch(package)).await.map_err(|error| problem::loading(&error))
}

/// Makes the plugin's instance in a worker that was just launched.
pub(super) async fn create(worker: &dyn Instance, package: &Package) -> Result<(), Problem> {
    let created = worker.create(package.config.clone()).await;
    created.map_err(|error| problem::asking(Fault::Release, "CREATE_FAILED", "create", (&error, worker)))
}

/// A worker with an instance that is not active yet.
pub(super) async fn fresh(
    tools: &Tools,
    package: Arc<Package>,
    installed: Installed,
) -> Result<Arc<Live>, Problem> {
    let worker = launch(tools, &package).await?;
    create(&*worker, &package).await?;
    Ok(Arc::new(Live::new(worker, package, installed)))
}

/// Starts the committed release with the state on disk and lets callers in; with it comes what of the state is lost, in
/// words. `None` if it was given up before that; then its worker has ended,
/// as it may have become active.
pub(crate) async fn start(
    tools: &Tools,
    service: &Arc<Service>,
    installed: &Installed,
    given_up: &CancellationToken,
) -> Option<Result<(Arc<Live>, String), Problem>> {
    let loaded = tokio::select! {
        biased;
        () = given_up.cancelled() => return None,
        loaded = Box::pin(beside_nobody(tools, service, installed)) => loaded,
    };
    let (live, lost) = match loaded {
        Ok(loaded) => loaded,
        Err(problem) => return Some(Err(problem)),
    };
    let activated = tokio::select! {
        biased;
        () = given_up.cancelled() => None,
        activated = activate(&*live.instance) => Some(activated),
    };
    if !matches!(activated, Some(Ok(()))) {
        live.kill().await;
        return activated.map(|activated| activated.map(|()| (live, lost)));
    }
    tools.keeper.touch(&installed.release.plugin);
    drop(service.place(Arc::clone(&live)));
    Some(Ok((live, lost)))
}

/// The committed release in a worker of its own with its state, and what of that is lost, once nobody is active any more that it excludes. What was loaded
/// before is used again, without the disk.
async fn beside_nobody(
    tools: &Tools,
    service: &Service,
    installed: &Installed,
) -> Result<(Arc<Live>, String), Problem> {
    let before = service.live().filter(|live| live.package.release().id == installed.release.id);
    let package = match before {
        Some(live) => Arc::clone(&live.package),
        None => verify::read(tools, installed.release.id).await?,
    };
    let live = fresh(tools, package, installed.clone()).await?;
    // A way back that broke off leaves somebody in place.
    if let Some(left) = service.live().filter(|left| !left.instance.is_gone()) {
        service.vacate();
        left.kill().await;
    }
    service.cleared_for(installed).await;
    let lost = state::take_over(tools, &live).await?;
    Ok((live, lost))
}

/// Codes of a start that failed since files of its release are gone, or are not what they were when they came.
const LOST: [&str; 3] = [RELEASE_FILES_MISSING, "ARTIFACT_HASH", "ARTIFACT_LENGTH"];

/// Whether a start failed since files of its release are lost, while the previous one has all of its own, whole.
pub(crate) async fn files_are_lost(tools: &Tools, problem: &Problem, previous: Option<ReleaseId>) -> bool {
    let Some(previous) = previous.filter(|_| LOST.contains(&&*problem.code)) else { return false };
    let shelf = tools.shelf.clone();
    spawn_blocking(move || shelf.package(previous).is_ok()).await.unwrap_or(false)
}

/// Makes an instance active.
pub(super) async fn activate(worker: &dyn Instance) -> Result<(), Problem> {
    let activated = worker.activate().await;
    activated
        .map_err(|error| problem::asking(Fault::Release, "ACTIVATE_FAILED", "activate", (&error, worker)))
}
