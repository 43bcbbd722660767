//! The writer thread: takes every change that waits, writes them in one transaction, and answers after its commit.

use std::{io, sync::Arc, thread};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::write;
use crate::store::{Change, StoreError};

/// Changes that may wait; a further one waits outside.
const QUEUE_MAX: usize = 1024;

/// Changes in one transaction.
const GROUP_MAX: usize = 256;

/// A change, and who waits for it.
pub(super) struct Job {
    pub(super) change: Change,
    pub(super) done: oneshot::Sender<Result<(), StoreError>>,
}

/// Starts the thread; it ends, and closes the database, when the last sender is dropped.
pub(super) fn start(connection: Connection) -> Result<mpsc::Sender<Job>, StoreError> {
    let (jobs, queue) = mpsc::channel(QUEUE_MAX);
    thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || run(&connection, queue))
        .map_err(|error: io::Error| StoreError::Thread(Arc::new(error)))?;
    Ok(jobs)
}

fn run(db: &Connection, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(job) = queue.try_recv()
        {
            group.push(job);
        }
        let changes: Vec<&Change> = group.iter().map(|job| &job.change).collect();
        let verdicts = commit(db, &changes);
        for (job, verdict) in group.into_iter().zip(verdicts) {
            // Whoever no longer waits has been told nothing, which is allowed: the change is in the store or not.
            let _ = job.done.send(verdict);
        }
    }
}

/// Writes a group; a change that is refused takes nothing of the others with it.
pub(super) fn commit(db: &Connection, changes: &[&Change]) -> Vec<Result<(), StoreError>> {
    match attempt(db, changes) {
        Ok(verdicts) => verdicts,
        Err(error) => {
            if !db.is_autocommit() {
                // When even this fails, the next BEGIN does too, and says so to its callers.
                let _ = db.execute_batch("ROLLBACK");
            }
            changes.iter().map(|_| Err(error.clone())).collect()
        }
    }
}

fn attempt(db: &Connection, changes: &[&Change]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    let mut verdicts = Vec::with_capacity(changes.len());
    for change in changes {
        db.execute_batch("SAVEPOINT one")?;
        let verdict = write::change(db, change);
        if let Err(error) = &verdict {
            // On a full disk and the like SQLite ends the whole transaction by itself.
            if db.is_autocommit() {
                return Err(error.clone());
            }
            db.execute_batch("ROLLBACK TO one")?;
        }
        db.execute_batch("RELEASE one")?;
        verdicts.push(verdict);
    }
    db.execute_batch("COMMIT")?;
    Ok(verdicts)
}
