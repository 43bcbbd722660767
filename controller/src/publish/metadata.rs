//! TUF metadata as it is written: made, signed, and described to the role above it.

use std::{
    num::NonZeroU64,
    time::{Duration, SystemTime},
};

use fleetswap_trust::Digest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tough::schema::{Role, RoleType, Root, Signature, Signed};

use super::{PublishError, keys::SigningKey};

/// The version of the TUF specification that the metadata follows.
const SPEC_VERSION: &str = "1.0.34";

/// Metadata with the fields that every role has, and `fields` of its own.
pub(super) fn make<T: Role + DeserializeOwned>(
    version: u64,
    expires: SystemTime,
    fields: Value,
) -> Result<T, PublishError> {
    let mut all = json!({
        "_type": T::TYPE,
        "spec_version": SPEC_VERSION,
        "version": version,
        "expires": humantime::format_rfc3339_seconds(expires).to_string(),
    });
    if let (Some(all), Value::Object(fields)) = (all.as_object_mut(), fields) {
        all.extend(fields);
    }
    serde_json::from_value(all).map_err(|cause| PublishError::Sign(cause.to_string()))
}

/// The bytes of metadata, signed by one key.
pub(super) fn sign<T: Role>(signed: T, key: &SigningKey) -> Result<Vec<u8>, PublishError> {
    let failed = |cause: tough::schema::Error| PublishError::Sign(cause.to_string());
    let message = signed.canonical_form().map_err(failed)?;
    let keyid = key.public().key_id().map_err(failed)?;
    let signatures = vec![Signature { keyid, sig: key.sign(&message).into() }];
    Ok(json!(Signed { signed, signatures }).to_string().into_bytes())
}

/// How the role above names these bytes.
pub(super) fn describe(bytes: &[u8], version: NonZeroU64) -> Value {
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": Digest::of(bytes) } })
}

/// Reads metadata whose signatures were verified elsewhere.
pub(super) fn read<T: Role + DeserializeOwned>(bytes: &[u8]) -> Result<T, PublishError> {
    let signed: Signed<T> =
        serde_json::from_slice(bytes).map_err(|cause| PublishError::Sign(cause.to_string()))?;
    Ok(signed.signed)
}

/// Refuses a key that the root doesn't name for a role: nobody would accept what it signs.
pub(super) fn check_key(root: &Root, role: RoleType, key: &SigningKey) -> Result<(), PublishError> {
    let public = key.public();
    if root.keys(role).any(|named| *named == public) {
        return Ok(());
    }
    let role = match role {
        RoleType::Root => "root",
        RoleType::Snapshot => "snapshot",
        RoleType::Targets | RoleType::DelegatedTargets => "targets",
        RoleType::Timestamp => "timestamp",
    };
    Err(PublishError::KeyForeign { path: key.path().to_owned(), role })
}

/// So many days, as the validity of metadata.
pub(super) const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}
