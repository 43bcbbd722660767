//! A Rust plugin without the SDK: the standard library at work under the sandbox. Compiled by the tests with rustc.
#![allow(missing_docs, clippy::all, clippy::undocumented_unsafe_blocks)]

use std::{
    collections::HashMap,
    ffi::c_void,
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    data: *const u8,
    len: usize,
}

#[repr(C)]
pub struct Sink {
    context: *mut c_void,
    write: unsafe extern "C" fn(*mut c_void, Bytes) -> i32,
}

#[repr(C)]
pub struct Table {
    abi_major: u16,
    abi_minor: u16,
    size: u32,
    describe: extern "C" fn(*const Sink) -> i32,
    create: extern "C" fn(*const c_void, Bytes, *mut *mut c_void, *const Sink) -> i32,
    health: extern "C" fn(*mut c_void, *const Sink) -> i32,
    call: extern "C" fn(*mut c_void, Bytes, Bytes, u64, *const Sink) -> i32,
    activate: extern "C" fn(*mut c_void, *const Sink) -> i32,
    deactivate: extern "C" fn(*mut c_void, *const Sink) -> i32,
    save_state: extern "C" fn(*mut c_void, u32, *const Sink) -> i32,
    restore_state: extern "C" fn(*mut c_void, u32, Bytes, *const Sink) -> i32,
    destroy: extern "C" fn(*mut c_void),
}

static TABLE: Table = Table {
    abi_major: 1,
    abi_minor: 0,
    size: size_of::<Table>() as u32,
    describe,
    create,
    health: turn,
    call,
    activate: turn,
    deactivate: turn,
    save_state,
    restore_state,
    destroy,
};

#[unsafe(no_mangle)]
pub extern "C" fn fleetswap_plugin_v1() -> *const Table {
    &TABLE
}

fn say(sink: *const Sink, text: &str) -> i32 {
    let bytes = Bytes { data: text.as_ptr(), len: text.len() };
    unsafe { ((*sink).write)((*sink).context, bytes) }
}

extern "C" fn describe(out: *const Sink) -> i32 {
    say(
        out,
        r#"{"format":1,"name":"rusty","version":"1.0.0","concurrency":2,"functions":[{"name":"work","input":null,
        "output":null,"idempotent":true,"probe_safe":true,"raw":true}],"state":{"writes":[],"reads":[]},
        "background":false,"needs":[],"config":null}"#,
    )
}

extern "C" fn create(_: *const c_void, _: Bytes, instance: *mut *mut c_void, _: *const Sink) -> i32 {
    unsafe { *instance = (&raw const TABLE).cast_mut().cast() };
    0
}

extern "C" fn turn(_: *mut c_void, _: *const Sink) -> i32 {
    0
}

extern "C" fn call(_: *mut c_void, _: Bytes, input: Bytes, _: u64, out: *const Sink) -> i32 {
    if input.len > 0 {
        panic!("on purpose, and nothing catches it");
    }
    say(out, &work())
}

extern "C" fn save_state(_: *mut c_void, _: u32, _: *const Sink) -> i32 {
    6
}

extern "C" fn restore_state(_: *mut c_void, _: u32, _: Bytes, _: *const Sink) -> i32 {
    6
}

extern "C" fn destroy(_: *mut c_void) {}

/// Threads, channels, hash maps, clocks, naps, a caught panic, 64 MiB, and a file that stays closed.
fn work() -> String {
    let started = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let sender = sender.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(1));
                sender.send((n, vec![n as u8; 16 << 20])).unwrap();
            })
        })
        .collect();
    drop(sender);
    let map: HashMap<_, _> = receiver.iter().collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let bytes: usize = map.values().map(Vec::len).sum();
    let caught = std::panic::catch_unwind(|| panic!("on purpose")).is_err();
    let refused = std::fs::read("/etc/passwd").is_err() && std::net::TcpListener::bind("127.0.0.1:0").is_err();
    let moved = started.elapsed() >= Duration::from_millis(1) && SystemTime::now() > SystemTime::UNIX_EPOCH;
    let cores = thread::available_parallelism().is_ok();
    format!("{} threads, {bytes} bytes, {caught} {refused} {moved} {cores}", map.len())
}
