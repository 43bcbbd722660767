//! Which files stay: those of every release that runs, ran before it, or is on its way, and of a few more. The rest is
//! removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use fleetswap_trust::Digest;
use fleetswap_update::ReleaseId;
use tokio::task::spawn_blocking;

use crate::service::Shelf;

/// So many more whole releases stay for each plugin that has any, the newest on this disk: an operator who goes back
/// further than one release needs no download.
const MORE_RELEASES: usize = 2;

/// The releases that each plugin keeps.
#[derive(Clone)]
pub(crate) struct Files {
    shelf: Shelf,
    kept: Arc<Mutex<BTreeMap<String, BTreeSet<ReleaseId>>>>,
}

impl Files {
    pub(super) fn new(shelf: Shelf) -> Self {
        Self { shelf, kept: Arc::default() }
    }

    /// What a plugin keeps from now on.
    pub(super) fn keep(&self, plugin: &str, releases: BTreeSet<ReleaseId>) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(plugin.to_owned(), releases);
    }

    /// Removes what nobody keeps. Only for the holder of the trial slot: nothing is fetched meanwhile.
    pub(super) async fn tidy(&self) {
        let files = self.clone();
        if let Err(error) = spawn_blocking(move || files.remove_others()).await {
            tracing::error!(%error, "tidying the state folder was cut short");
        }
    }

    fn remove_others(&self) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut releases: BTreeSet<ReleaseId> = kept.values().flatten().copied().collect();
        releases.extend(self.more(&kept, &releases));
        let blobs = releases.iter().flat_map(|id| self.shelf.files_of(*id)).collect();
        let manifests = releases.iter().map(|id| Digest::from(*id.bytes())).collect();
        let removed =
            self.shelf.blobs.keep_only(&blobs).and_then(|()| self.shelf.manifests.keep_only(&manifests));
        if let Err(error) = removed {
            tracing::warn!(code = error.code(), %error, "old releases could not be removed from disk");
        }
    }

    /// Those that stay although nobody needs them now.
    fn more(
        &self,
        kept: &BTreeMap<String, BTreeSet<ReleaseId>>,
        needed: &BTreeSet<ReleaseId>,
    ) -> BTreeSet<ReleaseId> {
        // What can't be listed is not kept: the disk stays bounded.
        let on_disk = self.shelf.manifests.newest_first().unwrap_or_default();
        let mut more: BTreeMap<String, BTreeSet<ReleaseId>> = BTreeMap::new();
        for id in on_disk.into_iter().map(|digest| ReleaseId::new(digest.bytes())) {
            let Ok(manifest) = self.shelf.manifest(id) else { continue };
            let is_here = kept.get(&manifest.plugin).is_some_and(|releases| !releases.is_empty());
            let of_plugin = more.entry(manifest.plugin).or_default();
            if is_here && of_plugin.len() < MORE_RELEASES && !needed.contains(&id) && self.shelf.holds(id) {
                of_plugin.insert(id);
            }
        }
        more.into_values().flatten().collect()
    }
}
