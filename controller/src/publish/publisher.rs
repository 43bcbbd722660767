//! The publisher: it lists a release in targets and snapshot, on top of what the server shows.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use fleetswap_trust::{
    Bundle, Manifest, Policy, Target, TrustError, Trusted, TrustedStore, Versions, update_for_signing,
};
use serde_json::{Value, json};
use tough::schema::{RoleType, Root, Snapshot, Targets};

use super::{
    PublishError,
    keys::SigningKey,
    metadata::{check_key, days, describe, make, read, sign},
    seen::{Seen, SignedVersions},
};

/// Name of the newest root in the publisher's folder.
pub(super) const ROOT_FILE: &str = "root.json";
/// Name of the root key.
pub(super) const ROOT_KEY: &str = "root.key";
/// Name of the targets key.
pub(super) const TARGETS_KEY: &str = "targets.key";
/// Name of the snapshot key.
pub(super) const SNAPSHOT_KEY: &str = "snapshot.key";
/// So many days are targets valid.
pub(super) const TARGETS_DAYS: u64 = 90;
/// So many days is a snapshot valid.
pub(super) const SNAPSHOT_DAYS: u64 = 30;
/// In a target's `custom`: the artifact of each platform, so that a version can be compared with what is published.
const ARTIFACTS: &str = "artifacts";

/// A publisher's folder: keys of targets and snapshot, and what was seen last. The root key is not read.
#[derive(Debug)]
pub(crate) struct Publisher {
    dir: PathBuf,
    seen: Seen,
}

/// What is to be uploaded; the server takes it only while its own versions are still `expected`.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) targets: Vec<u8>,
    pub(crate) snapshot: Vec<u8>,
    pub(crate) expected: Versions,
}

impl Publisher {
    /// Opens a publisher's folder that `init` made.
    pub(crate) fn open(dir: &Path) -> Result<Self, PublishError> {
        let publisher = Self { dir: dir.to_owned(), seen: Seen::in_dir(dir) };
        publisher.key(TARGETS_KEY)?;
        publisher.key(SNAPSHOT_KEY)?;
        publisher.seen.load().map_err(TrustError::from)?;
        Ok(publisher)
    }

    /// Versions that were seen last: what the server need not show again.
    pub(crate) fn versions(&self) -> Result<Versions, PublishError> {
        Ok(fleetswap_trust::trusted(&self.seen)?.versions())
    }

    /// Verifies what the server shows and remembers it.
    pub(crate) async fn look(&self, current: &Bundle, now: SystemTime) -> Result<Trusted, PublishError> {
        // The mark of a root for development is for hosts to refuse; its publisher made it himself.
        Ok(update_for_signing(&self.seen, current, now, Policy { allow_dev: true }).await?)
    }

    /// Signs targets and snapshot that also list the manifest; `None` if they list it already.
    ///
    /// Refuses other bytes under a published version and platform (`VERSION_PUBLISHED`) or revision
    /// (`REVISION_PUBLISHED`), and metadata older than what this publisher has seen (`TRUST_ROLLBACK`).
    pub(crate) async fn add_release(
        &self,
        current: &Bundle,
        manifest: &Manifest,
        now: SystemTime,
    ) -> Result<Option<Signed>, PublishError> {
        manifest.check()?;
        let _lock = self.seen.lock()?;
        let trusted = self.look(current, now).await?;
        let stored = self.seen.load().map_err(TrustError::from)?;
        let mut targets: Targets = read(stored.targets().unwrap_or_default())?;
        if is_listed(&trusted, manifest)? {
            return Ok(None);
        }
        refuse_other_artifacts(&targets, manifest)?;
        list(&mut targets, manifest)?;
        let root: Root = read(stored.root())?;
        self.sign(targets, (&root, trusted.versions()), now).map(Some)
    }

