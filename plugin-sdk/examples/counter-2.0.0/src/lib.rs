//! Example plugin: counter 2.0.0, which also counts its calls, and can still go back to 1.0.0.

use std::sync::{Mutex, MutexGuard, PoisonError};

use plugin_sdk::{Host, Level, Plugin, PluginError, plugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counts up, and knows in how many steps.
pub struct Counter {
    host: Host,
    state: Mutex<State>,
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

/// State version 2. Version 1 is the same without `calls`.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct State {
    value: u64,
    #[serde(default)]
    calls: u64,
}

/// State version 1, for the way back.
#[derive(Serialize)]
struct OldState {
    value: u64,
}

#[plugin(name = "counter")]
impl Counter {
    #[function]
    fn increment(&self, request: Increment) -> Result<Count, PluginError> {
        let by = request.by.unwrap_or(1);
        let mut state = self.lock();
        let value = state
            .value
            .checked_add(by)
            .ok_or_else(|| PluginError::new("TOO_FAR", format!("{} and {by} are too much", state.value)))?;
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
}

impl Plugin for Counter {
    type Config = ();
    const STATE_WRITES: &[u32] = &[1, 2];
    const STATE_READS: &[u32] = &[1, 2];

    fn create(host: Host, (): ()) -> Result<Self, PluginError> {
        Ok(Self { host, state: Mutex::default() })
    }

    fn save_state(&self, version: u32) -> Result<Vec<u8>, PluginError> {
        let state = *self.lock();
        let written = match version {
            1 => serde_json::to_vec(&OldState { value: state.value }),
            _ => serde_json::to_vec(&state),
        };
        written.map_err(|error| PluginError::new("STATE_NOT_WRITTEN", error))
    }

    fn restore_state(&self, version: u32, state: &[u8]) -> Result<(), PluginError> {
        let state: State =
            serde_json::from_slice(state).map_err(|error| PluginError::new("STATE_NOT_READ", error))?;
        self.host.log(Level::Info, &format!("goes on at {} from state version {version}", state.value));
        *self.lock() = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use plugin_sdk::testing::{Driver, json};

    use super::Counter;

    fn active() -> Driver {
        let counter = Driver::new::<Counter>("").unwrap();
        counter.activate().unwrap();
        counter
    }

    #[test]
    fn counts_its_calls_beside_its_value() {
        let counter = active();
        counter.call("increment", json!({"by": 10})).unwrap();
        let reply = counter.call("increment", json!({"nonce": "b"})).unwrap();
        assert_eq!(reply, json!({"value": 11, "calls": 2, "nonce": "b"}));
    }

    #[test]
    fn loses_no_count_when_many_count_at_once() {
        let counter = active();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| drop(counter.call("increment", json!({})).unwrap())));
            }
        });
        assert_eq!(counter.call("value", json!({})).unwrap(), json!({"value": 400, "calls": 400}));
    }

    #[test]
    fn keeps_everything_between_two_instances_of_itself() {
        let (old, new) = (active(), Driver::new::<Counter>("").unwrap());
        old.call("increment", json!({"by": 7})).unwrap();
        old.hand_over(&new).unwrap();
        assert_eq!(new.call("value", json!({})).unwrap(), json!({"value": 7, "calls": 1}));
    }
}
