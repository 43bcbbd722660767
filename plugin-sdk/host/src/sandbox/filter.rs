//! System call filter: two seccomp programs, of which the stricter answer wins.
use super::calls;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::{collections::BTreeMap, io};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    /// The programs can't be made for this machine.
    #[error("no filter for this machine")]
    Compile(#[from] BackendError),
    /// The kernel refused them.
    #[error("the kernel refused the filter")]
    Install(#[from] seccompiler::Error),
}

/// Both programs in the order of their installation; the last one forbids to install more.
pub(super) fn programs() -> Result<[BpfProgram; 2], BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    // EPERM would make the C library give up; ENOSYS makes it use clone, whose flags a filter can see.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_clone3 =
        SeccompFilter::new(clone3, SeccompAction::Allow, SeccompAction::Errno(errno(libc::ENOSYS)), arch)?;
    let default_deny = SeccompFilter::new(
        calls::allowed(std::process::id())?,
        SeccompAction::Errno(errno(libc::EPERM)),
        SeccompAction::Allow,
        arch,
    )?;
    Ok([no_clone3.try_into()?, default_deny.try_into()?])
}

/// Whether the kernel takes filters, without installing one.
pub(super) fn is_available() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads four bytes at `action`, which outlives the call, and changes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, std::ptr::from_ref(&action))
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Installs both on the calling thread; threads that it starts inherit them.
pub(super) fn install() -> Result<(), FilterError> {
    for program in programs()? {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

const fn errno(number: i32) -> u32 {
    number.cast_unsigned()
}
