//! Drain: empties a worker's log pipe, cuts it into lines, and keeps the flood out.
use super::{LINE_MAX, LogLine, LogSink, LogSource, PLUGIN_MARK, Tail};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe::Receiver,
    time::{Instant, sleep_until},
};

/// Lines that are passed on in one [`PERIOD`] at most; the rest are counted and dropped.
const LINES_PER_PERIOD: u32 = 500;
/// Bytes that are read in one [`PERIOD`] at most. A worker that writes more waits in its write; so a flood costs
/// the worker's time, not the host's.
const BYTES_PER_PERIOD: usize = 4 * 1024 * 1024;
/// The period of both bounds.
const PERIOD: Duration = Duration::from_secs(1);
/// Bytes read at a time.
const READ_CHUNK: usize = 16 * 1024;

/// Reads until the last writer is gone.
pub(crate) async fn drain(mut pipe: Receiver, tail: Arc<Tail>, sink: LogSink) {
    let mut chunk = vec![0; READ_CHUNK];
    let mut lines = Lines::default();
    let (mut until, mut bytes) = (Instant::now() + PERIOD, 0);
    loop {
        let count = pipe.read(&mut chunk).await.unwrap_or(0);
        let mut emit = |line: LogLine| {
            tail.push(line.text.clone());
            sink.send(line);
        };
        if Instant::now() >= until {
            (until, bytes) = (Instant::now() + PERIOD, 0);
            lines.new_period(&mut emit);
        }
        if count == 0 {
            lines.finish(&mut emit);
            return;
        }
        lines.take(&chunk[..count], &mut emit);
        bytes += count;
        if bytes >= BYTES_PER_PERIOD {
            sleep_until(until).await;
        }
    }
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    /// The line that was begun has reached its bound; the rest of it is dropped.
    is_cut: bool,
    emitted: u32,
    dropped: u64,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], emit: &mut impl FnMut(LogLine)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if !self.is_cut {
                let room = LINE_MAX - self.begun.len();
                self.begun.extend_from_slice(&text[..text.len().min(room)]);
                self.is_cut = text.len() > room;
            }
            if ends {
                self.end_line(emit);
            }
        }
    }

    fn end_line(&mut self, emit: &mut impl FnMut(LogLine)) {
        self.is_cut = false;
        let bytes = std::mem::take(&mut self.begun);
        if self.emitted >= LINES_PER_PERIOD {
            self.dropped += 1;
            return;
        }
        self.emitted += 1;
        emit(parse(&bytes));
    }

    fn new_period(&mut self, emit: &mut impl FnMut(LogLine)) {
        self.emitted = 0;
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let text = format!("{dropped} lines were dropped: more than {LINES_PER_PERIOD} in a second");
            emit(LogLine { source: LogSource::Host, text });
        }
    }

    /// The stream is over: a last line without an end counts as one.
    fn finish(&mut self, emit: &mut impl FnMut(LogLine)) {
        if !self.begun.is_empty() {
            self.end_line(emit);
        }
        self.new_period(emit);
    }
}

/// Tells the plugin's own lines from plain output.
fn parse(bytes: &[u8]) -> LogLine {
    let (source, text) = match bytes {
        [PLUGIN_MARK, level @ b'1'..=b'4', text @ ..] => {
            (LogSource::Plugin { level: u32::from(level - b'0') }, text)
        }
        text => (LogSource::Output, text),
    };
    let text = String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text)).into_owned();
    LogLine { source, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]]) -> Vec<LogLine> {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.take(chunk, &mut |line| got.push(line));
        }
        lines.finish(&mut |line| got.push(line));
        got
    }

    #[test]
    fn lines_are_put_together_across_reads_and_a_last_one_needs_no_end() {
        let got = lines_of(&[b"on", b"e\ntwo\n\nth", b"ree"]);
        let texts: Vec<_> = got.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["one", "two", "", "three"]);
        assert!(got.iter().all(|line| line.source == LogSource::Output));
    }

    #[test]
    fn the_plugins_own_lines_are_told_from_its_output() {
        let got = lines_of(&[b"\x012odd\n\x019not a level\n"]);
        assert_eq!(got[0], LogLine { source: LogSource::Plugin { level: 2 }, text: "odd".into() });
        assert_eq!(got[1].source, LogSource::Output);
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; LINE_MAX * 3 + 5];
        let got = lines_of(&[&long, b"yy\nnext\n"]);
        assert_eq!((got[0].text.len(), got[1].text.as_str()), (LINE_MAX, "next"));
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let got = lines_of(&[&b"a\n".repeat(LINES_PER_PERIOD as usize + 7)]);
        assert_eq!(got.len(), LINES_PER_PERIOD as usize + 1);
        assert_eq!(got.last().unwrap().text, "7 lines were dropped: more than 500 in a second");
    }

    #[test]
    fn bytes_that_are_no_text_do_not_end_the_log() {
        assert_eq!(lines_of(&[b"\xff\xfe ok\n"])[0].text, "\u{fffd}\u{fffd} ok");
    }
}
