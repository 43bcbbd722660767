//! The store in one SQLite file: a writer thread that commits in groups, and a connection for reading.

mod open;
mod read;
mod write;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

#[cfg(test)]
use super::EventRow;
use super::{
    Change, ReleaseHead, ReleaseRow, RequestRow, RolloutHostRow, RolloutPage, RolloutRow, Snapshot, Store,
    StoreError,
};
use writer::Job;

/// The store on SQLite. Changes that wait at the same time share one transaction, and so one sync of the disk.
pub(crate) struct Sqlite {
    jobs: mpsc::Sender<Job>,
    reader: Arc<Mutex<Connection>>,
}

impl Sqlite {
    /// Opens the database at `path`, makes it if it isn't there, and brings its schema up to date. One that a newer
    /// controller wrote is [`StoreError::TooNew`] and keeps its bytes. The caller holds the data folder's lock.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = open::open(path)?;
        let reader = open::reader(path)?;
        Ok(Self { jobs: writer::start(connection)?, reader: Arc::new(Mutex::new(reader)) })
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = Arc::clone(&self.reader);
        let answer = tokio::task::spawn_blocking(move || {
            // A panic in another query leaves the connection usable: it only reads.
            query(&reader.lock().unwrap_or_else(PoisonError::into_inner))
        });
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.read(read::snapshot).await
    }

    async fn commit(&self, change: Change) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.jobs.send(Job { change, done }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn rollout(&self, id: u64) -> Result<Option<(RolloutRow, Vec<RolloutHostRow>)>, StoreError> {
        self.read(move |db| read::rollout(db, id)).await
    }

    async fn rollouts(&self, page: RolloutPage) -> Result<Vec<RolloutRow>, StoreError> {
        self.read(move |db| read::rollouts(db, &page)).await
    }

    async fn release(&self, release_id: &str) -> Result<Option<ReleaseRow>, StoreError> {
        let release_id = release_id.to_owned();
        self.read(move |db| read::release(db, &release_id)).await
    }

    async fn releases_of(
        &self,
        plugin: &str,
        version: &str,
        limit: u32,
    ) -> Result<Vec<ReleaseRow>, StoreError> {
        let key = (plugin.to_owned(), version.to_owned());
        self.read(move |db| read::releases_of(db, (&key.0, &key.1), limit)).await
    }

    async fn releases(&self, limit: u32) -> Result<Vec<ReleaseHead>, StoreError> {
        self.read(move |db| read::releases(db, limit)).await
    }

    async fn request(&self, request_id: &str) -> Result<Option<RequestRow>, StoreError> {
        let request_id = request_id.to_owned();
        self.read(move |db| read::request(db, &request_id)).await
    }

    #[cfg(test)]
    async fn events(&self, limit: u32) -> Result<Vec<EventRow>, StoreError> {
        self.read(move |db| read::events(db, limit)).await
    }
}
