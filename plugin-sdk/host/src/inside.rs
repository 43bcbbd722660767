//! Inside: the worker's side of the process border.
//!
//! Order matters here: the worker ties its life to its host's, arranges its descriptors, loads what a plugin may
//! need of the system's libraries, locks itself in, and only then opens the release.
mod answers;
mod crash;
mod desk;
mod instance;
mod library;
mod occupancy;
mod queue;
mod serve;
mod sink;
mod table;

pub(crate) use crash::FATAL;

use crate::{
    Level, Limits,
    frames::{self, FrameReader, Loading, NoSandbox, Refusal, Refused, Start, Step},
    sandbox::{self, SandboxError},
};
use bytes::BytesMut;
use prost::Message;
use serve::Shared;
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::unix::fs::MetadataExt,
};

/// `argv[0]` of a worker.
pub(crate) const NAME: &str = "fleetswap-worker";
/// `argv[1]` of a worker; the process id of its host follows.
pub(crate) const MARK: &str = "--fleetswap-worker";
/// Exit code of a worker that could not start; the host has been told why, where it could be told.
const EXIT_REFUSED: i32 = 70;

/// Becomes a worker, and never returns, if this process was started as one; otherwise does nothing. Must be
/// the first thing that `main` does: before any thread, runtime or logger.
pub fn run_worker_if_asked() {
    let mut args = std::env::args_os();
    let is_worker =
        args.next().is_some_and(|name| name == NAME) && args.next().is_some_and(|mark| mark == MARK);
    if is_worker {
        let error = run(args.next());
        eprintln!("the worker can't start: {error}");
        end(EXIT_REFUSED);
    }
}

/// Ends this process without running anything of the plugin's any more.
pub(crate) fn end(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Returns only with an error.
fn run(host: Option<OsString>) -> io::Error {
    match start(host) {
        Ok(shared) => shared.serve(),
        Err(error) => error,
    }
}

fn start(host: Option<OsString>) -> io::Result<&'static Shared> {
    tie_to(host)?;
    // Reader and writers share the one descriptor, which is open as long as the process lives.
    let socket: &'static File = Box::leak(Box::new(table::arrange()?));
    calm_down();
    let mut reader = FrameReader::new(socket);
    let frame = reader.next()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let start = Start::decode(frame).map_err(io::Error::other)?;
    let build = build_id()?;
    if start.build != build {
        return Err(refuse(socket, Step::OtherBuild(build)));
    }
    name_process(&start.plugin);
    let lacking = library::lacking(&library::preload());
    crash::install(&start.plugin);
    let limits =
        Limits { memory_bytes: start.memory_bytes, open_files: start.open_files, ..Limits::default() };
    if let Err(error) = lock_in(&limits, start.level) {
        let no = NoSandbox { piece: error.piece, words: error.words };
        return Err(refuse(socket, Step::NoSandbox(no)));
    }
    let no_threads = |error: io::Error| {
        let refused = Refused { kind: Refusal::NoThreads as i32, words: error.to_string() };
        refuse(socket, Step::Refused(refused))
    };
    let shared = Shared::new(socket, reader);
    // Before the release can run: so it can't be the cause when the host has no thread to give, nor claim so.
    if start.pool > 0 {
        shared.start(start.pool).map_err(no_threads)?;
    }
    let lacks_something = !lacking.is_empty();
    report(socket, Step::Sandboxed(lacking))?;
    if lacks_something {
        return Err(io::Error::other("the release was not opened; the host knows why"));
    }
    let plugin = library::load().map_err(|refused| refuse(socket, Step::Refused(refused)))?;
    crash::loaded();
    let (descriptor, concurrency) = (plugin.descriptor.clone(), plugin.parsed.concurrency);
    shared.set(plugin);
    if start.pool == 0 {
        shared.start(concurrency).map_err(no_threads)?;
    }
    report(socket, Step::Loaded(descriptor))?;
    Ok(shared)
}

fn lock_in(limits: &Limits, level: u32) -> Result<(), SandboxError> {
    // A number that there is not comes from no build that is the same as this one.
    let level = usize::try_from(level).ok().and_then(|place| Level::ALL.get(place)).copied();
    sandbox::enter(limits, level.unwrap_or(Level::Strict))
}

/// Has the kernel end this process when the thread that started it ends, and makes sure that it still lives.
fn tie_to(host: Option<OsString>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let told = host.and_then(|pid| pid.to_str()?.parse::<i32>().ok());
    let parent = rustix::process::getppid().map(rustix::process::Pid::as_raw_pid);
    if told.is_none() || told != parent {
        return Err(io::Error::other("the host that started this worker is gone"));
    }
    Ok(())
}

/// Signals that a service manager or a terminal may send to all processes of the agent. They are the agent's to
/// handle: a worker that ended by itself would lose the calls that the agent is about to drain.
const LEFT_TO_THE_HOST: [i32; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// Signals that end a worker at once. The standard library's handler for stack overflows, which every Rust program
/// starts with, would swallow the first one that is sent from outside.
const DEADLY: [i32; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Nothing of the host's surroundings is left: folder, signals, allocator habits.
fn calm_down() {
    // A missing root folder would only leave the host's folder as the current one.
    let _ = std::env::set_current_dir("/");
    // SAFETY: an all-zero set is valid memory for sigemptyset to fill; the mask of the only thread is set from
    // it; ignoring a signal or taking its default installs no handler; mallopt only sets a number of the allocator.
    unsafe {
        for signal in LEFT_TO_THE_HOST {
            libc::signal(signal, libc::SIG_IGN);
        }
        for signal in DEADLY {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        // Each arena reserves 64 MiB of the address space, and there may be one per thread.
        #[cfg(target_env = "gnu")]
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
    }
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("the worker itself panicked: {panic}");
        std::process::abort();
    }));
}

/// Arenas of the C library's allocator in a worker.
#[cfg(target_env = "gnu")]
const ARENAS_MAX: i32 = 4;

/// Shows the plugin in process lists. The kernel cuts it to 15 bytes.
fn name_process(plugin: &str) {
    if let Ok(name) = std::ffi::CString::new(format!("fs-{plugin}")) {
        // Only for the eyes of an operator.
        let _ = rustix::thread::set_name(&name);
    }
}

/// What tells two builds apart: the version, and the very file that this process runs, even if another one has
/// taken its place on disk.
pub(crate) fn build_id() -> io::Result<String> {
    let file = std::fs::metadata("/proc/self/exe")?;
    Ok(format!("{}-{:x}-{:x}-{:x}", env!("CARGO_PKG_VERSION"), file.dev(), file.ino(), file.len()))
}

fn report(mut socket: &File, step: Step) -> io::Result<()> {
    let mut frame = BytesMut::new();
    frames::encode(&Loading { step: Some(step) }, &mut frame);
    socket.write_all(&frame)
}

/// Tells the host why there will be no worker.
fn refuse(socket: &File, step: Step) -> io::Error {
    match report(socket, step) {
        Ok(()) => io::Error::other("refused; the host knows why"),
        Err(error) => error,
    }
}
