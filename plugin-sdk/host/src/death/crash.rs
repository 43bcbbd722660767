//! Crash: what a worker wrote about its own death by a signal. It is the word of a broken process, so it is read
//! strictly, and proves nothing. The worker's side of it is `crate::inside`.
use std::fmt;

/// Frames of a record at most.
const FRAMES_MAX: usize = 64;
/// Frames that a log shows at most.
const SHOWN_MAX: usize = 32;
/// Longest name of a thread or a module, in bytes.
const NAME_MAX: usize = 32;

/// What a worker wrote about the signal that ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashRecord {
    /// Number of the signal that it got first.
    pub signal: i32,
    /// The signal's code: above 0 from the kernel, else somebody sent it.
    pub code: i32,
    /// The address that was touched, or that of the instruction at fault, where the kernel gave one.
    pub address: Option<u64>,
    /// Name of the thread; printable characters only, at most 15.
    pub thread: String,
    /// Id of the thread.
    pub tid: u32,
    /// GNU build id of the plugin's library in hex; this is the host's own finding.
    pub build_id: Option<String>,
    /// The stack from the top, at most 64. Empty if the stack could not be walked.
    pub frames: Vec<Frame>,
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The plugin's name, a library's file or the host's program; None where nothing is loaded. At most 32 bytes.
    pub module: Option<String>,
    /// The address within the module's file; the address itself where nothing is loaded. The first is that of the
    /// instruction at fault, each other one lies within the call.
    pub offset: u64,
}

/// One line of a record, without its mark.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecordLine {
    Head(CrashRecord),
    Frames(Vec<Frame>),
}

impl RecordLine {
    /// None for anything that a worker's handler would not write.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?;
        let is_printable = line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        match line.split_once(' ')? {
            ("crash", head) if is_printable => parse_head(head).map(Self::Head),
            ("frames", frames) if is_printable => {
                let frames: Option<Vec<Frame>> = frames.split(' ').map(Frame::parse).collect();
                frames.filter(|frames| frames.len() <= FRAMES_MAX).map(Self::Frames)
            }
            _ => None,
        }
    }
}

fn parse_head(head: &str) -> Option<CrashRecord> {
    let mut fields = head.splitn(5, ' ');
    let mut next = || fields.next();
    let signal = next()?.parse().ok().filter(|signal| crate::inside::FATAL.contains(signal))?;
    let code = next()?.parse().ok()?;
    let address = match next()? {
        "-" => None,
        address => Some(hex(address)?),
    };
    let tid = next()?.parse().ok()?;
    let thread = next()?;
    (thread.len() < NAME_MAX).then(|| CrashRecord {
        signal,
        code,
        address,
        thread: thread.into(),
        tid,
        build_id: None,
        frames: Vec::new(),
    })
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    plain.then(|| u64::from_str_radix(digits, 16).ok())?
}

impl Frame {
    fn parse(text: &str) -> Option<Self> {
        let Some((module, offset)) = text.split_once('+') else {
            return Some(Self { module: None, offset: hex(text)? });
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = (1..=NAME_MAX).contains(&module.len()) && module.bytes().all(plain);
        Some(Self { module: is_name.then(|| module.into()).map(Some)?, offset: hex(offset)? })
    }
}

impl CrashRecord {
    /// The record as lines of a log, at most 34 of at most 200 bytes.
    pub(crate) fn lines(&self) -> Vec<String> {
        let id = self.build_id.as_deref().unwrap_or("unknown");
        let mut lines = vec![format!(
            "crash: {} in thread {} (tid {}), build id {id}",
            self.signal_words(),
            self.thread,
            self.tid,
        )];
        let shown = self.frames.iter().take(SHOWN_MAX).enumerate();
        lines.extend(shown.map(|(number, frame)| format!("crash: #{number} {frame}")));
        match self.frames.len() {
            0 => lines.push("crash: the stack could not be walked".into()),
            count if count > SHOWN_MAX => {
                lines.push(format!("crash: {} more frames", count - SHOWN_MAX));
            }
            _ => {}
        }
        lines
    }

    /// `SIGSEGV (MAPERR at 0x10)`.
    fn signal_words(&self) -> String {
        let name = super::signal_short(self.signal).unwrap_or("signal");
        let code =
            code_name(self.signal, self.code).map_or_else(|| format!("code {}", self.code), Into::into);
        match self.address {
            Some(address) => format!("{name} ({code} at {address:#x})"),
            None => format!("{name} ({code})"),
        }
    }
}

/// Where it happened, for the end of a sentence: the top of the stack, and the plugin's own topmost frame where that
/// is another one.
impl fmt::Display for CrashRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in thread {}", self.thread)?;
        let Some(top) = self.frames.first() else { return Ok(()) };
        write!(f, " at {top}")?;
        let is_own = |frame: &&Frame| frame.module.as_deref().is_some_and(|name| !is_system(name));
        match self.frames.iter().find(is_own) {
            Some(own) if own != top => write!(f, ", called from {own}"),
            _ => Ok(()),
        }
    }
}

