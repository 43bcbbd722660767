//! Descriptor: what a plugin offers and asks for, as its `describe()` writes it in JSON.

use std::collections::BTreeSet;

pub use fleetswap_plugin_abi::CONCURRENCY_MAX;
use fleetswap_plugin_abi::{DESCRIPTOR_MAX, VERSION_MAX};
use semver::Version;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::name::{is_function_name, is_plugin_name, shown};

/// The one format of descriptors so far.
pub const FORMAT: u32 = 1;
/// Most functions of one plugin.
pub const FUNCTIONS_MAX: usize = 256;
/// Most state versions in either list.
pub const STATE_VERSIONS_MAX: usize = 64;
/// Deepest nesting of a schema, counted in arrays and objects.
pub const SCHEMA_DEPTH_MAX: usize = 64;
/// Longest part of a descriptor that an error repeats, in characters.
const SHOWN_MAX: usize = 200;

/// A plugin's description of itself. Equal releases have equal bytes of it, so it is compared as bytes where
/// identity counts and by [`compare`](crate::compare) where meaning counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the plugin.
    pub name: String,
    /// Version of the plugin.
    pub version: Version,
    /// How many calls may run at a time, 1 to [`CONCURRENCY_MAX`]; a host runs at most
    /// [`POOL_MAX`](fleetswap_plugin_abi::POOL_MAX).
    pub concurrency: u32,
    /// Its functions, at most [`FUNCTIONS_MAX`], with distinct names.
    pub functions: Vec<Function>,
    /// State versions.
    pub state: State,
    /// Whether work goes on between calls while active.
    pub background: bool,
    /// Capabilities that it can't work without. See [`Descriptor::unsupported_needs`].
    pub needs: Vec<Value>,
    /// JSON Schema of its config; `None` if it takes none or any bytes.
    #[serde(deserialize_with = "present")]
    pub config: Option<Value>,
}

/// One function of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Name of the function.
    pub name: String,
    /// JSON Schema of the input; `None` exactly if `raw`.
    #[serde(deserialize_with = "present")]
    pub input: Option<Value>,
    /// JSON Schema of the output; `None` exactly if `raw`.
    #[serde(deserialize_with = "present")]
    pub output: Option<Value>,
    /// Running it twice is as good as running it once.
    pub idempotent: bool,
    /// A probe may call it before the plugin is active.
    pub probe_safe: bool,
    /// Input and output are plain bytes instead of JSON.
    pub raw: bool,
}

/// Versions of saved state that a plugin handles. Both lists are empty exactly if it has no state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Versions that `save_state` can write.
    pub writes: Vec<u32>,
    /// Versions that `restore_state` can read.
    pub reads: Vec<u32>,
}

/// Why a descriptor can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// More than [`DESCRIPTOR_MAX`] bytes.
    #[error("the descriptor has {size} bytes, and {DESCRIPTOR_MAX} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// A format that this build does not know.
    #[error("the descriptor has format {0}, and this program understands format {FORMAT}")]
    Format(u64),
    /// Not JSON, a field too many, missing or of another type.
    #[error("the descriptor can't be read: {0}")]
    Malformed(String),
    /// A value out of its bounds.
    #[error("the descriptor says something impossible: {0}")]
    Invalid(String),
    /// A capability that this build does not know.
    #[error("the plugin needs {0}, and this program knows no such capability")]
    NeedsUnknown(String),
}

impl Descriptor {
    /// Reads and checks a descriptor. Needs are not judged here: see [`Descriptor::unsupported_needs`].
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, DescriptorError> {
        if bytes.len() > DESCRIPTOR_MAX {
            return Err(DescriptorError::TooLarge { size: bytes.len() });
        }
        check_format(bytes)?;
        let descriptor: Self = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
        descriptor.check()?;
        Ok(descriptor)
    }

    /// The error for the first need that this version can't meet, which is any: no capability is known yet.
    #[must_use]
    pub fn unsupported_needs(&self) -> Option<DescriptorError> {
        let need = self.needs.first()?;
        Some(DescriptorError::NeedsUnknown(format!("`{}`", shown(&need.to_string(), SHOWN_MAX))))
    }

    /// The function of this name.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }

