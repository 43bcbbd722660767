//! Walk: the return addresses on the stack of a thread that crashed.
use super::modules::MODULES;
use std::{
    ffi::{c_int, c_void},
    ptr::null_mut,
};

/// Frames that a record has at most.
const FRAMES_MAX: usize = 64;
/// Frames of the handler itself, which come before them.
const OWN_FRAMES_MAX: usize = 32;

/// The unwinder's own.
#[repr(C)]
struct Context([u8; 0]);

/// Go on, or stop here: what the unwinder is told.
const GO_ON: c_int = 0;
const STOP: c_int = 4;

// The unwinder of the C compiler, with which this program is linked anyway.
unsafe extern "C" {
    fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut Context, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut Context, before: *mut c_int) -> usize;
}

/// Has the unwinder do now what it does only the first time.
pub(super) fn prime() {
    let mut take = |_: usize| ();
    let mut steps = Steps { after: None, seen: 0, kept: 0, take: &mut take };
    steps.run();
}

/// Walks from where the signal came. The first address is that of the instruction at fault, each further one lies
/// within the call that was under way.
///
/// # Safety
/// `context` is what the kernel gave to the handler, which this runs in.
pub(super) unsafe fn walk(context: *mut libc::ucontext_t, mut take: impl FnMut(usize)) {
    // SAFETY: as the caller promises.
    let context = unsafe { &mut *context };
    let mut at = address_of(context);
    take(at);
    let mut kept = 1;
    if MODULES.find(at).is_none()
        && let Some(caller) = caller_of_nothing(context)
    {
        // A call into nothing has no frame to unwind. The thread never goes on, so it may as well stand in its caller.
        take(caller);
        kept += 1;
        at = caller;
    }
    let mut steps = Steps { after: Some(at), seen: 0, kept, take: &mut take };
    steps.run();
}

struct Steps<'a> {
    /// Frames count behind the one with this address; None once it has been passed.
    after: Option<usize>,
    seen: usize,
    kept: usize,
    take: &'a mut dyn FnMut(usize),
}

impl Steps<'_> {
    fn run(&mut self) {
        // SAFETY: `visit` takes the data as what it is, and both live while the unwinder runs.
        unsafe { _Unwind_Backtrace(visit, (&raw mut *self).cast()) };
    }

    fn step(&mut self, address: usize, before: bool) -> c_int {
        self.seen += 1;
        match self.after {
            Some(fault) if fault == address => self.after = None,
            Some(_) if self.seen > OWN_FRAMES_MAX => return STOP,
            Some(_) => {}
            // Where a call returns to may be another function already.
            None if address == 0 => return STOP,
            None => {
                (self.take)(if before { address } else { address - 1 });
                self.kept += 1;
            }
        }
        if self.kept < FRAMES_MAX { GO_ON } else { STOP }
    }
}

extern "C" fn visit(context: *mut Context, steps: *mut c_void) -> c_int {
    let mut before = 0;
    // SAFETY: the unwinder passes its own context, and what `run` gave it.
    let (address, steps) =
        unsafe { (_Unwind_GetIPInfo(context, &raw mut before), &mut *steps.cast::<Steps<'_>>()) };
    steps.step(address, before != 0)
}

/// Moves the thread from an address without code into the call that led there, if there was one.
fn caller_of_nothing(context: &mut libc::ucontext_t) -> Option<usize> {
    // It lies within the call: behind it there may be another function.
    let caller = return_address(context)?.checked_sub(1)?;
    MODULES.find(caller)?;
    leave_call(context, caller);
    Some(caller)
}

/// Where the thread stood.
#[cfg(target_arch = "x86_64")]
const fn address_of(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize
}

/// Where a call that has just been made returns to.
#[cfg(target_arch = "x86_64")]
fn return_address(context: &libc::ucontext_t) -> Option<usize> {
    word_at(context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize)
}

/// Takes back what a call instruction did.
#[cfg(target_arch = "x86_64")]
const fn leave_call(context: &mut libc::ucontext_t, caller: usize) {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] = caller as i64;
    context.uc_mcontext.gregs[libc::REG_RSP as usize] += size_of::<usize>() as i64;
}

#[cfg(target_arch = "aarch64")]
const fn address_of(context: &libc::ucontext_t) -> usize {
    context.uc_mcontext.pc as usize
}

#[cfg(target_arch = "aarch64")]
const fn return_address(context: &libc::ucontext_t) -> Option<usize> {
    /// The link register.
    const LINK: usize = 30;
    Some(context.uc_mcontext.regs[LINK] as usize)
}

#[cfg(target_arch = "aarch64")]
const fn leave_call(context: &mut libc::ucontext_t, caller: usize) {
    context.uc_mcontext.pc = caller as u64;
}

/// The word at an address, if it can be read.
#[cfg(target_arch = "x86_64")]
fn word_at(address: usize) -> Option<usize> {
    (address != 0 && address.is_multiple_of(align_of::<usize>()) && is_readable(address))
        // SAFETY: aligned, and the kernel could read it just now.
        .then(|| unsafe { *(address as *const usize) })
}

/// Whether the kernel can read a word there: it copies a signal set before it finds that it was not told what to do.
#[cfg(target_arch = "x86_64")]
fn is_readable(address: usize) -> bool {
    // SAFETY: the kernel reads, or refuses to, and changes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, -1, address, null_mut::<c_void>(), size_of::<u64>())
    };
    result < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unwinder_sees_this_test_and_keeps_to_the_bound() {
        let mut seen = Vec::new();
        let mut take = |address| seen.push(address);
        Steps { after: None, seen: 0, kept: FRAMES_MAX - 2, take: &mut take }.run();
        assert_eq!(seen.len(), 2);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_word_is_read_only_where_there_is_one() {
        let word = 7_usize;
        let at = &raw const word as usize;
        assert_eq!((word_at(at), word_at(0), word_at(at + 1), word_at(0x1000)), (Some(7), None, None, None));
    }
}
