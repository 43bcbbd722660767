//! What went wrong in a task, as the core takes it.

use fleetswap_host::{CallError, LoadError};
use fleetswap_inspect::LintError;
use fleetswap_trust::{StoreError, TrustError};
use fleetswap_update::{Fault, Problem};

use crate::{durable::is_disk_full, explain::chain, fetch::FetchError, service::Instance};

/// Bytes could not be had.
pub(super) fn fetching(error: &FetchError) -> Problem {
    let fault = match error {
        FetchError::NoSource { .. } | FetchError::NoMetadata(_) => Fault::Link,
        FetchError::Refused(error) => return trust(error),
        FetchError::Disk(_) => Fault::Host,
        FetchError::TooLarge { .. } => Fault::Release,
    };
    Problem::new(fault, error.code(), chain(error))
}

/// Metadata was refused, or this host could not judge it.
pub(super) fn trust(error: &TrustError) -> Problem {
    let fault = if error.is_host_fault() { Fault::Host } else { Fault::Trust };
    let code = match error {
        TrustError::Store(StoreError::Io(cause)) if is_disk_full(cause) => "DISK_FULL",
        _ => error.code(),
    };
    Problem::new(fault, code, chain(error))
}

/// A library that must not be loaded. One that needs a newer system may do well on another host.
pub(super) fn lint(error: &LintError) -> Problem {
    let fault = if matches!(error, LintError::Glibc { .. }) { Fault::Host } else { Fault::Release };
    let problem = Problem::new(fault, error.code(), chain(error));
    Problem { check: "lint".into(), ..problem }
}

/// A library that could not be loaded.
pub(super) fn loading(error: &LoadError) -> Problem {
    let fault = match error.fault() {
        fleetswap_host::Fault::Release => Fault::Release,
        fleetswap_host::Fault::Host => Fault::Host,
    };
    let problem = Problem::new(fault, error.code(), chain(error));
    Problem { check: "load".into(), log_tail: error.log_tail().into(), ..problem }
}

/// A worker did not do what it was asked. `code` is for errors that have none of their own.
pub(super) fn asking(
    fault: Fault,
    code: &str,
    check: &str,
    (error, worker): (&CallError, &dyn Instance),
) -> Problem {
    let code = match error {
        CallError::Died { death, .. } => death.code(),
        CallError::UnknownFunction | CallError::BadInput { .. } | CallError::Plugin { .. } => code,
        CallError::Panic(_) | CallError::Illegal | CallError::Unsupported => code,
        CallError::TooLarge | CallError::Deadline => code,
    };
    let problem = Problem::new(fault, code, format!("{check} failed: {error}"));
    Problem {
        check: check.into(),
        got: error.to_string().into(),
        log_tail: worker.log_tail().into(),
        ..problem
    }
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use fleetswap_trust::Role;

    use super::*;

    #[test]
    fn a_full_disk_is_named_whoever_wanted_to_write() {
        let full = |kind| TrustError::Store(StoreError::Io(io::Error::from(kind)));
        assert_eq!(&*trust(&full(io::ErrorKind::StorageFull)).code, "DISK_FULL");
        assert_eq!(&*trust(&full(io::ErrorKind::PermissionDenied)).code, "TRUST_IO");
    }

    /// A fault of trust ends the rollout for all hosts; one host's disk, clock or config must not.
    #[test]
    fn what_only_this_host_has_is_no_fault_of_trust() {
        let damaged = || TrustError::StoreDamaged { part: "targets".into(), reason: "cut off".into() };
        let of_this_host = [
            damaged(),
            TrustError::Clock { behind: Duration::from_secs(601) },
            TrustError::DevRoot,
            TrustError::Store(StoreError::Io(io::Error::other("no space"))),
            TrustError::Io { reason: "no space".into() },
        ];
        for error in &of_this_host {
            assert_eq!(trust(error).fault, Fault::Host, "{error}");
        }
        assert_eq!(fetching(&FetchError::Refused(damaged())).fault, Fault::Host);
        let offered = [
            TrustError::Expired { role: Role::Timestamp, ago: Duration::from_secs(1) },
            TrustError::Threshold { role: Role::Root, version: 2, valid: 0, threshold: 1 },
            TrustError::Rollback { role: Role::Snapshot, offered: 1, seen: 2 },
            TrustError::Missing { role: Role::Targets },
        ];
        for error in &offered {
            assert_eq!(trust(error).fault, Fault::Trust, "{error}");
        }
    }
}
