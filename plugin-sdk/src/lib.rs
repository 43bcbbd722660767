//! Write a Fleetswap plugin.
//!
//! A plugin is a library of functions that callers on a host reach while releases of it come and go. In Rust it
//! is a type, an `impl` block under [`plugin`](macro@plugin), and a package with `crate-type = ["cdylib"]`:
//!
//! ```
//! use plugin_sdk::{PluginError, plugin};
//!
//! #[derive(Default)]
//! struct Greeter;
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Guest {
//!     name: String,
//! }
//!
//! #[derive(serde::Serialize, schemars::JsonSchema)]
//! struct Greeting {
//!     text: String,
//! }
//!
//! #[plugin(name = "greeter", default)]
//! impl Greeter {
//!     #[function(idempotent, probe_safe)]
//!     fn greet(&self, guest: Guest) -> Result<Greeting, PluginError> {
//!         Ok(Greeting { text: format!("Good day, {}.", guest.name) })
//!     }
//! }
//!
//! // In a test, the kit plays the host:
//! use plugin_sdk::testing::{Driver, json};
//! let greeter = Driver::new::<Greeter>("").unwrap();
//! let reply = greeter.call("greet", json!({"name": "Ada"})).unwrap();
//! assert_eq!(reply["text"], "Good day, Ada.");
//! ```
//!
//! Config, health, background work and state come with the [`Plugin`] trait, which then replaces `default`.
//!
//! Rules worth knowing: calls run side by side, so everything takes `&self`; a panic in a call is an error of
//! that call alone, a panic in a thread that the plugin started makes its health red; nothing of the outside may
//! be touched before [`Plugin::activate`] or after [`Plugin::deactivate`], since another release may be active.

// So that code written by the macro compiles inside this crate too.
extern crate self as plugin_sdk;

mod deadline;
mod descriptor;
mod error;
mod function;
mod host;
mod json;
mod note;
mod panics;
mod plugin;
mod sink;
mod table;
pub mod testing;
mod turnstile;

pub use bytes::Bytes;
pub use deadline::Deadline;
pub use error::PluginError;
pub use fleetswap_plugin_macros::plugin;
pub use host::{Host, Level};
pub use plugin::Plugin;

/// What code written by [`plugin`](macro@plugin) refers to. No promise is made about anything in here.
#[doc(hidden)]
pub mod __private {
    pub use crate::function::{About, Exported, Function, NoInput, Types, json, raw};
    pub use crate::note::{Note, note, note_length};
    pub use crate::sink::Refusal;
    pub use crate::table::table;
    pub use fleetswap_plugin_abi::Table;
}
