//! Example plugin: clock 1.2.0: friendlier, and just as compatible.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use plugin_sdk::{PluginError, plugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const FORMAT: &str = "%A, %-d %B %Y, %H:%M:%S UTC";

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

/// A greeting with the time in it.
#[derive(Serialize, JsonSchema)]
struct FriendlyReply {
    text: String,
}

#[plugin(name = "clock", default)]
impl Clock {
    #[function(idempotent, probe_safe)]
    fn time(&self, request: TimeRequest) -> Result<TimeReply, PluginError> {
        let at = instant(&request)?;
        Ok(TimeReply { text: at.strftime(FORMAT).to_string(), unix_seconds: at.as_second() })
    }

    #[function(idempotent, probe_safe)]
    fn friendly_time(&self, request: TimeRequest) -> Result<FriendlyReply, PluginError> {
        let at = instant(&request)?.to_zoned_datetime(TimeZone::UTC);
        let part = match at.hour() {
            5..12 => "morning",
            12..18 => "afternoon",
            18..22 => "evening",
            _ => "night",
        };
        Ok(FriendlyReply { text: format!("Good {part}! It is {}.", at.strftime("%H:%M on %A")) })
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
    fn tells_the_time_in_a_friendlier_way() {
        let clock = Driver::new::<Clock>("").unwrap();
        let reply = clock.call("time", json!({"unix_seconds": 1_795_500_000})).unwrap();
        let text = "Tuesday, 24 November 2026, 06:00:00 UTC";
        assert_eq!(reply, json!({"text": text, "unix_seconds": 1_795_500_000}));
    }

    #[test]
    fn greets_by_the_hour() {
        let clock = Driver::new::<Clock>("").unwrap();
        let text = |second: i64| {
            clock.call("friendly_time", json!({"unix_seconds": second})).unwrap()["text"].clone()
        };
        assert_eq!(text(1_795_500_000), "Good morning! It is 06:00 on Tuesday.");
        assert_eq!(text(1_795_500_000 + 9 * 3600), "Good afternoon! It is 15:00 on Tuesday.");
        assert_eq!(text(1_795_500_000 + 20 * 3600), "Good night! It is 02:00 on Wednesday.");
    }
}
