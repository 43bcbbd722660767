//! Process: one worker process, watched against its limits and always reaped.
mod dying;

use crate::{Cause, Limits, POOL_MAX, cgroup::Group, limits::OWN_THREADS};
use dying::is_dying;
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus},
};
use std::{
    fs::File,
    io,
    ops::Deref,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// How often a worker's memory and threads are looked at.
const WATCH_PERIOD: Duration = Duration::from_millis(150);
/// Bytes of `/proc/PID/status` that are read. The lines of interest follow a list of all groups of the agent's user.
const STATUS_MAX: usize = 64 * 1024;
/// Looks in a row that may see threads and no memory before the worker is ended for it. One may: a process that is
/// just ending looks the same.
const BLIND_LOOKS_MAX: u32 = 1;

/// A process that was just started and that nobody looks after yet. Dropping it ends and reaps it.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    pidfd: OwnedFd,
    reaped: bool,
    /// Goes after the process has been reaped.
    group: Option<Group>,
    /// Something to tell about its start.
    pub(crate) note: Option<String>,
}

impl Child {
    /// Takes over a child of this process that has not been waited for.
    pub(crate) fn adopt(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        match rustix::process::pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { pid, pidfd, reaped: false, group: None, note: None }),
            Err(error) => {
                // Without a descriptor nothing could end it later, so it ends now; by its number, which is its
                // own until it is waited for.
                let _ = rustix::process::kill_process(raw, Signal::KILL);
                let _ = rustix::process::waitpid(Some(raw), rustix::process::WaitOptions::empty());
                Err(error.into())
            }
        }
    }

    /// The cgroup that it is in, from now on kept as long as the process.
    pub(crate) fn held_by(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }

    /// Something to tell about its start.
    pub(crate) fn noted(mut self, text: String) -> Self {
        self.note = Some(text);
        self
    }

    /// Reaps it if it has ended.
    fn try_reap(&mut self) -> io::Result<Option<WaitIdStatus>> {
        self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    fn wait(&mut self, options: WaitIdOptions) -> io::Result<Option<WaitIdStatus>> {
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
                Err(Errno::INTR) => {}
                other => {
                    let status = other?;
                    self.reaped |= status.is_some();
                    return Ok(status);
                }
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
            // SIGKILL can't be held up, so this is short.
            let _ = self.wait(WaitIdOptions::EXITED);
        }
    }
}

/// The owner's handle: dropping it kills the process, a task reaps it.
#[derive(Debug)]
pub(crate) struct Process(Handle);

impl Process {
    /// Starts the task that watches and reaps the child.
    pub(crate) fn watch(child: Child, limits: &Limits) -> io::Result<Self> {
        let pidfd = Arc::new(child.pidfd.try_clone()?);
        let watch = Watch::new(child.pid, limits)?;
        // SAFETY: the number is that of an open pidfd as long as the Arc lives, which the AsyncFd owns.
        let exited = unsafe { AsyncFd::register_with_interest(Arc::clone(&pidfd), Interest::READABLE)? };
        let (sender, cause) = watch::channel(None);
        let state = Arc::new(State {
            pid: child.pid,
            pidfd,
            wanted: Mutex::new(None),
            closing: AtomicBool::new(false),
            own_threads: AtomicU32::new(OWN_THREADS + POOL_MAX),
        });
        let handle = Handle { state: Arc::clone(&state), cause };
        tokio::spawn(async move {
            let cause = keep(&state, child, exited, watch).await;
            sender.send_replace(Some(cause));
        });
        Ok(Self(handle))
    }

    /// A handle that does not keep the process alive.
    pub(crate) fn handle(&self) -> Handle {
        self.0.clone()
    }
}

impl Deref for Process {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill(Cause::Killed);
    }
}

/// Looks at and ends a process.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    state: Arc<State>,
    cause: watch::Receiver<Option<Cause>>,
}

#[derive(Debug)]
struct State {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    /// Why the host killed it, if it did: the first reason counts.
    wanted: Mutex<Option<Cause>>,
    closing: AtomicBool,
    own_threads: AtomicU32,
}

impl Handle {
    pub(crate) fn pid(&self) -> u32 {
        self.state.pid
    }

    /// Ends the process at once, for this cause, unless it has already ended for another.
    pub(crate) fn kill(&self, cause: Cause) {
        self.state.kill(cause);
    }

    /// From now on an exit with code 0 is what the host wanted.
    pub(crate) fn expect_exit(&self) {
        self.state.closing.store(true, Ordering::Release);
    }

