//! The trait that gives a plugin its life: config, health, background work and state.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{Host, PluginError};

/// The life of a plugin: created, activated, deactivated, and perhaps activated again, then dropped.
///
/// Only [`create`](Self::create) has to be written. Everything takes `&self`, since calls and the health check run
/// beside each other on threads of the host; a plugin that keeps state does so in atomics or behind a lock.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// The config, as JSON; its schema is part of the descriptor. `()`: the plugin takes no config.
    ///
    /// An empty config is read as `{}`, so a type whose fields all have defaults needs none.
    type Config: DeserializeOwned + JsonSchema + 'static;

    /// State versions that [`save_state`](Self::save_state) can write. The host picks one that the other release
    /// reads. Empty: the plugin has no state.
    const STATE_WRITES: &'static [u32] = &[];

    /// State versions that [`restore_state`](Self::restore_state) can read.
    const STATE_READS: &'static [u32] = &[];

    /// Makes an instance. Passive: starts no thread and opens nothing that another release might hold.
    ///
    /// # Errors
    /// Whatever is wrong with the config, in the author's words; the release is then not put to use.
    fn create(host: Host, config: Self::Config) -> Result<Self, PluginError>;

    /// Says whether the plugin is well. Called every second or so, also while calls are slow.
    ///
    /// # Errors
    /// What is wrong. During a trial, an error brings back the release before.
    fn health(&self) -> Result<(), PluginError> {
        Ok(())
    }

    /// Starts background work. At most one release of a plugin is active on a host at any time.
    ///
    /// # Errors
    /// Why it can't start; the plugin stays as it was.
    fn activate(&self) -> Result<(), PluginError> {
        Ok(())
    }

    /// Ends background work; when this returns, no thread of the plugin touches the outside.
    ///
    /// # Errors
    /// Why it can't stop; the plugin counts as active still.
    fn deactivate(&self) -> Result<(), PluginError> {
        Ok(())
    }

    /// Writes the state in one of [`STATE_WRITES`](Self::STATE_WRITES), at most 64 MiB. No call is running.
    ///
    /// # Errors
    /// Why it can't be saved; the plugin goes on as if it had not been asked.
    fn save_state(&self, version: u32) -> Result<Vec<u8>, PluginError> {
        Err(PluginError::new("NO_STATE", format!("this plugin does not write state version {version}")))
    }

    /// Takes over a state in one of [`STATE_READS`](Self::STATE_READS), before the first activation. No call is
    /// running, but those of `probe_safe` functions may have run before.
    ///
    /// # Errors
    /// Why it can't be read; the release is then not put to use.
    fn restore_state(&self, version: u32, state: &[u8]) -> Result<(), PluginError> {
        let _ = state;
        Err(PluginError::new("NO_STATE", format!("this plugin does not read state version {version}")))
    }
}
