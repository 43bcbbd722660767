//! Sandbox: what a plugin's code can't do, whatever it tries.
//!
//! Level [`Level::Standard`]: resource limits, no new privileges, no capabilities, Landlock over all files, and a
//! default-deny system call filter. It is set up by the worker itself before it opens the library, and can't
//! be taken back.
mod calls;
mod filter;
mod rlimits;

use crate::Limits;
use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::{error::Error, fmt};

/// How strict a sandbox is. A greater level forbids all that a lesser one does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Needs Linux 5.13.
    #[default]
    Standard,
}

impl Level {
    /// The level as configuration and reports spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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

    fn at(piece: &'static str) -> impl Fn(&dyn Error) -> Self {
        move |error| Self { level: Level::Standard, piece: piece.into(), words: chain(error) }
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

/// The highest level that this host can give, found without changing this process.
///
/// # Errors
/// Below [`Level::Standard`]: the first piece that is missing.
pub fn sandbox_level() -> Result<Level, SandboxError> {
    files()?;
    filter::programs().map_err(|e| SandboxError::at("seccomp")(&e))?;
    filter::is_available().map_err(|e| SandboxError::at("seccomp")(&e))?;
    Ok(Level::Standard)
}

/// Locks this process in. The caller has one thread, and everything open that it will need.
pub(crate) fn enter(limits: &Limits) -> Result<(), SandboxError> {
    rlimits::set(limits).map_err(|e| SandboxError::at("rlimits")(&e))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| SandboxError::at("no_new_privs")(&e))?;
    drop_capabilities().map_err(|e| SandboxError::at("capabilities")(&e))?;
    let status = files()?.restrict_self().map_err(|e| SandboxError::at("landlock")(&e))?;
    // Partly is enough: what level standard needs is a hard requirement of the ruleset, the rest a bonus.
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(SandboxError::at("landlock")(&std::io::Error::other("not enforced")));
    }
    filter::install().map_err(|e| SandboxError::at("seccomp")(&e))
}

/// A Landlock ruleset that handles every access to files and allows none. An image that is already open loads
/// all the same: a memfd lies in no file hierarchy.
fn files() -> Result<landlock::RulesetCreated, SandboxError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(|rules| {
            rules.set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(ABI::V5))
        })
        .and_then(|rules| rules.set_compatibility(CompatLevel::HardRequirement).create())
        .map_err(|e| SandboxError::at("landlock")(&e))
}

/// Root in a worker is nobody special.
fn drop_capabilities() -> rustix::io::Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_reaches_the_default_level_without_changing_the_process() {
        assert_eq!(sandbox_level().unwrap(), Level::default());
        assert!(std::fs::read("/etc/hostname").is_ok() || std::fs::read("/etc/passwd").is_ok());
    }

    #[test]
    fn a_missing_piece_is_named_with_the_words_of_the_system() {
        let error = SandboxError::at("landlock")(&std::io::Error::from_raw_os_error(libc::ENOSYS));
        let text = error.to_string();
        assert!(text.contains("landlock: Function not implemented"), "{text}");
        assert_eq!(error.code(), "SANDBOX_UNAVAILABLE");
    }
}
