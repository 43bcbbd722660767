//! Every argument of `push`, for real and as a dry run.

use std::fs::{self, File};

use anyhow::{Result, ensure};
use fleetswap_integration_tests::harness::{Binaries, Fleet, Outcome, Plugin, repository};

use super::{LONG, Row, all_refused, explained, explained_in_text};
use crate::common::{fleet, subject};

/// A fleet of one host on which nothing runs, and a push to it that lacks nothing but `--hosts`.
struct Given {
    fleet: Fleet,
    clock: Plugin,
    /// Longer than any argument may be.
    long: String,
}

impl Given {
    fn new() -> Result<Self> {
        let clock = Binaries::find()?.example("clock", "1.0.0")?;
        Ok(Self { fleet: fleet(1)?, clock, long: "x".repeat(LONG) })
    }

    /// A file of the fleet's folder, as an argument.
    fn file(&self, name: &str) -> String {
        self.fleet.path(name).display().to_string()
    }

    /// Each row stands behind a push that is right; a dry run is refused like the push itself.
    fn refused(&self, plugin: &Plugin, rows: &[Row<'_>]) -> Result<()> {
        let good = Fleet::push_arguments(plugin, &[]);
        let good: Vec<&str> = good.iter().map(String::as_str).collect();
        all_refused(&self.fleet, &good, rows)?;
        let dry: Vec<Row<'_>> = rows.iter().filter(|row| !row.0.contains(&"--dry-run")).copied().collect();
        all_refused(&self.fleet, &[&good[..], &["--dry-run"]].concat(), &dry)
    }
}

#[test]
fn what_a_push_is_of_is_checked() -> Result<()> {
    let given = Given::new()?;
    let file = given.clock.file.display().to_string();
    let text = repository().join("README.md").display().to_string();
    let (huge, long) = (given.file("huge.so"), &given.long);
    File::create(&huge)?.set_len(256 * 1024 * 1024 + 1)?;
    let rows: &[Row<'_>] = &[
        (&[], 2, "USAGE", "`<NAME>` are missing"),
        (&["--version", "1.0.0", "--artifact", &file], 2, "USAGE", "`<NAME>` is missing"),
        (&["", "--version", "1.0.0", "--artifact", &file], 2, "USAGE", "lower-case letter"),
        (&["Clock!", "--version", "1.0.0", "--artifact", &file], 2, "USAGE", "lower-case letter"),
        (&[long, "--version", "1.0.0", "--artifact", &file], 2, "USAGE", "at most 64"),
        (&["clock", "--artifact", &file], 2, "USAGE", "`--version <V>` is missing"),
        (&["clock", "--version", "", "--artifact", &file], 2, "USAGE", "write it like 1.2.0"),
        (&["clock", "--version", "one", "--artifact", &file], 2, "USAGE", "write it like 1.2.0"),
        (&["clock", "--version", "1.0.0+b", "--artifact", &file], 2, "USAGE", "build metadata"),
        (&["clock", "--version", long, "--artifact", &file], 2, "USAGE", "at most 64"),
        (&["clock", "--version", "1.0.0"], 2, "USAGE", "`--artifact <FILE>` is missing"),
        (&["clock", "--version", "1.0.0", "--artifact"], 2, "USAGE", "the value of `--artifact"),
        (&["clock", "--version", "1.0.0", "--artifact", ""], 2, "USAGE", "must not be empty"),
        (&["clock", "--version", "1.0.0", "--artifact", long], 2, "USAGE", "at most 4096"),
        (&["clock", "--version", "1.0.0", "--artifact", "/nowhere/lib.so"], 1, "IO", "/nowhere/lib.so"),
        (&["clock", "--version", "1.0.0", "--artifact", &text], 7, "ELF_MALFORMED", "README.md"),
        (&["clock", "--version", "1.0.0", "--artifact", &huge], 7, "ARTIFACT_TOO_LARGE", "268435456"),
        (&["clock", "--version", "9.9.9", "--artifact", &file], 7, "NOTE_DIFFERS", "clock 9.9.9"),
        (&["watch", "--version", "1.0.0", "--artifact", &file], 7, "NOTE_DIFFERS", "watch 1.0.0"),
    ];
    all_refused(&given.fleet, &["push"], rows)?;
    all_refused(&given.fleet, &["push", "--dry-run"], rows)?;
    let sixteen_more = ["--artifact", file.as_str()].repeat(16);
    let rows: &[Row<'_>] = &[
        (&["--artifact", "/nowhere/other.so"], 1, "IO", "/nowhere/other.so"),
        (&["--artifact", &file], 2, "USAGE", "two artifacts are for x86_64-linux-gnu"),
        (&sixteen_more, 2, "USAGE", "17 artifacts are too many"),
        (&["--version", "1.0.0"], 2, "USAGE", "`--version <V>` is there twice"),
        (&["another"], 2, "USAGE", "`another` was not expected"),
        (&["--verison", "1.0.0"], 2, "USAGE", "`--verison` was not expected"),
    ];
    given.refused(&given.clock, rows)
}

#[test]
fn what_a_push_adds_to_the_artifact_is_checked() -> Result<()> {
    let given = Given::new()?;
    let (long, empty, big) = (&given.long, given.file("empty"), given.file("big"));
    fs::write(&empty, "")?;
    fs::write(&big, vec![b' '; 1024 * 1024 + 1])?;
    let folder = given.file("");
    let wide = format!("time {{}} => {{\"text\":\"{}\"}}", "x".repeat(16 * 1024));
    let seventeen = ["--probe", "time {} => {}"].repeat(17);
    let rows: &[Row<'_>] = &[
        (&["--config"], 2, "USAGE", "the value of `--config <FILE>` is missing"),
        (&["--config", ""], 2, "USAGE", "must not be empty"),
        (&["--config", long], 2, "USAGE", "at most 4096"),
        (&["--config", "/nowhere/config"], 1, "IO", "/nowhere/config"),
        (&["--config", &folder], 1, "IO", "directory"),
        (&["--config", &empty], 7, "MANIFEST_INVALID", "`config.length` is 0"),
        (&["--config", &big], 7, "MANIFEST_INVALID", "at most 1048576"),
        (&["--config", &empty, "--config", &empty], 2, "USAGE", "`--config <FILE>` is there twice"),
        (&["--probe"], 2, "USAGE", "the value of `--probe <PROBE>` is missing"),
        (&["--probe", ""], 2, "PROBE_INVALID", "a probe can't be read"),
        (&["--probe", "time"], 2, "PROBE_INVALID", "a probe can't be read"),
        (&["--probe", "time {} => {"], 2, "PROBE_INVALID", "a probe can't be read"),
        (&["--probe", &wide], 2, "USAGE", "at most 16384"),
        (&seventeen, 7, "MANIFEST_INVALID", "`probes` has 17; at most 16"),
        (&["--probe", "sing {} => {}"], 7, "PROBE_UNSAFE", "no such function"),
    ];
    given.refused(&given.clock, rows)?;
    let counter = Binaries::find()?.example("counter", "1.0.0")?;
    let unsafe_probe: Row<'_> = (&["--probe", "increment {} => {}"], 7, "PROBE_UNSAFE", "not marked");
    given.refused(&counter, &[unsafe_probe])?;
    let raw_probe: Row<'_> = (&["--probe", "echo {} => {}"], 7, "PROBE_UNSAFE", "raw bytes");
    given.refused(&subject(&given.fleet, "1.0.0", &[])?, &[raw_probe])
}

#[test]
fn where_and_how_fast_a_push_goes_is_checked() -> Result<()> {
    let given = Given::new()?;
    let long = &given.long;
    let rows: &[Row<'_>] = &[
        (&[], 2, "ASSIGNMENT_MISSING", "clock is not assigned"),
        (&["--hosts"], 2, "USAGE", "the value of `--hosts <SELECTOR>` is missing"),
        (&["--hosts", ""], 2, "USAGE", "write `all`"),
        (&["--hosts", " "], 2, "SELECTOR_INVALID", "it is empty"),
        (&["--hosts", "colour"], 2, "SELECTOR_INVALID", "`colour` is none of"),
        (&["--hosts", "key in (a"], 2, "SELECTOR_INVALID", "brackets"),
        (&["--hosts", "all,zone=a"], 2, "SELECTOR_INVALID", "stands alone"),
        (&["--hosts", "two\nlines"], 2, "USAGE", "one line"),
        (&["--hosts", long], 2, "USAGE", "at most 512"),
        (&["--hosts", "zone=nowhere"], 2, "NO_HOSTS_MATCH", "`zone=nowhere`"),
        (&["--hosts", "all", "--hosts", "all"], 2, "USAGE", "`--hosts <SELECTOR>` is there twice"),
        (&["--max-parallel"], 2, "USAGE", "the value of `--max-parallel <N>` is missing"),
        (&["--max-parallel", "0"], 2, "USAGE", "0 is not in 1..=100000"),
        (&["--max-parallel", "-1"], 2, "USAGE", "`-1`"),
        (&["--max-parallel", "many"], 2, "USAGE", "`many` can't be the value"),
        (&["--max-parallel", "100001"], 2, "USAGE", "100001 is not in 1..=100000"),
        (&["--max-parallel", long], 2, "USAGE", "`--max-parallel <N>`"),
        (&["--min-healthy-time", "5"], 2, "USAGE", "write it like 10s"),
        (&["--min-healthy-time", ""], 2, "USAGE", "write it like 10s"),
        (&["--min-healthy-time", "8days"], 2, "USAGE", "at most 7 days"),
        (&["--min-healthy-time", long], 2, "USAGE", "at most 64"),
        (&["--min-healthy-time"], 2, "USAGE", "the value of `--min-healthy-time <D>` is missing"),
        (&["--healthy-deadline", "soon"], 2, "USAGE", "write it like 10s"),
        (&["--healthy-deadline", "0s"], 2, "USAGE", "at least 1ms"),
        (&["--healthy-deadline", "99days"], 2, "USAGE", "at most 7 days"),
        (&["--healthy-deadline", long], 2, "USAGE", "at most 64"),
        (&["--healthy-deadline"], 2, "USAGE", "the value of `--healthy-deadline <D>` is missing"),
        (&["--healthy-deadline", "1s", "--hosts", "all"], 2, "POLICY_INVALID", "min"),
        (&["--health-interval", "9ms"], 2, "USAGE", "at least 10ms and at most 1m"),
        (&["--health-interval", "61s"], 2, "USAGE", "at least 10ms and at most 1m"),
        (&["--health-interval"], 2, "USAGE", "the value of `--health-interval <D>` is missing"),
        (&["--health-checks", "0"], 2, "USAGE", "0 is not in 1..=100"),
        (&["--health-checks", "101"], 2, "USAGE", "101 is not in 1..=100"),
        (&["--health-checks"], 2, "USAGE", "the value of `--health-checks <N>` is missing"),
        (&["--health-timeout", "0s"], 2, "USAGE", "at least 1ms"),
        (&["--health-timeout", "2m"], 2, "USAGE", "at least 1ms and at most 1m"),
        (&["--health-timeout", "soon"], 2, "USAGE", "write it like 10s"),
        (&["--health-timeout"], 2, "USAGE", "the value of `--health-timeout <D>` is missing"),
        (&["--wait-timeout", "soon"], 2, "USAGE", "write it like 10s"),
        (&["--wait-timeout", "8days"], 2, "USAGE", "at most 7 days"),
        (&["--wait-timeout", long], 2, "USAGE", "at most 64"),
        (&["--wait-timeout"], 2, "USAGE", "the value of `--wait-timeout <D>` is missing"),
    ];
    given.refused(&given.clock, rows)
}

#[test]
fn who_pushes_why_and_in_which_way_is_checked() -> Result<()> {
    let given = Given::new()?;
    let long = &given.long;
    let folder = given.file("");
    let rows: &[Row<'_>] = &[
        (&["--reason"], 2, "USAGE", "the value of `--reason <TEXT>` is missing"),
        (&["--reason", long], 2, "USAGE", "at most 512"),
        (&["--reason", "two\nlines"], 2, "USAGE", "one line"),
        (&["--allow-breaking=x"], 2, "USAGE", "--allow-breaking"),
        (&["--allow-one-way=x"], 2, "USAGE", "--allow-one-way"),
        (&["--detach=x"], 2, "USAGE", "--detach"),
        (&["--dry-run=x"], 2, "USAGE", "--dry-run"),
        (&["--dry-run", "--detach"], 2, "USAGE", "`--dry-run` and `--detach` exclude each other"),
        (&["--controller"], 2, "USAGE", "the value of `--controller <ADDR>` is missing"),
        (&["--controller", ""], 2, "USAGE", "HOST:PORT"),
        (&["--controller", "nowhere"], 2, "USAGE", "HOST:PORT"),
        (&["--controller", long], 2, "USAGE", "at most 300"),
        (&["--controller", "127.0.0.1:1"], 1, "UNREACHABLE", "127.0.0.1:1"),
        (&["--publisher-dir"], 2, "USAGE", "the value of `--publisher-dir <DIR>` is missing"),
        (&["--publisher-dir", ""], 2, "USAGE", "must not be empty"),
        (&["--publisher-dir", long], 2, "USAGE", "at most 4096"),
        (&["--publisher-dir", "/nowhere", "--hosts", "all"], 1, "KEY_UNUSABLE", "/nowhere"),
        (&["--publisher-dir", &folder, "--hosts", "all"], 1, "KEY_UNUSABLE", "key"),
    ];
    given.refused(&given.clock, rows)?;
    for more in [&["--hosts", "all", "-o", "json"][..], &["--hosts", "all", "-o", "json", "--dry-run"]] {
        let mut unnamed = given.fleet.controller_command(Fleet::push_arguments(&given.clock, more));
        let outcome = Outcome::of(unnamed.env_remove("FLEETSWAP_PUBLISHER_DIR"))?.expect(2)?;
        let error = explained(&outcome, "no publisher folder")?;
        ensure!(error["code"] == "USAGE" && error["what"] == "no publisher folder is named", "{error}");
    }
    let arguments = Fleet::push_arguments(&given.clock, &["-o", "yaml"]);
    explained_in_text(&given.fleet.controller(arguments)?.expect(2)?, "USAGE")
}

#[test]
fn a_push_that_is_refused_leaves_nothing_behind() -> Result<()> {
    let given = Given::new()?;
    let rows: &[Row<'_>] = &[(&[], 2, "ASSIGNMENT_MISSING", "clock is not assigned")];
    given.refused(&given.clock, rows)?;
    let published = given.fleet.controller(["plugin", "list", "-o", "json"])?.expect(0)?.json()?;
    ensure!(published["releases"] == serde_json::json!([]), "{published}");
    let history = given.fleet.controller(["history", "-o", "json"])?.expect(0)?.json()?;
    ensure!(history["rollouts"] == serde_json::json!([]), "{history}");
    Ok(())
}
