//! Test plugin: panics where it is told to.

use plugin_sdk::{PluginError, plugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Says how many it is asked for, or panics.
#[derive(Default)]
pub struct Panicky;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Request {
    count: u64,
}

#[derive(Serialize, JsonSchema)]
struct Reply {
    count: u64,
}

#[plugin(name = "panicky", default)]
impl Panicky {
    #[function(idempotent, probe_safe)]
    fn count(&self, request: Request) -> Result<Reply, PluginError> {
        Ok(Reply { count: request.count })
    }

    #[function]
    fn boom(&self, request: Request) -> Result<Reply, PluginError> {
        panic!("asked to panic {} times", request.count)
    }
}
