//! Test plugin: counter 3.0.0, which fails where its config says, after the state of the old release was saved or before.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use plugin_sdk::{Host, Plugin, PluginError, plugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counts as counter 2.0.0 does, as long as it does not fail.
pub struct Counter {
    fails: Where,
    active: AtomicBool,
    state: Mutex<State>,
}

/// Where it fails.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Where {
    /// It refuses the state.
    RestoreState,
    /// It does not become active.
    Activate,
    /// It is never healthy.
    Probing,
    /// It is not healthy once it is active.
    Probation,
}

/// What it is pushed with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    fails: Where,
    /// Tells releases apart.
    #[serde(rename = "serial")]
    _serial: u64,
}

/// How far to count.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Increment {
    /// 1, if left out.
    by: Option<u64>,
    /// Anything; it comes back in the reply, so that a caller can tell its replies apart.
    nonce: Option<String>,
}

/// How far we have come.
#[derive(Serialize, JsonSchema)]
struct Count {
    value: u64,
    /// Steps since 2.0.0 took over.
    calls: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

/// State version 2. Version 1 is the same without `calls`, and is read as well.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct State {
    value: u64,
    #[serde(default)]
    calls: u64,
}

#[plugin(name = "counter")]
impl Counter {
    #[function]
    fn increment(&self, request: Increment) -> Result<Count, PluginError> {
        let mut state = self.lock();
        let value = state.value + request.by.unwrap_or(1);
        *state = State { value, calls: state.calls + 1 };
        Ok(Count { value, calls: state.calls, nonce: request.nonce })
    }

    #[function(idempotent, probe_safe)]
    fn value(&self) -> Result<Count, PluginError> {
        let State { value, calls } = *self.lock();
        Ok(Count { value, calls, nonce: None })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails_in(&self, place: Where) -> Result<(), PluginError> {
        if self.fails == place { Err(PluginError::new("ON_PURPOSE", "its config says so")) } else { Ok(()) }
    }
}

impl Plugin for Counter {
    type Config = Config;
    const STATE_WRITES: &[u32] = &[1, 2];
    const STATE_READS: &[u32] = &[1, 2];

    fn create(_: Host, config: Config) -> Result<Self, PluginError> {
        Ok(Self { fails: config.fails, active: AtomicBool::new(false), state: Mutex::default() })
    }

    fn health(&self) -> Result<(), PluginError> {
        self.fails_in(Where::Probing)?;
        if self.active.load(Ordering::Relaxed) {
            self.fails_in(Where::Probation)?;
        }
        Ok(())
    }

    fn activate(&self) -> Result<(), PluginError> {
        self.fails_in(Where::Activate)?;
        self.active.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn save_state(&self, _: u32) -> Result<Vec<u8>, PluginError> {
        serde_json::to_vec(&*self.lock()).map_err(|error| PluginError::new("STATE_NOT_WRITTEN", error))
    }

    fn restore_state(&self, _: u32, state: &[u8]) -> Result<(), PluginError> {
        self.fails_in(Where::RestoreState)?;
        let state: State =
            serde_json::from_slice(state).map_err(|error| PluginError::new("STATE_NOT_READ", error))?;
        *self.lock() = state;
        Ok(())
    }
}
