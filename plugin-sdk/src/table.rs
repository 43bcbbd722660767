//! The table of a plugin: the border where C meets Rust.
//!
//! Every function here does the same: check the legality matrix, run the author's code where a panic is caught,
//! and write the answer to the host's sink.

use std::marker::PhantomData;
use std::slice;

use fleetswap_plugin_abi as abi;
use fleetswap_plugin_abi::{ABI_MAJOR, ABI_MINOR, BODY_MAX, Function, STATE_MAX, Status, Table};

use crate::function::{Answer, Exported};
use crate::sink::{Out, Refusal};
use crate::turnstile::Turnstile;
use crate::{Deadline, Host, Level, PluginError, descriptor, json, panics};

/// The table of this plugin.
#[must_use]
pub fn table<P: Exported>() -> &'static Table {
    Glue::<P>::TABLE
}

struct Glue<P>(PhantomData<P>);

impl<P: Exported> Glue<P> {
    const TABLE: &'static Table = &Table {
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        size: size_of::<Table>() as u32,
        describe: describe::<P>,
        create: create::<P>,
        health: health::<P>,
        call: call::<P>,
        activate: activate::<P>,
        deactivate: deactivate::<P>,
        save_state: save_state::<P>,
        restore_state: restore_state::<P>,
        destroy: destroy::<P>,
    };
}

/// What the host holds a pointer to.
struct Instance<P> {
    plugin: P,
    turnstile: Turnstile,
    host: Host,
    /// Panics of the plugin's threads that an instance before this one answers for.
    old_panics: u64,
}

impl<P: Exported> Instance<P> {
    fn create(host: Host, config: &[u8]) -> Result<Box<Self>, Refusal> {
        panics::watch();
        let old_panics = panics::own_thread_count();
        let plugin = P::create(host.clone(), config_of::<P>(config)?).map_err(Refusal::error)?;
        Ok(Box::new(Self { plugin, turnstile: Turnstile::new(P::ABOUT.concurrency), host, old_panics }))
    }

    fn health(&self) -> Answer {
        if let Some(message) = panics::own_thread_since(self.old_panics) {
            let message = format!("a thread of the plugin has panicked: {message}");
            return Err(Refusal::error(PluginError::new("THREAD_PANICKED", message)));
        }
        silent(self.plugin.health())
    }

    fn call(&self, function: &[u8], input: &[u8], deadline: Deadline) -> Answer {
        let function = P::FUNCTIONS
            .iter()
            .find(|known| known.name.as_bytes() == function)
            .ok_or(Refusal::bare(Status::UNKNOWN_FUNCTION))?;
        let kind = if function.probe_safe { Function::CallProbeSafe } else { Function::Call };
        self.legally(kind, || {
            within(input.len(), BODY_MAX)?;
            let output = (function.run)(&self.plugin, input, deadline)?;
            within(output.len(), BODY_MAX)?;
            Ok(output)
        })
    }

    fn save_state(&self, version: u32) -> Answer {
        if !P::STATE_WRITES.contains(&version) {
            return Err(Refusal::bare(Status::UNSUPPORTED));
        }
        let state = self.plugin.save_state(version).map_err(Refusal::error)?;
        within(state.len(), STATE_MAX)?;
        Ok(state)
    }

    fn restore_state(&self, version: u32, state: &[u8]) -> Answer {
        if !P::STATE_READS.contains(&version) {
            return Err(Refusal::bare(Status::UNSUPPORTED));
        }
        within(state.len(), STATE_MAX)?;
        silent(self.plugin.restore_state(version, state))
    }

    /// Runs one function of the matrix if it is its time.
    fn legally(&self, function: Function, work: impl FnOnce() -> Answer) -> Answer {
        let pass = self.turnstile.enter(function).map_err(|_| Refusal::bare(Status::ILLEGAL))?;
        let output = work()?;
        pass.done();
        Ok(output)
    }
}

/// Reads the config, whose schema is in the descriptor.
fn config_of<P: Exported>(config: &[u8]) -> Result<P::Config, Refusal> {
    match (descriptor::takes_no_config::<P>(), config) {
        (true, b"") => json::decode(b"null"),
        (true, _) => Err(Refusal::bad_input(json::WHOLE, "this plugin takes no config")),
        (false, b"") => json::decode(b"{}"),
        (false, config) => json::decode(config),
    }
}

fn within(length: usize, most: usize) -> Result<(), Refusal> {
    if length > most { Err(Refusal::bare(Status::TOO_LARGE)) } else { Ok(()) }
}

fn silent(result: Result<(), PluginError>) -> Answer {
    result.map(|()| Vec::new()).map_err(Refusal::error)
}

/// Runs work on the instance, catches its panics, and writes what comes out.
///
/// # Safety
/// `instance` comes from `create` and is not destroyed; `sink` is null or valid during this call.
unsafe fn answer<P: Exported>(
    instance: abi::Instance,
    sink: *const abi::Sink,
    work: impl FnOnce(&Instance<P>) -> Answer,
) -> Status {
    // SAFETY: null, or a box that `create` made and that `destroy` has not freed.
    let instance = unsafe { instance.cast::<Instance<P>>().as_ref() };
    let illegal = || Err(Refusal::bare(Status::ILLEGAL));
    let answer = panics::caught(|| instance.map_or_else(illegal, work));
    // SAFETY: valid during this call, says the caller.
    let out = unsafe { Out::new(sink) };
    out.finish(answer.unwrap_or_else(|message| Err(Refusal::panic(message))))
}

