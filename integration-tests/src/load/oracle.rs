//! What each release must answer, worked out apart from the plugins.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

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
                same(&json!({ "text": wanted, "unix_seconds": seconds }), &reply.body)
            }
            Target::CounterIncrement => {
                let wanted = counter_reply(version, &input["nonce"], &reply.body)
                    .ok_or_else(|| format!("counter {version} must never answer a caller"))?;
                same(&wanted, &reply.body)
            }
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

/// What a version of `counter` answers. How far it has come is left to the sums over all replies, so its numbers are
/// those that came; `None` for a version that nobody pushes.
fn counter_reply(version: &str, nonce: &Value, came: &Value) -> Option<Value> {
    let number = |field: &str| came[field].as_u64().unwrap_or_default();
    match version {
        "1.0.0" => Some(json!({ "nonce": nonce, "value": number("value") })),
        "2.0.0" => Some(json!({ "nonce": nonce, "value": number("value"), "calls": number("calls") })),
        _ => None,
    }
}

fn same(wanted: &Value, got: &Value) -> Result<(), String> {
    if wanted == got { Ok(()) } else { Err(format!("the reply is {got}, wanted {wanted}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(version: &str, body: Value) -> Reply {
        Reply { status: 200, release: "aa".to_owned(), version: version.to_owned(), body }
    }

    #[test]
    fn a_wrong_time_is_noticed() {
        let mut oracle = Oracle::default();
        oracle.learn("aa", "1.0.0");
        let input = json!({ "unix_seconds": 1_795_500_000 });
        let check = |text: &str, second: u64| {
            let body = json!({ "text": text, "unix_seconds": second });
            oracle.check(Target::ClockTime, &input, &reply("1.0.0", body))
        };
        assert_eq!(check("2026-11-24 06:00:00", 1_795_500_000), Ok(()));
        assert!(check("2026-11-24 06:00:01", 1_795_500_000).is_err());
        assert!(check("2026-11-24 06:00:00", 1_795_500_001).is_err());
    }

    #[test]
    fn a_count_in_the_words_of_another_release_is_noticed() {
        let input = json!({ "nonce": "7" });
        let old = json!({ "nonce": "7", "value": 3 });
        let new = json!({ "nonce": "7", "value": 3, "calls": 1 });
        for (version, right, wrong) in [("1.0.0", &old, &new), ("2.0.0", &new, &old)] {
            let mut oracle = Oracle::default();
            oracle.learn("aa", version);
            let check =
                |body: &Value| oracle.check(Target::CounterIncrement, &input, &reply(version, body.clone()));
            assert_eq!(check(right), Ok(()));
            assert!(check(wrong).is_err(), "{version} never says {wrong}");
            assert!(check(&json!({ "nonce": "8", "value": 3, "calls": 1 })).is_err());
            assert!(check(&json!({ "nonce": "7" })).is_err());
        }
    }

    #[test]
    fn a_reply_under_the_name_of_another_version_is_noticed() {
        let mut oracle = Oracle::default();
        oracle.learn("aa", "1.0.0");
        let body = json!({ "nonce": "7", "value": 3, "calls": 1 });
        let checked = oracle.check(Target::CounterIncrement, &json!({ "nonce": "7" }), &reply("2.0.0", body));
        assert_eq!(checked, Err("release of 1.0.0 calls itself 2.0.0".to_owned()));
    }

    #[test]
    fn an_answer_of_a_release_that_nobody_pushed_is_noticed() {
        let input = json!({ "unix_seconds": 0 });
        let reply = reply("1.0.0", json!({ "text": "1970-01-01 00:00:00", "unix_seconds": 0 }));
        assert!(Oracle::default().check(Target::ClockTime, &input, &reply).is_err());
    }

    #[test]
    fn the_bad_clock_must_never_answer() {
        let mut oracle = Oracle::default();
        oracle.learn("aa", "1.1.0");
        let reply = reply("1.1.0", json!({ "text": "anything", "unix_seconds": 0 }));
        let checked = oracle.check(Target::ClockTime, &json!({ "unix_seconds": 0 }), &reply);
        assert_eq!(checked, Err("clock 1.1.0 must never answer a caller".to_owned()));
    }
}
