//! Followers: who gets each line as it comes, and how many lines one that is too slow has lost.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    broadcast::{self, error::RecvError},
};

use super::{Kept, Line};

/// Most followers at a time.
pub(crate) const FOLLOWERS_MAX: usize = 32;
/// Lines that wait for a follower; one that is further behind loses the oldest.
const WAITING_MAX: usize = 256;

/// There are [`FOLLOWERS_MAX`] already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// All who follow.
#[derive(Debug)]
pub(super) struct Followers {
    places: Arc<Semaphore>,
    channels: BTreeMap<String, broadcast::Sender<Arc<Kept>>>,
}

impl Default for Followers {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(FOLLOWERS_MAX)), channels: BTreeMap::new() }
    }
}

impl Followers {
    pub(super) fn add(&mut self, plugin: &str, past: Vec<Arc<Kept>>) -> Result<Follower, TooMany> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| TooMany)?;
        // Those that nobody follows any more: so there are never more channels than places, and one.
        self.channels.retain(|_, channel| channel.receiver_count() > 0);
        let channel = self.channels.entry(plugin.to_owned());
        let lines = channel.or_insert_with(|| broadcast::channel(WAITING_MAX).0).subscribe();
        Ok(Follower { past: past.into(), lines, _place: place })
    }

    pub(super) fn tell(&self, plugin: &str, line: &Arc<Kept>) {
        if let Some(channel) = self.channels.get(plugin) {
            // Without a receiver nobody follows any more.
            let _ = channel.send(Arc::clone(line));
        }
    }

    #[cfg(test)]
    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }
}

/// One who follows a plugin. Its place is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    past: VecDeque<Arc<Kept>>,
    lines: broadcast::Receiver<Arc<Kept>>,
    _place: OwnedSemaphorePermit,
}

/// What a follower gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// The next line.
    Line(Line),
    /// So many lines did not wait for it.
    Lost(u64),
}

impl Follower {
    /// Waits for what comes next. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Followed> {
        if let Some(line) = self.past.pop_front() {
            return Some(Followed::Line(line.shown()));
        }
        match self.lines.recv().await {
            Ok(line) => Some(Followed::Line(line.shown())),
            Err(RecvError::Lagged(count)) => Some(Followed::Lost(count)),
            Err(RecvError::Closed) => None,
        }
    }
}
