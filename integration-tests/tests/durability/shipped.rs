//! What is shipped has no failpoints.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use fleetswap_integration_tests::harness::Binaries;

/// Begins the name of every variable that arms them.
const MARK: &[u8] = b"FLEETSWAP_TEST_";

fn has_failpoints(program: &Path) -> Result<bool> {
    Ok(fs::read(program)?.windows(MARK.len()).any(|bytes| bytes == MARK))
}

#[test]
fn the_shipped_programs_have_no_failpoints_and_those_beside_them_do() -> Result<()> {
    let binaries = Binaries::find()?;
    for shipped in [binaries.agent(), binaries.controller()] {
        ensure!(!has_failpoints(&shipped)?, "{} has failpoints", shipped.display());
    }
    for failing in [binaries.agent_with_failpoints()?, binaries.controller_with_failpoints()?] {
        ensure!(has_failpoints(&failing)?, "{} has no failpoints", failing.display());
    }
    Ok(())
}
