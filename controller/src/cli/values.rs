//! The values of arguments: how each is read, and its bounds.

use std::{path::PathBuf, time::Duration};

use fleetswap_proto::address::{self, Refused};
use semver::Version;

use crate::store::rollout_name;

/// Longest text argument (reason, selector), in bytes.
const TEXT_MAX: usize = 512;
/// Longest probe, in bytes; the manifest's own bound.
const PROBE_TEXT_MAX: usize = 16 * 1024;
/// Shortest duration that an argument may name: less would be nothing on the wire.
const DURATION_MIN: Duration = Duration::from_millis(1);
/// Longest duration that an argument may name.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest time of a health check, and between two.
const HEALTH_MAX: Duration = Duration::from_secs(60);

pub(super) fn plugin_name(name: &str) -> Result<String, String> {
    if fleetswap_trust::manifest::is_plugin_name(name) {
        return Ok(name.to_owned());
    }
    Err("a plugin's name is a lower-case letter, then letters, digits, `_` and `-`, at most 64 in all"
        .to_owned())
}

pub(super) fn version(value: &str) -> Result<Version, String> {
    let version =
        Version::parse(bounded(value, 64)?).map_err(|error| format!("{error}; write it like 1.2.0"))?;
    if version.build.is_empty() {
        return Ok(version);
    }
    Err("build metadata (`+…`) has no order, so it can't name a release".to_owned())
}

pub(super) fn text(value: &str) -> Result<String, String> {
    if value.chars().any(char::is_control) {
        return Err("it must be one line without control characters".to_owned());
    }
    bounded(value, TEXT_MAX).map(str::to_owned)
}

/// A selector; none at all is told apart from one that was forgotten to be filled in.
pub(super) fn selector(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("it is empty; write `all` for every host".to_owned()) } else { text(value) }
}

/// A text that must say something.
pub(super) fn reason(value: &str) -> Result<String, String> {
    if value.trim().is_empty() { Err("it must say why".to_owned()) } else { text(value) }
}

pub(super) fn probe_text(value: &str) -> Result<String, String> {
    bounded(value, PROBE_TEXT_MAX).map(str::to_owned)
}

pub(super) fn path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() {
        return Err("a path must not be empty".to_owned());
    }
    bounded(value, 4096).map(PathBuf::from)
}

/// An address in the form that is asked for. Which ones may be used is for whoever uses it to say.
pub(super) fn address(value: &str) -> Result<String, String> {
    match address::loopback(bounded(value, 300)?) {
        Err(Refused::Unreadable) => Err("it must be HOST:PORT, e.g. 127.0.0.1:7443".to_owned()),
        Ok(_) | Err(Refused::Name | Refused::NotLoopback) => Ok(address::bare(value).to_owned()),
    }
}

pub(super) fn duration(value: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(bounded(value, 64)?)
        .map_err(|error| format!("{error}; write it like 10s, 5m or 1h30m"))?;
    if !(DURATION_MIN..=DURATION_MAX).contains(&duration) {
        return Err("it must be at least 1ms and at most 7 days".to_owned());
    }
    Ok(duration)
}

/// Time between two health checks: what a manifest may say.
pub(super) fn health_interval(value: &str) -> Result<Duration, String> {
    within(value, 10)
}

/// Longest time of one health check: what a manifest may say.
pub(super) fn health_timeout(value: &str) -> Result<Duration, String> {
    within(value, 1)
}

/// At least so many milliseconds, at most a minute.
fn within(value: &str, least_ms: u64) -> Result<Duration, String> {
    let duration = duration(value)?;
    if (Duration::from_millis(least_ms)..=HEALTH_MAX).contains(&duration) {
        return Ok(duration);
    }
    Err(format!("it must be at least {least_ms}ms and at most 1m"))
}

/// The full name of a rollout; its zeros may be left away.
pub(super) fn rollout(value: &str) -> Result<String, String> {
    let digits = value.strip_prefix("r-").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse::<i64>().ok());
    let number = number.ok_or("a rollout is named like r-000007")?;
    Ok(rollout_name(number.unsigned_abs()))
}

fn bounded(value: &str, max: usize) -> Result<&str, String> {
    if value.len() <= max {
        Ok(value)
    } else {
        Err(format!("{} bytes; at most {max} are allowed", value.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_a_bound() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "5", "0s", "999us", "8days", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        for right in ["http://127.0.0.1:7443", "127.0.0.1:7443", "http://127.0.0.1:7443/"] {
            assert_eq!(address(right), Ok("127.0.0.1:7443".to_owned()));
        }
        for wrong in ["", "localhost", "127.0.0.1:", ":7443", "127.0.0.1:99999", "https://127.0.0.1:7443"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rollout_may_be_named_without_its_zeros() {
        for name in ["r-7", "r-000007", "r-00000007"] {
            assert_eq!(rollout(name), Ok("r-000007".to_owned()));
        }
        assert_eq!(rollout("r-12345678"), Ok("r-12345678".to_owned()));
        for wrong in ["7", "r-", "r-+7", "r--7", "r-x", "r-99999999999999999999"] {
            assert!(rollout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reason_is_one_line() {
        assert!(text("because").is_ok());
        assert!(text("two\nlines").is_err());
        assert!(text(&"x".repeat(513)).is_err());
    }
}
