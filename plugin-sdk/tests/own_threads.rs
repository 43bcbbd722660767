//! A panic in a thread of the plugin's own makes its health red. Alone in its process: panics are counted there.

use std::thread;

use plugin_sdk::testing::{Driver, Failure, json};
use plugin_sdk::{PluginError, plugin};

#[derive(Default)]
struct Ticker;

#[plugin(name = "ticker", background, default)]
impl Ticker {
    #[function(probe_safe)]
    fn tick(&self) -> Result<bool, PluginError> {
        // Joined, so that the test need not wait; the plugin has "survived" its thread.
        Ok(thread::spawn(|| panic!("out of ticks")).join().is_err())
    }

    #[function(probe_safe)]
    fn stumble(&self) -> Result<bool, PluginError> {
        panic!("only a call")
    }
}

#[test]
fn a_panicked_thread_makes_this_instance_red_and_a_panicked_call_does_not() {
    let ticker = Driver::new::<Ticker>("").unwrap();
    assert!(matches!(ticker.call("stumble", json!({})), Err(Failure::Panic(_))));
    ticker.health().unwrap();

    assert_eq!(ticker.call("tick", json!({})).unwrap(), true);
    let failure = ticker.health().unwrap_err();
    assert_eq!(failure.code(), Some("THREAD_PANICKED"));
    assert!(failure.to_string().contains("out of ticks"), "{failure}");

    Driver::new::<Ticker>("").unwrap().health().expect("a later instance is not to blame");
}
