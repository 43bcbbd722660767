//! The rule that a library breaks, in the words that an operator reads.

use crate::{elf::Glibc, note::NoteError};

/// Why a library is refused. Each variant is one rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LintError {
    /// Larger than [`ARTIFACT_MAX`](crate::elf::ARTIFACT_MAX).
    #[error("the library has {size} bytes, and {max} are allowed", max = crate::elf::ARTIFACT_MAX)]
    TooLarge {
        /// Size of the file in bytes.
        size: u64,
    },
    /// Not an ELF file, or one whose parts contradict each other.
    #[error("the file is not a well-formed ELF library: {0}")]
    Malformed(String),
    /// Another processor or system.
    #[error("the library can't run here: {0}")]
    Arch(String),
    /// An ELF file, but no shared library.
    #[error("the file is not a shared library: {0}")]
    Type(String),
    /// A segment that is writable and executable.
    #[error("a segment is writable and executable at once, so data could be run as code")]
    WritableCode,
    /// An executable stack, or none ordered.
    #[error("{0}, so data could be run as code")]
    ExecutableStack(&'static str),
    /// A program interpreter is named.
    #[error("the library names a program interpreter, which only programs may do")]
    Interpreter,
    /// Code that is changed while loading.
    #[error(
        "the library's code must be changed while it is loaded (text relocations), so its pages would be writable"
    )]
    TextRelocations,
    /// A search path of its own.
    #[error("the library brings its own search path ({tag} `{path}`), so unsigned libraries could be loaded")]
    SearchPath {
        /// `RPATH` or `RUNPATH`.
        tag: &'static str,
        /// The path, shortened.
        path: String,
    },
    /// An audit library is asked for.
    #[error("the library asks for an audit library ({0}), which would see and redirect every call")]
    Audit(&'static str),
    /// A filter library is asked for.
    #[error("the library asks for a filter library ({0}), whose symbols would replace its own")]
    Filter(&'static str),
    /// A library that no worker has.
    #[error("the library needs `{0}`, which is not among the libraries that a worker preloads")]
    Needed(String),
    /// A newer glibc than the host's.
    #[error("the library needs glibc {needs}, and this host has glibc {host}")]
    Glibc {
        /// Newest version that the library can't do without.
        needs: Glibc,
        /// Version of the host.
        host: Glibc,
    },
    /// The entry symbol is not there.
    #[error("the library does not export the function `{entry}`: {0}", entry = fleetswap_plugin_abi::ENTRY_SYMBOL)]
    NoEntry(&'static str),
    /// The note is missing, unreadable or of another ABI.
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl LintError {
    /// Stable code with a page in `docs/errors/`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "ELF_TOO_LARGE",
            Self::Malformed(_) => "ELF_MALFORMED",
            Self::Arch(_) => "ELF_ARCH",
            Self::Type(_) => "ELF_TYPE",
            Self::WritableCode => "ELF_WX",
            Self::ExecutableStack(_) => "ELF_EXECSTACK",
            Self::Interpreter => "ELF_INTERP",
            Self::TextRelocations => "ELF_TEXTREL",
            Self::SearchPath { .. } => "ELF_RPATH",
            Self::Audit(_) => "ELF_AUDIT",
            Self::Filter(_) => "ELF_FILTER",
            Self::Needed(_) => "ELF_NEEDED",
            Self::Glibc { .. } => "ELF_GLIBC",
            Self::NoEntry(_) => "ELF_NO_ENTRY",
            Self::Note(error) => error.code(),
        }
    }

    /// Shorthand for [`LintError::Malformed`].
    pub(super) fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed(why.into())
    }
}
