//! The file that holds the first part of a blob until it is complete.
//!
//! All work on the disk is done away from the threads that serve callers.

use std::{mem, sync::Arc};

use bytes::Bytes;
use fleetswap_trust::Digest;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::spawn_blocking,
};

use crate::durable::{Contents, DurableError, Part};

/// So many bytes that came are written at the latest; fewer whenever the source makes us wait.
const PENDING_MAX: u64 = 1024 * 1024;
/// So many chunks at the latest: a source may send tiny ones, or empty ones.
const CHUNKS_MAX: usize = 256;

/// The blobs on disk, for one fetch at a time: two would write to one partial file. A fetch that is given up keeps its
/// turn until what it began to write is written.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    blobs: Contents,
    _turn: Arc<OwnedMutexGuard<()>>,
}

impl Disk {
    /// Waits for the turn.
    pub(super) async fn take(blobs: &Contents, turns: &Arc<Mutex<()>>) -> Self {
        let turn = Arc::clone(turns).lock_owned().await;
        Self { blobs: blobs.clone(), _turn: Arc::new(turn) }
    }

    /// Does work that blocks.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Contents) -> Result<T, DurableError> + Send + 'static,
    ) -> Result<T, DurableError> {
        let disk = self.clone();
        let work = move || {
            // The whole of it, so that the turn lasts as long as the work.
            let disk = disk;
            work(&disk.blobs)
        };
        let done = spawn_blocking(work).await;
        done.unwrap_or_else(|cut| Err(DurableError::cut_short(cut)))
    }
}

/// An open `.part` file. What is added lies in memory until it is flushed.
#[derive(Debug)]
pub(super) struct Partial {
    disk: Disk,
    file: Arc<Part>,
    written: u64,
    pending: Vec<Bytes>,
    pending_bytes: u64,
}

impl Partial {
    /// Opens what an earlier try left, or an empty file. One that is longer than the blob starts anew.
    pub(super) async fn open(disk: &Disk, sha256: Digest, whole: u64) -> Result<Self, DurableError> {
        let (part, written) = disk.run(move |blobs| blobs.open_part(sha256)).await?;
        let (disk, file) = (disk.clone(), Arc::new(part));
        let mut partial = Self { disk, file, written, pending: Vec::new(), pending_bytes: 0 };
        if written > whole {
            partial.cut(0).await?;
        }
        Ok(partial)
    }

    /// How many bytes there are, flushed or not.
    pub(super) fn length(&self) -> u64 {
        self.written + self.pending_bytes
    }

    /// Keeps only the first `length` bytes; a longer `length` changes nothing.
    pub(super) async fn cut(&mut self, length: u64) -> Result<(), DurableError> {
        self.flush().await?;
        if length >= self.written {
            return Ok(());
        }
        self.change(move |file| file.cut(length)).await?;
        self.written = length;
        Ok(())
    }

    /// Adds bytes at the end.
    pub(super) fn add(&mut self, bytes: Bytes) {
        self.pending_bytes += bytes.len() as u64;
        self.pending.push(bytes);
    }

    /// Whether more should be added only after a flush.
    pub(super) fn is_full(&self) -> bool {
        self.pending_bytes >= PENDING_MAX || self.pending.len() >= CHUNKS_MAX
    }

    /// Writes what was added, so that the next try can go on behind it.
    pub(super) async fn flush(&mut self) -> Result<(), DurableError> {
        let (chunks, mut at) = (mem::take(&mut self.pending), self.written);
        if chunks.is_empty() {
            return Ok(());
        }
        let written = self.change(move |file| {
            for chunk in chunks {
                file.write_at(&chunk, at)?;
                at += chunk.len() as u64;
            }
            Ok(())
        });
        written.await?;
        self.written += mem::take(&mut self.pending_bytes);
        Ok(())
    }

    async fn change(
        &self,
        change: impl FnOnce(&Part) -> Result<(), DurableError> + Send + 'static,
    ) -> Result<(), DurableError> {
        let file = Arc::clone(&self.file);
        self.disk.run(move |_| change(&file)).await
    }
}
