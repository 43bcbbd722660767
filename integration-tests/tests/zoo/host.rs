//! A host on which cells are tried, one after the other: a real controller, a real agent, real workers.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use fleetswap_integration_tests::harness::{Agent, Binaries, Fleet, FleetOptions, eventually};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::{
    callers::{Callers, Pace, Tally, tally},
    census::Census,
    matrix::{Cell, Expectation, Next},
    specimen::{NAME, Specimens},
};

/// Answers of the old release at least, while a bad one is tried.
const ANSWERS_MIN: usize = 100;
/// Of a worker here: memory, so that one that takes all it gets is ended before it has taken much, and a shorter wait.
const LIMITS: &str = "[limits]\nmemory_mib = 96\nstate_timeout_ms = 5000\n";
/// A probe that every release passes.
const PROBE: &str = "ready {} => true";
/// Probation of a release that does no harm.
const SHORT: &str = "200ms";
/// Longest that a caller waits where a bad release can make it wait, but not for ever.
const PATIENT: &str = "15s";
const HURRIED: &str = "4s";
/// The first version, which does no harm.
const FIRST: u32 = 1000;

/// Who the agent runs as, and the program that it runs.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// Another user than the one of this test.
    pub(crate) id: Option<u32>,
    /// A copy of the agent that everybody may execute.
    pub(crate) program: PathBuf,
}

/// The host.
pub(crate) struct Host {
    fleet: Fleet,
    specimens: Arc<Specimens>,
    runtime: Handle,
    /// Number of the newest version.
    newest: u32,
    /// The version that serves.
    serving: String,
    /// It serves a release that nothing can follow.
    spent: bool,
}

impl Host {
    /// Starts it, with a release that does no harm.
    pub(crate) fn start(user: &User, specimens: &Arc<Specimens>, runtime: &Handle) -> Result<Self> {
        let fleet = Fleet::start(&Binaries::find()?, &FleetOptions::default())?;
        let mut agent = fleet.add_agent("host-1", "")?;
        settle(&fleet, &mut agent, user)?;
        let mut host = Self {
            fleet,
            specimens: Arc::clone(specimens),
            runtime: runtime.clone(),
            newest: FIRST,
            serving: version(FIRST + 1),
            spent: false,
        };
        agent.start()?;
        host.fleet.agents.push(agent);
        let verdict = host.push(None, &["--hosts", "all"])?;
        ensure!(verdict["state"] == "COMMITTED", "the first release is not taken: {verdict}");
        Ok(host)
    }

    /// Tries one cell.
    ///
    /// # Errors
    /// Says what was not as expected.
    pub(crate) fn try_cell(&mut self, cell: &Cell, expected: &Expectation) -> Result<()> {
        let agent = self.agent_pid()?;
        let before = Census::at_rest(agent)?;
        let old = self.serving.clone();
        let timeout = if cell.hurries() { HURRIED } else { PATIENT };
        let callers = Callers::start(&self.runtime, &self.fleet.agents[0].caller(), (timeout, Pace::Quick));
        let pushed = self.push(Some(cell), &[]);
        let bad = version(self.newest);
        let answers = callers.finish(&self.runtime);
        let verdict = pushed?;
        let tally = tally(&answers, (&old, &bad), expected.errors);
        check_verdict(&verdict, expected)?;
        check_tally(&tally, &verdict)?;
        if verdict["state"] == "COMMITTED" {
            self.serving = bad;
        }
        self.push_next(cell, expected)?;
        self.check_refused(expected, &verdict)?;
        if self.spent {
            // It may still be on its way to a new worker.
            eventually("the release in place answers", || self.answers_as(&self.serving).map(Some))?;
        } else {
            self.answers_as(&self.serving)?;
        }
        before.returns(agent)?;
        ensure!(self.agent_pid()? == agent, "the agent is another one");
        Ok(())
    }

    /// Pushes what comes after a bad release that was committed, if that has to be seen.
    fn push_next(&mut self, cell: &Cell, expected: &Expectation) -> Result<()> {
        if expected.next == Next::NotPushed {
            return Ok(());
        }
        let bad = self.serving.clone();
        let callers = Callers::start(&self.runtime, &self.fleet.agents[0].caller(), (PATIENT, Pace::Calm));
        let pushed = self.push(None, &[]);
        let good = version(self.newest);
        let answers = callers.finish(&self.runtime);
        let verdict = pushed?;
        let tally = tally(&answers, (&good, &bad), expected.errors_later);
        ensure!(tally.wrong.is_empty(), "of the next release: {verdict}, {}", listed(&tally.wrong));
        let committed = verdict["state"] == "COMMITTED";
        let is_hosts_fault = verdict["state"] == "REJECTED" && verdict["failure"]["fault"] == "host";
        let is_right = match expected.next {
            Next::NotPushed | Next::Commits => committed,
            Next::Refused(codes) => {
                is_hosts_fault && codes.iter().any(|code| verdict["failure"]["code"] == *code)
            }
        };
        ensure!(is_right, "the release after {cell}, expected {:?}: {verdict}", expected.next);
        if committed {
            self.serving = good;
        }
        self.spent = !committed;
        Ok(())
    }

