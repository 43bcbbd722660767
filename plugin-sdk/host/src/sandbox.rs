//! Sandbox: what a plugin's code can't do, whatever it tries.
//!
//! It is set up by the worker itself before it opens the library, and can't be taken back. How much of it there is,
//! the [`Level`] says.
mod calls;
mod filter;
mod landlock;
mod level;
mod mdwe;
mod rlimits;

pub use level::{Level, SandboxError, UnknownLevel, sandbox_level};

use crate::Limits;
use ::landlock::RulesetStatus;
use rustix::{
    io,
    process::{getpriority_process, setpriority_process},
    thread::{CapabilitySet, CapabilitySets},
};

/// How much a worker yields to the rest of the host, in steps of nice: a thread of the agent weighs as much as three
/// of a plugin's (`sched_prio_to_weight` in the kernel: 1024 to 335).
const NICE: i32 = 5;
/// The greatest nice that there is.
const NICE_MAX: i32 = 19;

/// Locks this process in, at exactly this level. The caller has one thread, and everything open that it will need.
pub(crate) fn enter(limits: &Limits, level: Level) -> Result<(), SandboxError> {
    yield_to_the_host().map_err(|e| SandboxError::at(level, "nice")(&e))?;
    rlimits::set(limits).map_err(|e| SandboxError::at(level, "rlimits")(&e))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| SandboxError::at(level, "no_new_privs")(&e))?;
    drop_capabilities().map_err(|e| SandboxError::at(level, "capabilities")(&e))?;
    if level >= Level::Strict {
        mdwe::set().map_err(|e| SandboxError::at(level, mdwe::PIECE)(&e))?;
    }
    if level >= Level::Standard {
        let status = landlock::ruleset(level)?.restrict_self();
        let status = status.map_err(|e| SandboxError::at(level, landlock::FILES)(&e))?;
        // Partly is enough: what the level needs is a hard requirement of the ruleset, the rest a bonus.
        if status.ruleset == RulesetStatus::NotEnforced {
            let error = std::io::Error::other("not enforced");
            return Err(SandboxError::at(level, landlock::FILES)(&error));
        }
    }
    filter::install().map_err(|e| SandboxError::at(level, "seccomp")(&e))
}

/// A plugin that spins on every core must not keep the agent from looking after it. `RLIMIT_NICE` and the filter keep
/// it from coming back up.
fn yield_to_the_host() -> io::Result<()> {
    let nice = getpriority_process(None)?.saturating_add(NICE).min(NICE_MAX);
    setpriority_process(None, nice)
}

/// Root in a worker is nobody special.
fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)
}
