//! The story in its order: each chapter is one thing that an operator does, and checks what came of it.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::{
    harness::{Binaries, Fleet, FleetOptions, Outcome, Plugin, eventually, signal},
    load::{Load, Oracle, Stream, Tally, Target},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{report::Report, tell};

/// Hosts of the demo.
pub(crate) const HOSTS: usize = 5;
/// Calls per second, plugin and host.
const RATE: u32 = 50;
/// The load goes on this long after the last chapter, and before the first.
const BREATH: Duration = Duration::from_secs(2);
/// What a good `clock` answers in the words of 1.0.0 …
const PROBE: &str = r#"time {"unix_seconds":1795500000} => {"text":"2026-11-24 06:00:00"}"#;
/// … and in the friendlier words of 1.2.0.
const FRIENDLY_PROBE: &str =
    r#"time {"unix_seconds":1795500000} => {"text":"Tuesday, 24 November 2026, 06:00:00 UTC"}"#;

pub(crate) struct Story {
    fleet: Fleet,
    binaries: Binaries,
    oracle: Oracle,
    swaps: u64,
    stragglers: Vec<String>,
    swap_pause_max_us: u64,
}

impl Story {
    /// Sets the stage: one controller and five agents.
    pub(crate) fn begin(binaries: &Binaries) -> Result<Self> {
        tell(&format!(
            "demo: one controller and {HOSTS} agents start as real processes (trust made for the demo only)"
        ));
        let options = FleetOptions { agents: HOSTS, ..FleetOptions::default() };
        let fleet = Fleet::start(binaries, &options)?;
        Ok(Self {
            fleet,
            binaries: binaries.clone(),
            oracle: Oracle::default(),
            swaps: 0,
            stragglers: Vec::new(),
            swap_pause_max_us: 0,
        })
    }

    /// Tells the whole story and returns the figures.
    pub(crate) async fn tell_all(&mut self) -> Result<Report> {
        tell("      every push runs with --min-healthy-time 1s --max-parallel 4, to keep the demo short");
        self.install("clock", "1.0.0", &["--probe", PROBE])?;
        self.install("counter", "1.0.0", &[])?;
        tell("demo: load starts: 50 calls/s per plugin and host, arrival times fixed beforehand");
        let load = Load::start(self.streams());
        tokio::time::sleep(BREATH).await;

        let bad_version_tried = self.push_the_bad_clock()?;
        self.push_the_breaking_clock()?;
        self.push_the_good_clock()?;
        self.swap_the_counter()?;
        self.kill_a_worker()?;
        let rollback_ms = self.roll_back_the_clock()?;

        tokio::time::sleep(BREATH).await;
        let records = load.finish().await;
        self.fleet.check_alive()?;
        let tally = Tally::of(&records, &self.oracle);
        let counter_got = self.counter_values()?.values().sum();
        Ok(Report {
            tally,
            swaps: self.swaps,
            stragglers: self.stragglers.clone(),
            bad_version_tried,
            counter_got,
            rollback_ms,
            swap_pause_max_us: self.swap_pause_max_us,
        })
    }

    fn streams(&self) -> Vec<Stream> {
        let targets = [Target::ClockTime, Target::CounterIncrement];
        let stream = |agent: &fleetswap_integration_tests::harness::Agent, target| Stream {
            host: agent.name.clone(),
            caller: agent.caller(),
            target,
            rate: RATE,
        };
        self.fleet.agents.iter().flat_map(|agent| targets.map(|target| stream(agent, target))).collect()
    }

    fn install(&mut self, name: &str, version: &str, more: &[&str]) -> Result<()> {
        chapter(&format!("first push: {name} {version} to all hosts"));
        let plugin = self.binaries.example(name, version)?;
        let arguments = [&["--hosts", "all"], more].concat();
        let rollout = self.push(&plugin, &arguments, 0)?;
        ensure!(rollout["state"] == "SUCCEEDED", "the first push of {name} ended {}", rollout["state"]);
        Ok(())
    }