    fn check(&self) -> Result<(), DescriptorError> {
        if !is_plugin_name(&self.name) {
            return invalid(format!(
                "`{}` is not a plugin name ([a-z][a-z0-9_-]*)",
                shown(&self.name, SHOWN_MAX)
            ));
        }
        if self.version.to_string().len() > VERSION_MAX {
            return invalid(format!("its version is longer than {VERSION_MAX} bytes"));
        }
        if !(1..=CONCURRENCY_MAX).contains(&self.concurrency) {
            return invalid(format!("concurrency {} is not within 1 to {CONCURRENCY_MAX}", self.concurrency));
        }
        if self.functions.len() > FUNCTIONS_MAX {
            return invalid(format!(
                "it has {} functions, and {FUNCTIONS_MAX} are allowed",
                self.functions.len()
            ));
        }
        let mut seen = BTreeSet::new();
        for function in &self.functions {
            function.check()?;
            if !seen.insert(&function.name) {
                return invalid(format!("function `{}` is listed twice", function.name));
            }
        }
        self.state.check()?;
        self.config.as_ref().map_or(Ok(()), |schema| check_schema(schema, "config"))
    }
}

impl Function {
    fn check(&self) -> Result<(), DescriptorError> {
        let name = &self.name;
        if !is_function_name(name) {
            return invalid(format!("`{}` is not a function name ([a-z][a-z0-9_]*)", shown(name, SHOWN_MAX)));
        }
        for (schema, part) in [(&self.input, "input"), (&self.output, "output")] {
            match schema {
                Some(_) if self.raw => {
                    return invalid(format!("function `{name}` is raw and has a schema of its {part}"));
                }
                Some(schema) => check_schema(schema, &format!("{part} of function `{name}`"))?,
                None if self.raw => {}
                None => return invalid(format!("function `{name}` has no schema of its {part}")),
            }
        }
        Ok(())
    }
}

impl State {
    /// Whether the plugin has no state.
    #[must_use]
    pub const fn is_stateless(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty()
    }

    /// The highest state version in which a plugin with `self` can hand its state over to one with `to`.
    #[must_use]
    pub fn handover(&self, to: &Self) -> Option<u32> {
        self.writes.iter().copied().filter(|version| to.reads.contains(version)).max()
    }

    fn check(&self) -> Result<(), DescriptorError> {
        for (versions, verb) in [(&self.writes, "written"), (&self.reads, "read")] {
            if versions.len() > STATE_VERSIONS_MAX {
                return invalid(format!("more than {STATE_VERSIONS_MAX} state versions are {verb}"));
            }
            let mut seen = BTreeSet::new();
            if let Some(twice) = versions.iter().find(|version| !seen.insert(**version)) {
                return invalid(format!("state version {twice} is listed twice as {verb}"));
            }
        }
        if !self.is_stateless() && self.handover(self).is_none() {
            return invalid(
                "it reads no state version that it writes, so it could not be restarted".to_owned(),
            );
        }
        Ok(())
    }
}

impl DescriptorError {
    /// Stable code with a page in `docs/errors/`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "DESCRIPTOR_TOO_LARGE",
            Self::Format(_) => "DESCRIPTOR_FORMAT",
            Self::Malformed(_) => "DESCRIPTOR_MALFORMED",
            Self::Invalid(_) => "DESCRIPTOR_INVALID",
            Self::NeedsUnknown(_) => "NEEDS_UNKNOWN",
        }
    }
}

/// Judges the format before anything else, so that a newer one is named instead of its first unknown field.
fn check_format(bytes: &[u8]) -> Result<(), DescriptorError> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let Format { format } = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
    if format == u64::from(FORMAT) { Ok(()) } else { Err(DescriptorError::Format(format)) }
}

fn check_schema(schema: &Value, place: &str) -> Result<(), DescriptorError> {
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return invalid(format!("the schema of the {place} is neither an object nor true or false"));
    }
    if deeper_than(schema, SCHEMA_DEPTH_MAX) {
        return invalid(format!("the schema of the {place} is nested deeper than {SCHEMA_DEPTH_MAX}"));
    }
    Ok(())
}

/// Whether arrays and objects are nested more than `levels` deep.
fn deeper_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        Value::Array(_) | Value::Object(_) if levels == 0 => true,
        Value::Array(items) => items.iter().any(|item| deeper_than(item, levels - 1)),
        Value::Object(fields) => fields.values().any(|field| deeper_than(field, levels - 1)),
    }
}

/// An optional value whose field must be there all the same (serde lets an `Option` be left out otherwise).
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Option::deserialize(deserializer)
}

fn unreadable(error: &serde_json::Error) -> DescriptorError {
    DescriptorError::Malformed(shown(&error.to_string(), SHOWN_MAX))
}

fn invalid<T>(why: String) -> Result<T, DescriptorError> {
    Err(DescriptorError::Invalid(why))
}

#[cfg(test)]
mod tests;
