//! What a controller must know of the machine.

use std::{env::consts::ARCH, ffi::CStr, fs};

use fleetswap_proto::v1;
use rustix::system::uname;

/// Longest fact, in bytes; longer ones are cut.
const FACT_MAX: usize = 128;

/// The facts of this machine. `sandbox`: the level that the host crate's probe found.
pub(crate) fn host_facts(sandbox: &str) -> v1::HostFacts {
    v1::HostFacts {
        platform: platform(),
        kernel: cut(&uname().release().to_string_lossy()),
        glibc: cut(&glibc()),
        sandbox: sandbox.to_owned(),
        boot_id: boot_id(),
    }
}

/// e.g. `x86_64-linux-gnu`: the key of a manifest's `platforms`.
pub(crate) fn platform() -> String {
    format!("{ARCH}-linux-gnu")
}

/// A new one with every boot; empty where the kernel doesn't tell.
fn boot_id() -> String {
    #[cfg(feature = "failpoints")]
    if let Some(faked) = fleetswap_faults::boot_id() {
        return cut(&faked);
    }
    cut(fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim())
}

/// e.g. `2.36`
fn glibc() -> String {
    // SAFETY: the function has no preconditions and returns a static, NUL-ended string.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_string_lossy().into_owned()
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(FACT_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_is_known_here() {
        let facts = host_facts("standard");
        assert!(facts.platform.ends_with("-linux-gnu"));
        assert!(facts.kernel.starts_with(|first: char| first.is_ascii_digit()));
        assert!(facts.glibc.starts_with("2."));
        assert_eq!(facts.boot_id.len(), 36);
    }
}
