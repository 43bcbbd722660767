//! The file as TOML has it: names and types, with the place of every value for messages.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Spanned, Value};

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: Spanned<String>,
    pub(super) state_dir: Spanned<String>,
    pub(super) controller: Spanned<String>,
    pub(super) trust_root: Spanned<String>,
    #[serde(default)]
    pub(super) allow_dev_trust: bool,
    #[serde(default = "no_mirrors")]
    pub(super) mirrors: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) labels: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    pub(super) front: Front,
    #[serde(default)]
    pub(super) control: Control,
    #[serde(default)]
    pub(super) sandbox: Sandbox,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) plugins: BTreeMap<Spanned<String>, Plugin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Front {
    pub(super) socket: Spanned<String>,
    pub(super) mode: Spanned<Value>,
    pub(super) group: Option<Spanned<String>>,
    pub(super) listen: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Control {
    pub(super) socket: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sandbox {
    pub(super) min: Spanned<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Plugin {
    pub(super) checkpoint_interval: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) memory_mib: Option<Spanned<i64>>,
    pub(super) threads: Option<Spanned<i64>>,
    pub(super) cpu_percent: Option<Spanned<i64>>,
    pub(super) files: Option<Spanned<i64>>,
    pub(super) load_timeout_ms: Option<Spanned<i64>>,
    pub(super) control_timeout_ms: Option<Spanned<i64>>,
    pub(super) state_timeout_ms: Option<Spanned<i64>>,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            socket: unplaced("/run/fleetswap/front.sock".to_owned()),
            mode: unplaced(Value::Integer(0o660)),
            group: None,
            listen: None,
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: unplaced("/run/fleetswap/control.sock".to_owned()) }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { min: unplaced("standard".to_owned()) }
    }
}

fn no_mirrors() -> Spanned<Vec<Spanned<String>>> {
    unplaced(Vec::new())
}

/// A default: it stands nowhere in the file.
fn unplaced<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}
