//! The plugins' log lines: the last of each plugin are kept for `agent logs`; the agent's own log has them at level debug.

mod setup;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use fleetswap_host::{LogLine, LogSink, LogSource};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub(crate) use setup::set_up;

/// Lines of one worker that wait to be kept; beyond that they are dropped.
const WAITING_MAX: usize = 256;
/// Most lines kept of one plugin.
const LINES_MAX: usize = 1_000;
/// Most bytes of text kept of one plugin.
const BYTES_MAX: usize = 256 * 1024;
/// Most plugins of which lines are kept; beyond that the one that was silent longest is forgotten.
const PLUGINS_MAX: usize = 256;

/// One line that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// When it came, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// Id of the release that wrote it.
    pub(crate) release: String,
    /// `plugin`: through its log function; `output`: printed; `host`: about the worker, or the log itself.
    pub(crate) source: String,
    /// `error`, `warn`, `info` or `debug`.
    pub(crate) level: String,
    /// The text.
    pub(crate) text: String,
}

/// The lines kept of all plugins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logs {
    rings: Arc<Mutex<BTreeMap<String, Ring>>>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Logs {
    /// A sink for one worker. Lines are read until the worker's end closes it. Needs a tokio runtime.
    pub(crate) fn sink(&self, plugin: &str, release: &str) -> LogSink {
        let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
        let (logs, plugin, release) = (self.clone(), plugin.to_owned(), release.to_owned());
        tokio::spawn(async move {
            while let Some(line) = receiver.recv().await {
                logs.keep(&plugin, &release, line);
            }
        });
        LogSink::channel(sender)
    }

    /// A line about the plugin in the agent's words.
    pub(crate) fn note(&self, plugin: &str, release: &str, text: String) {
        self.keep(plugin, release, LogLine { source: LogSource::Host, text });
    }

    /// The lines kept of a plugin, oldest first; `None` if none ever came.
    pub(crate) fn of(&self, plugin: &str) -> Option<Vec<Line>> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.get(plugin).map(|ring| ring.lines.iter().cloned().collect())
    }

    fn keep(&self, plugin: &str, release: &str, line: LogLine) {
        let (source, level) = words(line.source);
        tracing::debug!(plugin, release, source, level, "{}", line.text);
        let line = Line {
            unix_ms: now_ms(),
            release: release.to_owned(),
            source: source.to_owned(),
            level: level.to_owned(),
            text: line.text,
        };
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        if rings.len() >= PLUGINS_MAX && !rings.contains_key(plugin) {
            forget_the_silent(&mut rings);
        }
        rings.entry(plugin.to_owned()).or_default().push(line);
    }
}

impl Ring {
    fn push(&mut self, line: Line) {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.text.len();
        }
    }
}

fn forget_the_silent(rings: &mut BTreeMap<String, Ring>) {
    let last = |ring: &Ring| ring.lines.back().map_or(0, |line| line.unix_ms);
    let silent = rings.iter().min_by_key(|(_, ring)| last(ring)).map(|(plugin, _)| plugin.clone());
    if let Some(silent) = silent {
        rings.remove(&silent);
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
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine { source: LogSource::Plugin { level: 2 }, text: text.to_owned() }
    }

    #[test]
    fn lines_are_kept_by_plugin_with_their_source() {
        let logs = Logs::default();
        logs.keep("clock", "r1", line("tick"));
        logs.keep("counter", "r2", LogLine { source: LogSource::Output, text: "one".to_owned() });
        let kept = logs.of("clock").unwrap();
        assert_eq!((kept[0].text.as_str(), kept[0].level.as_str()), ("tick", "warn"));
        assert_eq!((kept[0].source.as_str(), kept[0].release.as_str()), ("plugin", "r1"));
        assert_eq!(logs.of("counter").unwrap()[0].source, "output");
        assert_eq!(logs.of("other"), None);
    }

    #[test]
    fn a_talkative_plugin_keeps_only_its_last_lines_and_bytes() {
        let logs = Logs::default();
        for n in 0..LINES_MAX + 5 {
            logs.keep("clock", "r1", line(&n.to_string()));
        }
        let kept = logs.of("clock").unwrap();
        assert_eq!((kept.len(), kept[0].text.as_str()), (LINES_MAX, "5"));
        logs.keep("clock", "r1", line(&"x".repeat(BYTES_MAX)));
        assert_eq!(logs.of("clock").unwrap().len(), 1);
    }

    #[test]
    fn endless_plugins_are_bounded() {
        let logs = Logs::default();
        for n in 0..PLUGINS_MAX + 9 {
            logs.keep(&format!("p{n}"), "r", line("x"));
        }
        assert_eq!(logs.rings.lock().unwrap().len(), PLUGINS_MAX);
        assert!(logs.of(&format!("p{}", PLUGINS_MAX + 8)).is_some());
    }
}
