//! Table of descriptors: 0 `/dev/null`, 1 and 2 the log pipe, 3 the socket, 4 the image, nothing else.
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, RawFd},
};

/// The socket to the host.
const SOCKET: RawFd = 3;
/// The image, as the loader opens it.
pub(super) const IMAGE_PATH: &std::ffi::CStr = c"/proc/self/fd/4";
const IMAGE: RawFd = 4;

/// The host passes the socket as standard input, the image as standard output and the log pipe as standard
/// error: so it needs no code of its own between fork and exec. Returns the socket.
pub(super) fn arrange() -> io::Result<File> {
    // Out of the way first, so that no target number below is still in use as a source.
    let free = IMAGE + 1;
    let socket = above(libc::STDIN_FILENO, free)?;
    let image = above(libc::STDOUT_FILENO, free)?;
    copy(socket, SOCKET)?;
    copy(image, IMAGE)?;
    let null = File::open("/dev/null")?;
    copy(null.as_raw_fd(), libc::STDIN_FILENO)?;
    drop(null);
    copy(libc::STDERR_FILENO, libc::STDOUT_FILENO)?;
    close_from(IMAGE + 1)?;
    // SAFETY: the number was just opened above, and nothing else owns it.
    Ok(unsafe { File::from_raw_fd(SOCKET) })
}

fn above(fd: RawFd, lowest: RawFd) -> io::Result<RawFd> {
    // SAFETY: duplicating touches no memory; a wrong number is an error.
    check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest) })
}

fn copy(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: `to` is one of the five numbers that this module owns, before anything else has been opened.
    check(unsafe { libc::dup2(from, to) }).map(drop)
}

fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: nothing in this process owns a descriptor from `first` on: it has one thread and has just begun.
    check(unsafe { libc::close_range(first.cast_unsigned(), u32::MAX, 0) }).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
