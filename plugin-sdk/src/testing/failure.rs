//! Failure: what a function of the table answered, other than OK.

use fleetswap_plugin_abi::Status;
use serde::Deserialize;

use crate::PluginError;

/// Why a function of the table did not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The plugin's own error.
    Error(PluginError),
    /// No function of this name.
    UnknownFunction,
    /// The input does not fit.
    BadInput {
        /// Path of the field; `.` is the input as a whole.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The plugin's code panicked with this message.
    Panic(String),
    /// Not allowed in this phase, beside what runs, or on this thread.
    Illegal(Referee),
    /// The plugin can't do this.
    Unsupported,
    /// Input or output is over its bound.
    TooLarge,
    /// What the plugin wrote is not the JSON that it should be.
    NotJson(String),
    /// The entry returned no table that a host would take; why not.
    BadTable(String),
    /// `create` returned OK, and null for an instance.
    NoInstance,
    /// A status that the table does not know.
    UnknownStatus(i32),
}

/// Who refused an illegal call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referee {
    /// The kit, before the plugin was asked, as a host does.
    Kit,
    /// The plugin's table.
    Table,
}

#[derive(Deserialize)]
struct BadField {
    field: String,
    message: String,
}

impl Failure {
    /// The code of the plugin's own error, if it is one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Error(error) => Some(&error.code),
            Self::UnknownFunction
            | Self::BadInput { .. }
            | Self::Panic(_)
            | Self::Illegal(_)
            | Self::Unsupported
            | Self::TooLarge
            | Self::NotJson(_)
            | Self::BadTable(_)
            | Self::NoInstance
            | Self::UnknownStatus(_) => None,
        }
    }

    /// Splits what a function returned and wrote into output and failure.
    pub(super) fn check(status: Status, written: Vec<u8>) -> Result<Vec<u8>, Self> {
        Err(match status {
            Status::OK => return Ok(written),
            Status::ERROR => parsed(&written, Self::Error),
            Status::UNKNOWN_FUNCTION => Self::UnknownFunction,
            Status::BAD_INPUT => {
                parsed(&written, |BadField { field, message }| Self::BadInput { field, message })
            }
            Status::PANIC => Self::Panic(String::from_utf8_lossy(&written).into_owned()),
            Status::ILLEGAL => Self::Illegal(Referee::Table),
            Status::UNSUPPORTED => Self::Unsupported,
            Status::TOO_LARGE => Self::TooLarge,
            Status(other) => Self::UnknownStatus(other),
        })
    }
}

fn parsed<'a, T: Deserialize<'a>>(written: &'a [u8], make: impl FnOnce(T) -> Failure) -> Failure {
    serde_json::from_slice(written).map_or_else(|error| Failure::NotJson(error.to_string()), make)
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Error(error) => write!(f, "{error}"),
            Self::UnknownFunction => f.write_str("no function of this name"),
            Self::BadInput { field, message } => write!(f, "field `{field}` does not fit: {message}"),
            Self::Panic(message) => write!(f, "the plugin panicked: {message}"),
            Self::Illegal(Referee::Kit) => f.write_str("the kit refuses: not legal here"),
            Self::Illegal(Referee::Table) => f.write_str("the plugin's table refuses: not legal here"),
            Self::Unsupported => f.write_str("the plugin can't do this"),
            Self::TooLarge => f.write_str("input or output is too large"),
            Self::NotJson(message) => write!(f, "what the plugin wrote is not the right JSON: {message}"),
            Self::BadTable(why) => f.write_str(why),
            Self::NoInstance => f.write_str("create returned OK, and the instance that it gave is null"),
            Self::UnknownStatus(status) => write!(f, "unknown status {status}"),
        }
    }
}

impl std::error::Error for Failure {}
