//! The agent's own log, on standard error: for people on a terminal, JSON everywhere else.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Environment variable with a filter such as `debug` or `fleetswap_agent=trace`.
const FILTER_VARIABLE: &str = "FLEETSWAP_LOG";

/// Sets it up; once per process.
pub(crate) fn set_up() {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    if stderr().is_terminal() {
        log.with_target(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
}
