//! A host that runs a good release, a thief who sends it others, and an impostor on the way.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{Agent, Caller, Fleet, eventually, repository};
use fleetswap_proto::v1::{DesiredPlugin, Release, desired_plugin::Target};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::thief::{Forged, Thief};
use crate::{
    common::{call, fleet, plugin_status},
    impostor::Impostor,
};

/// What runs before each attack.
pub(crate) const OLD: &str = "1.0.0";
/// The version that is attacked with.
pub(crate) const NEW: &str = "1.1.0";
/// How long a host may try, in milliseconds.
pub(crate) const DEADLINE_MS: u64 = 4_000;

pub(crate) struct Stage {
    pub(crate) runtime: Runtime,
    pub(crate) fleet: Fleet,
    pub(crate) impostor: Impostor,
    pub(crate) thief: Thief,
}

impl Stage {
    /// One host that runs [`OLD`].
    pub(crate) fn set() -> Result<Self> {
        let runtime = Runtime::new()?;
        let mut fleet = fleet(1)?;
        let impostor = Impostor::step_between(&runtime, &mut fleet)?;
        let thief = Thief::of(&runtime, &fleet)?;
        let stage = Self { runtime, fleet, impostor, thief };
        let rollout = stage.release(OLD, stage.library(OLD, "", &[])?)?;
        ensure!(rollout["state"] == "SUCCEEDED", "{rollout}");
        stage.serves(OLD)?;
        Ok(stage)
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.fleet.agents[0]
    }

