//! Verifying: the bytes on disk are read into sealed memory, hashed, and looked at without running them.

use std::sync::Arc;

use fleetswap_inspect::{Descriptor, Note, Standing, compare, lint};
use fleetswap_trust::Digest;
use fleetswap_update::{Carry, Fault, Installed, Problem, Release, ReleaseId, StateVersions, is_one_way};

use super::{Tools, bench::Bench, fetch::apart, problem};
use crate::service::{Package, Service};

/// Says what the record must know of a release, if it may be loaded.
pub(super) async fn verify(
    tools: &Tools,
    service: &Service,
    bench: &Bench,
    release: &Release,
) -> Result<Installed, Problem> {
    let package = read(tools, release.id).await?;
    let (looked_at, rules) = (Arc::clone(&package), tools.rules);
    let elf = apart(move || lint(looked_at.image.bytes(), &rules)).await?;
    let elf = elf.map_err(|error| problem::lint(&error))?;
    says_one_thing(&elf.note, &package)?;
    needs_are_known(&package.descriptor)?;
    probes_are_safe(&package)?;
    let installed = installed(tools, &package);
    if let Some(live) = service.live() {
        tell_changes(&live.package.descriptor, &package.descriptor, (&live.installed, &installed));
    }
    bench.lock().package = Some(package);
    Ok(installed)
}

/// The release from disk, re-hashed.
pub(super) async fn read(tools: &Tools, id: ReleaseId) -> Result<Arc<Package>, Problem> {
    let shelf = tools.shelf.clone();
    apart(move || shelf.package(id)).await?.map(Arc::new)
}

/// Note, descriptor and manifest name the same plugin and version.
fn says_one_thing(note: &Note, package: &Package) -> Result<(), Problem> {
    let (manifest, descriptor) = (&package.manifest, &package.descriptor);
    let wanted = format!("{} {}", manifest.plugin, manifest.version);
    let note = ("note", format!("{} {}", note.name, note.version));
    let described = ("descriptor", format!("{} {}", descriptor.name, descriptor.version));
    for (part, got) in [note, described] {
        if got != wanted {
            let words = format!("the {part} of the library says {got}, the manifest {wanted}");
            let problem = Problem::new(Fault::Release, "RELEASE_INCONSISTENT", words);
            return Err(Problem { check: part.into(), got: got.into(), wanted: wanted.into(), ..problem });
        }
    }
    Ok(())
}

/// A newer agent may know the capability.
fn needs_are_known(descriptor: &Descriptor) -> Result<(), Problem> {
    let unknown = descriptor.unsupported_needs();
    unknown.map_or(Ok(()), |error| Err(Problem::new(Fault::Host, error.code(), error.to_string())))
}

/// A probe runs before the release is active, so it may only call what is marked as safe for that.
fn probes_are_safe(package: &Package) -> Result<(), Problem> {
    for probe in &package.manifest.probes {
        let function = package.descriptor.function(&probe.function);
        if !function.is_some_and(|function| function.probe_safe && !function.raw) {
            let words =
                format!("the probe calls {}, which is no JSON function marked probe_safe", probe.function);
            let problem = Problem::new(Fault::Release, "PROBE_UNSAFE", words);
            return Err(Problem { check: probe.to_string().into(), ..problem });
        }
    }
    Ok(())
}

fn installed(tools: &Tools, package: &Package) -> Installed {
    let state = &package.descriptor.state;
    Installed {
        release: package.release().clone(),
        state: StateVersions { writes: state.writes.clone(), reads: state.reads.clone() },
        background: package.descriptor.background,
        floor: package.manifest.floor.clone(),
        part: part(package, &tools.shelf.platform),
    }
}

/// A digest of what concerns this host: the manifest with all other platforms and the release's own name left out.
fn part(package: &Package, platform: &str) -> String {
    let mut own = package.manifest.clone();
    own.revision = 1;
    own.platforms.retain(|name, _| name == platform);
    Digest::of(&own.canonical()).to_string()
}

/// The comparison with what really runs here. It is told, not judged: push has judged it, and may have been
/// allowed to break something on purpose.
fn tell_changes(old: &Descriptor, new: &Descriptor, (from, to): (&Installed, &Installed)) {
    let diff = compare(old, new);
    let (plugin, release, running) = (&new.name, to.release.to_string(), from.release.to_string());
    let texts: Vec<&str> = diff.changes().iter().map(|change| change.text.as_str()).collect();
    match diff.verdict_under(&from.release.version, &to.release.version) {
        Standing::Acceptable => {
            tracing::info!(plugin, release, running, changes = ?texts, "the structure fits what runs");
        }
        Standing::RefusedBreaking => {
            tracing::warn!(plugin, release, running, changes = ?texts, "breaks callers under a compatible number");
        }
        Standing::BreakingUnderMajor => {
            tracing::warn!(plugin, release, running, changes = ?texts, "breaks callers, as its number says");
        }
    }
    if let Carry::Lost(words) = Carry::between(from, to) {
        tracing::warn!(plugin, release, running, "the state will be lost: {words}");
    } else if is_one_way(from, to) {
        tracing::warn!(plugin, release, running, "one-way: what it writes can't go back to what runs");
    }
}

#[cfg(test)]
mod tests;
