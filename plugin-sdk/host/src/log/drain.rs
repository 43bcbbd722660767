//! Drain: empties a worker's log pipe, cuts it into lines, and keeps the flood out.
use super::{CRASH_MARK, LINE_MAX, LogLine, LogSource, PLUGIN_MARK, Tail};
use crate::death::RecordLine;
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
pub(crate) async fn drain(mut pipe: Receiver, tail: Arc<Tail>) {
    let mut chunk = vec![0; READ_CHUNK];
    let mut lines = Lines::default();
    let mut emit = |said: Said| match said {
        Said::Line(line) => tail.push(line),
        Said::Crash(line) => tail.note(line),
    };
    let (mut until, mut bytes) = (Instant::now() + PERIOD, 0);
    loop {
        let read = async {
            if bytes >= BYTES_PER_PERIOD {
                tokio::select! {
                    () = sleep_until(until) => {}
                    // What a pipe still holds is little, and the record of a crash may be in it.
                    () = tail.ended() => {}
                }
            }
            pipe.read(&mut chunk).await.unwrap_or(0)
        };
        let count = tokio::select! {
            biased;
            count = read => Some(count),
            // What was dropped is told also if nothing follows.
            () = sleep_until(until), if lines.dropped > 0 => None,
        };
        if Instant::now() >= until {
            (until, bytes) = (Instant::now() + PERIOD, 0);
            lines.new_period(&mut emit);
        }
        let Some(count) = count else { continue };
        lines.take(&chunk[..count], &mut emit);
        bytes += count;
        if count == 0 {
            return lines.finish(&mut emit);
        }
    }
}

/// What a worker wrote.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Line(LogLine),
    /// A part of the record of a crash.
    Crash(RecordLine),
}

impl From<LogLine> for Said {
    fn from(line: LogLine) -> Self {
        Self::Line(line)
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
    fn take(&mut self, bytes: &[u8], emit: &mut impl FnMut(Said)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            for (number, part) in text.split(|&byte| byte == CRASH_MARK).enumerate() {
                if number > 0 {
                    self.begin_record(emit);
                }
                self.append(part);
            }
            if ends {
                self.end_line(emit);
            }
        }
    }

    fn append(&mut self, text: &[u8]) {
        if !self.is_cut {
            let room = LINE_MAX - self.begun.len();
            self.begun.extend_from_slice(&text[..text.len().min(room)]);
            self.is_cut = text.len() > room;
        }
    }

    /// A crash comes in the middle of anything; what was begun is a line of its own.
    fn begin_record(&mut self, emit: &mut impl FnMut(Said)) {
        if !self.begun.is_empty() {
            self.end_line(emit);
        }
        self.begun.push(CRASH_MARK);
    }

    fn end_line(&mut self, emit: &mut impl FnMut(Said)) {
        self.is_cut = false;
        let bytes = std::mem::take(&mut self.begun);
        // In the middle of a flood as well; only one is kept, and it is no longer than a line.
        if let Some(record) = bytes.strip_prefix(&[CRASH_MARK]).and_then(RecordLine::parse) {
            return emit(Said::Crash(record));
        }
        if self.emitted >= LINES_PER_PERIOD {
            self.dropped += 1;
            return;
        }
        self.emitted += 1;
        emit(parse(&bytes).into());
    }

    fn new_period(&mut self, emit: &mut impl FnMut(Said)) {
        self.emitted = 0;
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let text = format!("{dropped} lines were dropped: more than {LINES_PER_PERIOD} in a second");
            emit(LogLine { source: LogSource::Host, text }.into());
        }
    }

    /// The stream is over: a last line without an end counts as one.
    fn finish(&mut self, emit: &mut impl FnMut(Said)) {
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

    fn said_in(chunks: &[&[u8]]) -> Vec<Said> {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.take(chunk, &mut |said| got.push(said));
        }
        lines.finish(&mut |said| got.push(said));
        got
    }

    fn lines_of(chunks: &[&[u8]]) -> Vec<LogLine> {
        let line = |said| if let Said::Line(line) = said { Some(line) } else { None };
        said_in(chunks).into_iter().filter_map(line).collect()
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

    #[test]
    fn a_record_is_seen_within_a_line_and_within_a_flood() {
        let flood = b"a\n".repeat(LINES_PER_PERIOD as usize + 1);
        let said = said_in(&[&flood, b"half a line\x02crash 11 1 0x", b"0 7 call-1\n\x02frames x+0x1\n"]);
        let records: Vec<_> = said.iter().filter(|said| matches!(said, Said::Crash(_))).collect();
        assert_eq!(records.len(), 2, "{records:?}");
        let said = said_in(&[b"half\x02crash 6 0 - 7 x\n"]);
        assert!(matches!(&said[..], [Said::Line(half), Said::Crash(_)] if half.text == "half"), "{said:?}");
    }

    #[test]
    fn what_only_looks_like_a_record_is_plain_output() {
        let got = lines_of(&[b"\x02crash me\n\x02\n"]);
        let texts: Vec<_> = got.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["\u{2}crash me", "\u{2}"]);
        assert!(got.iter().all(|line| line.source == LogSource::Output));
    }
}
