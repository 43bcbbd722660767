//! What the command line says: exit code, text and JSON of every verb, as snapshots of real runs.

use std::{fmt::Write, thread};

use anyhow::{Result, bail};
use fleetswap_integration_tests::harness::{Binaries, Fleet, Outcome, Plugin, Process};
use serde_json::Value;

use crate::common::{QUICK, fleet};

const PROBE: &str = r#"time {"unix_seconds":1795500000} => {"text":"2026-11-24 06:00:00"}"#;
const FRIENDLY: &str =
    r#"time {"unix_seconds":1795500000} => {"text":"Tuesday, 24 November 2026, 06:00:00 UTC"}"#;

/// The story of one plugin on three hosts, told twice at the same time: as text and as JSON.
#[test]
fn each_verb_says_what_it_does_in_text_and_json() -> Result<()> {
    let tell = |format| {
        let fleet = fleet(3)?;
        let mut said = Said { fleet: &fleet, format, text: String::new() };
        said.story()?;
        Ok((format, said.text))
    };
    let told: [Result<(&str, String)>; 2] = thread::scope(|scope| {
        let stories = ["text", "json"].map(|format| scope.spawn(move || tell(format)));
        stories.map(|story| story.join().unwrap_or_else(|_| bail!("a thread panicked")))
    });
    let settings = redactions();
    for story in told {
        let (format, text) = story?;
        settings.bind(|| insta::assert_snapshot!(format!("each_verb_in_{format}"), text));
    }
    Ok(())
}

#[test]
fn what_is_done_before_there_is_a_fleet_is_said_in_text_and_json() -> Result<()> {
    let fleet = fleet(0)?;
    for format in ["text", "json"] {
        let mut said = Said { fleet: &fleet, format, text: String::new() };
        said.beginning()?;
        let settings = redactions();
        settings.bind(|| insta::assert_snapshot!(format!("the_beginning_in_{format}"), said.text));
    }
    Ok(())
}

struct Said<'a> {
    fleet: &'a Fleet,
    format: &'a str,
    text: String,
}

