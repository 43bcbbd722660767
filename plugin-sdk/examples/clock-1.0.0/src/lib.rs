//! Example plugin: clock 1.0.0.

use jiff::Timestamp;
use plugin_sdk::{PluginError, plugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// The time service of the original idea.
#[derive(Default)]
pub struct Clock;

/// Which time to tell.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TimeRequest {
    /// Seconds since 1970; now, if left out.
    unix_seconds: Option<i64>,
}

/// The time, in UTC.
#[derive(Serialize, JsonSchema)]
struct TimeReply {
    text: String,
    /// The second that the text is about.
    unix_seconds: i64,
}

#[plugin(name = "clock", default)]
impl Clock {
    #[function(idempotent, probe_safe)]
    fn time(&self, request: TimeRequest) -> Result<TimeReply, PluginError> {
        let at = instant(&request)?;
        Ok(TimeReply { text: at.strftime(FORMAT).to_string(), unix_seconds: at.as_second() })
    }
}

fn instant(request: &TimeRequest) -> Result<Timestamp, PluginError> {
    let Some(second) = request.unix_seconds else {
        return Ok(Timestamp::now());
    };
    Timestamp::from_second(second)
        .map_err(|_| PluginError::new("OUT_OF_RANGE", "the clock knows the years -9999 to 9999 only"))
}

#[cfg(test)]
mod tests {
    use plugin_sdk::testing::{Driver, json};

    use super::Clock;

    #[test]
    fn tells_the_time_of_a_second() {
        let clock = Driver::new::<Clock>("").unwrap();
        let reply = clock.call("time", json!({"unix_seconds": 1_795_500_000})).unwrap();
        assert_eq!(reply, json!({"text": "2026-11-24 06:00:00", "unix_seconds": 1_795_500_000}));
    }

    #[test]
    fn tells_the_present_time_when_asked_for_none() {
        let clock = Driver::new::<Clock>("").unwrap();
        let reply = clock.call("time", json!({})).unwrap();
        assert!(reply["unix_seconds"].as_i64().unwrap() > 1_767_225_600, "it is later than 2025");
    }

    #[test]
    fn refuses_a_second_that_no_calendar_knows() {
        let clock = Driver::new::<Clock>("").unwrap();
        let failure = clock.call("time", json!({"unix_seconds": i64::MAX})).unwrap_err();
        assert_eq!(failure.code(), Some("OUT_OF_RANGE"));
    }
}
