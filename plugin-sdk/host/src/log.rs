//! Log: the lines that a worker writes, bounded in length, in rate and in how many are kept.
mod drain;
mod tail;

pub(crate) use drain::drain;
pub(crate) use tail::Tail;

use std::time::Duration;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// Longest line in bytes; longer ones are cut.
pub const LINE_MAX: usize = 4 * 1024;
/// Bytes of last lines that are kept per worker.
pub const TAIL_MAX: usize = 64 * 1024;
/// How long the rest of a dead worker's log is waited for.
const DRAIN_GRACE: Duration = Duration::from_millis(250);
/// Mark of a line that came through the ABI's `log`, before its level's digit. Plain output that begins like
/// this is taken for such a line, which harms nobody.
pub(crate) const PLUGIN_MARK: u8 = 0x01;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource {
    /// The plugin's log function, with one of the ABI's `LOG_` levels.
    Plugin {
        /// Level: 1 error, 2 warn, 3 info, 4 debug.
        level: u32,
    },
    /// Standard output or standard error: a worker has one pipe for both.
    Output,
    /// The host itself, for example that lines were dropped.
    Host,
}

/// One line of a worker's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where it came from.
    pub source: LogSource,
    /// Its text, without the line's end; at most [`LINE_MAX`] bytes, invalid UTF-8 replaced.
    pub text: String,
}

/// Where a worker's lines go. A full channel drops lines, it never holds the worker.
#[derive(Clone, Debug, Default)]
pub struct LogSink(Option<mpsc::Sender<LogLine>>);

impl LogSink {
    /// A sink that keeps nothing; the worker's tail is kept all the same.
    #[must_use]
    pub const fn discard() -> Self {
        Self(None)
    }

    /// A sink into a channel of the caller's choice of bound.
    #[must_use]
    pub const fn channel(sender: mpsc::Sender<LogLine>) -> Self {
        Self(Some(sender))
    }

    /// Hands one line on, or drops it.
    pub(crate) fn send(&self, line: LogLine) {
        if let Some(sender) = &self.0 {
            // A full or closed channel is the reader's choice; the tail still has the line.
            let _ = sender.try_send(line);
        }
    }
}

/// Waits until a dead worker's pipe is empty, for a short while only: a flood is not read to its end.
pub(crate) async fn drained(mut drain: JoinHandle<()>) {
    if timeout(DRAIN_GRACE, &mut drain).await.is_err() {
        drain.abort();
    }
}
