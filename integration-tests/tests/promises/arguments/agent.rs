//! Every key of the agent's configuration, and the arguments of its verbs.

use std::fs;

use anyhow::{Result, ensure};
use fleetswap_integration_tests::harness::{Agent, Fleet, repository};

use super::{LONG, explained, explained_in_text};
use crate::common::fleet;

/// A key with a value that is refused: the section (empty: the top), the key, the value as TOML, and words of what is
/// wrong with it. A value `None` is a key that is missing.
type Row<'a> = (&'a str, &'a str, Option<&'a str>, &'a str);

/// An agent that is not started, and its configuration.
struct Given {
    _fleet: Fleet,
    agent: Agent,
    good: String,
}

impl Given {
    fn new() -> Result<Self> {
        let fleet = fleet(0)?;
        let agent = fleet.add_agent("host-1", "")?;
        // An agent that takes what it should refuse ends here, with another code, instead of holding the test up.
        fs::write(agent.front(), "no socket")?;
        let good = fs::read_to_string(agent.config())?;
        Ok(Self { _fleet: fleet, agent, good })
    }

    /// The configuration with one key changed, and the line, counted from 1, on which that stands.
    fn with(&self, section: &str, key: &str, value: Option<&str>) -> (String, usize) {
        let (mut lines, mut at) = (Vec::new(), String::new());
        for line in self.good.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                name.clone_into(&mut at);
            }
            if at != section || !line.starts_with(&format!("{key} =")) {
                lines.push(line.to_owned());
            }
        }
        let head = format!("[{section}]");
        let place = lines.iter().position(|line| *line == head).map(|place| place + 1);
        let place = place.unwrap_or(if section.is_empty() { 0 } else { lines.len() });
        if let Some(value) = value {
            lines.insert(place, format!("{key} = {value}"));
            if place == lines.len() - 1 && !section.is_empty() && !lines.contains(&head) {
                lines.insert(place, head);
                return (lines.join("\n"), place + 2);
            }
        }
        (lines.join("\n"), place + 1)
    }

    fn refused(&self, rows: &[Row<'_>]) -> Result<()> {
        rows.iter().try_for_each(|(section, key, value, words)| {
            let (config, line) = self.with(section, key, *value);
            fs::write(self.agent.config(), config)?;
            let shown: String = value.unwrap_or("missing").chars().take(40).collect();
            let case = format!("[{section}] {key} = {shown}");
            let outcome = self.agent.run(["daemon", "-o", "json"])?;
            ensure!(outcome.code == 1, "{case}: exit {}\n{}", outcome.code, outcome.stdout);
            let error = explained(&outcome, &case)?;
            let what = error["what"].as_str().unwrap_or_default();
            ensure!(error["code"] == "CONFIG_INVALID", "{case}: {error}");
            ensure!(what.contains(words), "{case}: nothing of `{words}` in {error}");
            let place = format!("agent.toml, line {line}, column ");
            ensure!(value.is_none() || what.contains(&place), "{case}: not at line {line}: {error}");
            Ok(())
        })
    }
}

#[test]
fn every_key_of_the_agent_that_has_to_be_there_is_checked() -> Result<()> {
    let given = Given::new()?;
    let long = format!("\"/{}\"", "x".repeat(LONG));
    for key in ["name", "state_dir", "controller", "trust_root"] {
        given.refused(&[
            ("", key, None, &format!("missing field `{key}`")),
            ("", key, Some("7"), "expected a string"),
            ("", key, Some("\"\""), &format!("`{key}` has an empty value")),
            ("", key, Some(&long), "at most "),
        ])?;
    }
    given.refused(&[
        ("", "name", Some("\"ho st\""), "`name` is `ho st`"),
        ("", "state_dir", Some("\"state\""), "`state_dir` is `state`; wanted an absolute path"),
        ("", "trust_root", Some("\"root.json\""), "wanted an absolute path"),
        ("", "controller", Some("\"localhost\""), "wanted an address such as"),
        ("", "controller", Some("\"127.0.0.1:99999\""), "wanted an address such as"),
    ])?;
    let (config, _) = given.with("", "controller", Some("\"192.0.2.1:7443\""));
    fs::write(given.agent.config(), config)?;
    let outcome = given.agent.run(["daemon", "-o", "json"])?.expect(1)?;
    let error = explained(&outcome, "a public controller")?;
    ensure!(error["code"] == "ADDRESS_NOT_LOOPBACK", "{error}");
    Ok(())
}

