//! Resource limits of a worker, as a backstop behind the watch.
//!
//! `RLIMIT_NPROC` is not among them: it counts all processes and threads of the user, the agent's too, and
//! does not bind root. Threads are bounded by the watch, new processes by the filter.
use crate::Limits;
use rustix::{
    io::Result,
    process::{Resource, Rlimit, setrlimit},
};

/// Sets soft and hard limits; the worker can't raise them again.
pub(super) fn set(limits: &Limits) -> Result<()> {
    let bounds = [
        (Resource::As, limits.address_space()),
        (Resource::Nofile, u64::from(limits.open_files)),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
    ];
    for (resource, bound) in bounds {
        setrlimit(resource, Rlimit { current: Some(bound), maximum: Some(bound) })?;
    }
    Ok(())
}
