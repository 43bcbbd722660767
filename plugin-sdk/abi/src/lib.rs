//! The C table between a plugin and its host: layout, constants and the legality matrix.
//!
//! Everything here is mirrored in `plugin-sdk/include/fleetswap_plugin.h`; a test in the SDK compiles the
//! header and compares sizes, offsets and constants. A change of layout or meaning is a new [`ABI_MAJOR`];
//! new functions are appended at the end of [`Table`], raise [`ABI_MINOR`] and are found by [`Table::size`].
#![no_std]

mod examine;
mod legality;

pub use examine::{BadTable, examine};
pub use legality::{Function, Phase, Thread};

use core::ffi::c_void;

/// Major version of the table. A host refuses every other one.
pub const ABI_MAJOR: u16 = 1;
/// Minor version of the table. A host accepts any, and uses only the functions inside [`Table::size`].
pub const ABI_MINOR: u16 = 0;
/// The one symbol that a plugin exports; its type is [`Entry`].
pub const ENTRY_SYMBOL: &str = "fleetswap_plugin_v1";

/// Name of the ELF section that holds the note.
pub const NOTE_SECTION: &str = ".note.fleetswap";
/// Owner name of the ELF note, without the closing NUL (ELF gABI, "Note Section").
pub const NOTE_OWNER: &str = "Fleetswap";
/// Type of the ELF note. Its descriptor is three NUL-ended UTF-8 strings: ABI `MAJOR.MINOR`, plugin name,
/// plugin version (semver).
pub const NOTE_TYPE: u32 = 1;

/// Longest plugin name, in bytes. Names are `[a-z][a-z0-9_-]*`.
pub const NAME_MAX: usize = 64;
/// Longest function name, in bytes. Names are `[a-z][a-z0-9_]*`.
pub const FUNCTION_NAME_MAX: usize = 64;
/// Longest version text, in bytes.
pub const VERSION_MAX: usize = 64;
/// Highest `concurrency` that a descriptor may declare.
pub const CONCURRENCY_MAX: u32 = 256;
/// Most calls that a host runs in one plugin at a time, whatever it declares.
pub const POOL_MAX: u32 = 128;
/// Largest input or output of one call, in bytes.
pub const BODY_MAX: usize = 1024 * 1024;
/// Largest saved state, in bytes.
pub const STATE_MAX: usize = 64 * 1024 * 1024;
/// Longest words, in bytes: what goes into an `error` sink, and the detail of `health`.
pub const WORDS_MAX: usize = 64 * 1024;
/// Largest descriptor, in bytes.
pub const DESCRIPTOR_MAX: usize = 256 * 1024;

/// Borrowed bytes. They are valid until the function that received them returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    /// First byte; may be null when `len` is 0.
    pub data: *const u8,
    /// Count of bytes.
    pub len: usize,
}

/// Where a plugin writes its output. The host owns the memory, so no allocation crosses the border.
///
/// Valid until the function that received it returns, and only on the thread that was called.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sink {
    /// Handed back to `write`.
    pub context: *mut c_void,
    /// Appends bytes. Returns [`Status::OK`], or [`Status::TOO_LARGE`] when the output would pass its bound;
    /// the plugin then returns that status. An error's words are then cut, and the error may be returned all the same.
    pub write: unsafe extern "C" fn(context: *mut c_void, bytes: Bytes) -> Status,
}

/// What the host offers to a plugin. Valid from `create` until `destroy` returns, from any thread.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Size of this struct in bytes, as the host knows it.
    pub size: u32,
    /// Always 0.
    pub reserved: u32,
    /// Handed back to the functions below.
    pub context: *mut c_void,
    /// Writes one line to the plugin's log. `level`: one of the `LOG_` constants. UTF-8, at most 4 KiB;
    /// longer lines are cut.
    pub log: unsafe extern "C" fn(context: *mut c_void, level: u32, line: Bytes),
}

