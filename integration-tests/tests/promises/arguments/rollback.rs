//! Every argument of `rollback`.

use anyhow::Result;

use super::{LONG, Row, all_refused, explained_in_text};
use crate::common::fleet;

#[test]
fn every_argument_of_rollback_is_checked() -> Result<()> {
    let fleet = fleet(0)?;
    let long = "x".repeat(LONG);
    let rows: &[Row<'_>] = &[
        (&["rollback"], 2, "USAGE", "`<NAME>` are missing"),
        (&["rollback", "--reason", "r"], 2, "USAGE", "`<NAME>` is missing"),
        (&["rollback", "clock"], 2, "USAGE", "`--reason <TEXT>` is missing"),
        (&["rollback", "Clock", "--reason", "r"], 2, "USAGE", "lower-case letter"),
        (&["rollback", "", "--reason", "r"], 2, "USAGE", "lower-case letter"),
        (&["rollback", &long, "--reason", "r"], 2, "USAGE", "at most 64"),
        (&["rollback", "clock", "again", "--reason", "r"], 2, "USAGE", "`again` was not expected"),
    ];
    all_refused(&fleet, &[], rows)?;
    let rows: &[Row<'_>] = &[
        (&["--reason"], 2, "USAGE", "the value of `--reason <TEXT>` is missing"),
        (&["--reason", ""], 2, "USAGE", "it must say why"),
        (&["--reason", " "], 2, "USAGE", "it must say why"),
        (&["--reason", &long], 2, "USAGE", "at most 512"),
        (&["--reason", "two\nlines"], 2, "USAGE", "one line"),
    ];
    all_refused(&fleet, &["rollback", "clock"], rows)?;
    let rows: &[Row<'_>] = &[
        (&["--reason", "again"], 2, "USAGE", "`--reason <TEXT>` is there twice"),
        (&["--to", "one"], 2, "USAGE", "write it like 1.2.0"),
        (&["--to", ""], 2, "USAGE", "write it like 1.2.0"),
        (&["--to", "1.0.0+build"], 2, "USAGE", "build metadata"),
        (&["--to", &long], 2, "USAGE", "at most 64"),
        (&["--to"], 2, "USAGE", "the value of `--to <V>` is missing"),
        (&["--hosts", "colour"], 2, "SELECTOR_INVALID", "`colour` is none of"),
        (&["--hosts", "key in (a"], 2, "SELECTOR_INVALID", "brackets"),
        (&["--hosts", ""], 2, "USAGE", "write `all`"),
        (&["--hosts", " "], 2, "SELECTOR_INVALID", "it is empty"),
        (&["--hosts", "two\nlines"], 2, "USAGE", "one line"),
        (&["--hosts", &long], 2, "USAGE", "at most 512"),
        (&["--hosts"], 2, "USAGE", "the value of `--hosts <SELECTOR>` is missing"),
        (&["--wait-timeout", "never"], 2, "USAGE", "write it like 10s"),
        (&["--wait-timeout", "0s"], 2, "USAGE", "at least 1ms"),
        (&["--wait-timeout", "8days"], 2, "USAGE", "at most 7 days"),
        (&["--wait-timeout", &long], 2, "USAGE", "at most 64"),
        (&["--dry-run=yes"], 2, "USAGE", "--dry-run"),
        (&["--controller", "x"], 2, "USAGE", "HOST:PORT"),
        (&["--controller", &long], 2, "USAGE", "at most 300"),
        (&["--controller", "127.0.0.1:1"], 1, "UNREACHABLE", "127.0.0.1:1"),
        (&["--raeson", "r"], 2, "USAGE", "`--raeson` was not expected"),
        (&[], 1, "ASSIGNMENT_UNKNOWN", "clock"),
        (&["--hosts", "zone=a"], 1, "ASSIGNMENT_UNKNOWN", "`zone=a`"),
    ];
    let common = ["rollback", "clock", "--reason", "r"];
    all_refused(&fleet, &common, rows)?;
    // As a dry run it is refused like for real.
    all_refused(&fleet, &[&common[..], &["--dry-run"]].concat(), &rows[rows.len() - 2..])?;
    let outcome = fleet.controller([&common[..], &["-o", "yaml"]].concat())?.expect(2)?;
    explained_in_text(&outcome, "USAGE")
}
