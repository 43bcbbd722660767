//! The descriptor: what a plugin is and can do, as JSON.

use std::any::TypeId;

use fleetswap_plugin_abi::{DESCRIPTOR_MAX, Status};
use schemars::Schema;
use serde::Serialize;
use serde_json::Value;

use crate::function::{Answer, Exported, Function, read_schema};
use crate::sink::Refusal;

/// Format of the JSON.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Descriptor<'a> {
    format: u32,
    name: &'a str,
    version: &'a str,
    concurrency: u32,
    functions: Vec<Described<'a>>,
    state: State<'a>,
    background: bool,
    /// Capabilities; none exist yet.
    needs: [&'a str; 0],
    config: Option<Value>,
}

#[derive(Serialize)]
struct Described<'a> {
    name: &'a str,
    input: Option<Value>,
    output: Option<Value>,
    idempotent: bool,
    probe_safe: bool,
    raw: bool,
}

#[derive(Serialize)]
struct State<'a> {
    writes: &'a [u32],
    reads: &'a [u32],
}

/// The descriptor's bytes: the same at every call and on every machine, so they can be compared.
pub(crate) fn describe<P: Exported>() -> Answer {
    let descriptor = Descriptor {
        format: FORMAT,
        name: P::ABOUT.name,
        version: P::ABOUT.version,
        concurrency: P::ABOUT.concurrency,
        functions: P::FUNCTIONS.iter().map(described).collect(),
        state: State { writes: P::STATE_WRITES, reads: P::STATE_READS },
        background: P::ABOUT.background,
        needs: [],
        config: (!takes_no_config::<P>()).then(|| sorted(read_schema::<P::Config>())),
    };
    let bytes = serde_json::to_vec(&descriptor).unwrap_or_default();
    if bytes.is_empty() || bytes.len() > DESCRIPTOR_MAX {
        return Err(Refusal::bare(Status::TOO_LARGE));
    }
    Ok(bytes)
}

/// Whether the plugin's config is `()`.
pub(crate) fn takes_no_config<P: Exported>() -> bool {
    TypeId::of::<P::Config>() == TypeId::of::<()>()
}

fn described<P>(function: &Function<P>) -> Described<'static> {
    let types = function.types.as_ref();
    Described {
        name: function.name,
        input: types.map(|types| sorted((types.input)())),
        output: types.map(|types| sorted((types.output)())),
        idempotent: function.idempotent,
        probe_safe: function.probe_safe,
        raw: types.is_none(),
    }
}

/// With keys in order, whatever features serde_json was built with.
fn sorted(schema: Schema) -> Value {
    let mut value = schema.to_value();
    value.sort_all_objects();
    value
}