    fn sign(
        &self,
        targets: Targets,
        (root, current): (&Root, Versions),
        now: SystemTime,
    ) -> Result<Signed, PublishError> {
        let (targets_key, snapshot_key) = (self.key(TARGETS_KEY)?, self.key(SNAPSHOT_KEY)?);
        check_key(root, RoleType::Targets, &targets_key)?;
        check_key(root, RoleType::Snapshot, &snapshot_key)?;
        let next = self.next_versions(current)?;
        let fields = json!({ "targets": targets.targets });
        let targets: Targets = make(next.targets, now + days(TARGETS_DAYS), fields)?;
        let version = targets.version;
        let targets = sign(targets, &targets_key)?;
        let meta = json!({ "meta": { "targets.json": describe(&targets, version) } });
        let snapshot: Snapshot = make(next.snapshot, now + days(SNAPSHOT_DAYS), meta)?;
        Ok(Signed { targets, snapshot: sign(snapshot, &snapshot_key)?, expected: current })
    }

    /// Takes the next versions, durably, before anything is signed with them.
    fn next_versions(&self, current: Versions) -> Result<SignedVersions, PublishError> {
        let signed = self.seen.signed()?;
        let next = SignedVersions {
            targets: current.targets.max(signed.targets).saturating_add(1),
            snapshot: current.snapshot.max(signed.snapshot).saturating_add(1),
        };
        self.seen.save_signed(next)?;
        Ok(next)
    }

    fn key(&self, name: &str) -> Result<SigningKey, PublishError> {
        SigningKey::read(&self.dir.join(name))
    }
}

/// Whether exactly this manifest is listed; other content under its name is an error.
fn is_listed(trusted: &Trusted, manifest: &Manifest) -> Result<bool, PublishError> {
    let blob = manifest.blob();
    match trusted.release(&manifest.target_name()) {
        None => Ok(false),
        Some(Target { sha256, length, .. }) if sha256 == blob.sha256 && length == blob.length => Ok(true),
        Some(_) => Err(PublishError::RevisionPublished {
            plugin: manifest.plugin.clone(),
            version: manifest.version.clone(),
            revision: manifest.revision,
        }),
    }
}

/// The artifact of a plugin, version and platform never changes, whatever the revision.
fn refuse_other_artifacts(targets: &Targets, manifest: &Manifest) -> Result<(), PublishError> {
    let of_this_version = |name: &str| {
        let revision = name
            .strip_prefix(&format!("{}-{}-r", manifest.plugin, manifest.version))
            .and_then(|rest| rest.strip_suffix(".json"));
        revision.is_some_and(|revision| revision.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let published = targets.targets.iter().filter(|(name, _)| of_this_version(name.raw()));
    for artifacts in published.filter_map(|(_, target)| target.custom.get(ARTIFACTS)) {
        for (platform, offered) in &manifest.platforms {
            let known = artifacts.get(platform).and_then(Value::as_str);
            if known.is_some_and(|known| known != offered.artifact.sha256.to_string()) {
                return Err(PublishError::VersionPublished {
                    plugin: manifest.plugin.clone(),
                    version: manifest.version.clone(),
                    platform: platform.clone(),
                });
            }
        }
    }
    Ok(())
}

fn list(targets: &mut Targets, manifest: &Manifest) -> Result<(), PublishError> {
    let artifacts: Value = manifest
        .platforms
        .iter()
        .map(|(name, platform)| (name.clone(), json!(platform.artifact.sha256)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let blob = manifest.blob();
    let target = json!({
        "length": blob.length,
        "hashes": { "sha256": blob.sha256 },
        "custom": { "withdrawn": false, ARTIFACTS: artifacts },
    });
    let target = serde_json::from_value(target).map_err(|cause| PublishError::Sign(cause.to_string()))?;
    let name = manifest
        .target_name()
        .try_into()
        .map_err(|cause: tough::error::Error| PublishError::Sign(cause.to_string()))?;
    targets.targets.insert(name, target);
    Ok(())
}
