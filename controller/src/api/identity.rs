//! Whose connection this is: the one place that reads it.
//!
//! Until certificates carry the identity, an agent names itself in gRPC metadata. No message carries a host id.

use fleetswap_proto::{Explained, HOST_ID_KEY, HOST_NAME_KEY};
use tonic::metadata::MetadataMap;
use uuid::Uuid;

/// Longest name of a host, in bytes.
pub(crate) const HOST_NAME_MAX: usize = 128;

/// The host at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostIdentity {
    /// Made by the agent at its first start.
    pub(crate) id: Uuid,
    /// From the agent's config.
    pub(crate) name: String,
}

/// Reads the identity of a connection; the code of an error is `HOST_IDENTITY_INVALID`.
pub(crate) fn identity(metadata: &MetadataMap) -> Result<HostIdentity, Explained> {
    let id = text(metadata, HOST_ID_KEY)?;
    let id = Uuid::try_parse(id)
        .ok()
        .filter(|id| !id.is_nil())
        .ok_or_else(|| invalid(HOST_ID_KEY, "it is not a UUID"))?;
    let name = text(metadata, HOST_NAME_KEY)?;
    if name.len() > HOST_NAME_MAX {
        return Err(invalid(HOST_NAME_KEY, "it is longer than 128 bytes"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        return Err(invalid(HOST_NAME_KEY, "it has other characters than letters, digits, '-', '.' and '_'"));
    }
    Ok(HostIdentity { id, name: name.to_owned() })
}

fn text<'a>(metadata: &'a MetadataMap, key: &'static str) -> Result<&'a str, Explained> {
    let value = metadata.get(key).ok_or_else(|| invalid(key, "it is missing"))?;
    value
        .to_str()
        .ok()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| invalid(key, "it is empty or not ASCII"))
}

fn invalid(key: &str, why: &str) -> Explained {
    Explained::new(
        "HOST_IDENTITY_INVALID",
        format!("the connection does not say which host it is: {key}"),
        why,
        "set `name` in the agent's config to letters, digits, '-', '.' and '_'; keep its state_dir/host-id as it was made",
    )
}