    /// Pushes the next version, with a cell's harm or none, and returns the host's row of the ended rollout.
    fn push(&mut self, cell: Option<&Cell>, more: &[&str]) -> Result<Value> {
        self.newest += 1;
        let version = version(self.newest);
        let plugin = self.specimens.make(cell, &version, &self.fleet.path(""))?;
        let probation = cell.map_or(SHORT, Cell::probation);
        let arguments = ["--probe", PROBE, "--min-healthy-time", probation];
        let outcome = self.fleet.push(&plugin, &[&arguments[..], more].concat())?;
        fs::remove_file(&plugin.file)?;
        let rollout = outcome.json()?["rollout"].clone();
        let is_ended = matches!(rollout["state"].as_str(), Some("SUCCEEDED" | "FAILED"));
        ensure!(is_ended && matches!(outcome.code, 0 | 3), "the push ended with {outcome:?}");
        let mut row = rollout["hosts"].get(0).cloned().context("the rollout has a host")?;
        row["release_id"] = rollout["to"]["release_id"].clone();
        Ok(row)
    }

    /// Whether no further cell can be tried here.
    pub(crate) const fn is_spent(&self) -> bool {
        self.spent
    }

    /// A handful of calls, all answered by this version.
    fn answers_as(&self, version: &str) -> Result<()> {
        let callers = Callers::start(&self.runtime, &self.fleet.agents[0].caller(), (PATIENT, Pace::Calm));
        let tally = tally(&callers.finish(&self.runtime), (version, ""), &[]);
        ensure!(tally.of_the_old > 0 && tally.wrong.is_empty(), "{version} does not answer: {tally:?}");
        Ok(())
    }

    /// Demands that the plugin's own log tells of each attempt, and that each met its error every time.
    fn check_refused(&self, expected: &Expectation, verdict: &Value) -> Result<()> {
        for (attempt, error) in expected.refused {
            // Its last words may still be on their way.
            let got = eventually(&format!("it says what came of `{attempt}`"), || {
                let got = self.told(attempt, verdict)?;
                Ok((!got.is_empty()).then_some(got))
            })?;
            ensure!(got.iter().all(|got| got == error), "`{attempt}` met {got:?}, not {error}");
        }
        Ok(())
    }

    /// What a release said of an attempt, each time.
    fn told(&self, attempt: &str, verdict: &Value) -> Result<Vec<String>> {
        let logs = self.fleet.agents[0].run(["logs", NAME, "-o", "json"])?.expect(0)?.json()?;
        let lines = logs["lines"].as_array().into_iter().flatten();
        let own = lines.filter(|line| line["release"] == verdict["release_id"]);
        let texts = own.filter_map(|line| line["text"].as_str());
        let prefix = format!("zoo: {attempt} ");
        Ok(texts.filter_map(|text| text.strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    fn agent_pid(&self) -> Result<u32> {
        Ok(self.fleet.agents[0].process.as_ref().context("the agent runs")?.pid())
    }

    /// The end of the agent's log, for the report of a failure.
    pub(crate) fn log_tail(&self) -> String {
        self.fleet.agents[0].process.as_ref().map(|process| process.log_tail()).unwrap_or_default()
    }
}

/// Makes the folder of a host that of the user whom its agent runs as.
fn settle(fleet: &Fleet, agent: &mut Agent, user: &User) -> Result<()> {
    let config = fs::read_to_string(agent.config())?;
    let (publishers, own) = (fleet.path("publisher/root.json"), agent.folder().join("root.json"));
    fs::copy(&publishers, &own)?;
    let config = config.replace(&publishers.display().to_string(), &own.display().to_string());
    fs::write(agent.config(), config + LIMITS)?;
    let Some(id) = user.id else { return Ok(()) };
    fs::set_permissions(fleet.path(""), fs::Permissions::from_mode(0o755))?;
    for path in [agent.folder().to_owned(), agent.config(), own] {
        chown(path, Some(id), Some(id))?;
    }
    agent.run_as(id, &user.program);
    Ok(())
}

fn version(number: u32) -> String {
    format!("1.{number}.0")
}

fn check_verdict(verdict: &Value, expected: &Expectation) -> Result<()> {
    let state = verdict["state"].as_str().unwrap_or_default();
    ensure!(expected.verdicts.contains(&state), "expected {expected:?}, came {verdict}");
    if state == "COMMITTED" {
        return Ok(());
    }
    let failure = &verdict["failure"];
    let code = failure["code"].as_str().unwrap_or_default();
    let is_right = expected.codes.contains(&code) && failure["fault"] == "release";
    ensure!(is_right, "expected {expected:?}, came {verdict}");
    Ok(())
}

fn check_tally(tally: &Tally, verdict: &Value) -> Result<()> {
    if !tally.wrong.is_empty() {
        bail!("callers noticed: {}", listed(&tally.wrong));
    }
    ensure!(tally.of_the_old >= ANSWERS_MIN, "only {} answers of the old release", tally.of_the_old);
    // A release that was refused before the switch has never met a caller.
    ensure!(verdict["state"] != "REJECTED" || tally.of_the_bad == 0, "a rejected release answered callers");
    Ok(())
}

fn listed(wrong: &[String]) -> String {
    /// Of many the first few say enough.
    const SHOWN: usize = 5;
    format!("{} calls, e.g. {}", wrong.len(), wrong[..wrong.len().min(SHOWN)].join("; "))
}
