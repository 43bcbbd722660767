//! Mutants of real libraries, and a library that is replaced while it is read. This program is also the worker, so it
//! has a `main` of its own instead of the usual test harness.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only those of the usual harness"
)]

mod allocations;
mod generator;
mod libraries;
mod linted;
mod loaded;
mod replaced;

use std::{panic::catch_unwind, process::ExitCode, time::Instant};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

const TESTS: &[(&str, fn())] = &[
    (
        "ten_thousand_mutants_are_judged_without_a_panic_or_much_work",
        linted::ten_thousand_mutants_are_judged_without_a_panic_or_much_work,
    ),
    ("mutants_that_pass_the_lint_harm_no_host", loaded::mutants_that_pass_the_lint_harm_no_host),
    (
        "an_artifact_that_is_replaced_while_it_is_read_never_loads_other_bytes",
        replaced::an_artifact_that_is_replaced_while_it_is_read_never_loads_other_bytes,
    ),
];

fn main() -> ExitCode {
    fleetswap_host::run_worker_if_asked();
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(&wanted)) {
        let started = Instant::now();
        let passed = catch_unwind(test).is_ok();
        let word = if passed { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({} ms)", started.elapsed().as_millis());
        failed += u32::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
