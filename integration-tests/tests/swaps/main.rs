//! Swaps under an open load: they cost no call, and answer none twice.

use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use fleetswap_integration_tests::{
    harness::Binaries,
    swaps::{IN_FLIGHT_MIN, Kind, Series},
};
use tokio::runtime::Runtime;

/// Swaps of each kind; `cargo bench-host` makes a thousand.
const SWAPS: u32 = 25;
/// Calls per second.
const RATE: u32 = 2_100;
/// A storm needs the machine for itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn no_call_is_lost(kind: Kind) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    Runtime::new()?.block_on(async {
        let mut series = Series::prepare(&Binaries::find()?, kind, SWAPS).await?;
        let report = series.run(SWAPS, RATE).await?;
        let outcome = &report.outcome;
        println!(
            "{kind:?}: {} calls, {} swaps committed, {} failed, {} gave way, at least {:?} calls in flight",
            outcome.sent, report.committed, report.failed, report.gave_way, outcome.fewest_at_change
        );
        ensure!(
            outcome.failed() == 0,
            "{} of {} calls: {:?}",
            outcome.failed(),
            outcome.sent,
            outcome.failures
        );
        let least = outcome.fewest_at_change;
        ensure!(least.is_some_and(|least| least >= IN_FLIGHT_MIN), "only {least:?} in flight at a swap");
        ensure!(outcome.versions.len() >= 3 && report.failed > 0, "{:?}", outcome.versions);
        if kind == Kind::Stateful {
            let once = (1..=outcome.right).collect::<Vec<_>>();
            ensure!(outcome.counts == once, "each call ran once, and the count was carried over each swap");
        }
        Ok(())
    })
}

#[test]
fn no_call_is_lost_to_swaps_without_state_three_in_ten_of_which_fail() -> Result<()> {
    no_call_is_lost(Kind::Stateless)
}

#[test]
fn no_call_is_lost_or_made_twice_over_swaps_that_carry_state_three_in_ten_of_which_fail() -> Result<()> {
    no_call_is_lost(Kind::Stateful)
}
