//! Every argument of `serve`.

use std::net::TcpListener;

use anyhow::Result;
use fleetswap_integration_tests::harness::{Outcome, repository};

use super::{LONG, Row, all_refused, explained_in_text};
use crate::common::fleet;

#[test]
fn every_argument_of_serve_is_checked() -> Result<()> {
    let fleet = fleet(0)?;
    let path = |name: &str| fleet.path(name).display().to_string();
    let (data, empty, idle, keys) = (path("controller"), path("empty"), path("idle"), path("keys"));
    fleet.controller(["init", "--dev", "--data-dir", &idle, "--publisher-dir", &keys])?.expect(0)?;
    let file = repository().join("README.md").display().to_string();
    let long = "x".repeat(LONG);
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let in_use = taken.local_addr()?.to_string();
    let free = "127.0.0.1:0";
    let rows: &[Row<'_>] = &[
        (&[], 2, "USAGE", "`--data-dir <DIR>` is missing"),
        (&["--data-dir"], 2, "USAGE", "the value of `--data-dir <DIR>` is missing"),
        (&["--data-dir", "", "--listen", free], 2, "USAGE", "must not be empty"),
        (&["--data-dir", &long, "--listen", free], 2, "USAGE", "at most 4096"),
        (&["--data-dir", &data, "--listen"], 2, "USAGE", "the value of `--listen <ADDR>` is missing"),
        (&["--data-dir", &data, "--listen", ""], 2, "USAGE", "HOST:PORT"),
        (&["--data-dir", &data, "--listen", "everywhere"], 2, "USAGE", "HOST:PORT"),
        (&["--data-dir", &data, "--listen", "127.0.0.1"], 2, "USAGE", "HOST:PORT"),
        (&["--data-dir", &data, "--listen", "127.0.0.1:99999"], 2, "USAGE", "HOST:PORT"),
        (&["--data-dir", &data, "--listen", &long], 2, "USAGE", "at most 300"),
        (&["--data-dir", &data, "--listen", "a-name:0"], 2, "LISTEN_INVALID", "not an IP address"),
        (&["--data-dir", &data, "--listen", "0.0.0.0:0"], 2, "ADDRESS_NOT_LOOPBACK", "0.0.0.0:0"),
        (&["--data-dir", &data, "--listen", free, "--lisen"], 2, "USAGE", "`--lisen` was not expected"),
        (&["--data-dir", &data, "--listen", free, "more"], 2, "USAGE", "`more` was not expected"),
        (&["--data-dir", &empty, "--listen", free], 1, "NOT_INITIALISED", "empty"),
        (&["--data-dir", &file, "--listen", free], 1, "DATA_DIR_UNUSABLE", "README.md"),
        (&["--data-dir", &data, "--listen", free], 1, "DATA_DIR_LOCKED", "another controller"),
        (&["--data-dir", &idle, "--listen", &in_use], 1, "LISTEN_FAILED", &in_use),
    ];
    all_refused(&fleet, &["serve"], rows)?;
    for (arguments, exit, code, _) in rows {
        let outcome = fleet.controller([&["serve"], *arguments].concat())?.expect(*exit)?;
        // A controller that gets as far as the port has begun its log.
        let said = outcome.stderr.lines().filter(|line| !line.starts_with('{'));
        let stderr = said.collect::<Vec<_>>().join("\n");
        explained_in_text(&Outcome { stderr, ..outcome }, code)?;
    }
    let outcome = fleet.controller(["serve", "--data-dir", &data, "-o", "yaml"])?.expect(2)?;
    explained_in_text(&outcome, "USAGE")
}
