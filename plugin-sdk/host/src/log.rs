//! Log: the lines that a worker writes, bounded in length, in rate and in how many are kept.
mod drain;
mod tail;

pub(crate) use drain::drain;
pub(crate) use tail::Tail;

use std::{fmt, sync::Arc, time::Duration};
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
/// Mark of a line that a worker writes when a deadly signal hits it. It begins a line, whatever was begun before.
pub(crate) const CRASH_MARK: u8 = 0x02;

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

/// Where a worker's lines go.
#[derive(Clone, Default)]
pub struct LogSink(Option<Arc<dyn Fn(LogLine) + Send + Sync>>);

impl LogSink {
    /// A sink that keeps nothing; the worker's tail is kept all the same.
    #[must_use]
    pub const fn discard() -> Self {
        Self(None)
    }

    /// A sink that hands each line to a function, in their order. It must not block: the worker's log waits for it.
    #[must_use]
    pub fn to(take: impl Fn(LogLine) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(take)))
    }

    /// A sink into a channel of the caller's choice of bound. A full or closed one drops lines, it never holds the
    /// worker.
    #[must_use]
    pub fn channel(sender: mpsc::Sender<LogLine>) -> Self {
        Self::to(move |line| {
            // The reader's choice; the tail still has the line.
            let _ = sender.try_send(line);
        })
    }

    /// Hands one line on.
    pub(crate) fn send(&self, line: LogLine) {
        if let Some(take) = &self.0 {
            take(line);
        }
    }
}

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogSink").field(&self.0.is_some()).finish()
    }
}

/// Waits until a dead worker's pipe is empty, for a short while only.
pub(crate) async fn drained(mut drain: JoinHandle<()>, tail: &Tail) {
    tail.end();
    if timeout(DRAIN_GRACE, &mut drain).await.is_err() {
        drain.abort();
    }
}