impl Said<'_> {
    fn story(&mut self) -> Result<()> {
        let clock = |version: &str| Binaries::find()?.example("clock", version);
        self.push("first push", &clock("1.0.0")?, &["--hosts", "all", "--probe", PROBE], 0)?;
        self.push("the same again", &clock("1.0.0")?, &["--probe", PROBE], 0)?;
        self.push("bad push", &clock("1.1.0")?, &["--probe", PROBE, "--reason", "a try"], 3)?;
        self.push("breaking push", &clock("1.3.0")?, &[], 7)?;
        self.push("breaking push, dry", &clock("1.3.0")?, &["--dry-run"], 7)?;
        self.push("dry run", &clock("1.2.0")?, &["--probe", FRIENDLY, "--dry-run"], 0)?;
        self.push("good push", &clock("1.2.0")?, &["--probe", FRIENDLY], 0)?;
        self.publish("publish", &clock("1.3.0")?)?;
        self.publish("publish the same again", &clock("1.3.0")?)?;
        self.run("status", &["status"], 0)?;
        self.run("watching while nothing moves", &["status", "--watch"], 0)?;
        self.run("diff", &["diff", "clock", "1.0.0", "1.2.0"], 0)?;
        self.run("rollback, dry", &["rollback", "clock", "--reason", "an incident", "--dry-run"], 0)?;
        self.run("rollback", &["rollback", "clock", "--reason", "an incident"], 0)?;
        self.run("one rollout", &["status", "r-000002"], 3)?;
        self.run("watching one that has ended", &["status", "r-000004", "--watch"], 0)?;
        self.run("history", &["history"], 0)?;
        self.run("hosts", &["host", "list"], 0)?;
        self.run("plugins", &["plugin", "list"], 0)
    }

    fn push(&mut self, title: &str, plugin: &Plugin, more: &[&str], code: i32) -> Result<()> {
        let arguments = Fleet::push_arguments(plugin, &[&QUICK[..], more].concat());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.run(title, &arguments, code)
    }

    fn publish(&mut self, title: &str, plugin: &Plugin) -> Result<()> {
        let file = plugin.file.display().to_string();
        self.run(title, &["publish", &plugin.name, "--version", &plugin.version, "--artifact", &file], 0)
    }

    /// What is done before there is a fleet.
    fn beginning(&mut self) -> Result<()> {
        let path = |name: &str| self.fleet.path(name).display().to_string();
        let (data, keys) =
            (path(&format!("{}/new-data", self.format)), path(&format!("{}/new-keys", self.format)));
        self.run("init", &["init", "--dev", "--data-dir", &data, "--publisher-dir", &keys], 0)?;
        let file = Binaries::find()?.example("clock", "1.0.0")?.file.display().to_string();
        self.run("describe", &["describe", &file], 0)?;
        let arguments = ["serve", "--data-dir", &data, "--listen", "127.0.0.1:0", "-o", self.format];
        let mut command = self.fleet.controller_command(arguments);
        let controller = Process::start("controller", &mut command, &self.fleet.path("new.log"))?;
        writeln!(self.text, "=== serve: ready\n{}", controller.wait_for_line("ready")?)?;
        Ok(())
    }

    fn run(&mut self, title: &str, arguments: &[&str], code: i32) -> Result<()> {
        let outcome = self.fleet.controller([arguments, &["-o", self.format]].concat())?.expect(code)?;
        writeln!(self.text, "=== {title}: exit {}", outcome.code)?;
        writeln!(self.text, "{}", self.shown(&outcome)?)?;
        if !outcome.stderr.is_empty() {
            writeln!(self.text, "--- stderr\n{}", outcome.stderr)?;
        }
        Ok(())
    }

    /// Which states are seen on the way depends on the moment, so of the progress only verdicts are kept; hosts are
    /// chosen by their ids, which are new in each run, so their names are taken out.
    fn shown(&self, outcome: &Outcome) -> Result<String> {
        if self.format == "json" {
            let mut value: Value = outcome.json()?;
            // What the compiler made of the library differs from machine to machine.
            for pointer in ["/elf/size", "/elf/glibc", "/elf/needed"] {
                if let Some(fact) = value.pointer_mut(pointer) {
                    *fact = "[fact]".into();
                }
            }
            for pointer in ["/rollout/waiting", "/rollout/hosts", "/hosts"] {
                if let Some(hosts) = value.pointer_mut(pointer).and_then(Value::as_array_mut) {
                    hosts.retain(|host| host.is_object());
                    hosts.sort_by_key(|host| {
                        (host["wave"].as_u64(), host.pointer("/plugins/0/denied/0").is_none())
                    });
                }
            }
            return Ok(serde_json::to_string_pretty(&value)?);
        }
        let on_the_way = |line: &str| {
            let states = ["OFFERED", "FETCHING", "VERIFYING", "LOADING", "PROBING", "SWITCHING", "PROBATION"];
            line.starts_with("r-")
                && (line.contains(" waits: ") || states.iter().any(|state| line.ends_with(state)))
        };
        let verdict = |line: &&str| line.starts_with("r-") && line.contains(" host-");
        let (mut verdicts, rest): (Vec<&str>, Vec<&str>) =
            outcome.stdout.lines().filter(|line| !on_the_way(line)).partition(verdict);
        verdicts.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
        Ok([rest, verdicts].concat().join("\n"))
    }
}

fn redactions() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    for (pattern, with) in [
        (r"host-\d", "host-[n]"),
        (r#""(n|number)": "?\d+"?"#, r#""$1": 0"#),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[uuid]"),
        (r"[0-9a-f]{64}", "[sha256]"),
        (r"\b[0-9a-f]{12}\b…?", "[sha256]"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "[time]"),
        (r#""(created_ms|ended_ms|last_seen_ms|bytes|timestamp)": \d+"#, r#""$1": 0"#),
        (r#""swap_pause_us": \d+"#, r#""swap_pause_us": 0"#),
        (r"swap pause \d+ µs", "swap pause [n] µs"),
        (r"\d+ KiB|\d+ MiB", "[size]"),
        (r#""(kernel|glibc)": "[^"]+""#, r#""$1": "[fact]""#),
        (r#""sandbox": "(standard|strict)""#, r#""sandbox": "[level]""#),
        (r"-linux-gnu +(standard|strict) +", "-linux-gnu  [level]  "),
        ("SANDBOX +RUNS", "SANDBOX  RUNS"),
        (r"127\.0\.0\.1:\d+", "[address]"),
        (r"/[^ ]*/libclock", "[folder]/libclock"),
        (r#"/[^ ="]*/new-"#, "[folder]/new-"),
        (r#""actor": "[^"]*""#, r#""actor": "[actor]""#),
    ] {
        settings.add_filter(pattern, with);
    }
    settings
}
