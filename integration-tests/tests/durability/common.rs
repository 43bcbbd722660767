//! A fleet whose hosts fail one by one, and what must be true of each afterwards.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fleetswap_integration_tests::harness::{
    Agent, Binaries, Fleet, FleetOptions, Plugin, compile_c, repository,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::operator::Operator;

/// How long a caller waits.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// The plugin.
pub(crate) const PLUGIN: &str = "subject";

/// A fleet, the operator, and what was published last.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) operator: Operator,
    pub(crate) failing: PathBuf,
    pub(crate) shipped: PathBuf,
    minor: u32,
}

/// A release that was published.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) id: String,
    pub(crate) manifest: Vec<u8>,
}

impl World {
    /// So many hosts, all of which run 1.1.0.
    pub(crate) fn start(hosts: usize) -> Result<Self> {
        let binaries = Binaries::find()?;
        let failing = binaries.agent_with_failpoints()?;
        let fleet = Fleet::start(&binaries, &FleetOptions { agents: hosts, agent_config: String::new() })?;
        let operator = Operator::of(&fleet)?;
        let mut world = Self { fleet, operator, failing, shipped: binaries.agent(), minor: 0 };
        let first = world.publish(&[])?;
        let rollouts = world.push_to_all(&first)?;
        world.operator.wait_for(&rollouts)?;
        Ok(world)
    }

    /// Publishes the next version of the test subject.
    pub(crate) fn publish(&mut self, defines: &[&str]) -> Result<Published> {
        self.minor += 1;
        let version = format!("1.{}.0", self.minor);
        let plugin = subject(&self.fleet, &version, defines)?;
        let manifest = self.operator.publish(&self.fleet, &plugin)?;
        Ok(Published { id: hex(&manifest), manifest })
    }

    /// One rollout for each host.
    pub(crate) fn push_to_all(&mut self, release: &Published) -> Result<Vec<String>> {
        let names: Vec<String> = self.fleet.agents.iter().map(|agent| agent.name.clone()).collect();
        names.iter().map(|name| self.operator.push(PLUGIN, name, &release.manifest, 0)).collect()
    }
}

/// The test subject in a version.
pub(crate) fn subject(fleet: &Fleet, version: &str, defines: &[&str]) -> Result<Plugin> {
    let version_define = format!("VERSION=\"{version}\"");
    let defines = [&[version_define.as_str()], defines].concat();
    let source = repository().join("integration-tests/zoo/subject.c");
    compile_c(&source, PLUGIN, version, &defines, &fleet.path(""))
}

/// SHA-256 in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a host says about the plugin, asked on its control socket.
pub(crate) fn status(agent: &Agent) -> Result<Value> {
    let mut socket = UnixStream::connect(agent.folder().join("control.sock"))?;
    socket.set_read_timeout(Some(CALL_LIMIT))?;
    socket.write_all(b"GET /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer with a body")?;
    let status: Value = serde_json::from_str(body)?;
    let found = status["plugins"].as_array().into_iter().flatten().find(|it| it["plugin"] == PLUGIN);
    Ok(found.cloned().unwrap_or_default())
}

/// The release that a host says is active: id and version.
pub(crate) fn active(agent: &Agent) -> Result<(String, String)> {
    let active = status(agent)?["active"].clone();
    let text = |key: &str| active[key].as_str().unwrap_or_default().to_owned();
    Ok((text("release_id"), text("version")))
}

/// What a host says is active answers, is whole on its disk, and is nothing else.
pub(crate) fn is_whole(agent: &Agent, runtime: &Runtime) -> Result<(String, String)> {
    let (id, version) = active(agent)?;
    let caller = agent.caller();
    let reply = runtime.block_on(caller.call(PLUGIN, "echo", Bytes::new(), CALL_LIMIT))?;
    ensure!(reply.status == 200, "{reply:?}");
    ensure!(reply.release == id && reply.version == version, "{reply:?}, and active is {version}");
    ensure!(reply.body == *version, "the library is that of {}, not of {version}", reply.body);
    let state = agent.folder().join("state");
    let manifest = fs::read(state.join("manifests").join(&id)).context("the manifest of what runs")?;
    ensure!(hex(&manifest) == id, "the manifest on disk is another one");
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let platforms = manifest["platforms"].as_object().context("platforms")?;
    for blob in platforms.values().flat_map(|it| [&it["artifact"], &it["descriptor"]]) {
        let name = blob["sha256"].as_str().context("a digest")?;
        let bytes = fs::read(state.join("blobs").join(name)).context("a blob of what runs")?;
        ensure!(hex(&bytes) == name, "blob {name} has other bytes");
    }
    names_are_hashes(&state.join("blobs"))?;
    Ok((id, version))
}

/// What has the name of a whole blob is whole.
fn names_are_hashes(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.len() == 64 {
            ensure!(hex(&fs::read(&path)?) == name, "{} has other bytes", path.display());
        }
    }
    Ok(())
}

/// The failpoints of a program with what may be done at each, in its own words.
pub(crate) fn failpoints(program: &Path) -> Result<Vec<(String, Vec<String>)>> {
    let output = std::process::Command::new(program).env("FLEETSWAP_TEST_LIST", "1").output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        words.next().map(|name| (name, words.collect()))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// How often a failpoint was hit, as the log says.
pub(crate) fn hits(log: &Path, failpoint: &str) -> usize {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.matches(&format!("failpoint {failpoint} is hit")).count()
}