#[test]
fn every_key_of_the_agent_that_may_be_left_out_is_checked() -> Result<()> {
    let given = Given::new()?;
    let long = "x".repeat(LONG);
    let (text, path) = (format!("\"{long}\""), format!("\"/{long}\""));
    let mirror = format!("[\"http://127.0.0.1/{long}\"]");
    let mirrors = format!("[{}]", "\"http://127.0.0.1/\",".repeat(17));
    given.refused(&[
        ("", "colour", Some("\"red\""), "unknown field `colour`"),
        ("", "allow_dev_trust", Some("\"yes\""), "expected a boolean"),
        ("", "mirrors", Some("\"http://127.0.0.1:1\""), "expected a sequence"),
        ("", "mirrors", Some("[7]"), "expected a string"),
        ("", "mirrors", Some("[\"\"]"), "`mirrors` has an empty value"),
        ("", "mirrors", Some("[\"mirror\"]"), "`mirrors` has `mirror`"),
        ("", "mirrors", Some(&mirror), "at most 2048"),
        ("", "mirrors", Some(&mirrors), "more than 16 entries"),
        ("labels", "zone", Some("1"), "expected a string"),
        ("labels", "zone", Some("\"\""), "`labels` has an empty value"),
        ("labels", "zone", Some("\"a b\""), "`labels.zone` is `a b`"),
        ("labels", "zone", Some(&text), "at most 253"),
        ("labels", &long, Some("\"a\""), "at most 63"),
        ("labels", "name", Some("\"a\""), "`labels.name` is taken"),
        ("front", "colour", Some("\"red\""), "unknown field `colour`"),
        ("front", "socket", Some("7"), "expected a string"),
        ("front", "socket", Some("\"\""), "`front.socket` has an empty value"),
        ("front", "socket", Some("\"front.sock\""), "`front.socket` is `front.sock`"),
        ("front", "socket", Some(&path), "`front.socket` has a value of 5001 bytes; at most 107"),
        ("front", "mode", Some("\"rw\""), "`front.mode` is \"rw\""),
        ("front", "mode", Some("0o7777"), "wanted permission bits"),
        ("front", "mode", Some("true"), "wanted permission bits"),
        ("front", "mode", Some("\"\""), "wanted permission bits"),
        ("front", "mode", Some(&text), "wanted permission bits"),
        ("front", "group", Some("7"), "expected a string"),
        ("front", "group", Some("\"\""), "`front.group` has an empty value"),
        ("front", "group", Some("\"a b\""), "`front.group` is `a b`"),
        ("front", "group", Some(&text), "at most 32"),
        ("front", "listen", Some("8080"), "expected a string"),
        ("front", "listen", Some("\"\""), "`front.listen` has an empty value"),
        ("front", "listen", Some("\"8080\""), "`front.listen` is `8080`"),
        ("front", "listen", Some(&text), "at most 2048"),
        ("control", "colour", Some("\"red\""), "unknown field `colour`"),
        ("control", "socket", Some("7"), "expected a string"),
        ("control", "socket", Some("\"\""), "`control.socket` has an empty value"),
        ("control", "socket", Some("\"control.sock\""), "`control.socket` is `control.sock`"),
        ("control", "socket", Some(&path), "`control.socket` has a value of 5001 bytes; at most 107"),
    ])
}

