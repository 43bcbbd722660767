//! The store: what the controller must not forget, behind a trait of few, whole operations.
//!
//! Rows are transitions, never heartbeats. The only writer is [`Store::commit`]: one change, all of it or nothing,
//! durable when the call returns. What is sent to a host or acknowledged to anyone is committed before.

#[cfg(test)]
pub(crate) mod contract;
mod model;
mod sqlite;

pub(crate) use model::{
    AssignmentRow, Change, DesiredRow, EventRow, Generation, HostFacts, HostRow, ReleaseHead, ReleaseRow,
    ReportKey, ReportedRow, RequestRow, RolloutHostRow, RolloutPage, RolloutRow, Seen, Snapshot,
};
pub(crate) use sqlite::Sqlite;

use std::{io, path::PathBuf, sync::Arc};

use async_trait::async_trait;

/// The whole of what the controller keeps in a database. One contract test suite holds for every implementation.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// Everything that is live: hosts, assignments, unfinished rollouts, heads of releases. One consistent view.
    async fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Writes one change atomically; durable when this returns. A stale `version`, a taken key or a lowered
    /// generation is a [`StoreError::Conflict`], and then nothing of the change is written.
    async fn commit(&self, change: Change) -> Result<(), StoreError>;

    /// One rollout with its hosts, ended or not.
    async fn rollout(&self, id: u64) -> Result<Option<(RolloutRow, Vec<RolloutHostRow>)>, StoreError>;

    /// Rollouts, newest first, at most `page.limit`.
    async fn rollouts(&self, page: RolloutPage) -> Result<Vec<RolloutRow>, StoreError>;

    /// One release with its manifest's bytes, by release id (64 hex digits).
    async fn release(&self, release_id: &str) -> Result<Option<ReleaseRow>, StoreError>;

    /// Releases of a plugin and version, highest revision first, at most `limit`.
    async fn releases_of(
        &self,
        plugin: &str,
        version: &str,
        limit: u32,
    ) -> Result<Vec<ReleaseRow>, StoreError>;

    /// The releases that were published last, newest first, at most `limit`.
    async fn releases(&self, limit: u32) -> Result<Vec<ReleaseHead>, StoreError>;

    /// What an earlier request of this id was answered.
    async fn request(&self, request_id: &str) -> Result<Option<RequestRow>, StoreError>;

    /// The newest events, newest first, at most `limit`. Until something shows them, people read the table.
    #[cfg(test)]
    async fn events(&self, limit: u32) -> Result<Vec<EventRow>, StoreError>;
}

/// How people see a rollout's number, e.g. `r-000007`.
pub(crate) fn rollout_name(id: u64) -> String {
    format!("r-{id:06}")
}

/// The number in a rollout's name; `None` if it isn't one.
pub(crate) fn rollout_id(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("r-")?;
    let id = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    (rollout_name(id) == name).then_some(id)
}

/// Why the store did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Someone else changed the row, or the key is taken.
    #[error("{row} is no longer as it was read")]
    Conflict {
        /// What differs, e.g. `rollout r-000007`.
        row: String,
    },
    /// The database was written by a newer controller; it was left untouched.
    #[error("{} has schema {found}; this controller knows up to {known}", path.display())]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// A value has no place in the store.
    #[error("a value can't be stored: {0}")]
    Unfit(String),
    /// No room left on the disk.
    #[error("no room is left on the disk for the store")]
    DiskFull,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// The database refused, or holds what can't be read.
    #[error("the database failed")]
    Database(#[source] Arc<rusqlite::Error>),
    /// The schema could not be brought up to date.
    #[error("the schema could not be brought up to date")]
    Migration(#[source] Arc<refinery::Error>),
    /// The system gave no thread for writing.
    #[error("the store's thread could not be started")]
    Thread(#[source] Arc<io::Error>),
}

impl StoreError {
    /// Stable code with a page in `docs/errors/`.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "STORE_CONFLICT",
            Self::TooNew { .. } => "STORE_TOO_NEW",
            Self::DiskFull => "DISK_FULL",
            Self::Unfit(_) | Self::Closed | Self::Database(_) | Self::Migration(_) | Self::Thread(_) => {
                "STORE_FAILED"
            }
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            _ => Self::Database(Arc::new(error)),
        }
    }
}

impl From<refinery::Error> for StoreError {
    fn from(error: refinery::Error) -> Self {
        Self::Migration(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollouts_name_and_number_are_the_same_thing() {
        assert_eq!(rollout_name(7), "r-000007");
        assert_eq!(rollout_id("r-000007"), Some(7));
        assert_eq!(rollout_id("r-1234567"), Some(1_234_567));
        for wrong in ["", "r-", "r-7", "r-+00007", "000007", "r-0000007", "r-99999999999999999999999"] {
            assert_eq!(rollout_id(wrong), None, "{wrong}");
        }
    }
}
