//! The trusted store, read and checked: damage is found here, before anything new is looked at.

use tough::schema::{Role as Metadata, RoleType, Root, Signed, Snapshot, Targets, Timestamp};

use crate::{Role, Stored, TrustError, root, stored::Versions};

/// A store whose every part was read and verified.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) stored: Stored,
    pub(crate) root: Signed<Root>,
    pub(crate) targets: Option<Signed<Targets>>,
    /// Of what is stored; 0 where nothing is.
    pub(crate) versions: Versions,
}

impl State {
    /// Reads and verifies every part of a store.
    pub(crate) fn read(stored: Stored) -> Result<Self, TrustError> {
        let root = root::read_trusted(stored.root())?;
        let version = root.signed.version.get();
        if version < stored.floors.root {
            return Err(damaged(Role::Root, format!("it is v{version}, v{} was seen", stored.floors.root)));
        }
        let timestamp: Option<Signed<Timestamp>> = read(&root, stored.timestamp(), stored.floors.timestamp)?;
        let snapshot: Option<Signed<Snapshot>> = read(&root, stored.snapshot(), stored.floors.snapshot)?;
        let targets: Option<Signed<Targets>> = read(&root, stored.targets(), stored.floors.targets)?;
        let versions = Versions {
            root: version,
            timestamp: version_of(timestamp.as_ref()),
            snapshot: version_of(snapshot.as_ref()),
            targets: version_of(targets.as_ref()),
        };
        Ok(Self { stored, root, targets, versions })
    }
}

/// The bytes of metadata as text.
pub(crate) fn text(bytes: &[u8], role: Role) -> Result<String, TrustError> {
    String::from_utf8(bytes.to_vec())
        .map_err(|cause| TrustError::Malformed { role, reason: cause.to_string() })
}

/// Our name of a role.
pub(crate) const fn role(role: RoleType) -> Role {
    match role {
        RoleType::Root => Role::Root,
        RoleType::Timestamp => Role::Timestamp,
        RoleType::Snapshot => Role::Snapshot,
        RoleType::Targets | RoleType::DelegatedTargets => Role::Targets,
    }
}

fn read<T>(root: &Signed<Root>, bytes: Option<&[u8]>, floor: u64) -> Result<Option<Signed<T>>, TrustError>
where
    T: Metadata + serde::de::DeserializeOwned,
{
    let Some(bytes) = bytes else { return Ok(None) };
    let damaged = |reason: String| damaged(role(T::TYPE), reason);
    let signed: Signed<T> = serde_json::from_slice(bytes).map_err(|cause| damaged(cause.to_string()))?;
    root.signed.verify_role(&signed).map_err(|cause| damaged(cause.to_string()))?;
    let version = signed.signed.version().get();
    if version < floor {
        return Err(damaged(format!("it is v{version}, v{floor} was seen")));
    }
    Ok(Some(signed))
}

fn version_of<T: Metadata>(signed: Option<&Signed<T>>) -> u64 {
    signed.map_or(0, |signed| signed.signed.version().get())
}

fn damaged(role: Role, reason: String) -> TrustError {
    TrustError::StoreDamaged { part: role.to_string(), reason }
}
