//! Resource limits of a worker, as a backstop behind the watch.
//!
//! `RLIMIT_NPROC` is not among them: it counts all processes and threads of the user, the agent's too, and
//! does not bind root. Threads are bounded by the watch, new processes by the filter.
use crate::Limits;
use rustix::{
    io::Result,
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};

/// Bytes of a core dump: less than any, so that none is written to a file. With 0 it would still go to a program, if
/// the system has one for that; 1 is the kernel's own mark for "not there either" (`do_coredump` in fs/coredump.c).
const CORE_BYTES: u64 = 1;

/// Lowers soft and hard limits; the worker can't raise them again. What was lower before stays.
pub(super) fn set(limits: &Limits) -> Result<()> {
    let bounds = [
        (Resource::As, limits.address_space()),
        (Resource::Nofile, u64::from(limits.open_files)),
        (Resource::Core, CORE_BYTES),
        (Resource::Fsize, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
    ];
    for (resource, bound) in bounds {
        let bound = Some(getrlimit(resource).maximum.map_or(bound, |present| present.min(bound)));
        setrlimit(resource, Rlimit { current: bound, maximum: bound })?;
    }
    if getrlimit(Resource::Core).maximum < Some(CORE_BYTES) {
        // The limit was lower already, and 0 is not the mark.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}
