//! The agent: one daemon per host, and the commands to ask it.

mod calls;
mod cli;
mod clock;
mod config;
mod control;
mod convert;
mod daemon;
mod durable;
mod explain;
mod fetch;
mod front;
mod keeper;
mod link;
mod logs;
mod metrics;
mod run;
mod sandbox;
mod serve;
mod service;
mod trial;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Nothing may come before it: in a worker this call never returns.
    fleetswap_host::run_worker_if_asked();
    #[cfg(feature = "failpoints")]
    if durable::list() {
        return ExitCode::SUCCESS;
    }
    cli::run()
}
