//! Test kit: drives a plugin in this process through its real table, as a host does.
//!
//! The kit keeps to the host's side of the contract: calls run on threads of their own, at most `concurrency` at a
//! time, health on another, one check at a time, everything else on the thread that made the driver; the legality
//! matrix is enforced before the plugin is asked, and sinks have the host's bounds. [`Driver::without_referee`] drops
//! the first half of that, to show that the plugin's own table refuses as well.

mod failure;
pub(crate) mod recorder;

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use fleetswap_plugin_abi as abi;
use fleetswap_plugin_abi::{BODY_MAX, DESCRIPTOR_MAX, Function, Phase, STATE_MAX, Status, Table, WORDS_MAX};
use serde_json::Value;

pub use failure::{Failure, Referee};
pub use serde_json::json;

use crate::Level;
use crate::function::Exported;
use crate::table::table;
use crate::turnstile::Turnstile;
use recorder::{Buffer, Recorder, lend};

/// Time that a call gets, unless the test says otherwise.
const CALL_TIME: Duration = Duration::from_secs(10);

/// One instance of a plugin, and the host around it. Usable from several threads.
///
/// Dropping it destroys the instance. Drop it on the thread that made it: `destroy`, and `deactivate` before it where
/// that is due, belong to the thread that called `create`. The kit can't refuse a drop elsewhere.
#[derive(Debug)]
pub struct Driver {
    table: &'static Table,
    descriptor: Value,
    turnstile: Turnstile,
    control: ThreadId,
    referee: bool,
    /// Freed after `destroy`.
    host: Arc<Recorder>,
    instance: AtomicPtr<core::ffi::c_void>,
}

impl Driver {
    /// Makes an instance of a Rust plugin. The config is JSON or empty.
    ///
    /// # Errors
    /// What `create` says.
    pub fn new<P: Exported>(config: &str) -> Result<Self, Failure> {
        // SAFETY: the table is one of ours.
        unsafe { Self::with_table(table::<P>(), config.as_bytes()) }
    }

    /// Makes an instance of any plugin, from the symbol that its library exports.
    ///
    /// # Safety
    /// `entry` is the entry of a plugin that keeps the contract of the table, and whose library stays loaded.
    ///
    /// # Errors
    /// A table that no host would take; what `describe` and `create` say.
    pub unsafe fn load(entry: abi::Entry, config: &[u8]) -> Result<Self, Failure> {
        // SAFETY: the caller vouches for the entry; its table lives as long as the library.
        let table = unsafe { abi::examine(entry()) };
        let table = table.map_err(|bad| Failure::BadTable(bad.to_string()))?;
        // SAFETY: the caller vouches for its functions too.
        unsafe { Self::with_table(table, config) }
    }

    /// # Safety
    /// The functions of the table keep its contract.
    unsafe fn with_table(table: &'static Table, config: &[u8]) -> Result<Self, Failure> {
        // SAFETY: the caller vouches for the table.
        let described = written(DESCRIPTOR_MAX, |sink| unsafe { (table.describe)(sink) })?;
        let descriptor: Value =
            serde_json::from_slice(&described).map_err(|error| Failure::NotJson(error.to_string()))?;
        let concurrency = descriptor["concurrency"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
        let host = Arc::new(Recorder::default());
        let mut instance: abi::Instance = std::ptr::null_mut();
        // SAFETY: as above; the host outlives the instance.
        written(WORDS_MAX, |sink| unsafe {
            (table.create)(host.as_host(), lend(config), &raw mut instance, sink)
        })?;
        if instance.is_null() {
            return Err(Failure::NoInstance);
        }
        Ok(Self {
            table,
            descriptor,
            turnstile: Turnstile::new(concurrency),
            control: thread::current().id(),
            referee: true,
            host,
            instance: AtomicPtr::new(instance),
        })
    }

    /// Passes illegal calls on to the plugin's table instead of refusing them.
    ///
    /// Meant for plugins made with this crate, whose tables check for themselves; a plugin in C need not.
    #[must_use]
    pub fn without_referee(mut self) -> Self {
        self.referee = false;
        self
    }

    /// The descriptor, parsed.
    #[must_use]
    pub fn descriptor(&self) -> &Value {
        &self.descriptor
    }

    /// The phase that the instance is in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.turnstile.phase()
    }

    /// What the plugin has logged so far.
    #[must_use]
    pub fn log(&self) -> Vec<(Level, String)> {
        self.host.lines()
    }

