//! Fetching: trusted metadata first, then only what it names, all of it onto the disk.

use std::{sync::Arc, time::SystemTime};

use fleetswap_trust::{
    Digest, Manifest, Policy, Target, Trusted,
    manifest::{self, MANIFEST_MAX, ManifestError},
};
use fleetswap_update::{Fault, Problem, Release};
use semver::Version;
use tokio::{
    runtime::Handle,
    task::{JoinError, spawn_blocking},
};

use super::{Tools, problem};
use crate::{convert, service::disk};

/// Gets everything that a release needs. A release is trusted only by metadata that is fresh now.
pub(super) async fn fetch(tools: &Tools, release: &Release, now: SystemTime) -> Result<(), Problem> {
    let trusted = Box::pin(update(tools, now)).await?;
    let target = listed(&trusted, release)?;
    let id = Digest::from(*release.id.bytes());
    let path =
        Box::pin(tools.fetcher.blob(id, target.length)).await.map_err(|error| problem::fetching(&error))?;
    let bytes = tokio::fs::read(&path).await.map_err(|error| unreadable(&error))?;
    let manifest = read(&bytes, release)?;
    suits(&manifest)?;
    let platform = tools.shelf.platform_of(&manifest)?;
    let shelf = tools.shelf.clone();
    // From here on the manifest counts as verified: it lies where committed releases are started from.
    apart(move || shelf.manifests.put(&bytes)).await?.map_err(|error| disk(&error))?;
    for blob in [Some(platform.artifact), Some(platform.descriptor), manifest.config].into_iter().flatten() {
        let got = Box::pin(tools.fetcher.blob(blob.sha256, blob.length)).await;
        got.map_err(|error| problem::fetching(&error))?;
    }
    Ok(())
}

/// Brings the trusted metadata up to date. Roles that were accepted before a later one was refused are kept.
async fn update(tools: &Tools, now: SystemTime) -> Result<Trusted, Problem> {
    let one = Arc::clone(&tools.updating).lock_owned().await;
    let trust = tools.trust.clone();
    let known = apart(move || fleetswap_trust::trusted(&trust)).await?;
    let known = known.map_err(|error| problem::trust(&error))?.versions();
    let bundle = Box::pin(tools.fetcher.metadata(convert::versions(known))).await;
    let bundle = bundle.map_err(|error| problem::fetching(&error))?;
    let (policy, trust) = (Policy { allow_dev: tools.allow_dev_trust }, tools.trust.clone());
    let (updated, kept) = apart(move || {
        // Held to the end: a trial that is given up meanwhile leaves this running, and the next one waits for it.
        let _one = one;
        let update = Box::pin(fleetswap_trust::update(&trust, &bundle, now, policy));
        let updated = Handle::current().block_on(update);
        (updated, fleetswap_trust::trusted(&trust))
    })
    .await?;
    if let Ok(kept) = kept {
        tools.tell_metadata(convert::versions(kept.versions()));
    }
    updated.map_err(|error| problem::trust(&error))
}

/// Work on disk, signatures and large files, away from the threads that serve callers.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let cut = |error: JoinError| format!("work on the state folder was cut short: {error}");
    spawn_blocking(work).await.map_err(|error| Problem::new(Fault::Host, "STATE_DIR_FAILED", cut(error)))
}

/// The signed entry of the release, which must be the very one that was offered.
fn listed(trusted: &Trusted, release: &Release) -> Result<Target, Problem> {
    let name = manifest::target_name(&release.plugin, &release.version, release.revision);
    judged(&name, trusted.release(&name), release).map_err(|problem| {
        let message = format!("{} (targets v{})", problem.message, trusted.versions().targets).into();
        Problem { message, ..problem }
    })
}

fn judged(name: &str, target: Option<Target>, release: &Release) -> Result<Target, Problem> {
    let refuse =
        |fault, code, words: String| Problem { check: name.into(), ..Problem::new(fault, code, words) };
    let target = target
        .ok_or_else(|| refuse(Fault::Trust, "RELEASE_NOT_LISTED", format!("no signed target {name}")))?;
    if target.sha256.bytes() != *release.id.bytes() {
        let words = format!("the signed target {name} is another release than the one that was offered");
        let problem = refuse(Fault::Trust, "RELEASE_NOT_LISTED", words);
        return Err(Problem {
            got: release.id.to_string().into(),
            wanted: target.sha256.to_string().into(),
            ..problem
        });
    }
    if target.withdrawn {
        return Err(refuse(Fault::Trust, "RELEASE_WITHDRAWN", format!("the publisher took {name} back")));
    }
    // Before a byte of it is fetched.
    let length = usize::try_from(target.length).unwrap_or(usize::MAX);
    if length > MANIFEST_MAX {
        let error = ManifestError::TooLarge { length };
        return Err(refuse(Fault::Release, error.code(), error.to_string()));
    }
    Ok(target)
}

fn read(bytes: &[u8], release: &Release) -> Result<Manifest, Problem> {
    // First of all: an agent that is too old may not understand the rest, and blames nobody else for that.
    Manifest::min_agent_in(bytes).map_or(Ok(()), |wanted| new_enough(&wanted))?;
    let manifest = Manifest::parse(bytes).map_err(|error| {
        let is_newer = matches!(error, ManifestError::UnknownFormat { .. });
        let fault = if is_newer { Fault::Host } else { Fault::Release };
        Problem::new(fault, error.code(), error.to_string())
    })?;
    let says = (&manifest.plugin, &manifest.version, manifest.revision);
    if says != (&release.plugin, &release.version, release.revision) {
        let words = format!("the manifest describes {}, not what was offered", manifest.target_name());
        return Err(Problem::new(Fault::Trust, "MANIFEST_MISMATCH", words));
    }
    Ok(manifest)
}

fn new_enough(wanted: &Version) -> Result<(), Problem> {
    let own = env!("CARGO_PKG_VERSION");
    let parsed =
        Version::parse(own).map_err(|error| Problem::new(Fault::Host, "AGENT_TOO_OLD", error.to_string()))?;
    if *wanted > parsed {
        let words = format!("the release needs agent {wanted} or newer, this is {own}");
        let problem = Problem::new(Fault::Host, "AGENT_TOO_OLD", words);
        return Err(Problem { got: own.into(), wanted: wanted.to_string().into(), ..problem });
    }
    Ok(())
}

/// What this agent can't do for a release is said before anything large is fetched. A newer agent may be able to.
fn suits(manifest: &Manifest) -> Result<(), Problem> {
    if manifest.data.is_empty() {
        return Ok(());
    }
    let words = "the release brings data files, and this agent can't hand files to a plugin yet";
    Err(Problem::new(Fault::Host, "DATA_UNSUPPORTED", words))
}

fn unreadable(error: &std::io::Error) -> Problem {
    Problem::new(Fault::Host, "STATE_DIR_FAILED", format!("the manifest can't be read back: {error}"))
}

#[cfg(test)]
mod tests;
