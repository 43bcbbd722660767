//! The state folder of a host stays bounded over many releases.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::eventually;
use serde_json::Value;

use crate::common::{PLUGIN, World, active};

/// Releases that are pushed one after the other.
const RELEASES: usize = 10;
/// Releases that stay: the active one, the one before, and two more.
const KEPT: usize = 4;

/// Names in a folder.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// The blobs that a release needs.
fn blobs_of(manifest: &Path) -> Result<Vec<String>> {
    let manifest: Value = serde_json::from_slice(&fs::read(manifest)?)?;
    let platforms = manifest["platforms"].as_object().context("platforms")?;
    let blobs = platforms.values().flat_map(|it| [&it["artifact"], &it["descriptor"]]);
    Ok(blobs.filter_map(|blob| blob["sha256"].as_str()).map(str::to_owned).collect())
}

#[test]
fn over_many_releases_a_host_keeps_the_last_few_and_nothing_else() -> Result<()> {
    let mut world = World::start(1)?;
    let state: PathBuf = world.fleet.agents[0].folder().join("state");
    let mut ids = vec![active(&world.fleet.agents[0])?.0];
    for stray in ["blobs/stray", "blobs/0000.part", "manifests/stray.new"] {
        fs::write(state.join(stray), "x")?;
    }
    for round in 0..RELEASES {
        let release = world.publish(&[])?;
        // A part that a fetch of something else has left.
        fs::write(state.join("blobs").join(format!("{}.part", crate::common::hex(&[round as u8]))), "part")?;
        let rollout = world.operator.push(PLUGIN, "host-1", &release.manifest, 0)?;
        world.operator.wait_for(&[rollout])?;
        ids.push(release.id);
        let kept: BTreeSet<String> = ids.iter().rev().take(KEPT).cloned().collect();
        eventually("only the last few are kept", || {
            ensure!(
                names(&state.join("manifests"))? == kept,
                "manifests: {:?}",
                names(&state.join("manifests"))?
            );
            let mut blobs = BTreeSet::new();
            for id in &kept {
                blobs.extend(blobs_of(&state.join("manifests").join(id))?);
            }
            ensure!(names(&state.join("blobs"))? == blobs, "blobs: {:?}", names(&state.join("blobs"))?);
            Ok(Some(()))
        })?;
    }
    Ok(())
}
