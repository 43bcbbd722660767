//! The plugins' log lines: the last of each plugin are kept for `agent logs`, and followers get each one as it comes; the
//! agent's own log has them at level debug.
//!
//! How fast a worker may write is bounded in `fleetswap_host`; here it is how much is kept, for whom, and how often.

mod follow;
mod rings;
mod setup;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use fleetswap_host::{LogLine, LogSink, LogSource};
use fleetswap_update::{Plugin, Release, ReleaseId};
use serde::{Deserialize, Serialize};

pub(crate) use follow::{FOLLOWERS_MAX, Followed, Follower, TooMany};
pub(crate) use rings::LINES_MAX;
pub(crate) use setup::set_up;

use follow::Followers;
use rings::Rings;

/// Releases of one plugin whose rollout is remembered.
const ORIGINS_MAX: usize = 8;
/// Plugins of which that is remembered.
const KNOWN_MAX: usize = 1_024;

/// One line as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// When it came, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// The plugin's name.
    pub(crate) plugin: String,
    /// Id of the release that wrote it.
    pub(crate) release: String,
    /// Version of that release; empty if it is not known any more.
    pub(crate) version: String,
    /// The rollout that brought the release, or under which it was on trial; empty if it is not known.
    pub(crate) rollout: String,
    /// `plugin`: through its log function; `output`: printed; `host`: about the worker, or the log itself.
    pub(crate) source: String,
    /// `error`, `warn`, `info` or `debug`.
    pub(crate) level: String,
    /// The text.
    pub(crate) text: String,
}

/// Who wrote a line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    plugin: String,
    id: ReleaseId,
    version: String,
    rollout: String,
}

/// One line as it is kept.
#[derive(Debug)]
struct Kept {
    unix_ms: u64,
    origin: Arc<Origin>,
    source: LogSource,
    text: String,
}

/// The lines of all plugins. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logs(Arc<Mutex<Books>>);

#[derive(Debug, Default)]
struct Books {
    rings: Rings,
    followers: Followers,
    /// By plugin, the newest last.
    origins: BTreeMap<String, Vec<Arc<Origin>>>,
}

impl Logs {
    /// A sink for one worker.
    pub(crate) fn sink(&self, release: &Release) -> LogSink {
        let (logs, origin) = (self.clone(), self.lock().origin(release));
        LogSink::to(move |line| logs.keep(&origin, line))
    }

    /// Remembers which rollouts a plugin's releases came with.
    pub(crate) fn learn(&self, plugin: &Plugin) {
        let serving = plugin.service().serving().map(|serving| &serving.offer);
        let trial = plugin.trial().map(|trial| &trial.offer);
        let mut books = self.lock();
        for offer in [serving, trial].into_iter().flatten() {
            if let Some(release) = offer.target.release() {
                books.learn(release, &offer.rollout);
            }
        }
    }

    /// A line about a release in the agent's words.
    pub(crate) fn note(&self, plugin: &str, id: ReleaseId, text: String) {
        let unknown =
            || Origin { plugin: plugin.to_owned(), id, version: String::new(), rollout: String::new() };
        let known = self.lock().known(plugin, id);
        self.keep(&known.unwrap_or_else(|| unknown().into()), LogLine { source: LogSource::Host, text });
    }

    /// The last `count` lines of a plugin, oldest first; `None` if none ever came.
    pub(crate) fn last(&self, plugin: &str, count: usize) -> Option<Vec<Line>> {
        let kept = self.lock().rings.last(plugin, count)?;
        Some(kept.iter().map(|line| line.shown()).collect())
    }

    /// The last `count` lines of a plugin, and each one that comes. It may be one that is not there yet.
    ///
    /// # Errors
    /// There are as many followers as there may be.
    pub(crate) fn follow(&self, plugin: &str, count: usize) -> Result<Follower, TooMany> {
        let mut books = self.lock();
        let past = books.rings.last(plugin, count).unwrap_or_default();
        books.followers.add(plugin, past)
    }

    fn keep(&self, origin: &Arc<Origin>, line: LogLine) {
        let (source, level) = words(line.source);
        let Origin { plugin, version, rollout, id: release } = &**origin;
        tracing::debug!(plugin, version, %release, rollout, source, level, "{}", line.text);
        let line = Arc::new(Kept {
            unix_ms: now_ms(),
            origin: Arc::clone(origin),
            source: line.source,
            text: line.text,
        });
        let mut books = self.lock();
        books.followers.tell(plugin, &line);
        books.rings.push(plugin, line);
    }

    /// A panic while the lock is held would be a bug of the standard collections; they are used on.
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn known(&self, plugin: &str, id: ReleaseId) -> Option<Arc<Origin>> {
        self.origins.get(plugin)?.iter().find(|origin| origin.id == id).cloned()
    }

    fn origin(&self, release: &Release) -> Arc<Origin> {
        self.known(&release.plugin, release.id).unwrap_or_else(|| Arc::new(Origin::of(release, "")))
    }

    /// A steady state has no rollout: the one that brought the release stays.
    fn learn(&mut self, release: &Release, rollout: &str) {
        let known = self.known(&release.plugin, release.id);
        if known.is_some_and(|known| rollout.is_empty() || known.rollout == rollout) {
            return;
        }
        if self.origins.len() >= KNOWN_MAX && !self.origins.contains_key(&release.plugin) {
            return;
        }
        let origins = self.origins.entry(release.plugin.clone()).or_default();
        origins.retain(|origin| origin.id != release.id);
        if origins.len() >= ORIGINS_MAX {
            origins.remove(0);
        }
        origins.push(Arc::new(Origin::of(release, rollout)));
    }
}

impl Origin {
    fn of(release: &Release, rollout: &str) -> Self {
        Self {
            plugin: release.plugin.clone(),
            id: release.id,
            version: release.version.to_string(),
            rollout: rollout.to_owned(),
        }
    }
}

impl Kept {
    fn shown(&self) -> Line {
        let (source, level) = words(self.source);
        Line {
            unix_ms: self.unix_ms,
            plugin: self.origin.plugin.clone(),
            release: self.origin.id.to_string(),
            version: self.origin.version.clone(),
            rollout: self.origin.rollout.clone(),
            source: source.to_owned(),
            level: level.to_owned(),
            text: self.text.clone(),
        }
    }
}

fn words(source: LogSource) -> (&'static str, &'static str) {
    match source {
        LogSource::Plugin { level: 1 } => ("plugin", "error"),
        LogSource::Plugin { level: 2 } => ("plugin", "warn"),
        LogSource::Plugin { level: 3 } => ("plugin", "info"),
        LogSource::Plugin { .. } => ("plugin", "debug"),
        LogSource::Output => ("output", "info"),
        LogSource::Host => ("host", "warn"),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
