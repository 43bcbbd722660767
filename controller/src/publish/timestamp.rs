//! The server's own signature: which snapshot is current, for a day.
//!
//! This file knows the timestamp key and nothing of a publisher. Whoever steals the key can keep hosts from updates
//! for as long as the snapshot is valid, and can't ship code.

use std::{
    num::NonZeroU64,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use tough::schema::{Role, RoleType, Root, Snapshot, Timestamp};

use super::{
    PublishError,
    keys::SigningKey,
    metadata::{check_key, describe, make, read, sign},
};

/// Name of the key in the data folder.
pub(super) const KEY_FILE: &str = "timestamp.key";
/// So long is a timestamp valid.
pub(crate) const VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// So often `serve` signs anew.
pub(crate) const RENEWAL: Duration = Duration::from_secs(3600);

/// Signs timestamps with the key of the data folder.
#[derive(Debug)]
pub(crate) struct Timestamper {
    key: SigningKey,
}

impl Timestamper {
    /// Reads the key of the data folder.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, PublishError> {
        Ok(Self { key: SigningKey::read(&data_dir.join(KEY_FILE))? })
    }

    /// Refuses to work for a root that doesn't name this key; `root` is the current root as it was signed.
    pub(crate) fn check(&self, root: &[u8]) -> Result<(), PublishError> {
        check_key(&read::<Root>(root)?, RoleType::Timestamp, &self.key)
    }

    /// Signs that `snapshot` is current. The version is greater than `stored_version`, and after a lost store still
    /// greater than what hosts have seen, because it is at least the time in seconds.
    pub(crate) fn sign(
        &self,
        snapshot: &[u8],
        stored_version: u64,
        now: SystemTime,
    ) -> Result<Vec<u8>, PublishError> {
        let version: NonZeroU64 = read::<Snapshot>(snapshot)?.version();
        let meta = json!({ "meta": { "snapshot.json": describe(snapshot, version) } });
        let timestamp = make::<Timestamp>(next_version(stored_version, now), now + VALIDITY, meta)?;
        sign(timestamp, &self.key)
    }
}

fn next_version(stored: u64, now: SystemTime) -> u64 {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    stored.saturating_add(1).max(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_version_grows_even_if_the_clock_or_the_store_goes_back() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_500_000);
        assert_eq!(next_version(0, now), 1_795_500_000);
        assert_eq!(next_version(1_795_500_000, now), 1_795_500_001);
        assert_eq!(next_version(7, UNIX_EPOCH), 8);
    }
}