/// A library of the system's, as those that every worker preloads.
fn is_system(module: &str) -> bool {
    module.contains(".so")
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            Some(module) => write!(f, "{module}+{:#x}", self.offset),
            None => write!(f, "{:#x}", self.offset),
        }
    }
}

/// What the kernel means by a code, without the signal's prefix.
fn code_name(signal: i32, code: i32) -> Option<&'static str> {
    Some(match (signal, code) {
        (_, 0) => "sent by a process",
        (_, -6) => "sent by a thread",
        (_, 0x80) => "from the kernel, address unknown",
        (libc::SIGSEGV, 1) => "MAPERR",
        (libc::SIGSEGV, 2) => "ACCERR",
        (libc::SIGBUS, 1) => "ADRALN",
        (libc::SIGBUS, 2) => "ADRERR",
        (libc::SIGBUS, 3) => "OBJERR",
        (libc::SIGFPE, 1) => "INTDIV",
        (libc::SIGFPE, 2) => "INTOVF",
        (libc::SIGILL, 1) => "ILLOPC",
        (libc::SIGILL, 2) => "ILLOPN",
        (libc::SIGTRAP, 1) => "BRKPT",
        (libc::SIGSYS, 1) => "SECCOMP",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: &str) -> Option<CrashRecord> {
        match RecordLine::parse(line.as_bytes())? {
            RecordLine::Head(head) => Some(head),
            RecordLine::Frames(_) => None,
        }
    }

    fn frames(line: &str) -> Option<Vec<Frame>> {
        match RecordLine::parse(line.as_bytes())? {
            RecordLine::Frames(frames) => Some(frames),
            RecordLine::Head(_) => None,
        }
    }

    #[test]
    fn a_record_says_signal_place_thread_and_stack() {
        let mut record = head("crash 11 1 0x10 77 call 3").unwrap();
        record.frames = frames("frames libc.so.6+0x12 clock+0xabc 0x0").unwrap();
        record.build_id = Some("1a2b".into());
        assert_eq!(
            record.lines(),
            [
                "crash: SIGSEGV (MAPERR at 0x10) in thread call 3 (tid 77), build id 1a2b",
                "crash: #0 libc.so.6+0x12",
                "crash: #1 clock+0xabc",
                "crash: #2 0x0",
            ]
        );
        assert_eq!(record.to_string(), "in thread call 3 at libc.so.6+0x12, called from clock+0xabc");
    }

    #[test]
    fn what_no_handler_writes_is_no_record() {
        for line in [
            "crash",
            "crash 11",
            "crash 9 1 0x0 1 call",
            "crash 11 1 0 1 call",
            "crash x 1 0x0 1 call",
            "crash 11 1 0x0 -1 call",
            "crash 11 1 0x0 1",
            "crash 11 1 0x+1 1 call",
            "crash 11 1 0x 1 call",
            "crash 11 1 0x0 1 a\u{1b}[0m",
            "crash 11 1 0x0 1 \u{e9}",
            "",
            " ",
            "Crash 11 1 0x0 1 call",
            "crash 11 1 0x00000000000000001f00 1 this name is longer than any thread's",
        ] {
            assert_eq!(head(line), None, "{line:?}");
        }
        for line in [
            "frames",
            "frames ",
            "frames a",
            "frames a+",
            "frames +0x1",
            "frames a+0xG",
            "frames a/b+0x1",
            "frames a+0x1  b+0x2",
            "frames 0x11111111111111111",
            "frames a\u{7}+0x1",
        ] {
            assert_eq!(frames(line), None, "{line:?}");
        }
        assert_eq!(RecordLine::parse(b"crash 11 1 0x0 1 \xff"), None);
        assert_eq!(frames(&format!("frames{}", " a+0x1".repeat(FRAMES_MAX + 1))), None);
        assert_eq!(frames(&format!("frames {}+0x1", "a".repeat(NAME_MAX + 1))), None);
    }

    #[test]
    fn the_longest_record_leaves_room_in_a_failures_log_tail() {
        let mut record = head("crash 11 1 0xffffffffffffffff 4294967295 123456789012345").unwrap();
        record.build_id = Some("ab".repeat(32));
        let frame = format!(" {}+0xffffffffffffffff", "m".repeat(NAME_MAX));
        record.frames = frames(&format!("frames{}", frame.repeat(FRAMES_MAX))).unwrap();
        let lines = record.lines();
        assert_eq!((lines.len(), lines.last().unwrap().as_str()), (SHOWN_MAX + 2, "crash: 32 more frames"));
        assert!(lines.iter().all(|line| line.len() <= 200), "{lines:?}");
        assert!(lines.iter().map(|line| line.len() + 1).sum::<usize>() < 3 * 1024);
    }

    #[test]
    fn a_stack_that_could_not_be_walked_is_said_to_be_so() {
        let record = head("crash 6 -6 - 5 x").unwrap();
        assert_eq!(record.lines()[1], "crash: the stack could not be walked");
        assert_eq!(
            record.lines()[0],
            "crash: SIGABRT (sent by a thread) in thread x (tid 5), build id unknown"
        );
        assert_eq!(record.to_string(), "in thread x");
    }
}
