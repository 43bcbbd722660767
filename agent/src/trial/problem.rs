//! What went wrong in a task, as the core takes it.

use fleetswap_host::{CallError, LoadError};
use fleetswap_inspect::LintError;
use fleetswap_trust::TrustError;
use fleetswap_update::{Fault, Problem};

use crate::{explain::chain, fetch::FetchError, service::Instance};

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

/// Metadata was refused.
pub(super) fn trust(error: &TrustError) -> Problem {
    let fault = match error {
        TrustError::Store(_) | TrustError::Io { .. } => Fault::Host,
        TrustError::Expired { .. }
        | TrustError::Threshold { .. }
        | TrustError::DuplicateKey { .. }
        | TrustError::Rollback { .. }
        | TrustError::StoreDamaged { .. }
        | TrustError::RootChain { .. }
        | TrustError::Clock { .. }
        | TrustError::DevRoot
        | TrustError::Malformed { .. }
        | TrustError::UnknownFile { .. }
        | TrustError::TooLarge { .. }
        | TrustError::Missing { .. }
        | TrustError::Mismatch { .. } => Fault::Trust,
    };
    Problem::new(fault, error.code(), chain(error))
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
