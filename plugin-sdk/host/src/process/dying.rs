//! Dying: whether a process is on its way out already. Freeing much memory takes a while, and meanwhile the process looks as
//! if it had closed its socket and lost its main thread.
use std::fs;

/// `PF_EXITING` of the kernel's `sched.h`, which proc(5) shows among the flags of a thread.
const EXITING: u64 = 0x4;
/// SIGKILL in the set of signals that wait for a thread.
const KILLED: u64 = 1 << (libc::SIGKILL - 1);

/// Whether each of its threads is exiting, or is about to at the next chance. One that has been reaped is.
pub(super) fn is_dying(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let read = |file: &str| fs::read_to_string(thread.path().join(file));
        // A thread that can't be read is gone.
        read("stat").map_or(true, |stat| is_exiting(&stat))
            || read("status").map_or(true, |status| is_killed(&status))
    })
}

/// The flags are the seventh field behind the name, which may hold anything.
fn is_exiting(stat: &str) -> bool {
    let flags = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & EXITING != 0)
}

fn is_killed(status: &str) -> bool {
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    pending.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits & KILLED != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    #[test]
    fn a_thread_is_exiting_by_its_flags_or_by_the_kill_that_waits_for_it() {
        assert!(is_exiting("7 (a) b) R 1 7 7 0 -1 4194308 0 0"));
        assert!(!is_exiting("7 (a) b) R 1 7 7 0 -1 4194304 0 0"));
        assert!(!is_exiting("cut"));
        assert!(is_killed("Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
        assert!(!is_killed("Name:\tx\nSigPnd:\t0000000000000400\nShdPnd:\t0000000000000100\n"));
    }

    #[test]
    fn a_process_that_runs_is_not_dying_and_one_that_has_ended_is() {
        assert!(!is_dying(std::process::id()));
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id();
        assert!(!is_dying(pid));
        child.kill().unwrap();
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&child)), ended).unwrap();
        // It has ended and is not reaped.
        assert!(is_dying(pid));
        child.wait().unwrap();
        assert!(is_dying(pid));
    }
}