/// Log level: something failed.
pub const LOG_ERROR: u32 = 1;
/// Log level: something is odd, and goes on.
pub const LOG_WARN: u32 = 2;
/// Log level: something happened.
pub const LOG_INFO: u32 = 3;
/// Log level: detail for the plugin's developer.
pub const LOG_DEBUG: u32 = 4;

/// What a function of the table returns.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub i32);

impl Status {
    /// Done; the sink holds the output.
    pub const OK: Self = Self(0);
    /// The plugin's own error; the sink holds JSON `{"code": "UPPER_SNAKE", "message": "…"}`.
    pub const ERROR: Self = Self(1);
    /// No function of this name.
    pub const UNKNOWN_FUNCTION: Self = Self(2);
    /// The input does not fit the schema; the sink holds JSON `{"field": "…", "message": "…"}`.
    pub const BAD_INPUT: Self = Self(3);
    /// The plugin's code panicked; the sink holds its message as text.
    pub const PANIC: Self = Self(4);
    /// The function may not be called in the instance's present phase.
    pub const ILLEGAL: Self = Self(5);
    /// The plugin can't do this (for example save a state version that it doesn't write).
    pub const UNSUPPORTED: Self = Self(6);
    /// The sink refused more bytes.
    pub const TOO_LARGE: Self = Self(7);
}

/// An instance of a plugin: opaque to the host, and not null.
pub type Instance = *mut c_void;

/// The type of the symbol [`ENTRY_SYMBOL`]. Returns a table that lives as long as the library.
pub type Entry = unsafe extern "C" fn() -> *const Table;

/// The table of a plugin's functions.
///
/// Which function may be called in which phase, from which thread, and how many at a time, is
/// [`Function::legal_in`], [`Function::thread`] and [`Function::concurrent`]. No function may unwind. Times are
/// nanoseconds left, never points in time: the two sides share no clock. Functions with an `error` sink write
/// there what [`Status`] says, at most [`WORDS_MAX`] bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// [`ABI_MAJOR`] that the plugin was built with.
    pub abi_major: u16,
    /// [`ABI_MINOR`] that the plugin was built with.
    pub abi_minor: u16,
    /// Size of the table in bytes, as the plugin knows it.
    pub size: u32,
    /// Writes the descriptor (JSON). Needs no instance; the same bytes at every call.
    pub describe: unsafe extern "C" fn(out: *const Sink) -> Status,
    /// Makes an instance from its config (JSON or any bytes; may be empty). Passive: starts no thread, opens
    /// nothing that another release might hold.
    pub create: unsafe extern "C" fn(
        host: *const Host,
        config: Bytes,
        instance: *mut Instance,
        error: *const Sink,
    ) -> Status,
    /// Says whether the instance is well. [`Status::OK`] is green; the sink takes words of detail.
    pub health: unsafe extern "C" fn(instance: Instance, detail: *const Sink) -> Status,
    /// Runs one function. `deadline_ns` is the time left.
    pub call: unsafe extern "C" fn(
        instance: Instance,
        function: Bytes,
        input: Bytes,
        deadline_ns: u64,
        out: *const Sink,
    ) -> Status,
    /// Starts background work. At most one release of a plugin is active on a host.
    pub activate: unsafe extern "C" fn(instance: Instance, error: *const Sink) -> Status,
    /// Ends background work; when it returns, no thread of the plugin touches the outside.
    pub deactivate: unsafe extern "C" fn(instance: Instance, error: *const Sink) -> Status,
    /// Writes the state in the wanted version, which is one that the descriptor lists as written.
    pub save_state: unsafe extern "C" fn(instance: Instance, target_version: u32, out: *const Sink) -> Status,
    /// Takes over a state of a version that the descriptor lists as read.
    pub restore_state:
        unsafe extern "C" fn(instance: Instance, version: u32, state: Bytes, error: *const Sink) -> Status,
    /// Frees the instance. No other call of this instance may be running or follow.
    pub destroy: unsafe extern "C" fn(instance: Instance),
}

// SAFETY: the table is immutable plain data: numbers and addresses of code.
unsafe impl Sync for Table {}
