//! Checks of single fields: what passes is there, in bounds, and of a known kind. An error names the field.

use std::str::FromStr;

use fleetswap_proto::Explained;
use fleetswap_trust::{Digest, manifest};
use semver::Version;
use uuid::Uuid;

use crate::store;

/// Longest request id, in bytes.
const REQUEST_ID_MAX: usize = 128;
/// Longest version, in bytes.
const VERSION_MAX: usize = 64;
/// Longest selector, in bytes.
const SELECTOR_MAX: usize = 1024;
/// Longest actor, in bytes.
const ACTOR_MAX: usize = 256;
/// Longest reason, in bytes.
const REASON_MAX: usize = 1024;
/// Most entries of one page.
pub(crate) const PAGE_MAX: u32 = 1000;
/// Entries of a page when the request doesn't say.
const PAGE_DEFAULT: u32 = 50;
/// Greatest number that a store holds.
const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

/// A field that can't be accepted: `REQUEST_INVALID`.
pub(crate) fn invalid(field: &str, why: impl Into<String>) -> Explained {
    Explained::new(
        "REQUEST_INVALID",
        format!("the request's field `{field}` can't be accepted"),
        why,
        format!(
            "correct `{field}` and ask again; if you did not write it yourself, the two programs differ in version"
        ),
    )
}

/// A message that must be there.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, Explained> {
    value.ok_or_else(|| invalid(field, "it is missing"))
}

/// At most `max` bytes, no control characters beside line feeds and tabs.
pub(crate) fn text(field: &str, value: &str, max: usize) -> Result<(), Explained> {
    bytes_of(field, value, max)?;
    if value.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(invalid(field, "it has control characters"));
    }
    Ok(())
}

/// At most `max` bytes, whatever they are.
pub(crate) fn bytes_of(field: &str, value: &str, max: usize) -> Result<(), Explained> {
    if value.len() > max {
        return Err(invalid(field, format!("it has {} bytes; at most {max} are allowed", value.len())));
    }
    Ok(())
}

/// A text that is there, of one line.
pub(crate) fn line(field: &str, value: &str, max: usize) -> Result<(), Explained> {
    if value.is_empty() {
        return Err(invalid(field, "it is missing"));
    }
    text(field, value, max)?;
    if value.contains(['\n', '\t']) { Err(invalid(field, "it has more than one line")) } else { Ok(()) }
}

/// At most `max` entries.
pub(crate) fn count(field: &str, count: usize, max: usize) -> Result<(), Explained> {
    if count > max {
        return Err(invalid(field, format!("it has {count} entries; at most {max} are allowed")));
    }
    Ok(())
}

/// At least one byte, at most `max`.
pub(crate) fn bytes(field: &str, value: &[u8], max: usize) -> Result<(), Explained> {
    match value.len() {
        0 => Err(invalid(field, "it is missing")),
        length if length > max => {
            Err(invalid(field, format!("it has {length} bytes; at most {max} are allowed")))
        }
        _ => Ok(()),
    }
}

/// At most `max`.
pub(crate) fn at_most(field: &str, value: u64, max: u64) -> Result<(), Explained> {
    if value > max { Err(invalid(field, format!("it is {value}; at most {max} is allowed"))) } else { Ok(()) }
}

/// A number that a store can hold.
pub(crate) fn number(field: &str, value: u64) -> Result<(), Explained> {
    at_most(field, value, NUMBER_MAX)
}

/// A value of an enum that this build knows, and not the unspecified one.
pub(crate) fn known<E: TryFrom<i32>>(field: &str, value: i32) -> Result<E, Explained> {
    if value == 0 {
        return Err(invalid(field, "it is not specified"));
    }
    E::try_from(value).map_err(|_| invalid(field, format!("this controller does not know the value {value}")))
}

/// An id that makes asking again harmless: 1 to 128 letters, digits, `-`, `_`, `.` and `:`.
pub(crate) fn request_id(value: &str) -> Result<(), Explained> {
    line("request_id", value, REQUEST_ID_MAX)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if value.bytes().all(plain) {
        return Ok(());
    }
    Err(invalid("request_id", "it has other characters than letters, digits, '-', '_', '.' and ':'"))
}

/// The name of a plugin.
pub(crate) fn plugin(field: &str, value: &str) -> Result<(), Explained> {
    line(field, value, REASON_MAX)?;
    if manifest::is_plugin_name(value) {
        return Ok(());
    }
    Err(invalid(
        field,
        "a plugin's name is a lower-case letter, then those, digits, '-' and '_', at most 64 bytes",
    ))
}

/// A semantic version.
pub(crate) fn version(field: &str, value: &str) -> Result<Version, Explained> {
    line(field, value, VERSION_MAX)?;
    Version::parse(value).map_err(|error| invalid(field, format!("it is no semantic version: {error}")))
}

/// A SHA-256 in 64 lower-case hex digits.
pub(crate) fn sha256(field: &str, value: &str) -> Result<Digest, Explained> {
    line(field, value, REASON_MAX)?;
    Digest::from_str(value).map_err(|error| invalid(field, error.to_string()))
}

/// A UUID.
pub(crate) fn uuid(field: &str, value: &str) -> Result<Uuid, Explained> {
    line(field, value, REQUEST_ID_MAX)?;
    Uuid::try_parse(value).map_err(|_| invalid(field, "it is not a UUID"))
}

/// A selector's length; its words are the planner's.
pub(crate) fn selector(field: &str, value: &str) -> Result<(), Explained> {
    if value.is_empty() { Ok(()) } else { line(field, value, SELECTOR_MAX) }
}

/// Who asks, and why.
pub(crate) fn who_and_why(actor: &str, reason: &str) -> Result<(), Explained> {
    line("actor", actor, ACTOR_MAX)?;
    text("reason", reason, REASON_MAX)
}

/// The number of a rollout.
pub(crate) fn rollout_id(field: &str, value: &str) -> Result<u64, Explained> {
    line(field, value, REQUEST_ID_MAX)?;
    store::rollout_id(value)
        .filter(|id| *id <= NUMBER_MAX)
        .ok_or_else(|| invalid(field, "a rollout's id looks like r-000007"))
}

/// How many entries to list.
pub(crate) fn page_size(value: u32) -> Result<u32, Explained> {
    at_most("page_size", value.into(), PAGE_MAX.into())?;
    Ok(if value == 0 { PAGE_DEFAULT } else { value })
}
