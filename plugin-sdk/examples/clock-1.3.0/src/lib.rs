//! Example plugin: clock 1.3.0, whose reply lacks a field: a breaking change under a compatible number.

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
}

#[plugin(name = "clock", default)]
impl Clock {
    #[function(idempotent, probe_safe)]
    fn time(&self, request: TimeRequest) -> Result<TimeReply, PluginError> {
        let at = instant(&request)?;
        Ok(TimeReply { text: at.strftime(FORMAT).to_string() })
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
    fn no_longer_says_which_second_it_speaks_of() {
        let clock = Driver::new::<Clock>("").unwrap();
        let reply = clock.call("time", json!({"unix_seconds": 1_795_500_000})).unwrap();
        assert_eq!(reply, json!({"text": "2026-11-24 06:00:00"}));
    }
}
