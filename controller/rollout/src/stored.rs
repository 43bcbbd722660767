//! Values with the version of their format, as they are stored.

use serde::{Deserialize, Serialize};

/// The format that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// A value beside the version of its format. Reading one of a newer format is an error, before the value is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored<T> {
    format: Format,
    value: T,
}

impl<T> Stored<T> {
    /// The value in the present format.
    pub fn new(value: T) -> Self {
        Self { format: Format(FORMAT), value }
    }

    /// The value.
    pub fn into_value(self) -> T {
        self.value
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Format(u32);

impl TryFrom<u32> for Format {
    type Error = NewerFormat;

    fn try_from(format: u32) -> Result<Self, NewerFormat> {
        if (1..=FORMAT).contains(&format) { Ok(Self(format)) } else { Err(NewerFormat(format)) }
    }
}

impl From<Format> for u32 {
    fn from(format: Format) -> Self {
        format.0
    }
}

#[derive(Debug, thiserror::Error)]
#[error("stored in format {0}; this controller reads 1 to {FORMAT}")]
struct NewerFormat(u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_before_its_value_is_read() {
        let error =
            serde_json::from_str::<Stored<u8>>(r#"{"format":2,"value":{"unknown":true}}"#).unwrap_err();
        assert!(error.to_string().starts_with("stored in format 2; this controller reads 1 to 1"), "{error}");
    }

    #[test]
    fn a_value_reads_back_as_it_was_written() {
        let text = serde_json::to_string(&Stored::new(7)).unwrap();
        assert_eq!(text, r#"{"format":1,"value":7}"#);
        assert_eq!(serde_json::from_str::<Stored<u8>>(&text).unwrap().into_value(), 7);
    }
}
