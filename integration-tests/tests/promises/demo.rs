//! `cargo demo` leaves nothing behind, however it is ended: no process, no folder.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use fleetswap_integration_tests::harness::{Process, eventually, signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A chapter of its story, and what then runs at least: the story, the controller and five agents …
const EARLY: (&str, usize) = ("first push: clock", 7);
/// … and a worker on each.
const LATER: (&str, usize) = ("first push: counter", 12);

/// A demo in the middle of a push, and all that it has started.
struct Running {
    demo: Process,
    started: Vec<Entry>,
    /// Where it makes its folder.
    temporary: TempDir,
    /// Holds what it says on standard error.
    _log: TempDir,
}

/// A process, known apart from a later one with the same id.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    pid: u32,
    parent: u32,
    /// In ticks since the system started.
    started: u64,
}

impl Running {
    fn start((chapter, processes): (&str, usize)) -> Result<Self> {
        let (temporary, log) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.args(["--no-build", "-o", "json"]).env("TMPDIR", temporary.path());
        let demo = Process::start("demo", &mut command, &log.path().join("demo.log"))?;
        demo.wait_for_line(chapter)?;
        let started = descendants(demo.pid())?;
        assert!(started.len() >= processes, "{} processes", started.len());
        assert_eq!(fs::read_dir(temporary.path())?.count(), 1, "the demo's folder");
        Ok(Self { demo, started, temporary, _log: log })
    }

    fn nothing_is_left(&self) -> Result<bool> {
        let alive = processes()?;
        let left = self.started.iter().any(|one| alive.iter().any(|other| is_same(*one, *other)));
        Ok(!left && fs::read_dir(self.temporary.path())?.next().is_none())
    }
}

/// An orphan has another parent than before.
fn is_same(one: Entry, other: Entry) -> bool {
    (one.pid, one.started) == (other.pid, other.started)
}

/// Every process that has not ended.
fn processes() -> Result<Vec<Entry>> {
    let folders = fs::read_dir("/proc")?.flatten();
    Ok(folders.filter_map(|folder| entry(&folder.path())).collect())
}

fn entry(folder: &Path) -> Option<Entry> {
    let pid = folder.file_name()?.to_str()?.parse().ok()?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let alive = !["Z", "X"].contains(fields.first()?);
    let entry = Entry { pid, parent: fields.get(1)?.parse().ok()?, started: fields.get(19)?.parse().ok()? };
    alive.then_some(entry)
}

fn descendants(pid: u32) -> Result<Vec<Entry>> {
    let all = processes()?;
    let mut found: Vec<Entry> = all.iter().copied().filter(|entry| entry.parent == pid).collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|entry| entry.pid) {
        found.extend(all.iter().filter(|entry| entry.parent == parent));
        next += 1;
    }
    Ok(found)
}

fn says_that_all_is_gone(chapter: (&str, usize), by: Signal, name: &str, code: i32) -> Result<()> {
    let mut running = Running::start(chapter)?;
    signal(running.demo.pid(), by)?;
    assert_eq!(running.demo.wait()?.code(), Some(code));
    assert!(running.nothing_is_left()?);
    let last: Value = serde_json::from_str(&running.demo.wait_for_line("{")?)?;
    assert_eq!(last, json!({ "schema": 1, "ok": false, "interrupted": name }));
    let words = format!("demo: interrupted by {name}; its processes and its folder are gone\n");
    assert_eq!(running.demo.log(), words);
    Ok(())
}

#[test]
fn a_demo_ended_by_sigterm_says_so_once_all_is_gone() -> Result<()> {
    says_that_all_is_gone(LATER, Signal::TERM, "SIGTERM", 143)
}

#[test]
fn a_demo_ended_by_sighup_says_so_once_all_is_gone() -> Result<()> {
    says_that_all_is_gone(EARLY, Signal::HUP, "SIGHUP", 129)
}

#[test]
fn a_demo_that_is_killed_leaves_nothing_behind() -> Result<()> {
    let mut running = Running::start(LATER)?;
    running.demo.kill();
    eventually("nothing is left", || Ok(running.nothing_is_left()?.then_some(())))
}

#[test]
fn a_demo_whose_story_is_killed_clears_up_and_fails() -> Result<()> {
    let mut running = Running::start(EARLY)?;
    let story = running.started.first().context("the story")?.pid;
    signal(story, Signal::KILL)?;
    assert_eq!(running.demo.wait()?.code(), Some(1));
    assert!(running.nothing_is_left()?);
    let last: Value = serde_json::from_str(&running.demo.wait_for_line("{")?)?;
    assert_eq!(last["ok"], false);
    Ok(())
}
