//! Level: how strict a sandbox is, and what a host can give.
use super::{filter, landlock, mdwe};
use std::{error::Error, fmt, str::FromStr};

/// How strict a sandbox is. A greater level forbids all that a lesser one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Any kernel with seccomp. The plugin reaches no network, no other process and nothing to write, but it can read
    /// what the agent's user can read. Only where an operator has asked for it.
    Basic,
    /// Needs Landlock, which came with Linux 5.13: no file can be opened.
    #[default]
    Standard,
    /// Needs memory-deny-write-execute (Linux 6.3) and Landlock's rules for TCP (6.7), abstract unix sockets and signals
    /// (6.12): what the filter already refuses is refused a second time by other code of the kernel, and no memory that
    /// was ever writable becomes code.
    Strict,
}

impl Level {
    /// All of them, the most lenient first.
    pub const ALL: [Self; 3] = [Self::Basic, Self::Standard, Self::Strict];

    /// The level as configuration and reports spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Standard => "standard",
            Self::Strict => "strict",
        }
    }

    /// Finds out, without changing this process, whether this host can give the level.
    fn probe(self) -> Result<(), SandboxError> {
        filter::programs().map_err(|e| SandboxError::at(self, "seccomp")(&e))?;
        filter::is_available().map_err(|e| SandboxError::at(self, "seccomp")(&e))?;
        if self >= Self::Standard {
            landlock::ruleset(Self::Standard).map_err(|error| SandboxError { level: self, ..error })?;
        }
        if self >= Self::Strict {
            mdwe::is_available().map_err(|e| SandboxError::at(self, mdwe::PIECE)(&e))?;
            landlock::ruleset(self)?;
        }
        Ok(())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or(UnknownLevel)
    }
}

/// No level has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted `basic`, `standard` or `strict`")]
pub struct UnknownLevel;

/// A piece of the sandbox that this host does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sandbox level {level} can't be reached on this host: {piece}: {words}")]
pub struct SandboxError {
    /// The level that was wanted.
    pub level: Level,
    /// The piece that failed, for example `landlock`.
    pub piece: String,
    /// What the system said.
    pub words: String,
}

impl SandboxError {
    /// Stable code; it has a page in `docs/errors/`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "SANDBOX_UNAVAILABLE"
    }

    pub(super) fn at(level: Level, piece: &'static str) -> impl Fn(&dyn Error) -> Self {
        move |error| Self { level, piece: piece.into(), words: chain(error) }
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        words = format!("{words}: {next}");
        cause = next.source();
    }
    words
}

/// The highest level that this host can give, which is at least `min`; found without changing this process.
///
/// # Errors
/// It can't give `min`: the first piece that is missing for that.
pub fn sandbox_level(min: Level) -> Result<Level, SandboxError> {
    min.probe()?;
    let above = Level::ALL.into_iter().rev().take_while(|level| *level > min);
    Ok(above.into_iter().find(|level| level.probe().is_ok()).unwrap_or(min))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_reaches_the_default_level_without_changing_the_process() {
        assert!(sandbox_level(Level::default()).unwrap() >= Level::Standard);
        assert!(std::fs::read("/etc/hostname").is_ok() || std::fs::read("/etc/passwd").is_ok());
    }

    #[test]
    fn a_missing_piece_is_named_with_the_words_of_the_system() {
        let error =
            SandboxError::at(Level::Strict, "landlock")(&std::io::Error::from_raw_os_error(libc::ENOSYS));
        let text = error.to_string();
        assert!(
            text.contains("level strict") && text.contains("landlock: Function not implemented"),
            "{text}"
        );
        assert_eq!(error.code(), "SANDBOX_UNAVAILABLE");
    }

    #[test]
    fn each_level_is_read_as_it_is_written_and_nothing_else_is() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!("none".parse::<Level>(), Err(UnknownLevel));
        assert!(Level::ALL.is_sorted());
    }
}
