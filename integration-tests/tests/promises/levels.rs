//! Levels of the sandbox: agents on hosts whose kernels lack the newer pieces.
//!
//! What each level refuses is tested beside the sandbox itself; here is what an operator sees of it.

use std::{collections::BTreeMap, io, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{Agent, Binaries, Fleet, Process};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde_json::Value;

use crate::common::{call, fleet, install, subject};

/// A piece of the kernel that a host can be without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Memory-deny-write-execute, and with it level `strict`.
    Mdwe,
    /// Landlock, and with it level `standard`.
    Landlock,
}

impl Piece {
    /// A filter that answers for the kernel as one without this piece.
    fn mask(self) -> Result<BpfProgram> {
        let prctl = |option: i32| -> Result<SeccompRule> {
            let value = u64::try_from(option)?;
            let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
            Ok(SeccompRule::new(vec![is])?)
        };
        let (calls, error) = match self {
            Self::Mdwe => {
                let options = vec![prctl(libc::PR_SET_MDWE)?, prctl(libc::PR_GET_MDWE)?];
                (BTreeMap::from([(libc::SYS_prctl, options)]), libc::EINVAL)
            }
            Self::Landlock => {
                (BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]), libc::ENOSYS)
            }
        };
        let answer = SeccompAction::Errno(error.cast_unsigned());
        let filter =
            SeccompFilter::new(calls, SeccompAction::Allow, answer, std::env::consts::ARCH.try_into()?)?;
        Ok(filter.try_into()?)
    }
}

/// A fleet of one host whose kernel lacks these pieces.
pub(crate) fn without(pieces: &[Piece], agent_config: &str) -> Result<Fleet> {
    let mut fleet = fleet(0)?;
    let mut agent = fleet.add_agent("host-1", "")?;
    let config = std::fs::read_to_string(agent.config())? + agent_config;
    std::fs::write(agent.config(), config)?;
    let masks: Vec<BpfProgram> = pieces.iter().map(|piece| piece.mask()).collect::<Result<_>>()?;
    let mut command = Command::new(Binaries::find()?.agent());
    command.args(["daemon", "--config"]).arg(agent.config());
    // SAFETY: between fork and exec, each filter takes two system calls and no memory.
    unsafe {
        command.pre_exec(move || {
            masks
                .iter()
                .try_for_each(|mask| seccompiler::apply_filter(mask).map_err(|_| io::Error::last_os_error()))
        });
    }
    let process = Process::start("host-1", &mut command, &agent.folder().join("agent.log"))?;
    process.wait_for_line(" ready")?;
    agent.process = Some(process);
    fleet.agents.push(agent);
    Ok(fleet)
}

/// What a host says about its sandbox.
pub(crate) fn told(agent: &Agent) -> Result<Value> {
    Ok(agent.status()?["sandbox"].clone())
}

/// What the controller has been told.
fn fact(fleet: &Fleet) -> Result<Value> {
    let hosts = fleet.controller(["host", "list", "-o", "json"])?.expect(0)?.json()?;
    Ok(hosts["hosts"][0]["facts"]["sandbox"].clone())
}

#[test]
fn the_level_that_is_reached_is_a_fact_of_the_host_and_shown_in_its_status() -> Result<()> {
    for (pieces, agent_config, level) in [
        (&[Piece::Mdwe][..], "", "standard"),
        (&[Piece::Mdwe, Piece::Landlock], "[sandbox]\nmin = \"basic\"\n", "basic"),
    ] {
        let fleet = without(pieces, agent_config)?;
        let agent = &fleet.agents[0];
        install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
        assert_eq!(call(&agent.caller(), "subject", "echo", "")?.body, "1.0.0", "{level}");
        assert_eq!((&told(agent)?["level"], &fact(&fleet)?), (&level.into(), &level.into()));
        let text = agent.run(["status"])?.expect(0)?.stdout;
        ensure!(text.contains(&format!("sandbox {level}, limits kept by the ")), "{text}");
        let log = agent.process.as_ref().context("it runs")?.log();
        assert_eq!(
            log.contains("plugins can read what the agent's user can read"),
            level == "basic",
            "{log}"
        );
    }
    Ok(())
}

#[test]
fn a_host_below_the_level_that_it_must_reach_loads_nothing_and_says_what_it_lacks() -> Result<()> {
    for (pieces, agent_config, lacks) in [
        (&[Piece::Landlock][..], "", "level standard can't be reached on this host: landlock: "),
        (
            &[Piece::Mdwe],
            "[sandbox]\nmin = \"strict\"\n",
            "level strict can't be reached on this host: memory-deny-write-execute: ",
        ),
    ] {
        let fleet = without(pieces, agent_config)?;
        let agent = &fleet.agents[0];
        let told = told(agent)?;
        let problem = told["problem"].as_str().unwrap_or_default();
        ensure!(problem.contains(lacks) && told["level"] == "", "{told}");
        ensure!(agent.run(["status"])?.expect(0)?.stdout.contains("no plugin can be loaded: "), "{told}");
        let arguments = ["--hosts", "all", "--min-healthy-time", "200ms"];
        let rollout =
            fleet.push(&subject(&fleet, "1.0.0", &[])?, &arguments)?.expect(3)?.json()?["rollout"].clone();
        let failure = &rollout["failure"];
        assert_eq!(
            (&failure["code"], &failure["fault"]),
            (&"SANDBOX_UNAVAILABLE".into(), &"host".into()),
            "{failure}"
        );
        ensure!(failure["message"].as_str().unwrap_or_default().contains(lacks), "{failure}");
        assert_eq!(call(&agent.caller(), "subject", "echo", "")?.status, 404, "and nothing was loaded");
    }
    Ok(())
}