    /// How many threads the host itself runs in it.
    pub(crate) fn set_own_threads(&self, count: u32) {
        self.state.own_threads.store(count, Ordering::Release);
    }

    /// Waits for its end. A runtime that shuts down kills and reaps it.
    pub(crate) async fn exited(&self) -> Cause {
        let mut cause = self.cause.clone();
        cause.wait_for(Option::is_some).await.ok().and_then(|cause| cause.clone()).unwrap_or(Cause::Killed)
    }
}

impl State {
    fn kill(&self, cause: Cause) {
        // What a process that is on its way out does with its socket is no breach of the protocol: whoever ended it is
        // to be told.
        let is_late = matches!(cause, Cause::Protocol(_)) && is_dying(self.pid);
        if !is_late {
            self.wanted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
        }
        // An error means that it has ended.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    fn cause_of(&self, status: &WaitIdStatus, child: &Child, limit: u64) -> Cause {
        if let Some(code) = status.exit_status() {
            let asked = code == 0 && self.closing.load(Ordering::Acquire);
            return if asked { Cause::Closed } else { Cause::Exited(code) };
        }
        let signal = status.terminating_signal().unwrap_or(libc::SIGKILL);
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match wanted {
            Some(cause) if signal == libc::SIGKILL => cause,
            None if signal == libc::SIGKILL => match child.group.as_ref().and_then(Group::out_of_memory) {
                Some(seen) => Cause::Memory { seen, limit },
                None => Cause::Signal(signal),
            },
            _ => Cause::Signal(signal),
        }
    }
}

/// Watches until the end, then reaps.
async fn keep(state: &State, mut child: Child, exited: AsyncFd<Arc<OwnedFd>>, mut watch: Watch) -> Cause {
    let mut tick = interval(WATCH_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ready = exited.readable() => {
                match child.try_reap() {
                    Ok(Some(status)) => return state.cause_of(&status, &child, watch.memory_bytes),
                    Ok(None) => {}
                    // Somebody else reaped it: how it ended can't be known any more.
                    Err(_) => return Cause::Killed,
                }
                if let Ok(mut ready) = ready {
                    ready.clear_ready();
                }
            }
            _ = tick.tick() => {
                if let Some(cause) = watch.look(state.own_threads.load(Ordering::Acquire)) {
                    state.kill(cause);
                }
            }
        }
    }
}

/// Looks at a process's use of memory and threads.
#[derive(Debug)]
struct Watch {
    status: File,
    text: Vec<u8>,
    memory_bytes: u64,
    threads: u32,
    /// Looks in a row that saw threads and no memory.
    blind: u32,
}

impl Watch {
    fn new(pid: u32, limits: &Limits) -> io::Result<Self> {
        let status = File::open(format!("/proc/{pid}/status"))?;
        let (memory_bytes, threads) = (limits.memory_bytes, limits.threads);
        Ok(Self { status, text: vec![0; STATUS_MAX], memory_bytes, threads, blind: 0 })
    }

    /// The limit that is passed, if one is. A process that has ended passes none.
    fn look(&mut self, own_threads: u32) -> Option<Cause> {
        let count = self.status.read_at(&mut self.text, 0).ok()?;
        let usage = Usage::parse(&String::from_utf8_lossy(&self.text[..count]));
        self.judge(&usage, own_threads)
    }

    fn judge(&mut self, usage: &Usage, own_threads: u32) -> Option<Cause> {
        let threads = self.threads.saturating_add(own_threads);
        if let Some(seen) = usage.threads.filter(|seen| *seen > threads) {
            return Some(Cause::Threads { seen, limit: threads });
        }
        let Some(seen) = usage.memory_bytes else {
            // A process shows its memory as long as its main thread runs. Without that one it would run on unwatched.
            self.blind = if usage.threads == Some(1) { 0 } else { self.blind + 1 };
            let blind = self.blind > BLIND_LOOKS_MAX;
            return blind
                .then(|| Cause::Protocol("its main thread ended, and its memory can't be seen".into()));
        };
        self.blind = 0;
        (seen > self.memory_bytes).then_some(Cause::Memory { seen, limit: self.memory_bytes })
    }
}

/// What `/proc/PID/status` says.
#[derive(Debug, PartialEq, Eq)]
struct Usage {
    /// Resident or swapped out, which a process can ask for.
    memory_bytes: Option<u64>,
    threads: Option<u32>,
}

