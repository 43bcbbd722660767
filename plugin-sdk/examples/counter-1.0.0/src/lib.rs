//! Example plugin: counter 1.0.0, which counts, also across swaps.

use std::sync::atomic::{AtomicU64, Ordering};

use plugin_sdk::{Host, Plugin, PluginError, plugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counts up, and never loses count.
pub struct Counter {
    value: AtomicU64,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

/// State version 1.
#[derive(Serialize, Deserialize)]
struct State {
    value: u64,
}

#[plugin(name = "counter")]
impl Counter {
    #[function]
    fn increment(&self, request: Increment) -> Result<Count, PluginError> {
        let by = request.by.unwrap_or(1);
        let before = self
            .value
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| value.checked_add(by))
            .map_err(|value| PluginError::new("TOO_FAR", format!("{value} and {by} are too much")))?;
        Ok(Count { value: before + by, nonce: request.nonce })
    }

    #[function(idempotent, probe_safe)]
    fn value(&self) -> Result<Count, PluginError> {
        Ok(Count { value: self.value.load(Ordering::Relaxed), nonce: None })
    }
}

impl Plugin for Counter {
    type Config = ();
    const STATE_WRITES: &[u32] = &[1];
    const STATE_READS: &[u32] = &[1];

    fn create(_: Host, (): ()) -> Result<Self, PluginError> {
        Ok(Self { value: AtomicU64::new(0) })
    }

    fn save_state(&self, _: u32) -> Result<Vec<u8>, PluginError> {
        let state = State { value: self.value.load(Ordering::Relaxed) };
        serde_json::to_vec(&state).map_err(|error| PluginError::new("STATE_NOT_WRITTEN", error))
    }

    fn restore_state(&self, _: u32, state: &[u8]) -> Result<(), PluginError> {
        let state: State =
            serde_json::from_slice(state).map_err(|error| PluginError::new("STATE_NOT_READ", error))?;
        self.value.store(state.value, Ordering::Relaxed);
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
    fn counts_by_one_or_as_told_and_gives_the_nonce_back() {
        let counter = active();
        assert_eq!(counter.call("increment", json!({})).unwrap(), json!({"value": 1}));
        let reply = counter.call("increment", json!({"by": 4, "nonce": "a"})).unwrap();
        assert_eq!(reply, json!({"value": 5, "nonce": "a"}));
        assert_eq!(counter.call("value", json!({})).unwrap(), json!({"value": 5}));
    }

    #[test]
    fn loses_no_count_when_many_count_at_once() {
        let counter = active();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| drop(counter.call("increment", json!({})).unwrap())));
            }
        });
        assert_eq!(counter.call("value", json!({})).unwrap()["value"], 400);
    }

    #[test]
    fn refuses_to_count_over_the_end_and_keeps_its_value() {
        let counter = active();
        counter.call("increment", json!({"by": u64::MAX})).unwrap();
        assert_eq!(counter.call("increment", json!({})).unwrap_err().code(), Some("TOO_FAR"));
        assert_eq!(counter.call("value", json!({})).unwrap()["value"], u64::MAX);
    }

    #[test]
    fn hands_its_count_to_the_next_instance_and_refuses_nonsense() {
        let (old, new) = (active(), Driver::new::<Counter>("").unwrap());
        old.call("increment", json!({"by": 7})).unwrap();
        assert_eq!(new.restore_state(1, b"seven").unwrap_err().code(), Some("STATE_NOT_READ"));
        old.hand_over(&new).unwrap();
        assert_eq!(new.call("increment", json!({})).unwrap()["value"], 8);
    }
}
