//! Crash: what a worker still says when a deadly signal hits it, before it dies of that signal.
//!
//! The handler runs anywhere, in the middle of anything: it takes no lock, allocates nothing, and writes from memory
//! that was there before. What it needs is set up by [`install`], [`ready`] and [`loaded`]. A fault in the handler itself
//! finds its signal blocked, and so ends the process at once.
mod modules;
mod record;
mod walk;

use modules::{MODULES, Name};
use record::Record;
use std::{
    cell::UnsafeCell,
    ffi::{c_int, c_void},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Signals that a broken program gets, and that end it.
pub(crate) const FATAL: [i32; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];
/// Bytes of the stack that the handler runs on, since the thread's own may be what has run out.
const STACK_BYTES: usize = 64 * 1024;
/// How long a full log pipe may hold up the record, in milliseconds. A flood is read at least once a second.
const PIPE_PATIENCE_MS: c_int = 2_000;
/// How long a thread that crashes second leaves the first one to write its record, in seconds.
const OTHER_PATIENCE_S: libc::time_t = 3;

/// Names of this program and of the release, as frames show them.
static NAMES: OnceLock<[Name; 2]> = OnceLock::new();
/// The first thread that crashes writes the record.
static TAKEN: AtomicBool = AtomicBool::new(false);
static RECORD: Own<Record> = Own(UnsafeCell::new(Record::new()));

/// Memory that only the thread uses which took [`TAKEN`].
struct Own<T>(UnsafeCell<T>);

// SAFETY: only the one thread that set `TAKEN` gets at it.
unsafe impl<T> Sync for Own<T> {}

/// Installs the handler. Called once, by the only thread, before the sandbox: what the unwinder would open or allocate
/// at its first use, it does now.
pub(super) fn install(plugin: &str) {
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    let program = program.trim_end_matches(" (deleted)");
    let names = NAMES.get_or_init(|| [Name::new(program.as_bytes()), Name::new(plugin.as_bytes())]);
    MODULES.collect(names);
    walk::prime();
    ready();
    // SAFETY: the action is all zero but for what is set, which is a valid action; the handler has the type that
    // SA_SIGINFO demands. A signal that can't be caught stays as it is.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        for signal in FATAL {
            libc::sigaddset(&raw mut action.sa_mask, signal);
        }
        for signal in FATAL {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// The release is loaded: its frames can be named.
pub(super) fn loaded() {
    if let Some(names) = NAMES.get() {
        MODULES.collect(names);
    }
}

/// Gives the calling thread a stack for the handler. Without memory for it, a stack overflow there leaves no record.
pub(super) fn ready() {
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(STACK_BYTES);
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory; its lowest page stays
    // closed; the rest lives as long as the process, and nothing else uses it.
    unsafe {
        let (length, none) = (page + STACK_BYTES, libc::PROT_NONE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let start = libc::mmap(std::ptr::null_mut(), length, none, flags, -1, 0);
        if start == libc::MAP_FAILED {
            return;
        }
        let base = start.byte_add(page);
        if libc::mprotect(base, STACK_BYTES, libc::PROT_READ | libc::PROT_WRITE) == 0 {
            let stack = libc::stack_t { ss_sp: base, ss_flags: 0, ss_size: STACK_BYTES };
            libc::sigaltstack(&raw const stack, std::ptr::null_mut());
        }
    }
}

extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if TAKEN.swap(true, Ordering::AcqRel) {
        // It may hold what the other one waits for, so it does not wait for ever.
        let time = libc::timespec { tv_sec: OTHER_PATIENCE_S, tv_nsec: 0 };
        // SAFETY: the time is valid memory; nobody asks for what is left of it.
        unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
    } else {
        // SAFETY: this thread has taken it, and no other ever does.
        let record = unsafe { &mut *RECORD.0.get() };
        // SAFETY: the kernel hands over both with SA_SIGINFO.
        unsafe { write_record(record, signal, info, context) };
    }
    die_of(signal)
}

/// The head is written before the stack is looked at: the stack may be what is broken.
///
/// # Safety
/// `info` and `context` are what the kernel gave to the handler of `signal`.
unsafe fn write_record(
    record: &mut Record,
    signal: c_int,
    info: *const libc::siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: as the caller promises; the address is only taken where the kernel filled it in.
    let (code, address) = unsafe { ((*info).si_code, fault_address(&*info)) };
    record.head(signal, code, address);
    send(record);
    record.begin_frames();
    if let Some(names) = NAMES.get().filter(|names| !MODULES.knows(&names[1])) {
        // It crashes while it is being loaded.
        MODULES.collect(names);
    }
    // SAFETY: as the caller promises.
    unsafe { walk::walk(context.cast(), |address| record.frame(address)) };
    record.end();
    send(record);
}

/// Where memory was touched, or which instruction is at fault; None for a signal that somebody sent.
fn fault_address(info: &libc::siginfo_t) -> Option<usize> {
    let has_address = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL].contains(&info.si_signo);
    // SAFETY: for these signals and codes the kernel filled in the address.
    (has_address && (1..SI_KERNEL).contains(&info.si_code)).then(|| unsafe { info.si_addr() } as usize)
}

/// Code of a fault of which the kernel knows no address.
const SI_KERNEL: c_int = 0x80;

/// To the log pipe, in one write below the size at which it could mix with others.
fn send(record: &Record) {
    let bytes = record.bytes();
    let mut pipe = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, and bytes that live on; both calls only read and write this process's own memory.
    unsafe {
        if libc::poll(&raw mut pipe, 1, PIPE_PATIENCE_MS) == 1 && pipe.revents & libc::POLLOUT != 0 {
            libc::write(pipe.fd, bytes.as_ptr().cast(), bytes.len());
        }
    }
}

/// Dies as if nobody had caught the signal.
fn die_of(signal: c_int) -> ! {
    // SAFETY: the set is filled by sigemptyset before it is used; no handler is installed; a signal to the own thread,
    // which no longer blocks it, ends the process before tgkill returns.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut only: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut only);
        libc::sigaddset(&raw mut only, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal);
    }
    super::end(SIGNAL_EXIT + signal)
}

/// Exit code, beside the signal's number, of a process that did not get its signal.
const SIGNAL_EXIT: i32 = 128;