    /// Asks whether the plugin is well.
    ///
    /// # Errors
    /// What the plugin says, or [`Failure::Illegal`].
    pub fn health(&self) -> Result<(), Failure> {
        self.legally(Function::Health, || {
            // SAFETY: the instance is alive as long as the driver.
            on_a_thread(|| written(WORDS_MAX, |sink| unsafe { (self.table.health)(self.raw(), sink) }))
        })
        .map(drop)
    }

    /// Calls a function that speaks JSON.
    ///
    /// # Errors
    /// What the plugin says, or [`Failure::Illegal`].
    #[expect(clippy::needless_pass_by_value, reason = "reads better in tests, where the input is a literal")]
    pub fn call(&self, function: &str, input: Value) -> Result<Value, Failure> {
        let output = self.call_raw(function, input.to_string().as_bytes())?;
        serde_json::from_slice(&output).map_err(|error| Failure::NotJson(error.to_string()))
    }

    /// Calls any function with bytes.
    ///
    /// # Errors
    /// What the plugin says, or [`Failure::Illegal`].
    pub fn call_raw(&self, function: &str, input: &[u8]) -> Result<Vec<u8>, Failure> {
        self.call_within(function, input, CALL_TIME)
    }

    /// Calls any function and gives it this much time. The kit doesn't end a call that takes longer.
    ///
    /// # Errors
    /// What the plugin says, or [`Failure::Illegal`].
    pub fn call_within(&self, function: &str, input: &[u8], time: Duration) -> Result<Vec<u8>, Failure> {
        if input.len() > BODY_MAX {
            return Err(Failure::TooLarge);
        }
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.legally(self.kind(function), || {
            on_a_thread(move || {
                // SAFETY: the instance is alive as long as the driver, and so are the borrowed bytes.
                written(BODY_MAX, |sink| unsafe {
                    (self.table.call)(self.raw(), lend(function.as_bytes()), lend(input), time, sink)
                })
            })
        })
    }

    /// Starts background work.
    ///
    /// # Errors
    /// What the plugin says, or [`Failure::Illegal`].
    pub fn activate(&self) -> Result<(), Failure> {
        self.legally(Function::Activate, || {
            // SAFETY: the instance is alive as long as the driver.
            written(WORDS_MAX, |sink| unsafe { (self.table.activate)(self.raw(), sink) })
        })
        .map(drop)
    }

    /// Ends background work.
    ///
    /// # Errors
    /// What the plugin says, or [`Failure::Illegal`].
    pub fn deactivate(&self) -> Result<(), Failure> {
        self.legally(Function::Deactivate, || {
            // SAFETY: the instance is alive as long as the driver.
            written(WORDS_MAX, |sink| unsafe { (self.table.deactivate)(self.raw(), sink) })
        })
        .map(drop)
    }

    /// Has the state written in this version.
    ///
    /// # Errors
    /// What the plugin says, or [`Failure::Illegal`].
    pub fn save_state(&self, version: u32) -> Result<Vec<u8>, Failure> {
        self.legally(Function::SaveState, || {
            // SAFETY: the instance is alive as long as the driver.
            written(STATE_MAX, |sink| unsafe { (self.table.save_state)(self.raw(), version, sink) })
        })
    }

    /// Hands over a state of this version.
    ///
    /// # Errors
    /// What the plugin says, or [`Failure::Illegal`].
    pub fn restore_state(&self, version: u32, state: &[u8]) -> Result<(), Failure> {
        self.legally(Function::RestoreState, || {
            // SAFETY: the instance is alive as long as the driver, and so are the borrowed bytes.
            written(WORDS_MAX, |sink| unsafe {
                (self.table.restore_state)(self.raw(), version, lend(state), sink)
            })
        })
        .map(drop)
    }

    /// The state that this instance hands to one of another release: deactivates, saves in the newest version that
    /// the other reads, and restores there.
    ///
    /// # Errors
    /// What either plugin says; [`Failure::Unsupported`] when they have no version in common.
    pub fn hand_over(&self, successor: &Self) -> Result<(), Failure> {
        let writes = self.descriptor["state"]["writes"].as_array().into_iter().flatten();
        let reads = successor.descriptor["state"]["reads"].as_array().into_iter().flatten();
        let reads: Vec<&Value> = reads.collect();
        let common = writes.filter(|version| reads.contains(version)).filter_map(Value::as_u64).max();
        let version = common.and_then(|version| u32::try_from(version).ok()).ok_or(Failure::Unsupported)?;
        self.deactivate()?;
        successor.restore_state(version, &self.save_state(version)?)?;
        successor.activate()
    }

