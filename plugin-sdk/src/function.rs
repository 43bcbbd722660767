//! A function of a plugin, as the table sees it: bytes in, bytes out.

use bytes::Bytes;
use fleetswap_plugin_abi::{CONCURRENCY_MAX, NAME_MAX, VERSION_MAX};
use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sink::Refusal;
use crate::{Deadline, Plugin, PluginError, json};

/// What `#[plugin]` says about a type.
pub trait Exported: Plugin {
    /// The plugin as a whole.
    const ABOUT: About;
    /// Its functions, in the order of the source.
    const FUNCTIONS: &'static [Function<Self>];
}

/// The arguments of `#[plugin]`.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Name of the plugin.
    pub name: &'static str,
    /// Its version, semver.
    pub version: &'static str,
    /// Calls at once.
    pub concurrency: u32,
    /// Works without being called.
    pub background: bool,
}

impl About {
    /// Stops the compiler at what no host would take. The macro can't: the version may be that of the package.
    ///
    /// # Panics
    /// On a name, version or concurrency out of its bounds.
    pub const fn check(&self) {
        assert!(!self.name.is_empty() && self.name.len() <= NAME_MAX, "the plugin's name is too long");
        assert!(self.version.len() <= VERSION_MAX, "the plugin's version has more than 64 bytes");
        assert!(
            1 <= self.concurrency && self.concurrency <= CONCURRENCY_MAX,
            "`concurrency` is from 1 to 256"
        );
    }
}

/// One function.
pub struct Function<P> {
    /// Its name.
    pub name: &'static str,
    /// Calling it twice is as good as once.
    pub idempotent: bool,
    /// Changes nothing, and may be called before `activate`.
    pub probe_safe: bool,
    /// None: raw, bytes in and out.
    pub types: Option<Types>,
    /// The function itself.
    pub run: fn(&P, &[u8], Deadline) -> Answer,
}

/// What comes out of a function of the table.
pub(crate) type Answer = Result<Vec<u8>, Refusal>;

/// Input and output of a function that speaks JSON.
pub struct Types {
    pub(crate) input: fn() -> Schema,
    pub(crate) output: fn() -> Schema,
}

impl Types {
    /// Those of a function from `I` to `O`.
    #[must_use]
    pub const fn of<I: JsonSchema, O: JsonSchema>() -> Self {
        Self { input: read_schema::<I>, output: written_schema::<O> }
    }
}

/// The input of a function that takes none: any JSON object.
#[derive(Deserialize, JsonSchema)]
pub struct NoInput {}

/// Runs a function that speaks JSON.
///
/// # Errors
/// BAD_INPUT when the input does not fit, ERROR when the function says so.
pub fn json<I, O, E>(input: &[u8], run: impl FnOnce(I) -> Result<O, E>) -> Answer
where
    I: DeserializeOwned,
    O: Serialize,
    E: Into<PluginError>,
{
    let output = run(json::decode(input)?).map_err(Refusal::error)?;
    serde_json::to_vec(&output).map_err(|error| {
        Refusal::error(PluginError::new(
            "OUTPUT_NOT_JSON",
            format!("the reply can't be written as JSON: {error}"),
        ))
    })
}

/// Runs a function from bytes to bytes.
///
/// # Errors
/// ERROR when the function says so.
pub fn raw<E: Into<PluginError>>(input: &[u8], run: impl FnOnce(Bytes) -> Result<Bytes, E>) -> Answer {
    run(Bytes::copy_from_slice(input)).map(Vec::from).map_err(Refusal::error)
}

/// The schema of a type that comes in.
pub(crate) fn read_schema<T: JsonSchema>() -> Schema {
    schema::<T>(Contract::Deserialize)
}

/// The schema of a type that goes out.
fn written_schema<T: JsonSchema>() -> Schema {
    schema::<T>(Contract::Serialize)
}

fn schema<T: JsonSchema>(contract: Contract) -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        settings.contract = contract;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    // The name of a Rust type means nothing to callers.
    schema.remove("title");
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: About = About { name: "clock", version: "1.0.0", concurrency: 256, background: false };
    const _: () = GOOD.check();

    #[test]
    #[should_panic(expected = "version has more than 64 bytes")]
    fn a_version_that_no_host_takes_is_refused() {
        let version = format!("1.0.0-{}", "a".repeat(59));
        About { version: version.leak(), ..GOOD }.check();
    }

    #[test]
    #[should_panic(expected = "name is too long")]
    fn a_name_that_no_host_takes_is_refused() {
        About { name: "n".repeat(65).leak(), ..GOOD }.check();
    }

    #[test]
    #[should_panic(expected = "from 1 to 256")]
    fn a_concurrency_that_no_host_takes_is_refused() {
        About { concurrency: 257, ..GOOD }.check();
    }
}
