//! The controller: server, store, publisher and the operator's command line in one program.
#![forbid(unsafe_code)]

mod api;
mod blobs;
mod cli;
mod convert;
mod durable;
mod explain;
mod publish;
mod published;
mod reconcile;
mod serve;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A worker process is this program again; it must get here before any thread or runtime does.
    fleetswap_host::run_worker_if_asked();
    #[cfg(feature = "failpoints")]
    if durable::list() {
        return ExitCode::SUCCESS;
    }
    cli::run()
}