impl Usage {
    fn parse(status: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let bytes = |name: &str| {
            let kib: u64 = field(name)?.strip_suffix("kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        };
        // A kernel without swap has no line for it.
        let memory_bytes = bytes("VmRSS:").map(|resident| resident + bytes("VmSwap:").unwrap_or(0));
        Self { memory_bytes, threads: field("Threads:").and_then(|count| count.parse().ok()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watch with the default limits.
    fn watch() -> Watch {
        Watch::new(std::process::id(), &Limits::default()).unwrap()
    }

    #[test]
    fn memory_swapped_or_not_and_threads_are_read_from_a_status() {
        let status = "Name:\tx\nVmPeak:\t  9 kB\nVmRSS:\t    2048 kB\nThreads:\t17\nSigQ:\t0/1\n";
        assert_eq!(Usage::parse(status), Usage { memory_bytes: Some(2 << 20), threads: Some(17) });
        let swapped = Usage::parse(&status.replace("Threads", "VmSwap:\t 1024 kB\nThreads"));
        assert_eq!(swapped.memory_bytes, Some(3 << 20));
    }

    #[test]
    fn a_zombie_passes_no_limit_and_threads_without_memory_do_so_at_the_second_look() {
        let mut watch = watch();
        let zombie = Usage::parse("Name:\tx\nState:\tZ (zombie)\nThreads:\t1\n");
        let headless = Usage::parse("Name:\tx\nState:\tZ (zombie)\nThreads:\t2\n");
        let well = Usage { memory_bytes: Some(1), threads: Some(2) };
        for usage in [&zombie, &zombie, &headless, &zombie, &headless, &well, &headless] {
            assert_eq!(watch.judge(usage, 0), None);
        }
        assert!(matches!(watch.judge(&headless, 0), Some(Cause::Protocol(_))));
    }

    #[test]
    fn a_status_that_is_longer_than_what_is_read_is_as_good_as_none() {
        let mut watch = watch();
        let cut = Usage::parse("Name:\tx\nGroups:\t1 2 3");
        assert_eq!(watch.judge(&cut, 0), None);
        assert!(watch.judge(&cut, 0).is_some());
    }

    #[test]
    fn the_watch_names_the_limit_that_is_passed() {
        let looked = |memory_bytes, threads, own| {
            let limits = Limits { memory_bytes, threads, ..Limits::default() };
            Watch::new(std::process::id(), &limits).unwrap().look(own)
        };
        assert_eq!(looked(1 << 40, 10_000, 0), None);
        assert!(matches!(looked(1, 10_000, 0), Some(Cause::Memory { limit: 1, .. })));
        assert!(matches!(looked(1 << 40, 0, 0), Some(Cause::Threads { limit: 0, .. })));
        assert_eq!(looked(1 << 40, 0, 10_000), None, "the host's own threads don't count");
    }

    #[test]
    fn a_child_that_nobody_takes_is_ended_and_reaped() {
        let pid = std::process::Command::new("sleep").arg("600").spawn().unwrap().id();
        drop(Child::adopt(pid).unwrap());
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[tokio::test]
    async fn the_cause_of_a_kill_is_the_first_reason_given() {
        let pid = std::process::Command::new("sleep").arg("600").spawn().unwrap().id();
        let process = Process::watch(Child::adopt(pid).unwrap(), &Limits::default()).unwrap();
        process.kill(Cause::Protocol("why".into()));
        process.kill(Cause::Killed);
        assert_eq!(process.exited().await, Cause::Protocol("why".into()));
    }

    #[tokio::test]
    async fn what_a_process_does_after_its_end_has_begun_is_no_breach_of_the_protocol() {
        let pid = std::process::Command::new("sh").args(["-c", "kill -KILL $$"]).spawn().unwrap().id();
        let child = Child::adopt(pid).unwrap();
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), ended).unwrap();
        // Nobody has looked yet: the task that reaps it runs at the next await.
        let process = Process::watch(child, &Limits::default()).unwrap();
        process.kill(Cause::Protocol("it closed its socket".into()));
        assert_eq!(process.exited().await, Cause::Signal(libc::SIGKILL));
    }

    #[tokio::test]
    async fn an_exit_is_told_from_a_signal_that_was_not_the_hosts() {
        let end = async |script: &str| {
            let pid = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap().id();
            let process = Process::watch(Child::adopt(pid).unwrap(), &Limits::default()).unwrap();
            process.exited().await
        };
        assert_eq!(end("exit 3").await, Cause::Exited(3));
        assert_eq!(end("kill -SEGV $$").await, Cause::Signal(libc::SIGSEGV));
        assert_eq!(end("kill -KILL $$").await, Cause::Signal(libc::SIGKILL));
    }
}