    fn push_the_bad_clock(&mut self) -> Result<usize> {
        chapter("push clock 1.1.0: it loads and says it is healthy, but it tells the wrong time");
        let plugin = self.binaries.example("clock", "1.1.0")?;
        let rollout = self.push(&plugin, &["--probe", PROBE], 3)?;
        let hosts = rollout["hosts"].as_array().context("the rollout's hosts")?;
        let tried = hosts.iter().filter(|host| host["attempt"].as_u64() > Some(0)).count();
        tell(&format!(
            "    exit 3, as it must: tried on {tried} of {HOSTS} hosts, the others were never touched"
        ));
        Ok(tried)
    }

    fn push_the_breaking_clock(&self) -> Result<()> {
        chapter("push clock 1.3.0: its `time` no longer gives a field that callers may read");
        let plugin = self.binaries.example("clock", "1.3.0")?;
        let outcome = self.run_push(&plugin, &["--probe", PROBE])?.expect(7)?;
        let refusal = &outcome.json()?["error"];
        tell(&format!("    exit 7, refused before it left this machine: {}", text(&refusal["what"])));
        Ok(())
    }

    fn push_the_good_clock(&mut self) -> Result<()> {
        chapter("push clock 1.2.0: a friendlier text and one new function");
        let plugin = self.binaries.example("clock", "1.2.0")?;
        let rollout = self.push(&plugin, &["--probe", FRIENDLY_PROBE], 0)?;
        ensure!(rollout["state"] == "SUCCEEDED", "clock 1.2.0 ended {}", rollout["state"]);
        Ok(())
    }

    fn swap_the_counter(&mut self) -> Result<()> {
        chapter("push counter 2.0.0: it takes over the count of 1.0.0 while it is being called");
        let plugin = self.binaries.example("counter", "2.0.0")?;
        let rollout = self.push(&plugin, &[], 0)?;
        ensure!(rollout["state"] == "SUCCEEDED", "counter 2.0.0 ended {}", rollout["state"]);
        Ok(())
    }

    fn kill_a_worker(&self) -> Result<()> {
        let agent = self.fleet.agents.last().context("a host")?;
        let worker = || -> Result<Option<u64>> {
            let status = agent.status()?;
            let plugins = status["plugins"].as_array().context("plugins")?;
            Ok(plugins
                .iter()
                .find(|plugin| plugin["plugin"] == "clock")
                .and_then(|p| p["worker_pid"].as_u64()))
        };
        let pid = worker()?.context("the worker of clock runs")?;
        chapter(&format!("SIGSEGV to the worker of clock on {} (pid {pid})", agent.name));
        signal(u32::try_from(pid)?, Signal::SEGV)?;
        let new = eventually("clock runs in a new worker", || Ok(worker()?.filter(|new| *new != pid)))?;
        tell(&format!("    it is back as pid {new}; the agent and the other plugins did not notice"));
        Ok(())
    }

    fn roll_back_the_clock(&mut self) -> Result<u64> {
        chapter("rollback of clock");
        let started = Instant::now();
        let arguments = ["rollback", "clock", "--reason", "demo", "-o", "json"];
        let outcome = self.fleet.controller(arguments)?.expect(0)?;
        let rollback_ms = u64::try_from(started.elapsed().as_millis())?;
        let rollout = outcome.json()?["rollout"].clone();
        self.note(&rollout);
        self.show(&rollout);
        ensure!(rollout["to"]["version"] == "1.0.0", "it went to {}", rollout["to"]["version"]);
        Ok(rollback_ms)
    }

    fn counter_values(&self) -> Result<BTreeMap<String, u64>> {
        let value = |agent: &fleetswap_integration_tests::harness::Agent| -> Result<(String, u64)> {
            let outcome = agent.run(["call", "counter", "value", "{}"])?.expect(0)?;
            let value = outcome.json()?["value"].as_u64().context("counter's value")?;
            Ok((agent.name.clone(), value))
        };
        self.fleet.agents.iter().map(value).collect()
    }

