//! A census of what an agent has: its worker processes and their kin, its descriptors, its cgroups.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::eventually;

/// What `/proc` shows of an agent. Two that are equal say that nothing was left behind in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    own: Own,
    kin: Kin,
}

/// What it has itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    /// When the kernel started it: a process id alone may be another process's by now.
    started: String,
    /// Open descriptors by what they are, memfds among them.
    descriptors: BTreeMap<String, usize>,
    /// Its cgroups, and how many lie below each.
    cgroups: BTreeMap<String, usize>,
}

/// Who else runs because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kin {
    /// Processes whose parent it is.
    children: usize,
    /// Processes that were started as workers of it, whoever is their parent by now.
    workers: usize,
}

impl Census {
    /// Takes it once it stays the same, with the one worker that serves.
    ///
    /// # Errors
    /// The agent is gone, or never comes to rest.
    pub(crate) fn at_rest(agent: u32) -> Result<Self> {
        let mut last = None;
        let mut same = 0;
        eventually("an agent comes to rest with one worker", || {
            let own = Own::take(agent)?;
            same = if last.as_ref() == Some(&own) { same + 1 } else { 0 };
            last = Some(own.clone());
            if same < 2 || own.tidies() {
                return Ok(None);
            }
            let kin = Kin::take(agent)?;
            Ok((kin == Kin { children: 1, workers: 1 }).then_some(Self { own, kin }))
        })
    }

    /// Waits until everything is as it was before.
    ///
    /// # Errors
    /// Something stays behind; the error says what.
    pub(crate) fn returns(&self, agent: u32) -> Result<()> {
        let mut last = None;
        let returned = eventually("all is as it was before", || {
            let own = Own::take(agent)?;
            // Looking at every process takes far longer than looking at one.
            let kin = if own == self.own { Some(Kin::take(agent)?) } else { None };
            let is_same = kin == Some(self.kin);
            last = Some((own, kin));
            Ok(is_same.then_some(()))
        });
        returned.with_context(|| format!("before: {self:?}\nafter:  {:?}", last.as_ref()))
    }
}

impl Own {
    fn take(agent: u32) -> Result<Self> {
        let started = field(&read(agent, "stat").context("the agent is gone")?, 19);
        Ok(Self { started, descriptors: descriptors(agent)?, cgroups: cgroups(agent)? })
    }
}

impl Own {
    /// What the last release left is still being looked through.
    fn tidies(&self) -> bool {
        self.descriptors.keys().any(|path| path.contains("/state/") && !path.ends_with("/lock"))
    }
}

impl Kin {
    fn take(agent: u32) -> Result<Self> {
        let (mut children, mut workers) = (0, 0);
        for pid in processes()? {
            // A process may end while it is looked at.
            let parent = read(pid, "stat").map(|stat| field(&stat, 1)).unwrap_or_default();
            children += usize::from(parent == agent.to_string());
            workers += usize::from(is_worker_of(agent, &read(pid, "cmdline").unwrap_or_default()));
        }
        Ok(Self { children, workers })
    }
}

fn processes() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn read(pid: u32, file: &str) -> Result<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A field of `stat`, counted from 0 behind the name, which may contain anything.
fn field(stat: &str, index: usize) -> String {
    let behind = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);
    behind.split(' ').nth(index).unwrap_or_default().to_owned()
}

fn is_worker_of(agent: u32, command_line: &str) -> bool {
    let mut arguments = command_line.split('\0');
    arguments.next() == Some("fleetswap-worker") && arguments.nth(1) == Some(&agent.to_string())
}

fn descriptors(agent: u32) -> Result<BTreeMap<String, usize>> {
    let folder = format!("/proc/{agent}/fd");
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.clone())?.flatten() {
        // One may be closed while they are looked at.
        if let Ok(target) = fs::read_link(entry.path()) {
            *all.entry(nameless(&target.to_string_lossy())).or_default() += 1;
        }
    }
    Ok(all)
}

/// Without the numbers that tell two of the same sort apart.
fn nameless(target: &str) -> String {
    let without: String = target.chars().filter(|c| !c.is_ascii_digit()).collect();
    without.replace(" (deleted)", "")
}

fn cgroups(agent: u32) -> Result<BTreeMap<String, usize>> {
    let text = read(agent, "cgroup")?;
    let below = |path: &str| {
        let folders = fs::read_dir(Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')));
        folders.map_or(0, |entries| entries.flatten().filter(|entry| entry.path().is_dir()).count())
    };
    Ok(text
        .lines()
        .map(|line| (line.to_owned(), below(line.rsplit(':').next().unwrap_or_default())))
        .collect())
}

#[test]
fn a_census_of_this_process_counts_what_it_opens_and_starts() -> Result<()> {
    let own = std::process::id();
    let before = Own::take(own)?;
    let file = fs::File::open("/dev/zero")?;
    let with_file = Own::take(own)?;
    ensure!(with_file.descriptors.get("/dev/zero") == Some(&1), "{with_file:?}");
    ensure!(!before.descriptors.contains_key("/dev/zero") && before.started == with_file.started);
    drop(file);
    ensure!(is_worker_of(7, "fleetswap-worker\0--fleetswap-worker\x007\0zoo\x001.0.0\0"));
    ensure!(!is_worker_of(7, "fleetswap-worker\0--fleetswap-worker\x008\0zoo\x001.0.0\0"));
    ensure!(field("12 (a ) b) S 34 5", 1) == "34");
    Ok(())
}
