//! Sink: the bounded buffer that a plugin writes its output into.
use bytes::Bytes;
use fleetswap_plugin_abi as abi;
use std::{ffi::c_void, ptr::NonNull};

/// Collects what the plugin writes, up to a bound.
#[derive(Debug)]
pub(super) struct Output {
    bytes: Vec<u8>,
    max: usize,
    overflowed: bool,
}

impl Output {
    pub(super) const fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max, overflowed: false }
    }

    /// Runs `work` with a sink into this buffer, and returns the status with what was written. Output beyond the
    /// bound is too large whatever the plugin makes of the sink's refusal; words of an error are only cut.
    pub(super) fn collect(mut self, work: impl FnOnce(*const abi::Sink) -> abi::Status) -> Answer {
        let sink = abi::Sink { context: (&raw mut self).cast(), write };
        let status = work(&raw const sink);
        if self.overflowed && matches!(status, abi::Status::OK | abi::Status::TOO_LARGE) {
            return Answer { status: abi::Status::TOO_LARGE, body: Bytes::new() };
        }
        Answer { status, body: self.bytes.into() }
    }

    fn append(&mut self, bytes: &[u8]) -> abi::Status {
        let room = self.max - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            self.overflowed = true;
            return abi::Status::TOO_LARGE;
        }
        abi::Status::OK
    }
}

/// What a function of the table returned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: abi::Status,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) const fn only(status: abi::Status) -> Self {
        Self { status, body: Bytes::new() }
    }
}

/// The sink's function, which the plugin calls.
unsafe extern "C" fn write(context: *mut c_void, bytes: abi::Bytes) -> abi::Status {
    // SAFETY: the plugin hands back the context of the sink that it was given, which `collect` keeps alive
    // until the plugin's function returns; a plugin that does otherwise breaks only this process.
    let Some(output) = (unsafe { context.cast::<Output>().as_mut() }) else {
        return abi::Status::ILLEGAL;
    };
    // SAFETY: the plugin says that these bytes are readable until this returns.
    let bytes = unsafe { slice(bytes) };
    output.append(bytes)
}

/// The bytes that a plugin points to.
///
/// # Safety
/// `bytes.data` must be readable for `bytes.len` bytes for as long as the slice is used, or `len` be 0.
pub(super) unsafe fn slice<'a>(bytes: abi::Bytes) -> &'a [u8] {
    match NonNull::new(bytes.data.cast_mut()) {
        // SAFETY: as the caller promises; a length beyond what a slice may have is cut to nothing.
        Some(data) if bytes.len <= isize::MAX.cast_unsigned() => unsafe {
            std::slice::from_raw_parts(data.as_ptr(), bytes.len)
        },
        _ => &[],
    }
}

/// Bytes as the plugin gets them.
pub(super) const fn lend(bytes: &[u8]) -> abi::Bytes {
    abi::Bytes { data: bytes.as_ptr(), len: bytes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_all(max: usize, pieces: &[&str], status: abi::Status) -> Answer {
        Output::new(max).collect(|sink| {
            for piece in pieces {
                // SAFETY: the sink is alive within `collect`, and the pieces are.
                unsafe { ((*sink).write)((*sink).context, lend(piece.as_bytes())) };
            }
            status
        })
    }

    #[test]
    fn a_sink_collects_up_to_its_bound_exactly() {
        let answer = write_all(4, &["ab", "", "cd"], abi::Status::OK);
        assert_eq!(answer, Answer { status: abi::Status::OK, body: Bytes::from_static(b"abcd") });
    }

    #[test]
    fn a_plugin_that_ignores_the_refusal_still_gets_too_large() {
        let answer = write_all(4, &["abcde"], abi::Status::OK);
        assert_eq!(answer, Answer::only(abi::Status::TOO_LARGE));
        assert_eq!(write_all(4, &["abc", "de"], abi::Status::TOO_LARGE), answer);
    }

    #[test]
    fn an_error_whose_words_are_too_long_stays_that_error_with_its_words_cut() {
        let answer = write_all(4, &["abc", "de", "f"], abi::Status::PANIC);
        assert_eq!(answer, Answer { status: abi::Status::PANIC, body: Bytes::from_static(b"abcd") });
    }

    #[test]
    fn null_bytes_and_a_null_context_are_harmless() {
        let null = abi::Bytes { data: std::ptr::null(), len: 9 };
        // SAFETY: null is not read.
        assert!(unsafe { slice(null) }.is_empty());
        // SAFETY: a null context is looked at first.
        assert_eq!(unsafe { write(std::ptr::null_mut(), null) }, abi::Status::ILLEGAL);
    }
}
