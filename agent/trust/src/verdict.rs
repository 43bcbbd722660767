//! What `tough` says, in our words.

use std::{error::Error as _, time::Duration};

use tough::{TransportError, TransportErrorKind, error::Error, schema};

use crate::{Role, TrustError, files::Files, state, transport};

/// Translates an error of `tough` about the files that were served to it; `now` in seconds since 1970.
pub(crate) fn translate(error: &Error, served: &Files, now: u64) -> TrustError {
    match error {
        Error::ExpiredMetadata { role, .. } => {
            let role = state::role(*role);
            let end = served.end(role).unwrap_or(now);
            TrustError::Expired { role, ago: Duration::from_secs(now.saturating_sub(end)) }
        }
        Error::VerifyMetadata { role, source, .. } => signatures(state::role(*role), source, served),
        Error::OlderMetadata { role, current_version, new_version, .. } => {
            older(state::role(*role), *new_version, *current_version)
        }
        Error::OlderSnapshotInTimestamp { snapshot_new, snapshot_old, .. } => {
            older(Role::Snapshot, *snapshot_new, *snapshot_old)
        }
        Error::SnapshotRoleRollback { old_role_version, new_role_version, .. } => {
            older(Role::Targets, *new_role_version, *old_role_version)
        }
        Error::VersionMismatch { role, fetched, expected, .. } => TrustError::Mismatch {
            role: state::role(*role),
            reason: format!("it is v{fetched}, v{expected} is named"),
        },
        Error::ParseMetadata { role, source, .. } => {
            TrustError::Malformed { role: state::role(*role), reason: source.to_string() }
        }
        Error::Transport { url, source, .. } => {
            fetch(transport::file_role(&transport::file_name(url)), source)
        }
        Error::DatastoreInit { .. }
        | Error::DatastoreCreate { .. }
        | Error::DatastoreOpen { .. }
        | Error::DatastoreRemove { .. } => TrustError::Io { reason: error.to_string() },
        other => content(other),
    }
}

/// Errors about what a file says.
fn content(error: &Error) -> TrustError {
    let role = match error {
        Error::TimestampMetaLength { .. } | Error::MissingSnapshotMeta { .. } => Role::Timestamp,
        Error::SnapshotTargetsMetaMissing { .. } | Error::SnapshotRoleMissing { .. } => Role::Snapshot,
        Error::MetaMissing { role, .. } => state::role(*role),
        Error::MaxUpdatesExceeded { .. } => Role::Root,
        _ => Role::Targets,
    };
    TrustError::Malformed { role, reason: error.to_string() }
}

fn signatures(role: Role, source: &schema::Error, served: &Files) -> TrustError {
    match source {
        schema::Error::SignatureThreshold { threshold, valid, .. } => TrustError::Threshold {
            role,
            version: served.version(role),
            valid: *valid,
            threshold: *threshold,
        },
        other => TrustError::Malformed { role, reason: other.to_string() },
    }
}

fn fetch(role: Role, source: &TransportError) -> TrustError {
    if source.kind() == TransportErrorKind::FileNotFound {
        return TrustError::Missing { role };
    }
    match source.source().and_then(|cause| cause.downcast_ref::<Error>()) {
        Some(Error::HashMismatch { calculated, expected, .. }) => {
            TrustError::Mismatch { role, reason: format!("its SHA-256 is {calculated}, {expected} is named") }
        }
        Some(Error::MaxSizeExceeded { max_size, .. }) => TrustError::Mismatch {
            role,
            reason: format!("it is longer than the {max_size} bytes that are named"),
        },
        _ => TrustError::Malformed { role, reason: source.to_string() },
    }
}

const fn older(role: Role, offered: u64, seen: u64) -> TrustError {
    TrustError::Rollback { role, offered, seen }
}