    /// Which row of the matrix a call of this function is.
    fn kind(&self, function: &str) -> Function {
        let functions = self.descriptor["functions"].as_array().into_iter().flatten();
        let found = functions.into_iter().find(|known| known["name"] == function);
        match found.and_then(|known| known["probe_safe"].as_bool()) {
            Some(false) => Function::Call,
            // An unknown function is refused by the plugin, in whatever phase.
            Some(true) | None => Function::CallProbeSafe,
        }
    }

    fn legally<T>(
        &self,
        function: Function,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if !self.referee {
            return work();
        }
        if function.thread() == abi::Thread::Control && thread::current().id() != self.control {
            return Err(Failure::Illegal(Referee::Kit));
        }
        // The host's queue stands before a full plugin.
        let pass = self.turnstile.queue(function).ok_or(Failure::Illegal(Referee::Kit))?;
        let output = work()?;
        pass.done();
        Ok(output)
    }

    fn raw(&self) -> abi::Instance {
        self.instance.load(Ordering::Relaxed)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The table knows the phase even when the referee was away: deactivating twice is only refused.
        // SAFETY: no other thread holds the driver, so nothing runs in the instance; and nothing follows.
        unsafe {
            if !self.referee || self.phase() == Phase::Active {
                let _ = written(WORDS_MAX, |sink| (self.table.deactivate)(self.raw(), sink));
            }
            (self.table.destroy)(self.raw());
        }
    }
}

/// Runs one function of the table with a sink of this bound, and reads what came out.
fn written(most: usize, run: impl FnOnce(*const abi::Sink) -> Status) -> Result<Vec<u8>, Failure> {
    let mut buffer = Buffer::new(most);
    let sink = buffer.as_sink();
    let status = run(&raw const sink);
    let (status, bytes) = buffer.finish(status);
    Failure::check(status, bytes)
}

/// Runs the work on a fresh thread, as the host's pool and its health checker do.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(output) => output,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PluginError, plugin};

    #[derive(Default)]
    struct Plain;

    #[plugin(name = "plain", default)]
    impl Plain {
        #[function]
        fn r#type(&self) -> Result<String, PluginError> {
            Ok("of an honest plugin".to_owned())
        }
    }

    /// An instance of the plugin with some functions of its table replaced.
    fn with(change: impl FnOnce(&mut Table)) -> Result<Driver, Failure> {
        let mut changed = *table::<Plain>();
        change(&mut changed);
        // SAFETY: a leaked table lives for ever, and each function in it keeps the contract but for what is tested.
        unsafe { Driver::with_table(Box::leak(Box::new(changed)), b"") }
    }

    unsafe extern "C" fn create_nothing(
        _: *const abi::Host,
        _: abi::Bytes,
        _: *mut abi::Instance,
        _: *const abi::Sink,
    ) -> Status {
        Status::OK
    }

    /// Writes so many bytes, whatever the sink says.
    unsafe extern "C" fn talk<const LENGTH: usize, const STATUS: i32>(
        _: abi::Instance,
        detail: *const abi::Sink,
    ) -> Status {
        for _ in 0..LENGTH {
            // SAFETY: the kit's sink is valid during this call.
            unsafe { ((*detail).write)((*detail).context, lend(b"x")) };
        }
        Status(STATUS)
    }

    #[test]
    fn an_instance_that_is_null_is_refused() {
        assert_eq!(with(|table| table.create = create_nothing).unwrap_err(), Failure::NoInstance);
    }

    #[test]
    fn words_have_the_bound_that_the_header_names_and_an_error_only_has_them_cut() {
        const PANIC: i32 = Status::PANIC.0;
        const MORE: usize = WORDS_MAX + 1;
        let health = |code| with(|table| table.health = code).unwrap().health();
        assert_eq!(health(talk::<WORDS_MAX, 0>), Ok(()));
        assert_eq!(health(talk::<MORE, 0>), Err(Failure::TooLarge));
        assert_eq!(health(talk::<MORE, PANIC>), Err(Failure::Panic("x".repeat(WORDS_MAX))));
    }

    #[test]
    fn a_function_whose_name_is_a_word_of_rust_is_called_by_that_word() {
        let plain = with(|_| {}).unwrap();
        plain.activate().unwrap();
        assert_eq!(plain.call("type", json!({})).unwrap(), "of an honest plugin");
    }
}
