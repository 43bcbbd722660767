//! What each release must answer, worked out apart from the plugins.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::Target;
use crate::harness::Reply;

/// Knows the releases of the fleet by their ids.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    versions: BTreeMap<String, String>,
}

impl Oracle {
    /// Learns which version a release id stands for.
    pub fn learn(&mut self, release_id: &str, version: &str) {
        self.versions.insert(release_id.to_owned(), version.to_owned());
    }

    /// Whether the reply is what its release must answer to this input.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self, target: Target, input: &Value, reply: &Reply) -> Result<(), String> {
        let version = self
            .versions
            .get(&reply.release)
            .ok_or_else(|| format!("answered by the unknown release `{}`", reply.release))?;
        if *version != reply.version {
            return Err(format!("release of {version} calls itself {}", reply.version));
        }
        match target {
            Target::ClockTime => {
                let seconds = input["unix_seconds"].as_i64().unwrap_or_default();
                let wanted = clock_text(version, seconds)
                    .ok_or_else(|| format!("clock {version} must never answer a caller"))?;
                same("text", &Value::from(wanted), &reply.body["text"])
            }
            Target::CounterIncrement => same("nonce", &input["nonce"], &reply.body["nonce"]),
        }
    }
}

/// The text that a good version of `clock` answers for a time; `None` for a version that must never answer.
#[must_use]
pub fn clock_text(version: &str, unix_seconds: i64) -> Option<String> {
    let format = match version {
        "1.0.0" => "%Y-%m-%d %H:%M:%S",
        "1.2.0" => "%A, %-d %B %Y, %H:%M:%S UTC",
        _ => return None,
    };
    Some(Timestamp::from_second(unix_seconds).ok()?.strftime(format).to_string())
}

fn same(field: &str, wanted: &Value, got: &Value) -> Result<(), String> {
    if wanted == got { Ok(()) } else { Err(format!("{field} is {got}, wanted {wanted}")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reply(version: &str, text: &str) -> Reply {
        let body = json!({ "text": text });
        Reply { status: 200, release: "aa".to_owned(), version: version.to_owned(), body }
    }

    #[test]
    fn a_wrong_time_is_noticed() {
        let mut oracle = Oracle::default();
        oracle.learn("aa", "1.0.0");
        let input = json!({ "unix_seconds": 1_795_500_000 });
        let check = |text: &str| oracle.check(Target::ClockTime, &input, &reply("1.0.0", text));
        assert_eq!(check("2026-11-24 06:00:00"), Ok(()));
        assert!(check("2026-11-24 06:00:01").is_err());
    }

    #[test]
    fn an_answer_of_a_release_that_nobody_pushed_is_noticed() {
        let input = json!({ "unix_seconds": 0 });
        let reply = reply("1.0.0", "1970-01-01 00:00:00");
        assert!(Oracle::default().check(Target::ClockTime, &input, &reply).is_err());
    }

    #[test]
    fn the_bad_clock_must_never_answer() {
        let mut oracle = Oracle::default();
        oracle.learn("aa", "1.1.0");
        let checked =
            oracle.check(Target::ClockTime, &json!({ "unix_seconds": 0 }), &reply("1.1.0", "anything"));
        assert_eq!(checked, Err("clock 1.1.0 must never answer a caller".to_owned()));
    }
}
