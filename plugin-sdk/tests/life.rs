//! The life of a plugin written with the macro, driven through its table.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use plugin_sdk::testing::{Driver, Failure, Referee, json};
use plugin_sdk::{Bytes, Deadline, Host, Level, Plugin, PluginError, plugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Does one of everything.
struct Kitchen {
    host: Host,
    menu: Menu,
    guests: Mutex<Vec<String>>,
}

#[derive(Deserialize, JsonSchema)]
struct Menu {
    #[serde(default = "pancakes")]
    dish: String,
    #[serde(default)]
    closed: bool,
}

fn pancakes() -> String {
    "pancakes".to_owned()
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Order {
    guest: Guest,
    plates: u8,
}

#[derive(Deserialize, JsonSchema)]
struct Guest {
    name: String,
}

#[derive(Serialize, JsonSchema)]
struct Meal {
    text: String,
}

#[plugin(name = "kitchen", version = "2.1.0", concurrency = 2)]
impl Kitchen {
    #[function]
    fn cook(&self, order: Order) -> Result<Meal, PluginError> {
        if order.plates == 0 {
            return Err(PluginError::new("NOTHING_ORDERED", "a meal has at least one plate"));
        }
        self.guests.lock().unwrap().push(order.guest.name.clone());
        Ok(Meal { text: format!("{} {} for {}", order.plates, self.menu.dish, order.guest.name) })
    }

    #[function(idempotent, probe_safe)]
    fn menu(&self) -> Result<Meal, PluginError> {
        Ok(Meal { text: self.menu.dish.clone() })
    }

    #[function(probe_safe)]
    fn burn(&self) -> Result<Meal, PluginError> {
        panic!("the {} burn", self.menu.dish)
    }

    #[function(idempotent, probe_safe)]
    fn shout(&self, words: Bytes) -> Result<Bytes, PluginError> {
        Ok(Bytes::from(words.to_ascii_uppercase()))
    }

    #[function(probe_safe)]
    fn fill(&self, length: usize) -> Result<String, PluginError> {
        Ok("x".repeat(length))
    }

    #[function(idempotent, probe_safe)]
    fn patience(&self, _question: (), deadline: Deadline) -> Result<u64, PluginError> {
        assert!(!deadline.has_passed());
        Ok(deadline.time_left().as_secs())
    }
}

impl Plugin for Kitchen {
    type Config = Menu;
    const STATE_WRITES: &[u32] = &[1];
    const STATE_READS: &[u32] = &[1];

    fn create(host: Host, menu: Menu) -> Result<Self, PluginError> {
        if menu.closed {
            return Err(PluginError::new("CLOSED", "no meals today"));
        }
        host.log(Level::Info, &format!("serving {}", menu.dish));
        Ok(Self { host, menu, guests: Mutex::default() })
    }

    fn activate(&self) -> Result<(), PluginError> {
        self.host.log(Level::Debug, "the oven is on");
        Ok(())
    }

    fn save_state(&self, _: u32) -> Result<Vec<u8>, PluginError> {
        Ok(self.guests.lock().unwrap().join(",").into_bytes())
    }

    fn restore_state(&self, _: u32, state: &[u8]) -> Result<(), PluginError> {
        assert!(!state.is_empty(), "a kitchen without guests");
        *self.guests.lock().unwrap() = String::from_utf8_lossy(state).split(',').map(Into::into).collect();
        Ok(())
    }
}

impl Drop for Kitchen {
    fn drop(&mut self) {
        self.host.log(Level::Info, "good night");
    }
}

fn created() -> Driver {
    Driver::new::<Kitchen>("").unwrap()
}

fn active() -> Driver {
    let kitchen = created();
    kitchen.activate().unwrap();
    kitchen
}

fn bad_field(failure: Failure) -> String {
    match failure {
        Failure::BadInput { field, .. } => field,
        other => panic!("expected a bad input, got {other:?}"),
    }
}

#[test]
fn a_call_is_answered() {
    let reply = active().call("cook", json!({"guest": {"name": "Ada"}, "plates": 2})).unwrap();
    assert_eq!(reply["text"], "2 pancakes for Ada");
}

#[test]
fn a_config_reaches_the_plugin_or_is_refused_by_its_field() {
    let kitchen = Driver::new::<Kitchen>(r#"{"dish": "soup"}"#).unwrap();
    assert_eq!(kitchen.call("menu", json!({})).unwrap()["text"], "soup");
    assert_eq!(bad_field(Driver::new::<Kitchen>(r#"{"dish": 7}"#).unwrap_err()), "dish");
    let closed = Driver::new::<Kitchen>(r#"{"closed": true}"#).unwrap_err();
    assert_eq!(closed.code(), Some("CLOSED"));
}

#[test]
fn a_bad_input_is_refused_and_the_field_named() {
    let kitchen = active();
    let field = |input| bad_field(kitchen.call("cook", input).unwrap_err());
    assert_eq!(field(json!({"guest": {"name": 1}, "plates": 1})), "guest.name");
    assert_eq!(field(json!({"guest": {}, "plates": 1})), "guest.name");
    assert_eq!(field(json!({"guest": {"name": "Ada"}})), "plates");
    assert_eq!(field(json!({"guest": {"name": "Ada"}, "plates": 300})), "plates");
    assert_eq!(field(json!({"guest": {"name": "Ada"}, "plates": 1, "wine": "red"})), "wine");
    assert_eq!(bad_field(kitchen.call_raw("cook", b"{\"guest").unwrap_err()), ".");
    assert_eq!(bad_field(kitchen.call_raw("cook", b"").unwrap_err()), ".");
}

#[test]
fn an_unknown_function_and_the_plugins_own_error_are_told_apart() {
    let kitchen = active();
    assert_eq!(kitchen.call("dance", json!({})).unwrap_err(), Failure::UnknownFunction);
    let nothing = kitchen.call("cook", json!({"guest": {"name": "Ada"}, "plates": 0})).unwrap_err();
    assert_eq!(nothing.code(), Some("NOTHING_ORDERED"));
}

#[test]
fn a_panic_is_the_error_of_one_call_and_the_plugin_goes_on() {
    let kitchen = active();
    let Failure::Panic(message) = kitchen.call("burn", json!({})).unwrap_err() else {
        panic!("expected a panic");
    };
    assert!(message.starts_with("the pancakes burn ("), "{message}");
    assert!(message.contains("life.rs:"), "says where: {message}");
    kitchen.health().unwrap();
    kitchen.call("menu", json!({})).unwrap();
}

#[test]
fn raw_bytes_pass_as_they_are() {
    assert_eq!(created().call_raw("shout", b"\xffhey\0").unwrap(), b"\xffHEY\0");
    assert_eq!(created().call_raw("shout", b"").unwrap(), b"");
}

#[test]
fn an_answer_over_the_bound_is_too_large() {
    let kitchen = created();
    let most = 1024 * 1024 - 2;
    assert_eq!(kitchen.call("fill", json!(most)).unwrap().as_str().unwrap().len(), most);
    assert_eq!(kitchen.call("fill", json!(most + 1)).unwrap_err(), Failure::TooLarge);
}

#[test]
fn a_function_sees_how_long_its_caller_waits() {
    let left = created().call_within("patience", b"null", Duration::from_secs(600)).unwrap();
    let left: u64 = String::from_utf8(left).unwrap().parse().unwrap();
    assert!((590..=600).contains(&left), "{left}");
}

#[test]
fn the_descriptor_says_what_the_source_says() {
    let kitchen = created();
    let bytes = serde_json::to_vec(kitchen.descriptor()).unwrap();
    let descriptor = fleetswap_inspect::Descriptor::parse(&bytes).unwrap();
    assert_eq!((descriptor.name.as_str(), descriptor.version.to_string().as_str()), ("kitchen", "2.1.0"));
    assert_eq!((descriptor.concurrency, descriptor.background), (2, false));
    assert_eq!((descriptor.state.writes.as_slice(), descriptor.state.reads.as_slice()), (&[1][..], &[1][..]));
    let cook = descriptor.function("cook").unwrap();
    assert!(!cook.idempotent && !cook.probe_safe && !cook.raw);
    let shout = descriptor.function("shout").unwrap();
    assert!(shout.idempotent && shout.probe_safe && shout.raw && shout.input.is_none());
    let input = cook.input.as_ref().unwrap();
    assert_eq!(input["required"], json!(["guest", "plates"]));
    assert_eq!(input["properties"]["guest"]["$ref"], "#/$defs/Guest");
    assert_eq!(descriptor.config.unwrap()["properties"]["dish"]["type"], "string");
}

#[test]
fn the_log_reaches_the_host_with_its_level() {
    let kitchen = active();
    let expected =
        [(Level::Info, "serving pancakes".to_owned()), (Level::Debug, "the oven is on".to_owned())];
    assert_eq!(kitchen.log(), expected);
}

#[test]
fn state_goes_from_one_instance_to_the_next() {
    let (old, new) = (active(), created());
    old.call("cook", json!({"guest": {"name": "Ada"}, "plates": 1})).unwrap();
    old.call("cook", json!({"guest": {"name": "Max"}, "plates": 1})).unwrap();
    old.hand_over(&new).unwrap();
    assert_eq!(new.save_state(1).unwrap(), b"Ada,Max");
}

#[test]
fn a_state_version_that_is_not_declared_is_unsupported_and_a_panic_over_state_is_caught() {
    let kitchen = created();
    assert_eq!(kitchen.restore_state(2, b"Ada").unwrap_err(), Failure::Unsupported);
    assert!(matches!(kitchen.restore_state(1, b"").unwrap_err(), Failure::Panic(_)));
    kitchen.activate().unwrap();
    assert_eq!(kitchen.save_state(2).unwrap_err(), Failure::Unsupported);
}

/// Everything that the matrix forbids, phase by phase.
fn illegal_in_each_phase(kitchen: &Driver) -> Vec<Failure> {
    let order = || json!({"guest": {"name": "Ada"}, "plates": 1});
    let mut refused =
        vec![kitchen.call("cook", order()).map(drop), kitchen.save_state(1).map(drop), kitchen.deactivate()];
    kitchen.activate().unwrap();
    refused.extend([kitchen.activate(), kitchen.restore_state(1, b"Ada")]);
    kitchen.deactivate().unwrap();
    refused.extend([
        kitchen.health(),
        kitchen.call("cook", order()).map(drop),
        kitchen.call("menu", json!({})).map(drop),
        kitchen.deactivate(),
        kitchen.restore_state(1, b"Ada"),
    ]);
    refused.into_iter().map(Result::unwrap_err).collect()
}

#[test]
fn the_kit_refuses_what_the_matrix_forbids() {
    let refused = illegal_in_each_phase(&created());
    assert_eq!(refused, vec![Failure::Illegal(Referee::Kit); 10]);
}

#[test]
fn the_table_refuses_it_too_when_the_kit_does_not() {
    let refused = illegal_in_each_phase(&created().without_referee());
    assert_eq!(refused, vec![Failure::Illegal(Referee::Table); 10]);
}

#[test]
fn the_life_is_one_threads_business() {
    let kitchen = created();
    let elsewhere = thread::scope(|scope| scope.spawn(|| kitchen.activate()).join().unwrap());
    assert_eq!(elsewhere.unwrap_err(), Failure::Illegal(Referee::Kit));
    kitchen.activate().unwrap();
}

/// Stands still until it is told to go on.
struct Gatekeeper;

static ARRIVED: Mutex<Option<Sender<()>>> = Mutex::new(None);
static GO_ON: Mutex<Option<Receiver<()>>> = Mutex::new(None);

#[plugin(name = "gatekeeper", concurrency = 1)]
impl Gatekeeper {
    #[function(probe_safe)]
    fn wait(&self) -> Result<(), PluginError> {
        // Taken before the wait, so that no lock is held during it.
        let (arrived, go_on) = (ARRIVED.lock().unwrap().take(), GO_ON.lock().unwrap().take());
        if let (Some(arrived), Some(go_on)) = (arrived, go_on) {
            arrived.send(()).unwrap();
            go_on.recv().unwrap();
        }
        Ok(())
    }
}

impl Plugin for Gatekeeper {
    type Config = ();

    fn create(_: Host, (): ()) -> Result<Self, PluginError> {
        Ok(Self)
    }

    fn activate(&self) -> Result<(), PluginError> {
        Err(PluginError::new("STUCK", "the gate does not open"))
    }
}

#[test]
fn while_a_call_runs_health_answers_and_more_calls_and_the_rest_are_refused() {
    let (arrived, arrives) = channel();
    let (go_on, goes_on) = channel();
    *ARRIVED.lock().unwrap() = Some(arrived);
    *GO_ON.lock().unwrap() = Some(goes_on);
    let keeper = Driver::new::<Gatekeeper>("").unwrap().without_referee();
    thread::scope(|scope| {
        // Dropped with this closure, so that a failure here does not leave the call waiting.
        let go_on = go_on;
        let call = scope.spawn(|| keeper.call("wait", json!({})));
        arrives.recv().unwrap();
        keeper.health().unwrap();
        let full = keeper.call("wait", json!({})).unwrap_err();
        assert_eq!(full, Failure::Illegal(Referee::Table), "the declared concurrency is 1");
        assert_eq!(keeper.activate().unwrap_err(), Failure::Illegal(Referee::Table));
        go_on.send(()).unwrap();
        call.join().unwrap().unwrap();
    });
    assert_eq!(keeper.activate().unwrap_err().code(), Some("STUCK"));
    assert!(matches!(Driver::new::<Gatekeeper>("{}"), Err(Failure::BadInput { .. })), "it takes no config");
}
