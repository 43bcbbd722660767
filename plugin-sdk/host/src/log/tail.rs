//! Tail: the last lines of a worker, kept for the report of its death.
use super::{LogLine, LogSink, LogSource, TAIL_MAX};
use crate::death::{CrashRecord, RecordLine};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long a worker may go on after it wrote that it crashes. A flood of lines can hold up the rest of the record.
const CRASH_MAX: Duration = Duration::from_secs(3);

/// The last lines, at most [`TAIL_MAX`] bytes, and the record of a crash.
#[derive(Debug)]
pub(crate) struct Tail {
    kept: Mutex<Lines>,
    /// Of the plugin's library.
    build_id: Option<String>,
    crashed: CancellationToken,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
    crash: Option<CrashRecord>,
    /// Let go at the end, so that whoever reads it sees that.
    sink: LogSink,
}

impl Tail {
    /// An empty tail of a worker with a library of this build id. Lines go on to the sink.
    pub(crate) fn new(sink: LogSink, build_id: Option<String>) -> Self {
        let (crashed, ended) = (CancellationToken::new(), CancellationToken::new());
        Self { kept: Mutex::new(Lines { sink, ..Lines::default() }), build_id, crashed, ended }
    }

    /// Takes a line, dropping the oldest ones beyond the bound.
    pub(crate) fn push(&self, line: LogLine) {
        let mut tail = self.lock();
        tail.bytes += line.text.len() + 1;
        tail.lines.push_back(line.text.clone());
        while tail.bytes > TAIL_MAX {
            let Some(oldest) = tail.lines.pop_front() else { break };
            tail.bytes -= oldest.len() + 1;
        }
        let sink = tail.sink.clone();
        drop(tail);
        sink.send(line);
    }

    /// A line of the host's own.
    pub(crate) fn say(&self, text: String) {
        self.push(LogLine { source: LogSource::Host, text });
    }

    /// Takes a part of the record of a crash; the first one of each kind counts.
    pub(crate) fn note(&self, line: RecordLine) {
        let mut kept = self.lock();
        match (line, &mut kept.crash) {
            (RecordLine::Head(head), crash @ None) => {
                *crash = Some(CrashRecord { build_id: self.build_id.clone(), ..head });
                self.crashed.cancel();
            }
            (RecordLine::Frames(frames), Some(crash)) if crash.frames.is_empty() => crash.frames = frames,
            (RecordLine::Head(_) | RecordLine::Frames(_), _) => {}
        }
    }

    /// The record of a crash, if there is one.
    pub(crate) fn crash(&self) -> Option<CrashRecord> {
        self.lock().crash.clone()
    }

    /// Waits until the worker should have died of a crash that it reported long ago, and returns the signal.
    pub(crate) async fn crash_is_overdue(&self) -> i32 {
        self.crashed.cancelled().await;
        sleep(CRASH_MAX).await;
        self.crash().map_or(libc::SIGKILL, |crash| crash.signal)
    }

    /// The worker has ended: what is left in its pipe is all there will be.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    /// Waits for that.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing follows any more.
    pub(crate) fn close(&self) {
        self.lock().sink = LogSink::discard();
    }

    /// All lines, each with its end.
    pub(crate) fn text(&self) -> String {
        let tail = self.lock();
        let mut text = String::with_capacity(tail.bytes);
        for line in &tail.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_within_its_bound() {
        let tail = Tail::new(LogSink::discard(), None);
        for n in 0..1000 {
            tail.say(format!("{n:0>200}"));
        }
        let text = tail.text();
        assert!(text.len() <= TAIL_MAX && text.len() > TAIL_MAX - 402, "{}", text.len());
        assert!(text.ends_with("999\n"));
        assert_eq!(text.lines().count(), TAIL_MAX / 201);
    }

    #[test]
    fn the_first_record_of_a_crash_is_the_one_that_counts() {
        let tail = Tail::new(LogSink::discard(), None);
        for line in
            ["frames early+0x1", "crash 11 1 0x0 1 a", "crash 6 0 - 2 b", "frames x+0x1", "frames y+0x2"]
        {
            tail.note(RecordLine::parse(line.as_bytes()).unwrap());
        }
        let crash = tail.crash().unwrap();
        assert_eq!((crash.signal, crash.frames.len(), crash.frames[0].to_string()), (11, 1, "x+0x1".into()));
    }
}
