//! A plugin's own error, as its author returns it and its caller reads it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An answer in its own right: "this can't be done, and here is why". Callers get it with HTTP status 422.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginError {
    /// Stable `UPPER_SNAKE` word that programs decide by.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl PluginError {
    /// An error with a stable `UPPER_SNAKE` code and a sentence.
    pub fn new(code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { code: code.into(), message: message.to_string() }
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for PluginError {}
