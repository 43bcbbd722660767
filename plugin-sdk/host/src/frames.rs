//! Frames between host and worker: length-delimited prost messages over one socketpair.
//!
//! The host sends [`Start`], then [`Request`]s. The worker answers with two [`Loading`] frames (sandboxed, then
//! loaded; or one refusal), then [`Reply`]s. A body above [`PART_MAX`] goes in several frames of the same id.
use bytes::{Buf, BufMut, Bytes, BytesMut};
use fleetswap_plugin_abi::{BODY_MAX, STATE_MAX, Status};
use prost::Message;
use std::io::{self, Read};
use tokio_util::codec::LengthDelimitedCodec;

/// Largest frame in bytes, without its length.
pub(crate) const FRAME_MAX: usize = 16 * 1024 * 1024;
/// Largest body in one frame; a larger one is sent in parts, so that it doesn't hold up other frames for long.
pub(crate) const PART_MAX: usize = BODY_MAX;
/// Bytes of a frame's length, big-endian.
const LENGTH_BYTES: usize = 4;
/// Bytes that the worker reads at a time.
const READ_CHUNK: usize = 64 * 1024;

/// The first frame of all. Field 1 keeps its number and meaning for ever, so that any two builds can tell that
/// they differ.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Start {
    #[prost(string, tag = "1")]
    pub(crate) build: String,
    #[prost(string, tag = "2")]
    pub(crate) plugin: String,
    #[prost(uint64, tag = "3")]
    pub(crate) memory_bytes: u64,
    #[prost(uint32, tag = "4")]
    pub(crate) open_files: u32,
    /// The sandbox level, as its place in `Level::ALL`.
    #[prost(uint32, tag = "5")]
    pub(crate) level: u32,
    /// Threads that run calls, if the descriptor is known already: they start before the release is opened. 0: it is not.
    #[prost(uint32, tag = "6")]
    pub(crate) pool: u32,
}

/// How far the worker got.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Loading {
    #[prost(oneof = "Step", tags = "1, 2, 3, 4, 5")]
    pub(crate) step: Option<Step>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub(crate) enum Step {
    /// Another build: this is the worker's.
    #[prost(string, tag = "1")]
    OtherBuild(String),
    /// No sandbox.
    #[prost(message, tag = "2")]
    NoSandbox(NoSandbox),
    /// Locked in; what follows is the release's doing. The value says what this host lacks of what the release needs; the
    /// release is opened only if that is nothing.
    #[prost(string, tag = "3")]
    Sandboxed(String),
    /// The library was refused.
    #[prost(message, tag = "4")]
    Refused(Refused),
    /// Loaded: the descriptor.
    #[prost(bytes = "bytes", tag = "5")]
    Loaded(Bytes),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct NoSandbox {
    #[prost(string, tag = "1")]
    pub(crate) piece: String,
    #[prost(string, tag = "2")]
    pub(crate) words: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Refused {
    #[prost(enumeration = "Refusal", tag = "1")]
    pub(crate) kind: i32,
    #[prost(string, tag = "2")]
    pub(crate) words: String,
}

/// What was wrong with a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Refusal {
    CannotOpen = 0,
    SymbolMissing = 1,
    AbiMismatch = 2,
    DescriptorInvalid = 3,
    /// Not the library's fault: the host gives this process no more threads. Believed only of a worker in which the release
    /// has not run, or where nobody is blamed.
    NoThreads = 5,
}

/// What the worker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Op {
    Call = 0,
    Health = 1,
    Create = 2,
    Activate = 3,
    Deactivate = 4,
    SaveState = 5,
    RestoreState = 6,
    Destroy = 7,
}

impl Op {
    /// The name as reports spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Health => "health",
            Self::Create => "create",
            Self::Activate => "activate",
            Self::Deactivate => "deactivate",
            Self::SaveState => "save_state",
            Self::RestoreState => "restore_state",
            Self::Destroy => "destroy",
        }
    }

    /// Largest body of the request in bytes.
    pub(crate) const fn request_max(self) -> usize {
        match self {
            Self::RestoreState => STATE_MAX,
            _ => BODY_MAX,
        }
    }

    /// Largest body of the reply in bytes.
    pub(crate) const fn reply_max(self) -> usize {
        match self {
            Self::SaveState => STATE_MAX,
            _ => BODY_MAX,
        }
    }
}

/// One request, or a part of it.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Request {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(enumeration = "Op", tag = "2")]
    pub(crate) op: i32,
    /// Nanoseconds left.
    #[prost(uint64, tag = "3")]
    pub(crate) deadline_ns: u64,
    /// Of a call: a name, in UTF-8.
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) function: Bytes,
    /// Of a state.
    #[prost(uint32, tag = "5")]
    pub(crate) version: u32,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) body: Bytes,
    /// More parts follow.
    #[prost(bool, tag = "7")]
    pub(crate) more: bool,
}

/// One reply, or a part of it.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Reply {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    /// A status of the ABI, or one of the worker's own below 0.
    #[prost(sint32, tag = "2")]
    pub(crate) status: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) body: Bytes,
    /// More parts follow.
    #[prost(bool, tag = "4")]
    pub(crate) more: bool,
    /// Of a call: the worker finds that calls are quick now.
    #[prost(bool, tag = "5")]
    pub(crate) quick: bool,
}

