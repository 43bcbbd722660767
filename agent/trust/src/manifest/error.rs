//! Why a manifest or a probe was refused.

use super::{FORMAT, MANIFEST_MAX};

/// Why a manifest or a probe was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More than [`MANIFEST_MAX`] bytes.
    #[error("the manifest has {length} bytes; at most {MANIFEST_MAX} are allowed")]
    TooLarge {
        /// In bytes.
        length: usize,
    },
    /// Made by a newer program.
    #[error("the manifest has format {format}; this program knows format {FORMAT}")]
    UnknownFormat {
        /// The format that it says.
        format: u32,
    },
    /// Not JSON, an unknown or missing field, or a value outside its bounds.
    #[error("the manifest is not valid: {reason}")]
    Invalid {
        /// What is wrong, naming the field.
        reason: String,
    },
    /// The text of a probe could not be read.
    #[error("the probe `{text}` is not valid: {reason}")]
    Probe {
        /// The text, cut if long.
        text: String,
        /// What is wrong.
        reason: String,
    },
}

impl ManifestError {
    /// Stable code with a page in `docs/errors/`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "MANIFEST_TOO_LARGE",
            Self::UnknownFormat { .. } => "MANIFEST_FORMAT_UNKNOWN",
            Self::Invalid { .. } => "MANIFEST_INVALID",
            Self::Probe { .. } => "PROBE_INVALID",
        }
    }

    /// What to do next.
    #[must_use]
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => {
                "use fewer or smaller probes; put large data into the config or a data blob"
            }
            Self::UnknownFormat { .. } => "update this program, then try again",
            Self::Invalid { .. } => "correct the value that is named and publish again",
            Self::Probe { .. } => {
                "write it as FUNCTION INPUT => EXPECTED with JSON on both sides, e.g. 'time {\"unix_seconds\":0} => {\"text\":\"…\"}'"
            }
        }
    }
}
