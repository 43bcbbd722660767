//! `cargo demo` tells its story to the end, and leaves nothing behind, however it is ended: no process, no folder.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fleetswap_integration_tests::harness::{Outcome, Process, eventually, signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A chapter of its story, and what then runs at least: the story, the controller and five agents …
const EARLY: (&str, usize) = ("first push: clock", 7);
/// … and a worker on each.
const LATER: (&str, usize) = ("first push: counter", 12);

/// What it says on its way, in this order.
const STORY: [&str; 16] = [
    "one controller and 5 agents start",
    "first push: clock 1.0.0 to all hosts",
    "first push: counter 1.0.0 to all hosts",
    "load starts: 50 calls/s per plugin and host",
    "push clock 1.1.0: it loads and says it is healthy",
    "PROBE_FAILED on host-",
    "tried on 1 of 5 hosts, the others were never touched",
    "push clock 1.3.0",
    "exit 7, refused before it left this machine: clock 1.3.0 breaks callers of 1.0.0",
    "push clock 1.2.0",
    "push counter 2.0.0",
    "SIGSEGV to the worker of clock on host-5",
    "it is back as pid",
    "rollback of clock",
    "everything went as told",
    "The fleet keeps running until Ctrl-C.",
];
/// In which it promises to be over.
const STORY_LIMIT: Duration = Duration::from_secs(90);
/// Commands that it names for a fleet that keeps running.
const COMMANDS: usize = 5;

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
        let mut running = Self::begin(&[])?;
        running.demo.wait_for_line(chapter)?;
        running.look_at(processes)?;
        Ok(running)
    }

    fn begin(more: &[&str]) -> Result<Self> {
        let (temporary, log) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.args(["--no-build", "-o", "json"]).args(more).env("TMPDIR", temporary.path());
        let demo = Process::start("demo", &mut command, &log.path().join("demo.log"))?;
        Ok(Self { demo, started: Vec::new(), temporary, _log: log })
    }

    /// Remembers what it has started, which is at least so many processes.
    fn look_at(&mut self, processes: usize) -> Result<()> {
        self.started = descendants(self.demo.pid())?;
        assert!(self.started.len() >= processes, "{} processes", self.started.len());
        assert_eq!(fs::read_dir(self.temporary.path())?.count(), 1, "the demo's folder");
        Ok(())
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

/// One run for all of it, since it takes half a minute.
#[test]
fn a_demo_goes_as_told_stays_with_keep_and_ends_well_at_ctrl_c() -> Result<()> {
    let started = Instant::now();
    let mut running = Running::begin(&["--keep"])?;
    for words in STORY {
        running.demo.wait_for_line(words)?;
    }
    assert!(started.elapsed() < STORY_LIMIT, "the story took {:?}", started.elapsed());
    running.look_at(LATER.1)?;
    let environment = running.demo.wait_for_line("export FLEETSWAP_CONTROLLER=")?;
    for _ in 0..COMMANDS {
        let command = running.demo.wait_for_line("")?;
        let script = format!("{environment}\n{command}");
        let outcome = Outcome::of(Command::new("sh").args(["-c", &script]))?.expect(0)?;
        assert_eq!(outcome.stdout.contains("hosts 5 of 5 online"), command.ends_with("controller' status"));
    }
    signal(running.demo.pid(), Signal::INT)?;
    assert_eq!(running.demo.wait()?.code(), Some(0), "{}", running.demo.log_tail());
    assert!(running.nothing_is_left()?);
    running.demo.wait_for_line("demo: the fleet is taken down")?;
    let last = running.demo.wait_for_line("")?;
    assert!(running.demo.wait_for_line("").is_err(), "the figures are the last line: {last}");
    has_the_figures(&serde_json::from_str(&last)?)
}

fn has_the_figures(last: &Value) -> Result<()> {
    let figure = |name: &str| last[name].as_u64().with_context(|| format!("`{name}` in {last}"));
    assert_eq!((&last["schema"], &last["ok"]), (&1.into(), &true.into()), "{last}");
    assert!(figure("sent")? >= 5_000, "{last}");
    assert_eq!((figure("correct")?, figure("lost")?), (figure("sent")?, 0), "{last}");
    assert_eq!(figure("swaps")?, 15, "clock, counter and clock again, on five hosts: {last}");
    assert_eq!((figure("bad_version_tried")?, figure("bad_version_hosts")?), (1, 0), "{last}");
    assert_eq!(figure("counter_got")?, figure("counter_expected")?, "{last}");
    assert!(
        figure("counter_got")? > 0 && figure("rollback_ms")? > 0 && figure("swap_pause_max_us")? > 0,
        "{last}"
    );
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
