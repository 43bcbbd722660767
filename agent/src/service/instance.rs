//! What a loaded release can be asked, and how one is loaded: the seam between the agent and its workers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fleetswap_host::{CallError, Death, Level, Limits, LoadError, Worker, WorkerSpec};
use futures_util::{FutureExt, future::BoxFuture};

use super::Package;
use crate::logs::Logs;

/// What comes of asking.
pub(crate) type Asked<'a, T> = BoxFuture<'a, Result<T, CallError>>;

/// A loaded release.
pub(crate) trait Instance: Send + Sync + 'static {
    /// Makes the plugin's instance from its config.
    fn create(&self, config: Bytes) -> Asked<'_, ()>;
    /// Asks whether it is well; a line of detail.
    fn health(&self, timeout: Duration) -> Asked<'_, String>;
    /// Calls a function.
    fn call<'a>(&'a self, function: &'a str, input: Bytes, timeout: Duration) -> Asked<'a, Bytes>;
    /// Starts background work.
    fn activate(&self) -> Asked<'_, ()>;
    /// Ends background work.
    fn deactivate(&self) -> Asked<'_, ()>;
    /// Has it write its state in this version.
    fn save_state(&self, version: u32) -> Asked<'_, Bytes>;
    /// Hands it a state of this version.
    fn restore_state(&self, version: u32, state: Bytes) -> Asked<'_, ()>;
    /// Frees the plugin's instance; another one can be created.
    fn destroy(&self) -> Asked<'_, ()>;
    /// Waits for the end of the worker.
    fn ended(&self) -> BoxFuture<'_, Arc<Death>>;
    /// Whether the worker has ended.
    fn is_gone(&self) -> bool;
    /// Ends the worker at once.
    fn kill(&self);
    /// Ends the worker in order.
    fn close(&self) -> BoxFuture<'_, ()>;
    /// The last lines of its log.
    fn log_tail(&self) -> String;
    /// The process id of the worker, for people.
    fn pid(&self) -> u32;
}

impl Instance for Worker {
    fn create(&self, config: Bytes) -> Asked<'_, ()> {
        Self::create(self, config).boxed()
    }

    fn health(&self, timeout: Duration) -> Asked<'_, String> {
        Self::health(self, timeout).boxed()
    }

    fn call<'a>(&'a self, function: &'a str, input: Bytes, timeout: Duration) -> Asked<'a, Bytes> {
        Self::call(self, function, input, timeout).boxed()
    }

    fn activate(&self) -> Asked<'_, ()> {
        Self::activate(self).boxed()
    }

    fn deactivate(&self) -> Asked<'_, ()> {
        Self::deactivate(self).boxed()
    }

    fn save_state(&self, version: u32) -> Asked<'_, Bytes> {
        Self::save_state(self, version).boxed()
    }

    fn restore_state(&self, version: u32, state: Bytes) -> Asked<'_, ()> {
        Self::restore_state(self, version, state).boxed()
    }

    fn destroy(&self) -> Asked<'_, ()> {
        Self::destroy(self).boxed()
    }

    fn ended(&self) -> BoxFuture<'_, Arc<Death>> {
        Self::ended(self).boxed()
    }

    fn is_gone(&self) -> bool {
        self.death().is_some()
    }

    fn kill(&self) {
        Self::kill(self);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Self::close(self).map(drop).boxed()
    }

    fn log_tail(&self) -> String {
        Self::log_tail(self)
    }

    fn pid(&self) -> u32 {
        Self::pid(self)
    }
}

/// Loads releases.
pub(crate) trait Launch: Send + Sync + 'static {
    /// Starts a worker with the package's library loaded; nothing of it is created yet.
    fn launch<'a>(&'a self, package: &'a Package) -> BoxFuture<'a, Result<Arc<dyn Instance>, LoadError>>;
}

/// Loads releases into sandboxed processes.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// The one thread that starts them.
    pub(crate) host: fleetswap_host::Launcher,
    /// What each may use.
    pub(crate) limits: Limits,
    /// How strictly each is locked in.
    pub(crate) level: Level,
    /// Where their lines go.
    pub(crate) logs: Logs,
}

impl Launch for Launcher {
    fn launch<'a>(&'a self, package: &'a Package) -> BoxFuture<'a, Result<Arc<dyn Instance>, LoadError>> {
        let release = package.release();
        let spec = WorkerSpec {
            plugin: release.plugin.clone(),
            version: release.version.to_string(),
            descriptor: Some(package.descriptor_bytes.clone()),
            limits: self.limits.clone(),
            level: self.level,
            log: self.logs.sink(release),
        };
        async move {
            let worker = self.host.launch(&package.image, spec).await?;
            Ok(Arc::new(worker) as Arc<dyn Instance>)
        }
        .boxed()
    }
}
