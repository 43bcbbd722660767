//! Memory-deny-write-execute: no memory that was ever writable becomes code. It binds the whole process, and its libraries
//! are loaded as ever: the loader writes only to pages that are not code, and takes the right to write away afterwards.
use std::io;

/// What the piece is called in errors.
pub(super) const PIECE: &str = "memory-deny-write-execute";

/// Whether the kernel knows it.
pub(super) fn is_available() -> io::Result<()> {
    prctl(libc::PR_GET_MDWE, 0)
}

/// From now on, for good.
pub(super) fn set() -> io::Result<()> {
    prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN.into())
}

fn prctl(option: i32, bits: libc::c_ulong) -> io::Result<()> {
    let unused: libc::c_ulong = 0;
    // SAFETY: both options take numbers only, and touch no memory of ours.
    let result = unsafe { libc::prctl(option, bits, unused, unused, unused) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