    /// The host's state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.agent().folder().join("state")
    }

    /// The test subject in a version, with a constructor that speaks. `code` is compiled along.
    pub(crate) fn library(&self, version: &str, code: &str, flags: &[&str]) -> Result<Vec<u8>> {
        let (out, more) = (self.fleet.path("built.so"), self.fleet.path("more.c"));
        fs::write(&more, code)?;
        let root = repository();
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-w", "-pthread", "-DCONSTRUCTOR_SPEAKS"])
            .arg(format!("-DVERSION=\"{version}\""))
            .arg("-I")
            .arg(root.join("plugin-sdk/include"))
            .arg(root.join("integration-tests/zoo/subject.c"))
            .arg(&more)
            .args(flags)
            .arg("-o")
            .arg(&out)
            .output()?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        Ok(fs::read(out)?)
    }

    /// A good release of [`NEW`], published.
    pub(crate) fn published(&self) -> Result<Forged> {
        let release = Forged::subject(NEW, self.library(NEW, "", &[])?)?;
        self.runtime.block_on(self.thief.publish(&release))?;
        Ok(release)
    }

    /// Publishes and rolls out; returns the rollout at its end.
    pub(crate) fn release(&self, version: &str, artifact: Vec<u8>) -> Result<Value> {
        self.release_forged(&Forged::subject(version, artifact)?)
    }

    /// Publishes and rolls out; returns the rollout at its end.
    pub(crate) fn release_forged(&self, release: &Forged) -> Result<Value> {
        self.runtime.block_on(self.thief.publish(release))?;
        self.roll_out(release)
    }

    /// Rolls out what is published; returns the rollout at its end.
    pub(crate) fn roll_out(&self, release: &Forged) -> Result<Value> {
        self.roll_out_within(release, DEADLINE_MS)
    }

    /// As [`Stage::roll_out`], with another time for the host, in milliseconds.
    pub(crate) fn roll_out_within(&self, release: &Forged, deadline_ms: u64) -> Result<Value> {
        let id = self.runtime.block_on(self.thief.push(release, deadline_ms))?;
        self.runtime.block_on(self.thief.watch(&id))?;
        let rollout = self.fleet.controller(["status", &id, "-o", "json"])?.json()?["rollout"].clone();
        let ended = ["SUCCEEDED", "FAILED"].iter().any(|state| rollout["state"] == *state);
        ensure!(ended, "it was watched to its end: {rollout}");
        Ok(rollout)
    }

    /// The rollout failed for this reason, nothing of the release was run, and the old one answers.
    pub(crate) fn refused(&self, rollout: &Value, (fault, code): (&str, &str)) -> Result<()> {
        let failure = &rollout["failure"];
        ensure!(failure["fault"] == fault && failure["code"] == code, "not {fault} {code}: {rollout}");
        let version = rollout["to"]["version"].as_str().context("a version")?;
        self.unharmed(version)
    }

    /// Nothing of a version was run, and the old one answers.
    pub(crate) fn unharmed(&self, version: &str) -> Result<()> {
        ensure!(!self.has_spoken(version)?, "the constructor of {version} was run");
        self.serves(OLD)
    }

    /// Rolls out a good release in peace: the host is not stuck, and a constructor that runs is seen.
    pub(crate) fn recovers(&self, version: &str) -> Result<()> {
        self.impostor.tell(|lies| {
            let blobs = std::mem::take(&mut lies.blobs);
            *lies = crate::impostor::Lies { blobs, ..Default::default() };
        });
        // A forged timestamp may be one ahead of the honest one: the next but one is newer for certain.
        let spare = Forged::subject("0.0.1", self.library("0.0.1", "", &[])?)?;
        self.runtime.block_on(self.thief.publish(&spare))?;
        let rollout = self.release(version, self.library(version, "", &[])?)?;
        ensure!(rollout["state"] == "SUCCEEDED", "{rollout}");
        ensure!(self.has_spoken(version)?, "a constructor that runs leaves its line");
        self.serves(version)
    }

    pub(crate) fn has_spoken(&self, version: &str) -> Result<bool> {
        Ok(self.log()?.contains(&format!("constructor of subject {version} ran")))
    }

    /// What the plugin has logged.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(self.agent().run(["logs", "subject"])?.stdout)
    }

    /// A call is answered by this version's library.
    pub(crate) fn serves(&self, version: &str) -> Result<()> {
        answers(&self.agent().caller(), version)
    }

    /// Pushes one release, and lets the impostor put another one in its place, with a valid chain around it.
    pub(crate) fn smuggle(&self, honest: &Forged, forged: &Forged) -> Result<()> {
        let mut chain = self.runtime.block_on(self.thief.look())?;
        chain.list("subject-1.1.0-r1.json", &forged.bytes());
        self.thief.sign(&mut chain);
        let (id, version, manifest) = (forged.id(), honest.version().to_owned(), forged.bytes());
        self.impostor.tell(|lies| {
            lies.files = Some(chain.files());
            lies.blobs.insert(id.clone(), manifest);
            lies.offer = Some(Box::new(move |state| {
                for release in state.plugins.iter_mut().filter_map(release_of) {
                    if release.version == version {
                        release.release_id.clone_from(&id);
                    }
                }
            }));
        });
        self.runtime.block_on(self.thief.push(honest, DEADLINE_MS)).map(drop)
    }

    /// Waits until the host's trial has failed; for attacks of which the controller learns nothing.
    pub(crate) fn wait_for_failure(&self, code: &str) -> Result<Value> {
        eventually(&format!("the trial fails with {code}"), || {
            let failure = plugin_status(self.agent(), "subject")?["trial"]["failure"].clone();
            Ok((failure["code"] == code).then_some(failure))
        })
    }

    /// The agent's process, which must still run.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.fleet.check_alive()?;
        Ok(self.agent().process.as_ref().context("the agent runs")?.pid())
    }

    /// A number of kB out of /proc/PID/status of the agent.
    pub(crate) fn memory_kb(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(line.context("the field")?.trim().trim_end_matches(" kB").parse()?)
    }

    /// Child processes of the agent, zombies included.
    pub(crate) fn children(&self) -> Result<Vec<u32>> {
        let mut children = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()?))? {
            // A thread that ended meanwhile has no children.
            let text = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            children.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        Ok(children)
    }
}

/// A call of the test subject is answered by this version's library.
pub(crate) fn answers(caller: &Caller, version: &str) -> Result<()> {
    let reply = call(caller, "subject", "echo", "")?;
    ensure!(reply.status == 200 && reply.body == version, "{reply:?}, not {version}");
    Ok(())
}

/// The release that a plugin is to become.
pub(crate) fn release_of(plugin: &mut DesiredPlugin) -> Option<&mut Release> {
    match plugin.target.as_mut()? {
        Target::Release(release) => Some(release),
        Target::Nothing(_) => None,
    }
}
