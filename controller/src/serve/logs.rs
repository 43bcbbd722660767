//! The server's log, on stderr: for people on a terminal, JSON lines elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

/// Which lines are written, in the words of `tracing`'s filters.
const FILTER: &str = "FLEETSWAP_LOG";

/// What happens, without the steps of every migration.
const DEFAULT: &str = "info,refinery_core=warn";

/// Starts logging; a second start in the same process changes nothing.
pub(super) fn start() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let log = fmt().with_env_filter(filter).with_writer(io::stderr);
    // Fails only when something logs already, as in tests.
    let _ = if io::stderr().is_terminal() { log.try_init() } else { log.json().with_ansi(false).try_init() };
}
