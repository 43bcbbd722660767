//! Roots: which one is trusted, and which may follow it.
//!
//! `tough` verifies the signatures of a chain of roots. Added here: a key counts once however often it is listed, the
//! mark of a root for development is kept along a chain, and each refusal names the root that it is about.

use std::collections::BTreeSet;

use tough::schema::{RoleType, Root, Signed, key::Key};

use crate::{Role, TrustError, state};

/// The field of a root that says what the root is for; absent in a root for real work.
const ENVIRONMENT: &str = "x-env";
/// Its value in a root that `controller init --dev` made.
const DEV: &str = "dev";

/// Reads a root that is trusted already; damage is an error of the store.
pub(crate) fn read_trusted(bytes: &[u8]) -> Result<Signed<Root>, TrustError> {
    let damaged = |reason: String| TrustError::StoreDamaged { part: Role::Root.to_string(), reason };
    let root: Signed<Root> = serde_json::from_slice(bytes).map_err(|cause| damaged(cause.to_string()))?;
    root.signed.verify_role(&root).map_err(|cause| damaged(cause.to_string()))?;
    refuse_duplicate_keys(&root.signed)?;
    Ok(root)
}

/// Reads the root that is to follow `trusted`: one version higher, of the same kind, signed by the keys of both.
pub(crate) fn read_next(trusted: &Root, bytes: &[u8], allow_dev: bool) -> Result<Signed<Root>, TrustError> {
    let next: Signed<Root> = serde_json::from_slice(bytes)
        .map_err(|cause| TrustError::Malformed { role: Role::Root, reason: cause.to_string() })?;
    let version = trusted.version.get().saturating_add(1);
    let broken = |reason: String| TrustError::RootChain { version, trusted: trusted.version.get(), reason };
    if next.signed.version.get() != version {
        return Err(broken(format!("the file says that it is v{}", next.signed.version)));
    }
    for signer in [trusted, &next.signed] {
        signer.verify_role(&next).map_err(|_| {
            broken(format!("it is not signed by {} keys of v{}", needed(signer), signer.version))
        })?;
    }
    refuse_duplicate_keys(&next.signed)?;
    refuse_dev(&next.signed, allow_dev)?;
    if is_dev(trusted) != is_dev(&next.signed) {
        return Err(broken("roots for development and for real work never follow each other".to_owned()));
    }
    Ok(next)
}

/// Refuses a root for development where the host doesn't allow it.
pub(crate) fn refuse_dev(root: &Root, allow_dev: bool) -> Result<(), TrustError> {
    if is_dev(root) && !allow_dev { Err(TrustError::DevRoot) } else { Ok(()) }
}

/// Whether the keys of a role differ between two roots.
pub(crate) fn keys_differ(one: &Root, other: &Root, role: RoleType) -> bool {
    let ids = |root: &Root| -> BTreeSet<Vec<u8>> {
        root.roles.get(&role).iter().flat_map(|keys| &keys.keyids).map(|id| id.to_vec()).collect()
    };
    ids(one) != ids(other)
}

/// Whether `controller init --dev` made the root.
pub(crate) fn is_dev(root: &Root) -> bool {
    root._extra.get(ENVIRONMENT).is_some_and(|value| value == DEV)
}

fn needed(root: &Root) -> u64 {
    root.roles.get(&RoleType::Root).map_or(1, |keys| keys.threshold.get())
}

/// `tough` counts key ids. One public key under two ids would let one signer reach a threshold of two.
fn refuse_duplicate_keys(root: &Root) -> Result<(), TrustError> {
    for role in [RoleType::Root, RoleType::Timestamp, RoleType::Snapshot, RoleType::Targets] {
        let mut seen = BTreeSet::new();
        if !root.keys(role).all(|key| seen.insert(public_part(key))) {
            return Err(TrustError::DuplicateKey { version: root.version.get(), role: state::role(role) });
        }
    }
    Ok(())
}

/// The bytes that decide whether two keys are the same.
fn public_part(key: &Key) -> Vec<u8> {
    /// Where a point's x coordinate stands, compressed or not.
    const X: std::ops::Range<usize> = 1..33;
    match key {
        Key::Rsa { keyval, .. } => keyval.public.to_vec(),
        Key::Ed25519 { keyval, .. } => keyval.public.to_vec(),
        Key::Ecdsa { keyval, .. } | Key::EcdsaOld { keyval, .. } => {
            keyval.public.get(X).unwrap_or(&keyval.public).to_vec()
        }
    }
}