/// The bytes that the host lends for the length of a call.
///
/// # Safety
/// They are valid as long as the slice is used.
unsafe fn borrowed<'a>(bytes: abi::Bytes) -> &'a [u8] {
    if bytes.data.is_null() {
        return &[];
    }
    // SAFETY: the caller vouches for the pointer and the length.
    unsafe { slice::from_raw_parts(bytes.data, bytes.len) }
}

unsafe extern "C" fn describe<P: Exported>(out: *const abi::Sink) -> Status {
    let answer = panics::caught(descriptor::describe::<P>);
    // SAFETY: the table's contract: the sink is valid during this call.
    let out = unsafe { Out::new(out) };
    out.finish(answer.unwrap_or_else(|message| Err(Refusal::panic(message))))
}

unsafe extern "C" fn create<P: Exported>(
    host: *const abi::Host,
    config: abi::Bytes,
    instance: *mut abi::Instance,
    error: *const abi::Sink,
) -> Status {
    // SAFETY: the table's contract: the host is valid until `destroy`, the rest during this call.
    let (host, config, out) = unsafe { (Host::new(host), borrowed(config), Out::new(error)) };
    let made = panics::caught(|| Instance::<P>::create(host.clone(), config));
    match made.unwrap_or_else(|message| Err(Refusal::panic(message))) {
        Ok(made) => {
            // SAFETY: the table's contract: `instance` may be written to.
            unsafe { instance.write(Box::into_raw(made).cast()) };
            Status::OK
        }
        Err(refusal) => {
            host.end();
            out.finish(Err(refusal))
        }
    }
}

unsafe extern "C" fn health<P: Exported>(instance: abi::Instance, detail: *const abi::Sink) -> Status {
    // SAFETY: the table's contract is that of `answer`.
    unsafe {
        answer::<P>(instance, detail, |instance| instance.legally(Function::Health, || instance.health()))
    }
}

unsafe extern "C" fn call<P: Exported>(
    instance: abi::Instance,
    function: abi::Bytes,
    input: abi::Bytes,
    deadline_ns: u64,
    out: *const abi::Sink,
) -> Status {
    let deadline = Deadline::in_ns(deadline_ns);
    // SAFETY: the table's contract is that of `answer`, and the bytes are valid during this call.
    unsafe {
        let (function, input) = (borrowed(function), borrowed(input));
        answer::<P>(instance, out, |instance| instance.call(function, input, deadline))
    }
}

unsafe extern "C" fn activate<P: Exported>(instance: abi::Instance, error: *const abi::Sink) -> Status {
    // SAFETY: the table's contract is that of `answer`.
    unsafe {
        answer::<P>(instance, error, |instance| {
            instance.legally(Function::Activate, || silent(instance.plugin.activate()))
        })
    }
}

unsafe extern "C" fn deactivate<P: Exported>(instance: abi::Instance, error: *const abi::Sink) -> Status {
    // SAFETY: the table's contract is that of `answer`.
    unsafe {
        answer::<P>(instance, error, |instance| {
            instance.legally(Function::Deactivate, || silent(instance.plugin.deactivate()))
        })
    }
}

unsafe extern "C" fn save_state<P: Exported>(
    instance: abi::Instance,
    target_version: u32,
    out: *const abi::Sink,
) -> Status {
    // SAFETY: the table's contract is that of `answer`.
    unsafe {
        answer::<P>(instance, out, |instance| {
            instance.legally(Function::SaveState, || instance.save_state(target_version))
        })
    }
}

unsafe extern "C" fn restore_state<P: Exported>(
    instance: abi::Instance,
    version: u32,
    state: abi::Bytes,
    error: *const abi::Sink,
) -> Status {
    // SAFETY: the table's contract is that of `answer`, and the bytes are valid during this call.
    unsafe {
        let state = borrowed(state);
        answer::<P>(instance, error, |instance| {
            instance.legally(Function::RestoreState, || instance.restore_state(version, state))
        })
    }
}

/// Refused destruction leaks the instance: freeing it under a running call would be worse.
unsafe extern "C" fn destroy<P: Exported>(instance: abi::Instance) {
    let pointer = instance.cast::<Instance<P>>();
    // SAFETY: null, or a box that `create` made and that has not been freed.
    let Some(instance) = (unsafe { pointer.as_ref() }) else {
        return;
    };
    let host = instance.host.clone();
    match instance.turnstile.enter(Function::Destroy) {
        Ok(pass) => drop(pass),
        Err(_) => {
            return host.log(Level::Error, "destroy is refused: the plugin is active, or still runs a call");
        }
    }
    // SAFETY: `create` made the box; the turnstile was empty and lets nothing in any more.
    let dropped = panics::caught(|| drop(unsafe { Box::from_raw(pointer) }));
    if let Err(message) = dropped {
        host.log(Level::Error, &format!("the plugin panicked while it was destroyed: {message}"));
    }
    host.end();
}

#[cfg(test)]
mod tests;
