//! ELF lint: whether a library may be loaded at all, read as the dynamic loader reads it.
//!
//! Only program headers and the dynamic table count: section headers are for linkers and debuggers, the loader
//! never looks at them, and a library may lack them or lie in them.

mod dynamic;
mod error;
mod header;
mod needs;
mod segments;
mod symbols;
mod versions;

use std::fmt;

pub use error::LintError;
pub(crate) use header::Header;
pub use needs::{Need, needs, provides};

use crate::{note::Note, platform::Platform};
use dynamic::Dynamic;
use segments::Segments;

/// Largest library, in bytes (256 MiB).
pub const ARTIFACT_MAX: u64 = 256 * 1024 * 1024;

/// Libraries that a worker preloads before it locks itself in. A plugin may need these, and the dynamic linker,
/// and nothing else: a worker can't open any other file.
pub const PRELOADED: [&str; 7] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
];

/// What a library is held to, beyond the rules that always hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The only platform to accept; `None` accepts every supported one.
    pub platform: Option<Platform>,
    /// Version of the host's glibc; `None` accepts a need for any version.
    pub glibc: Option<Glibc>,
}

/// A version of the GNU C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Glibc {
    /// Always 2 so far.
    pub major: u32,
    /// For example 36.
    pub minor: u32,
}

/// Facts about a library that passed the lint.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Elf {
    /// What it was built for.
    pub platform: Platform,
    /// The libraries that it needs, in the order of its dynamic table.
    pub needed: Vec<String>,
    /// The newest glibc that it can't do without; `None` if it needs no versioned symbol of glibc.
    pub glibc: Option<Glibc>,
    /// Size of the file in bytes.
    pub size: u64,
    /// What it says about itself.
    pub note: Note,
}

/// Checks a library and reads its facts. The rules are applied in a fixed order, so that the same bytes always
/// give the same error.
///
/// # Errors
/// The first rule that the library breaks.
pub fn lint(bytes: &[u8], rules: &Rules) -> Result<Elf, LintError> {
    let header = Header::read(bytes)?;
    let platform = header.platform;
    if let Some(wanted) = rules.platform.filter(|wanted| *wanted != platform) {
        return Err(LintError::Arch(format!("it is built for {platform}, and {wanted} is wanted")));
    }
    let segments = Segments::read(bytes, &header)?;
    let dynamic = Dynamic::read(&segments)?;
    dynamic.check()?;
    let needed = dynamic.needed(platform)?;
    let glibc = versions::newest_glibc(&segments, &dynamic)?;
    if let (Some(needs), Some(host)) = (glibc, rules.glibc)
        && needs > host
    {
        return Err(LintError::Glibc { needs, host });
    }
    symbols::check_entry(&segments, &dynamic)?;
    let note = Note::find(segments.notes())?;
    Ok(Elf { platform, needed, glibc, size: bytes.len() as u64, note })
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Glibc {
    /// Reads `2.36`, as `gnu_get_libc_version` and symbol versions (after `GLIBC_`) write it; a third number is
    /// ignored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| part.parse().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        let third = numbers.next().is_none_or(|third| third.is_some());
        (third && numbers.next().is_none()).then_some(Self { major, minor })
    }
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
