//! Masks: this kernel, answering as an older one does, for this process and all that it starts.
use libc::{sock_filter, sock_fprog};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::{collections::BTreeMap, thread};

/// The `flags` of `landlock_create_ruleset` that ask for the version.
const VERSION_QUERY: u32 = 1;
/// The first system calls that came after Linux 5.13, 6.6 and 6.10, which all machines number alike.
const AFTER_5_13: i64 = 447;
const AFTER_6_6: i64 = 454;
const AFTER_6_10: i64 = 463;
/// No machine has as many.
const CALLS_MAX: i64 = 1024;

/// A kernel that this one can pass for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    /// The first system call that it does not have.
    calls: i64,
    landlock: Landlock,
    has_mdwe: bool,
    has_seccomp: bool,
    /// What keeps it from the next level, as errors name it.
    pub(crate) lacks: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Landlock {
    Version(u32),
    /// Not built in, or switched off at boot: the error.
    Not(i32),
}

pub(crate) const KERNELS: [Kernel; 6] = [
    Kernel {
        name: "5.13",
        calls: AFTER_5_13,
        landlock: Landlock::Version(1),
        has_mdwe: false,
        has_seccomp: true,
        lacks: "memory-deny-write-execute",
    },
    Kernel {
        name: "6.6",
        calls: AFTER_6_6,
        landlock: Landlock::Version(3),
        has_mdwe: true,
        has_seccomp: true,
        lacks: "landlock network",
    },
    Kernel {
        name: "6.10",
        calls: AFTER_6_10,
        landlock: Landlock::Version(5),
        has_mdwe: true,
        has_seccomp: true,
        lacks: "landlock scopes",
    },
    Kernel {
        name: "without-landlock",
        calls: CALLS_MAX,
        landlock: Landlock::Not(libc::ENOSYS),
        has_mdwe: true,
        has_seccomp: true,
        lacks: "landlock",
    },
    Kernel {
        name: "landlock-off",
        calls: CALLS_MAX,
        landlock: Landlock::Not(libc::EOPNOTSUPP),
        has_mdwe: true,
        has_seccomp: true,
        lacks: "landlock",
    },
    Kernel {
        name: "without-seccomp",
        calls: CALLS_MAX,
        landlock: Landlock::Version(6),
        has_mdwe: true,
        has_seccomp: false,
        lacks: "seccomp",
    },
];

impl Kernel {
    /// From now on. The caller has one thread.
    pub(crate) fn pose(&self) {
        rustix::thread::set_no_new_privs(true).unwrap();
        match self.landlock {
            Landlock::Version(version) => answer_the_version(version),
            Landlock::Not(error) => refuse(error, [(libc::SYS_landlock_create_ruleset, vec![])]),
        }
        if !self.has_mdwe {
            let options =
                [libc::PR_SET_MDWE, libc::PR_GET_MDWE].map(|option| rule(0, u64::MAX, option as u64));
            refuse(libc::EINVAL, [(libc::SYS_prctl, options.to_vec())]);
            // It came with the same release.
            let no_exec_seal = u64::from(libc::MFD_NOEXEC_SEAL);
            refuse(libc::EINVAL, [(libc::SYS_memfd_create, vec![rule(1, no_exec_seal, no_exec_seal)])]);
        }
        refuse(libc::ENOSYS, (self.calls..CALLS_MAX).map(|call| (call, vec![])));
        if !self.has_seccomp {
            refuse(libc::ENOSYS, [(libc::SYS_seccomp, vec![])]);
        }
    }
}

/// Bits of an argument that have this value.
fn rule(argument: u8, mask: u64, value: u64) -> SeccompRule {
    let op = SeccompCmpOp::MaskedEq(mask);
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value).unwrap();
    SeccompRule::new(vec![condition]).unwrap()
}

fn refuse(error: i32, calls: impl IntoIterator<Item = (i64, Vec<SeccompRule>)>) {
    let calls: BTreeMap<_, _> = calls.into_iter().collect();
    if calls.is_empty() {
        return;
    }
    let filter = SeccompFilter::new(
        calls,
        SeccompAction::Allow,
        SeccompAction::Errno(error.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// Has the question for Landlock's version answered by a thread of this process: a filter alone can only answer errors.
fn answer_the_version(version: u32) {
    let load = |offset: usize| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset as u32);
    let equal =
        |value: u32, otherwise: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, otherwise, value);
    let answer = |action: u32| step(libc::BPF_RET | libc::BPF_K, 0, 0, action);
    let flags = std::mem::offset_of!(libc::seccomp_data, args) + 2 * size_of::<u64>();
    let call = libc::SYS_landlock_create_ruleset as u32;
    let mut program = [
        load(std::mem::offset_of!(libc::seccomp_data, nr)),
        equal(call, 3),
        load(flags),
        equal(VERSION_QUERY, 1),
        answer(libc::SECCOMP_RET_USER_NOTIF),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until then.
    let listener = unsafe {
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    assert!(listener >= 0, "{}", std::io::Error::last_os_error());
    thread::spawn(move || {
        loop {
            // SAFETY: both structures are plain numbers, of the size that the kernel reads and writes.
            unsafe {
                let mut asked: libc::seccomp_notif = std::mem::zeroed();
                if libc::ioctl(listener as i32, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) < 0 {
                    continue;
                }
                let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
                (answer.id, answer.val) = (asked.id, version.into());
                libc::ioctl(listener as i32, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
            }
        }
    });
}

fn step(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
