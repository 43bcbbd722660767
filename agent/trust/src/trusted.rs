//! What a host may install: the releases that the accepted targets list.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use semver::Version;
use tough::schema::{self, Targets};

use crate::{
    Digest, Role, TrustError, TrustedStore, files, manifest::is_target_name, root, state::State,
    stored::Versions,
};

/// The field of a target that takes a release back.
const WITHDRAWN: &str = "withdrawn";

/// What was accepted: versions, and the manifests that may be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    versions: Versions,
    dev: bool,
    /// End of the root's validity, in seconds since 1970.
    root_end: u64,
    targets: BTreeMap<String, Target>,
    ignored: usize,
}

/// A listed manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// SHA-256 of the manifest: the release id.
    pub sha256: Digest,
    /// Length of the manifest, in bytes.
    pub length: u64,
    /// The publisher took it back: it isn't installed any more.
    pub withdrawn: bool,
}

/// What was accepted before, without asking whether it is still fresh. It may name what is not to be installed any
/// more, so use it only for what runs already and for the way back.
pub fn trusted(store: &dyn TrustedStore) -> Result<Trusted, TrustError> {
    Ok(Trusted::of(&State::read(store.load()?)?))
}

impl Trusted {
    pub(crate) fn of(state: &State) -> Self {
        let targets: BTreeMap<_, _> =
            state.targets.iter().flat_map(|targets| listed(&targets.signed)).collect();
        let signed = state.targets.as_ref().map_or(0, |targets| targets.signed.targets.len());
        let ignored = signed.saturating_sub(targets.len());
        let root = &state.root.signed;
        Self {
            versions: state.versions,
            dev: root::is_dev(root),
            root_end: files::end(root),
            targets,
            ignored,
        }
    }

    /// Versions of the four roles.
    #[must_use]
    pub const fn versions(&self) -> Versions {
        self.versions
    }

    /// Whether the root is one for development, made by `controller init --dev`.
    #[must_use]
    pub const fn is_dev(&self) -> bool {
        self.dev
    }

    /// Why nothing is installed until a newer root came, where the root's time is over by `now`. What runs goes on.
    #[must_use]
    pub fn root_expired(&self, now: SystemTime) -> Option<TrustError> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let ago = now.checked_sub(self.root_end).filter(|ago| *ago > 0)?;
        Some(TrustError::Expired { role: Role::Root, ago: Duration::from_secs(ago) })
    }

    /// The manifest that is listed under this exact name.
    #[must_use]
    pub fn release(&self, target_name: &str) -> Option<Target> {
        self.targets.get(target_name).copied()
    }

    /// The highest revision of a version that is listed, and its manifest.
    #[must_use]
    pub fn latest_revision(&self, plugin: &str, version: &Version) -> Option<(u64, Target)> {
        let prefix = format!("{plugin}-{version}-r");
        let revision = |name: &str| name.strip_prefix(&prefix)?.strip_suffix(".json")?.parse::<u64>().ok();
        self.targets()
            .filter_map(|(name, target)| Some((revision(name)?, target)))
            .max_by_key(|(revision, _)| *revision)
    }

    /// Count of signed targets that no host can install, since no release has such a name or such a hash.
    #[must_use]
    pub const fn ignored(&self) -> usize {
        self.ignored
    }

    /// All manifests by name, in order.
    pub fn targets(&self) -> impl Iterator<Item = (&str, Target)> {
        self.targets.iter().map(|(name, target)| (name.as_str(), *target))
    }
}

/// Manifests that the targets role itself lists; what it delegates, and names that no release has, count for nothing.
fn listed(targets: &Targets) -> impl Iterator<Item = (String, Target)> {
    targets
        .targets
        .iter()
        .filter(|(name, _)| is_target_name(name.raw()))
        .filter_map(|(name, target)| Some((name.raw().to_owned(), read(target)?)))
}

/// A target whose hash is no SHA-256 isn't listed. Any value of `withdrawn` but `false` withdraws.
fn read(target: &schema::Target) -> Option<Target> {
    let withdrawn = target.custom.get(WITHDRAWN).is_some_and(|value| value != false);
    let sha256 = Digest::try_from(&target.hashes.sha256[..]).ok()?;
    Some(Target { sha256, length: target.length, withdrawn })
}