#[test]
fn every_limit_and_the_sandbox_level_of_the_agent_are_checked() -> Result<()> {
    let given = Given::new()?;
    let (text, digits) = (format!("\"{}\"", "x".repeat(LONG)), "9".repeat(30));
    for (key, low, high) in [
        ("memory_mib", "15", "65537"),
        ("threads", "0", "4097"),
        ("files", "15", "4097"),
        ("cpu_percent", "0", "102401"),
    ] {
        let is = |value: &str| format!("`limits.{key}` is {value}; wanted ");
        given.refused(&[
            ("limits", key, Some("\"much\""), "expected i64"),
            ("limits", key, Some("1.5"), "expected i64"),
            ("limits", key, Some(&text), "expected i64"),
            ("limits", key, Some(&digits), ""),
            ("limits", key, Some("-1"), &is("-1")),
            ("limits", key, Some(low), &is(low)),
            ("limits", key, Some(high), &is(high)),
        ])?;
    }
    given.refused(&[
        ("limits", "memory", Some("16"), "unknown field `memory`"),
        ("sandbox", "max", Some("\"standard\""), "unknown field `max`"),
        ("sandbox", "min", Some("7"), "expected a string"),
        ("sandbox", "min", Some("\"\""), "`sandbox.min` is ``"),
        (
            "sandbox",
            "min",
            Some("\"none\""),
            "`sandbox.min` is `none`; wanted `basic`, `standard` or `strict`",
        ),
        ("sandbox", "min", Some(&text), "`sandbox.min` is "),
    ])
}

#[test]
fn a_configuration_that_cannot_be_read_is_refused() -> Result<()> {
    let given = Given::new()?;
    let long = "x".repeat(LONG);
    for (path, words) in [("/nowhere/agent.toml", "/nowhere"), (&long, "too long")] {
        let outcome = given.agent.run(["daemon", "-o", "json", "--config", path])?.expect(1)?;
        let error = explained(&outcome, words)?;
        ensure!(error["code"] == "CONFIG_UNREADABLE", "{error}");
        ensure!(error.to_string().contains(words), "{error}");
    }
    let outcome = given.agent.run(["daemon", "-o", "json", "--config", ""])?;
    ensure!(matches!(outcome.code, 1 | 2), "{}", outcome.stdout);
    explained(&outcome, "an empty path")?;
    fs::write(given.agent.config(), "#".repeat(64 * 1024 + 1))?;
    let outcome = given.agent.run(["daemon", "-o", "json"])?.expect(1)?;
    let error = explained(&outcome, "a huge file")?;
    ensure!(error["code"] == "CONFIG_UNREADABLE", "{error}");
    ensure!(error["why"].to_string().contains("at most 65536"), "{error}");
    Ok(())
}

#[test]
fn trust_that_no_release_could_pass_is_refused_at_the_agents_start() -> Result<()> {
    let given = Given::new()?;
    let elsewhere = |root: &str| given.with("", "trust_root", Some(&format!("{root:?}"))).0;
    let no_root = repository().join("README.md").display().to_string();
    for (config, code, fix) in [
        (given.with("", "allow_dev_trust", None).0, "TRUST_DEV_ROOT", "`allow_dev_trust = true`"),
        (elsewhere(&no_root), "TRUST_STORE_UNUSABLE", "`controller init` prints its path"),
        (elsewhere("/nowhere/root.json"), "TRUST_STORE_UNUSABLE", "`controller init`"),
    ] {
        fs::write(given.agent.config(), config)?;
        let outcome = given.agent.run(["daemon", "-o", "json"])?.expect(1)?;
        let error = explained(&outcome, code)?;
        ensure!(error["code"] == code, "{code}: {error}");
        let outcome = given.agent.run(["daemon"])?.expect(1)?;
        ensure!(outcome.stderr.starts_with(&format!("error[{code}]: ")), "{code}: {}", outcome.stderr);
        ensure!(outcome.stderr.contains(fix), "{code}: {}", outcome.stderr);
    }
    Ok(())
}

#[test]
fn every_argument_of_the_agent_is_checked() -> Result<()> {
    let given = Given::new()?;
    let cases: [&[&str]; 7] = [
        &[],
        &["statsu"],
        &["logs"],
        &["call", "clock"],
        &["call", "clock", "time", "{}", "--timeout", "soon"],
        &["status", "--colour", "red"],
        &["status", "clock"],
    ];
    for arguments in cases {
        let case = format!("agent {}", arguments.join(" "));
        explained_in_text(&given.agent.run(arguments)?.expect(2)?, "USAGE")?;
        let outcome = given.agent.run([arguments, &["-o", "json"]].concat())?.expect(2)?;
        let error = explained(&outcome, &case)?;
        ensure!(error["code"] == "USAGE", "{case}: {error}");
    }
    Ok(())
}
