//! The zoo: whatever a plugin does, and whenever in its life, its host goes on and callers of the old release notice
//! nothing.
//!
//! Each cell of the [matrix] is tried on a host with a real controller, agent and worker. Several hosts try cells at a
//! time, since most cells only wait for a timeout.
//!
//! `FLEETSWAP_ZOO_ONLY=call/abort` tries only the cells whose name contains that text, and then fails for the rest;
//! `FLEETSWAP_ZOO_TIMES=1` says how long each took. Both with `-- --nocapture`.

mod callers;
mod census;
mod host;
mod matrix;
mod specimen;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::Binaries;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use host::{Host, User};
use matrix::{Cell, Expectation, KINDS, MOMENTS, cells};
use specimen::Specimens;

/// Hosts that try cells at a time.
const HOSTS: usize = 12;
/// The user `nobody` of most systems; any that is not root would do.
const NOBODY: u32 = 65_534;

#[test]
fn no_kind_of_harm_at_any_moment_hurts_a_host_whose_agent_runs_as_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return say("NOT RUN: only root can try the zoo on an agent that runs as root");
    }
    try_all(None)
}

#[test]
fn no_kind_of_harm_at_any_moment_hurts_a_host_whose_agent_runs_as_an_ordinary_user() -> Result<()> {
    try_all(rustix::process::geteuid().is_root().then_some(NOBODY))
}

/// Aloud: the test harness keeps what the print macros write to itself.
fn say(words: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "zoo: {words}")?)
}

/// What is left to try, and what came of the rest.
struct Round {
    user: User,
    specimens: Arc<Specimens>,
    left: Mutex<Vec<(Cell, Expectation)>>,
    /// The same of those that take all cores: one host tries them, so that no two do so at a time.
    alone: Mutex<Vec<(Cell, Expectation)>>,
    tried: Mutex<Vec<(Cell, Result<(), String>)>>,
}

fn try_all(user: Option<u32>) -> Result<()> {
    let (started, runtime, folder) = (Instant::now(), Runtime::new()?, open_folder()?);
    let program = folder.path().join("agent");
    fs::copy(Binaries::find()?.agent(), &program)?;
    let only = std::env::var("FLEETSWAP_ZOO_ONLY").unwrap_or_default();
    let mut left: Vec<_> = cells().filter_map(|cell| Some((cell, cell.meaning().ok()?))).collect();
    left.retain(|(cell, _)| cell.text().contains(&only));
    let wanted = left.len();
    // The longest are taken first, from the end.
    left.sort_by_key(|(cell, _)| cell.weight());
    let alone = left.extract_if(.., |(cell, _)| cell.takes_all_cores()).collect();
    let round = Round {
        user: User { id: user, program },
        specimens: Arc::new(Specimens::compile(folder.path())?),
        left: Mutex::new(left),
        alone: Mutex::new(alone),
        tried: Mutex::default(),
    };
    thread::scope(|scope| {
        scope.spawn(|| round.on_one_host(&runtime, &round.alone));
        for _ in 0..HOSTS {
            scope.spawn(|| round.on_one_host(&runtime, &round.left));
        }
    });
    let tried = round.tried.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failed: Vec<String> = tried
        .iter()
        .filter_map(|(cell, came)| came.as_ref().err().map(|why| format!("--- {cell}\n{why}")))
        .collect();
    summarise(user, &tried, started)?;
    ensure!(failed.is_empty(), "{} of {wanted} cells failed\n{}", failed.len(), failed.join("\n"));
    let words: BTreeMap<String, ()> = tried.iter().map(|(cell, _)| (cell.text(), ())).collect();
    let meaningless = cells().filter(|cell| cell.meaning().is_err()).count();
    ensure!(
        words.len() == tried.len() && words.len() + meaningless == KINDS.len() * MOMENTS.len(),
        "{} cells were tried and {meaningless} mean nothing: some were skipped",
        words.len()
    );
    Ok(())
}

/// A folder that every user may look into.
fn open_folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("fleetswap-zoo-").tempdir().context("a folder")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

fn summarise(user: Option<u32>, tried: &[(Cell, Result<(), String>)], started: Instant) -> Result<()> {
    let who = user.map_or_else(|| "this test's own user".to_owned(), |id| format!("user {id}"));
    let meaningless = cells().filter(|cell| cell.meaning().is_err()).count();
    say(&format!(
        "{} cells tried as {who} in {} s, {} kinds, {meaningless} cells mean nothing",
        tried.len(),
        started.elapsed().as_secs(),
        KINDS.len()
    ))
}

impl Round {
    /// Takes cells until none is left. A host on which one failed is not used again.
    fn on_one_host(&self, runtime: &Runtime, cells: &Mutex<Vec<(Cell, Expectation)>>) {
        let mut host = None;
        while let Some((cell, expected)) = pop(cells) {
            let came = self.try_one(&mut host, runtime, (&cell, &expected));
            if came.is_err() || host.as_ref().is_some_and(Host::is_spent) {
                host = None;
            }
            self.tried.lock().unwrap_or_else(PoisonError::into_inner).push((cell, came));
        }
    }

    fn try_one(
        &self,
        host: &mut Option<Host>,
        runtime: &Runtime,
        (cell, expected): (&Cell, &Expectation),
    ) -> Result<(), String> {
        if host.is_none() {
            let fresh = Host::start(&self.user, &self.specimens, runtime.handle());
            *host = Some(fresh.map_err(|error| format!("no host for it: {error:#}"))?);
        }
        let Some(host) = host else { return Err("no host for it".to_owned()) };
        let started = Instant::now();
        let came = host.try_cell(cell, expected);
        if std::env::var_os("FLEETSWAP_ZOO_TIMES").is_some() {
            eprintln!("{:>6} ms {cell}", started.elapsed().as_millis());
        }
        came.map_err(|error| format!("{error:#}\nthe agent's log ends with:\n{}", host.log_tail()))
    }
}

fn pop<T>(list: &Mutex<Vec<T>>) -> Option<T> {
    list.lock().unwrap_or_else(PoisonError::into_inner).pop()
}
