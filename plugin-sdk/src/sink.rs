//! Sink: where a function of the table writes its answer, and what it writes when it refuses.

use fleetswap_plugin_abi::{self as abi, Status, WORDS_MAX};
use serde::Serialize;

use crate::PluginError;

/// Longest message of an error or a panic, in bytes; the rest is cut.
const MESSAGE_MAX: usize = 4096;
/// Most bytes that JSON makes of one: `\u0000`.
const ESCAPE_MAX: usize = 6;
const _: () =
    assert!(2 * MESSAGE_MAX * ESCAPE_MAX + 64 <= WORDS_MAX, "a code and a message fit a sink for words");

/// Why a function of the table does not answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    status: Status,
    detail: Detail,
}

/// What stands in the sink beside the status.
#[derive(Clone, Debug, PartialEq)]
enum Detail {
    None,
    Text(String),
    Error(PluginError),
    Field(BadField),
}

/// The field of an input that does not fit, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct BadField {
    field: String,
    message: String,
}

impl Refusal {
    /// A status that says it all.
    pub(crate) const fn bare(status: Status) -> Self {
        Self { status, detail: Detail::None }
    }

    /// The plugin's own error.
    pub(crate) fn error(error: impl Into<PluginError>) -> Self {
        let PluginError { code, message } = error.into();
        let error = PluginError { code: cut(code), message: cut(message) };
        Self { status: Status::ERROR, detail: Detail::Error(error) }
    }

    /// An input that does not fit its schema.
    pub(crate) fn bad_input(field: &str, message: &str) -> Self {
        let bad = BadField { field: cut(field.to_owned()), message: cut(message.to_owned()) };
        Self { status: Status::BAD_INPUT, detail: Detail::Field(bad) }
    }

    /// A panic with this message.
    pub(crate) fn panic(message: String) -> Self {
        Self { status: Status::PANIC, detail: Detail::Text(cut(message)) }
    }

    pub(crate) fn detail(&self) -> Vec<u8> {
        match &self.detail {
            Detail::None => Vec::new(),
            Detail::Text(text) => text.clone().into_bytes(),
            // Two strings are always JSON.
            Detail::Error(error) => serde_json::to_vec(error).unwrap_or_default(),
            Detail::Field(bad) => serde_json::to_vec(bad).unwrap_or_default(),
        }
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_MAX));
    text
}

/// A sink that the host gave.
pub(crate) struct Out(*const abi::Sink);

impl Out {
    /// # Safety
    /// `sink` is null, or valid as long as the value is used, which is on this thread only.
    pub(crate) unsafe fn new(sink: *const abi::Sink) -> Self {
        Self(sink)
    }

    /// Writes an answer, and gives the status to return with it.
    pub(crate) fn finish(&self, answer: Result<Vec<u8>, Refusal>) -> Status {
        match answer {
            Ok(bytes) => self.write(&bytes),
            Err(refusal) => {
                // The status alone still says what happened, if the sink has no room for the words.
                let _ = self.write(&refusal.detail());
                refusal.status
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> Status {
        // SAFETY: null or valid, as `new` demands.
        let sink = unsafe { self.0.as_ref() };
        match sink {
            Some(sink) if !bytes.is_empty() => {
                let bytes = abi::Bytes { data: bytes.as_ptr(), len: bytes.len() };
                // SAFETY: the sink is valid, and `bytes` outlives the call.
                unsafe { (sink.write)(sink.context, bytes) }
            }
            Some(_) | None => Status::OK,
        }
    }
}