    /// Pushes, checks the exit code, and shows how it went.
    fn push(&mut self, plugin: &Plugin, more: &[&str], code: i32) -> Result<Value> {
        let outcome = self.run_push(plugin, more)?.expect(code)?;
        let rollout = outcome.json()?["rollout"].clone();
        self.note(&rollout);
        self.show(&rollout);
        Ok(rollout)
    }

    fn run_push(&self, plugin: &Plugin, more: &[&str]) -> Result<Outcome> {
        let pace = ["--min-healthy-time", "1s", "--max-parallel", "4"];
        self.fleet.push(plugin, &[&pace, more].concat())
    }

    fn note(&mut self, rollout: &Value) {
        for release in [&rollout["from"], &rollout["to"]] {
            if let (Some(id), Some(version)) = (release["release_id"].as_str(), release["version"].as_str()) {
                self.oracle.learn(id, version);
            }
        }
        for host in rollout["hosts"].as_array().into_iter().flatten() {
            if host["state"] == "COMMITTED" && !rollout["from"].is_null() {
                self.swaps += 1;
            }
            if host["state"] != "COMMITTED" && rollout["state"] == "SUCCEEDED" {
                let (id, name, state) =
                    (text(&rollout["rollout_id"]), text(&host["host"]), text(&host["state"]));
                self.stragglers.push(format!("{id}: {name} is {state}"));
            }
            let pause = host["swap_pause_us"].as_u64().unwrap_or_default();
            self.swap_pause_max_us = self.swap_pause_max_us.max(pause);
        }
    }

    fn show(&self, rollout: &Value) {
        for wave in rollout["waves"].as_array().into_iter().flatten() {
            tell(&format!(
                "    wave {:8} {:8} {}/{} committed",
                text(&wave["name"]),
                text(&wave["state"]),
                wave["committed"],
                wave["hosts"]
            ));
        }
        let failure = &rollout["failure"];
        if !failure.is_null() {
            tell(&format!(
                "    {} on {}: {} gave {}, wanted {}; {}",
                text(&failure["code"]),
                text(&rollout["failed_host"]),
                text(&failure["check"]),
                text(&failure["got"]),
                text(&failure["wanted"]),
                text(&failure["next"])
            ));
        }
        tell(&format!("    {} {}", text(&rollout["rollout_id"]), text(&rollout["state"])));
    }

    /// What to do with a fleet that is left running. Each command has been run before it is named here.
    ///
    /// # Errors
    /// One of them does not work on the fleet as the story leaves it.
    pub(crate) fn what_to_try(&self) -> Result<String> {
        let config = self.fleet.agents.first().context("a host")?.config();
        let environment = format!(
            "export FLEETSWAP_CONTROLLER={} FLEETSWAP_PUBLISHER_DIR={} FLEETSWAP_AGENT_CONFIG={}",
            self.fleet.address(),
            quoted(&self.fleet.path("publisher")),
            quoted(&config),
        );
        let (controller, agent) = (quoted(&self.binaries.controller()), quoted(&self.binaries.agent()));
        let commands = [
            format!("{controller} status"),
            format!("{controller} history"),
            format!("{controller} host list"),
            format!("{agent} call clock time '{{}}'"),
            format!("{controller} rollback counter --reason try --dry-run"),
        ];
        for command in &commands {
            let script = format!("{environment}\n{command}");
            Outcome::of(Command::new("sh").args(["-c", &script]))?
                .expect(0)
                .with_context(|| command.clone())?;
        }
        let commands = commands.join("\n  ");
        Ok(format!(
            "\nThe fleet keeps running until Ctrl-C. Try, in another terminal:\n  {environment}\n  {commands}"
        ))
    }
}

fn chapter(title: &str) {
    tell(&format!("\n--- {title}"));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
