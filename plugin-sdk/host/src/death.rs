//! Death: how a worker ended, and what it was doing then.
mod build_id;
mod crash;

use crate::log::Tail;
use std::fmt;

pub(crate) use build_id::build_id;
pub(crate) use crash::RecordLine;
pub use crash::{CrashRecord, Frame};

/// Functions that a report names at most; the rest are counted.
const RUNNING_SHOWN_MAX: usize = 8;

/// The report of a worker's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Why it ended.
    pub cause: Cause,
    /// What it had been asked and had not answered, at most a few entries: `loading`, `create`, `call time`.
    pub running: Vec<String>,
    /// The last lines of its log, at most 64 KiB.
    pub log_tail: String,
    /// What it wrote about the signal that ended it, if it still could.
    pub crash: Option<Box<CrashRecord>>,
}

/// Why a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It ended by itself with this exit code.
    Exited(i32),
    /// A signal that was not the host's ended it.
    Signal(i32),
    /// The watch ended it: resident memory above its limit, both in bytes.
    Memory {
        /// Bytes seen.
        seen: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The watch ended it: more threads than its limit.
    Threads {
        /// Threads seen, the host's own included.
        seen: u32,
        /// Threads allowed, the host's own included.
        limit: u32,
    },
    /// It broke the protocol between worker and host, and was killed for it.
    Protocol(String),
    /// The host ended it: no further use, or a deadline that it missed.
    Killed,
    /// It ended in order, as the host had asked.
    Closed,
}

impl Death {
    /// Puts a report together; `running` is cut to a few entries.
    pub(crate) fn new(cause: Cause, mut running: Vec<String>, log_tail: String) -> Self {
        let more = running.len().saturating_sub(RUNNING_SHOWN_MAX);
        running.truncate(RUNNING_SHOWN_MAX);
        if more > 0 {
            running.push(format!("{more} more"));
        }
        Self { cause, running, log_tail, crash: None }
    }

    /// The report of a worker that has been reaped and whose log has been read to its end. What it wrote about a crash
    /// counts, and is added to its log, only if a deadly signal did end it.
    pub(crate) fn report(cause: Cause, running: Vec<String>, tail: &Tail) -> Self {
        let is_deadly = |signal: &i32| crate::inside::FATAL.contains(signal);
        let crashed = matches!(&cause, Cause::Signal(signal) if is_deadly(signal));
        let crash = if crashed { tail.crash().map(Box::new) } else { None };
        for line in crash.iter().flat_map(|crash| crash.lines()) {
            tail.say(line);
        }
        tail.close();
        Self { crash, ..Self::new(cause, running, tail.text()) }
    }

    /// Stable code of the cause; each has a page in `docs/errors/`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.cause {
            Cause::Exited(_) | Cause::Signal(_) | Cause::Killed => "WORKER_DIED",
            Cause::Memory { .. } => "WORKER_MEMORY",
            Cause::Threads { .. } => "WORKER_THREADS",
            Cause::Protocol(_) => "WORKER_PROTOCOL",
            Cause::Closed => "WORKER_CLOSED",
        }
    }

    /// Whether the host itself wanted this end.
    #[must_use]
    pub const fn was_wanted(&self) -> bool {
        matches!(self.cause, Cause::Killed | Cause::Closed)
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the worker {}", self.cause)?;
        if !self.running.is_empty() {
            write!(f, " while it ran {}", self.running.join(", "))?;
        }
        if let Some(crash) = &self.crash {
            write!(f, ", {crash}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended by itself with exit code {code}"),
            Self::Signal(number) => write!(f, "ended by {}", signal_name(*number)),
            Self::Memory { seen, limit } => {
                write!(f, "was ended: {} MiB of memory, {} MiB allowed", seen >> 20, limit >> 20)
            }
            Self::Threads { seen, limit } => write!(f, "was ended: {seen} threads, {limit} allowed"),
            Self::Protocol(what) => write!(f, "was ended: it broke the protocol ({what})"),
            Self::Killed => write!(f, "was ended by the host"),
            Self::Closed => write!(f, "ended as asked"),
        }
    }
}

/// `signal 11 (SIGSEGV)`; the name where it is one that a broken program gets.
fn signal_name(number: i32) -> String {
    signal_short(number)
        .map_or_else(|| format!("signal {number}"), |name| format!("signal {number} ({name})"))
}

/// `SIGSEGV`.
const fn signal_short(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogSink;

    #[test]
    fn a_death_says_how_and_during_what() {
        let death = Death::new(Cause::Signal(11), vec!["call time".into()], String::new());
        assert_eq!(death.to_string(), "the worker ended by signal 11 (SIGSEGV) while it ran call time");
        assert_eq!(death.code(), "WORKER_DIED");
    }

    #[test]
    fn a_death_in_many_calls_names_a_few_and_counts_the_rest() {
        let running = (0..20).map(|n| format!("call {n}")).collect();
        let death = Death::new(Cause::Exited(0), running, String::new());
        assert_eq!(death.running.len(), RUNNING_SHOWN_MAX + 1);
        assert_eq!(death.running.last().map(String::as_str), Some("12 more"));
    }

    #[test]
    fn only_what_the_host_did_itself_was_wanted() {
        let wanted = |cause| Death::new(cause, Vec::new(), String::new()).was_wanted();
        assert!(wanted(Cause::Closed) && wanted(Cause::Killed));
        assert!(!wanted(Cause::Exited(0)) && !wanted(Cause::Memory { seen: 2, limit: 1 }));
    }

    #[test]
    fn a_crash_counts_only_where_a_deadly_signal_ended_the_worker() {
        let tail = Tail::new(LogSink::discard(), Some("1a".into()));
        let head = RecordLine::parse(b"crash 6 -6 - 5 call-1").unwrap();
        tail.note(head);
        let killed = Death::report(Cause::Memory { seen: 2, limit: 1 }, Vec::new(), &tail);
        assert_eq!((killed.crash, killed.log_tail.as_str()), (None, ""));
        for cause in [Cause::Exited(0), Cause::Signal(libc::SIGKILL), Cause::Killed] {
            assert_eq!(Death::report(cause, Vec::new(), &tail).crash, None);
        }
        let death = Death::report(Cause::Signal(libc::SIGABRT), Vec::new(), &tail);
        assert_eq!(death.to_string(), "the worker ended by signal 6 (SIGABRT), in thread call-1");
        assert!(
            death.log_tail.starts_with("crash: SIGABRT (sent by a thread) in thread call-1"),
            "{death:?}"
        );
        assert_eq!(death.crash.unwrap().build_id.as_deref(), Some("1a"));
    }
}
