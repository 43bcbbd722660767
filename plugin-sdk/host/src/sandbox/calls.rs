//! System calls that a worker may make; every other one gets EPERM.
use fleetswap_inspect::elf::Glibc;
use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use std::collections::BTreeMap;

/// Rules by number; an empty list allows the call with any arguments.
pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allowed with any arguments: they reach nothing outside of this process and its open descriptors.
const FREE: &[i64] = &[
    // memory
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // threads and time
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_get_robust_list,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // signals to itself
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // open descriptors
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pselect6, // select() without descriptors is the nap of many C programs
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // itself
    libc::SYS_clone3, // the other filter answers ENOSYS, so that the C library falls back to clone
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_uname,
];

/// Older forms of the calls above, which newer machines don't have.
#[cfg(target_arch = "x86_64")]
const FREE_OLD: &[i64] =
    &[libc::SYS_dup2, libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_select, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const FREE_OLD: &[i64] = &[];

/// Flags that a new thread may not have: each makes a namespace.
const NAMESPACES: i32 = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

/// Flags of `openat` that a worker does without: anything but plain reading. Which files it may read, Landlock
/// says; but Landlock does not see `O_PATH`.
const OPEN_REFUSED: i32 = libc::O_ACCMODE
    | libc::O_CREAT
    | libc::O_TRUNC
    | libc::O_APPEND
    | libc::O_PATH
    | (libc::O_TMPFILE & !libc::O_DIRECTORY);

/// The whole allowlist for the process `pid`.
pub(super) fn allowed(pid: u32) -> Result<Rules, BackendError> {
    let mut rules: Rules = FREE.iter().chain(FREE_OLD).map(|&call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_mmap, not_writable_and_executable(&[private_memory()?])?);
    rules.insert(libc::SYS_mprotect, not_writable_and_executable(&[])?);
    rules.insert(libc::SYS_clone, vec![only_threads()?]);
    // abort() is a tgkill to the own thread, and must be seen as SIGABRT.
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![equal(0, u64::from(pid))?])?]);
    rules.insert(libc::SYS_fcntl, one_of(1, &FCNTL)?);
    rules.insert(libc::SYS_ioctl, one_of(1, &[libc::FIONBIO, libc::FIOCLEX])?);
    rules.insert(libc::SYS_prctl, one_of(0, &[libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64])?);
    rules.insert(libc::SYS_socketpair, vec![a_pair_of_its_own()?]);
    // Reading the own limits, as pthread_getattr_np does; not setting them.
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![equal(0, 0)?, pointer_null(2)?])?]);
    // The dynamic loader opens and examines the image.
    rules.insert(libc::SYS_openat, vec![SeccompRule::new(vec![masked(2, OPEN_REFUSED, 0)?])?]);
    if fstat_needs_newfstatat() {
        // The path should be empty, but a filter can't read it. Decision 0008 says what follows.
        let empty_path = masked(3, libc::AT_EMPTY_PATH, libc::AT_EMPTY_PATH)?;
        rules.insert(libc::SYS_newfstatat, vec![SeccompRule::new(vec![empty_path])?]);
    }
    Ok(rules)
}

/// Whether the C library's `fstat`, with which the loader examines the image, is `newfstatat`: so it is in glibc
/// before 2.39.
fn fstat_needs_newfstatat() -> bool {
    glibc() < Glibc::parse("2.39")
}

#[cfg(target_env = "gnu")]
fn glibc() -> Option<Glibc> {
    // SAFETY: the C library returns a text that lives as long as the process.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    Glibc::parse(version.to_str().ok()?)
}

/// Another C library: nothing is known of it.
#[cfg(not(target_env = "gnu"))]
const fn glibc() -> Option<Glibc> {
    None
}

/// Commands of `fcntl`: without `F_SETOWN`, which has the kernel send signals to other processes.
const FCNTL: [u64; 6] = [
    libc::F_DUPFD as u64,
    libc::F_DUPFD_CLOEXEC as u64,
    libc::F_GETFD as u64,
    libc::F_SETFD as u64,
    libc::F_GETFL as u64,
    libc::F_SETFL as u64,
];

/// Of write and execute at most one, and all the `others`.
fn not_writable_and_executable(others: &[SeccompCondition]) -> Result<Vec<SeccompRule>, BackendError> {
    let both = libc::PROT_WRITE | libc::PROT_EXEC;
    [0, libc::PROT_WRITE, libc::PROT_EXEC]
        .into_iter()
        .map(|allowed| SeccompRule::new([&[masked(2, both, allowed)?], others].concat()))
        .collect()
}

/// Memory that the watch sees. Shared memory stays when it is no longer mapped, and huge pages from the system's
/// own stock are in none of the figures that the watch adds up.
fn private_memory() -> Result<SeccompCondition, BackendError> {
    masked(3, libc::MAP_TYPE | libc::MAP_HUGETLB, libc::MAP_PRIVATE)
}

/// Two ends that nobody else can get at: without `sendmsg` no descriptor passes through, so the pair is a pipe. Tokio makes
/// one with every runtime that has I/O and signals, and panics without (decision 0011).
fn a_pair_of_its_own() -> Result<SeccompRule, BackendError> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    SeccompRule::new(vec![
        equal(0, libc::AF_UNIX as u64)?,
        masked(1, !flags, libc::SOCK_STREAM)?,
        equal(2, 0)?,
    ])
}

/// `clone` makes a thread of this process, in the namespaces of this process.
fn only_threads() -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![masked(0, NAMESPACES | libc::CLONE_THREAD, libc::CLONE_THREAD)?])
}

/// One rule per value that the argument may have.
fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, BackendError> {
    values.iter().map(|&value| SeccompRule::new(vec![equal(argument, value)?])).collect()
}

/// The argument's low 32 bits, all that the kernel looks at in an `int`, are this value.
fn equal(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn pointer_null(argument: u8) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}

/// Of the bits in `mask`, exactly those in `value` are set.
fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition, BackendError> {
    let (mask, value) = (u64::from(mask.cast_unsigned()), u64::from(value.cast_unsigned()));
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}
