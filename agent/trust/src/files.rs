//! The files of one update, as they were served to `tough`.

use serde::{Deserialize, de::DeserializeOwned};
use tough::schema::{Role as Metadata, Root, Signed, Snapshot, Targets, Timestamp};

use crate::{Role, TrustError};

/// The files that were served.
#[derive(Debug)]
pub(crate) struct Files {
    /// The last root that was served, or the one that was trusted before.
    pub(crate) root: Root,
    pub(crate) timestamp: Option<Vec<u8>>,
    pub(crate) snapshot: Option<Vec<u8>>,
    pub(crate) targets: Option<Vec<u8>>,
}

impl Files {
    /// The version that the served file of a role says it has; 0 if it says none.
    pub(crate) fn version(&self, role: Role) -> u64 {
        let file = match role {
            Role::Root => return self.root.version.get(),
            Role::Timestamp => self.timestamp.as_deref(),
            Role::Snapshot => self.snapshot.as_deref(),
            Role::Targets => self.targets.as_deref(),
        };
        file.and_then(version).unwrap_or(0)
    }

    /// The end of the validity of the served file of a role, in seconds since 1970.
    pub(crate) fn end(&self, role: Role) -> Option<u64> {
        match role {
            Role::Root => Some(end(&self.root)),
            Role::Timestamp => end_of::<Timestamp>(self.timestamp.as_deref()),
            Role::Snapshot => end_of::<Snapshot>(self.snapshot.as_deref()),
            Role::Targets => end_of::<Targets>(self.targets.as_deref()),
        }
    }
}

/// Refuses metadata that calls itself another role; `tough` overlooks the field. What can't be read is left to `tough`.
pub(crate) fn check_type(bytes: &[u8], role: Role) -> Result<(), TrustError> {
    #[derive(Deserialize)]
    struct Outer {
        signed: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        _type: String,
    }
    match serde_json::from_slice(bytes) {
        Ok(Outer { signed: Inner { _type } }) if _type != role.to_string() => {
            Err(TrustError::Malformed { role, reason: "its type is that of another role".to_owned() })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The version that metadata says it has.
pub(crate) fn version(bytes: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Outer {
        signed: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        version: u64,
    }
    serde_json::from_slice(bytes).ok().map(|outer: Outer| outer.signed.version)
}

/// The version of the one file that a timestamp, or a snapshot without delegations, names.
pub(crate) fn child_version(bytes: &[u8]) -> Option<u64> {
    let parent: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let meta = parent.get("signed")?.get("meta")?;
    ["snapshot.json", "targets.json"].iter().find_map(|name| meta.get(name)?.get("version")?.as_u64())
}

/// The end of the validity of metadata, in seconds since 1970.
pub(crate) fn end<T: Metadata>(metadata: &T) -> u64 {
    u64::try_from(metadata.expires().as_second()).unwrap_or(0)
}

fn end_of<T: Metadata + DeserializeOwned>(bytes: Option<&[u8]>) -> Option<u64> {
    let signed: Signed<T> = serde_json::from_slice(bytes?).ok()?;
    Some(end(&signed.signed))
}