/// The worker's own status: the deadline was over before the request began; it was not executed.
pub(crate) const EXPIRED: Status = Status(-1);
/// The worker's own status: the plugin returned one that the ABI does not have; the body is its number.
pub(crate) const UNKNOWN: Status = Status(-2);

/// Appends a frame.
pub(crate) fn encode(message: &impl Message, frames: &mut BytesMut) {
    let length = message.encoded_len();
    debug_assert!(length <= FRAME_MAX, "bodies are cut into parts before they get here");
    frames.reserve(LENGTH_BYTES + length);
    frames.put_u32(length as u32);
    message.encode_raw(frames);
}

/// Appends a request in as many frames as it needs.
pub(crate) fn encode_request(mut request: Request, frames: &mut BytesMut) {
    while request.body.len() > PART_MAX {
        let part = Request { body: request.body.split_to(PART_MAX), more: true, ..request.clone() };
        encode(&part, frames);
    }
    encode(&request, frames);
}

/// How the host cuts the stream into frames.
pub(crate) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec()
}

/// Puts parts together.
#[derive(Debug, Default)]
pub(crate) struct Parts(BytesMut);

impl Parts {
    /// Takes a part; returns the whole body with the last one. All but the last have [`PART_MAX`] bytes, so that
    /// their number is bounded as well.
    pub(crate) fn take(&mut self, part: Bytes, more: bool, max: usize) -> Result<Option<Bytes>, BadPart> {
        if self.0.len() + part.len() > max {
            return Err(BadPart::TooLong);
        }
        if more && part.len() != PART_MAX {
            return Err(BadPart::Short(part.len()));
        }
        if !more && self.0.is_empty() {
            return Ok(Some(part));
        }
        self.0.extend_from_slice(&part);
        Ok((!more).then(|| std::mem::take(&mut self.0).freeze()))
    }
}

/// A part that no honest sender makes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadPart {
    /// The body is beyond its bound.
    TooLong,
    /// More parts follow one that has only so many bytes.
    Short(usize),
}

/// Cuts a blocking stream into frames.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    /// What one read fills; memory only where it was filled.
    chunk: Box<[u8]>,
}

impl<R: Read> FrameReader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new(), chunk: vec![0; READ_CHUNK].into() }
    }

    /// The next frame; None at the end of the stream.
    pub(crate) fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.ready()? {
                return Ok(Some(frame));
            }
            match self.stream.read(&mut self.chunk) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.buffer.extend_from_slice(&self.chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next frame, if it has been read already.
    pub(crate) fn ready(&mut self) -> io::Result<Option<Bytes>> {
        let Some(head) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > FRAME_MAX {
            return Err(io::Error::other("a frame is longer than allowed"));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: Bytes) -> Request {
        let function = "time".into();
        Request { id: 7, op: Op::Call as i32, deadline_ns: 1, function, version: 2, body, more: false }
    }

    /// A stream that yields a byte at a time.
    struct Slow(BytesMut);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(1);
            into[..count].copy_from_slice(&self.0.split_to(count));
            Ok(count)
        }
    }

    #[test]
    fn a_frame_that_comes_byte_by_byte_is_read_whole() {
        let mut frames = BytesMut::new();
        encode_request(request(Bytes::from_static(b"{}")), &mut frames);
        encode_request(request(Bytes::new()), &mut frames);
        let mut reader = FrameReader::new(Slow(frames));
        for body in ["{}", ""] {
            let read = Request::decode(reader.next().unwrap().unwrap()).unwrap();
            assert_eq!(read, request(Bytes::from_static(body.as_bytes())));
        }
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn a_large_body_goes_in_parts_and_comes_out_whole() {
        let body: Bytes = (0..PART_MAX * 2 + 3).map(|n| n as u8).collect();
        let mut frames = BytesMut::new();
        encode_request(request(body.clone()), &mut frames);
        let mut reader = FrameReader::new(&frames[..]);
        let (mut parts, mut count) = (Parts::default(), 0);
        let whole = loop {
            let part = Request::decode(reader.next().unwrap().unwrap()).unwrap();
            count += 1;
            if let Some(whole) = parts.take(part.body, part.more, body.len()).unwrap() {
                break whole;
            }
        };
        assert_eq!((whole == body, count), (true, 3));
    }

    #[test]
    fn parts_beyond_the_bound_are_refused() {
        let mut parts = Parts::default();
        assert_eq!(parts.take(vec![0; PART_MAX].into(), true, PART_MAX + 2), Ok(None));
        assert_eq!(parts.take(Bytes::from_static(b"def"), false, PART_MAX + 2), Err(BadPart::TooLong));
    }

    #[test]
    fn a_part_that_is_not_the_last_and_not_full_is_refused() {
        for len in [0, 1, PART_MAX - 1] {
            let part = Parts::default().take(vec![0; len].into(), true, STATE_MAX);
            assert_eq!(part, Err(BadPart::Short(len)));
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_or_promises_too_much_is_an_error() {
        let mut cut = FrameReader::new(&[0, 0, 0, 9, 1][..]);
        assert_eq!(cut.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut huge = FrameReader::new(&[255, 255, 255, 255, 1][..]);
        assert!(huge.next().is_err());
    }
}
