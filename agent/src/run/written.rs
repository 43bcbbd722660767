//! What is on disk of one plugin: its record, as far as this process can know.

use std::collections::BTreeSet;

use fleetswap_update::{Plugin, ReleaseId};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::durable::{DurableError, Record};

/// A record as it lies on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    /// [`Plugin::record_format`].
    pub(super) format: u32,
    /// The state.
    pub(super) plugin: Plugin,
}

/// The record of one plugin.
pub(super) struct Written {
    record: Record,
    /// What was saved last for certain.
    plugin: Plugin,
    /// What states need that were to be saved since. A start may find one of them: either copy may have been written.
    perhaps: BTreeSet<ReleaseId>,
}

impl Written {
    pub(super) const fn new(record: Record, plugin: Plugin) -> Self {
        Self { record, plugin, perhaps: BTreeSet::new() }
    }

    /// Whether this state has to be written yet.
    pub(super) fn lacks(&self, plugin: &Plugin) -> bool {
        plugin.must_be_saved(&self.plugin)
    }

    /// The releases that this state, or one that a start may find, needs on disk.
    pub(super) fn kept_with(&self, plugin: &Plugin) -> BTreeSet<ReleaseId> {
        plugin.kept().chain(self.plugin.kept()).chain(self.perhaps.iter().copied()).collect()
    }

    /// Saves a state, unless it is the one on disk.
    pub(super) async fn save(&mut self, next: &Plugin) -> Result<(), DurableError> {
        if !self.lacks(next) {
            return Ok(());
        }
        let (record, saved) =
            (self.record.clone(), Saved { format: next.record_format(), plugin: next.clone() });
        let written = spawn_blocking(move || record.save(&saved)).await;
        match written.unwrap_or_else(|cut| Err(DurableError::cut_short(cut))) {
            Ok(()) => {
                self.plugin = next.clone();
                self.perhaps.clear();
                Ok(())
            }
            Err(error) => {
                self.perhaps.extend(next.kept());
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        durable::StateDir,
        run::tests::{Host, commit},
        service::testing::Kind,
    };

    #[tokio::test]
    async fn what_a_start_may_find_is_kept_until_something_else_is_surely_written() {
        let host = Host::new();
        let [old, new] = ["1.0.0", "2.0.0"].map(|version| host.shelve(version, Kind::default()));
        let state = StateDir::open(host.dir.path()).unwrap();
        let record = state.records().of("counter");
        let before = commit(Plugin::new("counter".into()), 1, &old);
        let after = commit(before.clone(), 2, &new);
        let mut written = Written::new(record.clone(), Plugin::new("counter".into()));
        written.save(&before).await.unwrap();
        // A folder stands where the second copy is staged.
        let in_the_way = host.dir.path().join("records/counter.b.new");
        fs::create_dir(&in_the_way).unwrap();
        assert!(written.save(&after).await.is_err() && written.lacks(&after));
        let found: Saved = record.load().ok().flatten().unwrap_or(Saved { format: 1, plugin: after.clone() });
        assert_eq!(found.plugin, after, "a start finds what has not happened");
        assert_eq!(written.kept_with(&before), BTreeSet::from([old.release.id, new.release.id]));
        fs::remove_dir(&in_the_way).unwrap();
        let later = before.clone().step(fleetswap_update::Event {
            now: fleetswap_update::Time(9),
            fact: fleetswap_update::Fact::Started { boot_id: "boot-2".into(), clean_stop: true },
        });
        written.save(&later).await.unwrap();
        assert_eq!(written.kept_with(&later), BTreeSet::from([old.release.id]));
    }
}
