//! Errors: what can go wrong when a release is loaded, and when a loaded one is called.
use crate::{Death, Fault, SandboxError};
use std::{io, sync::Arc};

/// Why a release could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The dynamic loader refused the library.
    #[error("the library can't be opened: {words}")]
    CannotOpen {
        /// What the loader said.
        words: String,
    },
    /// The library has no entry point.
    #[error("the library does not export the entry point: {words}")]
    SymbolMissing {
        /// What the loader said.
        words: String,
    },
    /// The table is of another ABI, or is not a table.
    #[error("the plugin's table does not fit this host: {words}")]
    AbiMismatch {
        /// What differs.
        words: String,
    },
    /// `describe()` failed, or what it wrote is no descriptor.
    #[error("the plugin can't describe itself: {words}")]
    DescriptorInvalid {
        /// What is wrong.
        words: String,
    },
    /// `describe()` wrote other bytes than those that were signed.
    #[error("the plugin describes itself differently from its signed descriptor: {words}")]
    DescriptorDiffers {
        /// The first difference.
        words: String,
    },
    /// The worker ended while it loaded the library.
    #[error("loading failed: {0}")]
    Crashed(Arc<Death>),
    /// Loading took longer than [`crate::Limits::load_timeout`], counted from the sandbox on.
    #[error("loading took longer than {} ms{}", .after.as_millis(), said(.log_tail))]
    Timeout {
        /// The time allowed.
        after: std::time::Duration,
        /// The last lines of the worker's log.
        log_tail: String,
    },
    /// The sandbox can't be set up on this host.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The worker runs another build of this program than the host does.
    #[error("the worker is build {worker}, this program is build {host}")]
    BuildMismatch {
        /// Build of the worker.
        worker: String,
        /// Build of this program.
        host: String,
    },
    /// A library of the system, which the release may count on, is missing on this host or too old.
    #[error("this host lacks what the library needs: {words}")]
    HostLacks {
        /// What the loader said.
        words: String,
    },
    /// This host could not start a worker: descriptors, processes or memory ran out.
    #[error("this host can't start a worker: {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        #[source]
        error: io::Error,
    },
}

impl LoadError {
    /// Stable code; each has a page in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::CannotOpen { .. } => "LOAD_CANNOT_OPEN",
            Self::SymbolMissing { .. } => "LOAD_SYMBOL_MISSING",
            Self::AbiMismatch { .. } => "LOAD_ABI_MISMATCH",
            Self::DescriptorInvalid { .. } => "LOAD_DESCRIPTOR_INVALID",
            Self::DescriptorDiffers { .. } => "LOAD_DESCRIPTOR_DIFFERS",
            Self::Crashed(death) if death.code() == "WORKER_DIED" => "LOAD_CRASHED",
            Self::Crashed(death) => death.code(),
            Self::Timeout { .. } => "LOAD_TIMEOUT",
            Self::Sandbox(_) => "SANDBOX_UNAVAILABLE",
            Self::BuildMismatch { .. } => "BUILD_MISMATCH",
            Self::HostLacks { .. } => "LOAD_HOST_LACKS",
            Self::Host { .. } => "WORKER_START_FAILED",
        }
    }

    /// Who is to blame.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::CannotOpen { .. }
            | Self::SymbolMissing { .. }
            | Self::AbiMismatch { .. }
            | Self::DescriptorInvalid { .. }
            | Self::DescriptorDiffers { .. }
            | Self::Crashed(_)
            | Self::Timeout { .. } => Fault::Release,
            Self::Sandbox(_) | Self::BuildMismatch { .. } | Self::HostLacks { .. } | Self::Host { .. } => {
                Fault::Host
            }
        }
    }

    /// The last lines that the worker logged, where there are any.
    #[must_use]
    pub fn log_tail(&self) -> &str {
        match self {
            Self::Crashed(death) => &death.log_tail,
            Self::Timeout { log_tail, .. } => log_tail,
            _ => "",
        }
    }

    /// A step of this host that failed.
    pub(crate) fn host(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Host { what, error }
    }
}

/// The last line of a log, as the end of a sentence.
fn said(log_tail: &str) -> String {
    log_tail.lines().last().map(|line| format!("; its last line: {line}")).unwrap_or_default()
}

/// Where two descriptors part, with a few bytes around it.
pub(crate) fn first_difference(wanted: &[u8], got: &[u8]) -> String {
    /// Bytes shown on either side.
    const AROUND: usize = 24;
    let at = wanted.iter().zip(got).take_while(|(a, b)| a == b).count();
    let shown = |bytes: &[u8]| {
        let end = bytes.len().min(at + AROUND);
        String::from_utf8_lossy(&bytes[at.saturating_sub(AROUND)..end]).into_owned()
    };
    format!("from byte {at} on: got `{}`, signed is `{}`", shown(got), shown(wanted))
}

/// Why a request to a loaded release has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The plugin has no function of this name.
    #[error("the plugin has no such function")]
    UnknownFunction,
    /// The input does not fit the function's schema.
    #[error("the input does not fit at `{field}`: {message}")]
    BadInput {
        /// Where, as a path into the input; empty for the whole.
        field: String,
        /// What was wrong.
        message: String,
    },
    /// The plugin's own error.
    #[error("the plugin answered {code}: {message}")]
    Plugin {
        /// The plugin's own code.
        code: String,
        /// The plugin's own words.
        message: String,
    },
    /// The plugin's code panicked.
    #[error("the plugin panicked: {0}")]
    Panic(String),
    /// The function may not be called in the instance's present phase, or not while calls are in flight.
    #[error("this may not be called now")]
    Illegal,
    /// The plugin can't do this.
    #[error("the plugin does not support this")]
    Unsupported,
    /// Input or output is larger than allowed.
    #[error("the input or the output is larger than allowed")]
    TooLarge,
    /// No reply before the deadline. It may still be running.
    #[error("no reply before the deadline")]
    Deadline,
    /// The worker ended before it replied.
    #[error("{death}")]
    Died {
        /// Whether the worker may have seen the request. If not, it was certainly not executed.
        written: bool,
        /// How it ended.
        death: Arc<Death>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_of_two_descriptors_is_shown_with_its_surroundings() {
        let text = first_difference(b"{\"name\":\"clock\"}", b"{\"name\":\"clack\"}");
        assert_eq!(text, "from byte 11 on: got `{\"name\":\"clack\"}`, signed is `{\"name\":\"clock\"}`");
        assert!(first_difference(b"ab", b"abc").starts_with("from byte 2 on"));
    }

    #[test]
    fn a_worker_killed_for_its_memory_while_loading_is_told_from_a_crash() {
        let crashed = |cause| LoadError::Crashed(Arc::new(Death::new(cause, Vec::new(), String::new())));
        assert_eq!(crashed(crate::Cause::Signal(11)).code(), "LOAD_CRASHED");
        let memory = crashed(crate::Cause::Memory { seen: 2, limit: 1 });
        assert_eq!((memory.code(), memory.fault()), ("WORKER_MEMORY", Fault::Release));
    }

    #[test]
    fn what_the_host_lacks_is_not_blamed_on_the_release() {
        let error = LoadError::host("starting a process")(io::ErrorKind::OutOfMemory.into());
        assert_eq!((error.code(), error.fault()), ("WORKER_START_FAILED", Fault::Host));
        let error = LoadError::HostLacks { words: "libstdc++.so.6: no such file".into() };
        assert_eq!((error.code(), error.fault()), ("LOAD_HOST_LACKS", Fault::Host));
    }
}
