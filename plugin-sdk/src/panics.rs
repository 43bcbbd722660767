//! Panics: those of a call become its error, those of the plugin's own threads are remembered.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Mutex, Once, PoisonError};

thread_local! {
    /// The host has called the plugin on this thread, so the thread is not the plugin's own.
    static HOSTS: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic of this thread happened.
    static WHERE: RefCell<String> = const { RefCell::new(String::new()) };
}

static OWN_THREADS: Mutex<Record> = Mutex::new(Record { count: 0, last: String::new() });

struct Record {
    count: u64,
    last: String,
}

/// Runs a part of the plugin for the host. Nothing unwinds out of here.
///
/// # Errors
/// The message of the panic, and where it happened.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOSTS.set(true);
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let place = WHERE.with_borrow_mut(std::mem::take);
        format!("{}{place}", message(payload))
    })
}

/// Watches the threads that the plugin starts from now on. The hook belongs to this copy of the standard library:
/// in a plugin, to the plugin.
pub(crate) fn watch() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            note(info);
            others(info);
        }));
    });
}

/// How many panics the plugin's own threads have had.
pub(crate) fn own_thread_count() -> u64 {
    OWN_THREADS.lock().unwrap_or_else(PoisonError::into_inner).count
}

/// The last of them, if there were more than before.
pub(crate) fn own_thread_since(before: u64) -> Option<String> {
    let record = OWN_THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    (record.count > before).then(|| record.last.clone())
}

fn note(info: &PanicHookInfo<'_>) {
    let place = info.location().map(|location| format!(" ({location})")).unwrap_or_default();
    // A thread that is being torn down has no locals; such a thread is the plugin's own.
    if HOSTS.try_with(Cell::get).unwrap_or(false) {
        let _ = WHERE.try_with(|last| last.replace(place));
    } else {
        let mut record = OWN_THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        record.count += 1;
        record.last = format!("{}{place}", info.payload_as_str().unwrap_or(NO_TEXT));
    }
}

const NO_TEXT: &str = "a panic without text";

fn message(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<String>() {
        Ok(text) => return *text,
        Err(payload) => payload,
    };
    match payload.downcast::<&str>() {
        Ok(text) => (*text).to_owned(),
        Err(payload) => {
            // Its `Drop` is the plugin's code as well, and could panic again.
            std::mem::forget(payload);
            NO_TEXT.to_owned()
        }
    }
}
