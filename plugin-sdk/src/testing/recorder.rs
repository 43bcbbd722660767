//! Recorder: the host's side of sink and log, in memory.

use std::ffi::c_void;
use std::slice;
use std::sync::{Mutex, OnceLock, PoisonError};

use fleetswap_plugin_abi as abi;
use fleetswap_plugin_abi::Status;

use crate::Level;

/// Longest line of a log, in bytes.
const LINE_MAX: usize = 4096;
/// Lines kept; later ones are dropped.
const LINES_MAX: usize = 10_000;

/// What a sink has taken so far.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    most: usize,
    overflowed: bool,
}

impl Buffer {
    pub(crate) fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, overflowed: false }
    }

    /// A sink that writes here, valid while the buffer is borrowed by nobody else.
    pub(crate) fn as_sink(&mut self) -> abi::Sink {
        abi::Sink { context: (&raw mut *self).cast(), write: take }
    }

    /// The status that counts, and what was written. As a host does it: output that is too large is so whatever the
    /// plugin says, and of an error only the words are cut.
    pub(crate) fn finish(self, status: Status) -> (Status, Vec<u8>) {
        let status = if self.overflowed && status == Status::OK { Status::TOO_LARGE } else { status };
        (status, self.bytes)
    }
}

unsafe extern "C" fn take(context: *mut c_void, bytes: abi::Bytes) -> Status {
    // SAFETY: `context` is the buffer, which nobody else uses while the plugin holds the sink.
    let (buffer, bytes) = unsafe { (&mut *context.cast::<Buffer>(), returned(bytes)) };
    let room = buffer.most - buffer.bytes.len();
    buffer.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    if bytes.len() > room {
        buffer.overflowed = true;
        return Status::TOO_LARGE;
    }
    Status::OK
}

/// A host that keeps what is logged.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    lines: Mutex<Vec<(Level, String)>>,
    seen: OnceLock<SharedHost>,
}

#[derive(Debug)]
struct SharedHost(abi::Host);

// SAFETY: plain data that is never changed; its context is a `Recorder`, which is `Sync`.
unsafe impl Send for SharedHost {}
// SAFETY: as above.
unsafe impl Sync for SharedHost {}

impl Recorder {
    /// What is handed to `create`; valid as long as the recorder stays where it is.
    pub(crate) fn as_host(&self) -> *const abi::Host {
        let host = self.seen.get_or_init(|| {
            SharedHost(abi::Host {
                size: size_of::<abi::Host>() as u32,
                reserved: 0,
                context: (&raw const *self).cast_mut().cast(),
                log,
            })
        });
        &raw const host.0
    }

    pub(crate) fn lines(&self) -> Vec<(Level, String)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

unsafe extern "C" fn log(context: *mut c_void, level: u32, line: abi::Bytes) {
    // SAFETY: `context` is the recorder, which outlives the instance.
    let (recorder, line) = unsafe { (&*context.cast::<Recorder>(), returned(line)) };
    let line = String::from_utf8_lossy(&line[..line.len().min(LINE_MAX)]).into_owned();
    let mut lines = recorder.lines.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() < LINES_MAX {
        lines.push((Level::from_number(level).unwrap_or(Level::Error), line));
    }
}

/// Lends bytes to the plugin for the length of one call.
pub(crate) fn lend(bytes: &[u8]) -> abi::Bytes {
    abi::Bytes { data: bytes.as_ptr(), len: bytes.len() }
}

/// # Safety
/// The plugin says the truth about its bytes.
unsafe fn returned<'a>(bytes: abi::Bytes) -> &'a [u8] {
    if bytes.data.is_null() {
        return &[];
    }
    // SAFETY: the caller vouches for the plugin.
    unsafe { slice::from_raw_parts(bytes.data, bytes.len) }
}
