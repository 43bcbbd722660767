//! The agent's configuration: one TOML file, every value checked and bounded.

mod checks;
mod raw;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use fleetswap_host::{Level, Limits};
use fleetswap_proto::Explained;
use reqwest::Url;
use toml::Spanned;

use checks::{Fault, absolute, label, loopback, mirror, mode, name, range, socket};

/// Where the configuration is unless `--config` or `FLEETSWAP_AGENT_CONFIG` says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/fleetswap/agent.toml";

/// Largest configuration file, in bytes.
const FILE_MAX: u64 = 64 * 1024;
/// Most mirrors.
const MIRRORS_MAX: usize = 16;
/// Most labels.
const LABELS_MAX: usize = 64;
/// Most plugins with a section of their own.
const PLUGINS_MAX: usize = 1_024;
/// How often the state of a plugin is saved that has no section.
pub(crate) const CHECKPOINT_DEFAULT: Duration = Duration::from_secs(60);

/// What the file says, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// The host's name, as operators see it.
    pub(crate) name: String,
    /// Where records, blobs, metadata and saved states live.
    pub(crate) state_dir: PathBuf,
    /// The controller's address; a loopback address.
    pub(crate) controller: SocketAddr,
    /// The first TUF root, written by `controller init`.
    pub(crate) trust_root: PathBuf,
    /// Accept a root that is marked as made for development.
    pub(crate) allow_dev_trust: bool,
    /// Asked for blobs before the controller, in this order.
    pub(crate) mirrors: Vec<Url>,
    /// Told to the controller; host selectors match on them.
    pub(crate) labels: BTreeMap<String, String>,
    /// Where callers reach the plugins.
    pub(crate) front: Front,
    /// The socket of `agent status` and `agent logs`.
    pub(crate) control_socket: PathBuf,
    /// The least strict sandbox that plugins may run in.
    pub(crate) sandbox_min: Level,
    /// Limits of each worker.
    pub(crate) limits: Limits,
    /// How often states are saved.
    pub(crate) checkpoints: CheckpointRules,
}

/// How often the state of each plugin is saved while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckpointRules(BTreeMap<String, Option<Duration>>);

impl CheckpointRules {
    /// The interval for a plugin; `None` if there are to be no checkpoints.
    pub(crate) fn of(&self, plugin: &str) -> Option<Duration> {
        self.0.get(plugin).copied().unwrap_or(Some(CHECKPOINT_DEFAULT))
    }
}

/// The front's sockets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Front {
    /// Path of the unix socket.
    pub(crate) socket: PathBuf,
    /// Its permission bits, at most `0o777`.
    pub(crate) mode: u32,
    /// Its group; that of the agent's process if not given.
    pub(crate) group: Option<String>,
    /// A loopback TCP address beside the unix socket.
    pub(crate) listen: Option<SocketAddr>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// `CONFIG_UNREADABLE`, `CONFIG_INVALID` with line and column, or `ADDRESS_NOT_LOOPBACK`.
    pub(crate) fn load(path: &Path) -> Result<Self, Explained> {
        let text = read(path)?;
        Self::parse(&text).map_err(|fault| fault.explain(path, &text))
    }

    /// Checks the text of a file.
    fn parse(text: &str) -> Result<Self, Fault> {
        let raw: raw::File = toml::from_str(text).map_err(|error| Fault::toml(&error))?;
        Ok(Self {
            name: name(&raw.name)?,
            state_dir: absolute("state_dir", &raw.state_dir)?,
            controller: loopback("controller", &raw.controller)?,
            trust_root: absolute("trust_root", &raw.trust_root)?,
            allow_dev_trust: raw.allow_dev_trust,
            mirrors: mirrors(&raw.mirrors)?,
            labels: labels(&raw.labels)?,
            front: front(&raw.front)?,
            control_socket: socket("control.socket", &raw.control.socket)?,
            sandbox_min: sandbox_min(&raw.sandbox)?,
            limits: limits(&raw.limits)?,
            checkpoints: checkpoints(&raw.plugins)?,
        })
    }
}

fn read(path: &Path) -> Result<String, Explained> {
    let unreadable = |why: String| {
        Explained::new(
            "CONFIG_UNREADABLE",
            format!("the configuration {} can't be read", path.display()),
            why,
            "name the file with --config or FLEETSWAP_AGENT_CONFIG, and see that the agent may read it",
        )
    };
    let length = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if length > FILE_MAX {
        return Err(unreadable(format!("it has {length} bytes; at most {FILE_MAX} are read")));
    }
    fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

fn mirrors(raw: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<Url>, Fault> {
    if raw.get_ref().len() > MIRRORS_MAX {
        return Err(Fault::at(raw, format!("`mirrors` has more than {MIRRORS_MAX} entries")));
    }
    raw.get_ref().iter().map(mirror).collect()
}

fn labels(raw: &BTreeMap<Spanned<String>, Spanned<String>>) -> Result<BTreeMap<String, String>, Fault> {
    if let Some((key, _)) = raw.iter().nth(LABELS_MAX) {
        return Err(Fault::at(key, format!("`labels` has more than {LABELS_MAX} entries")));
    }
    raw.iter().map(|(key, value)| label(key, value)).collect()
}

fn checkpoints(raw: &BTreeMap<Spanned<String>, raw::Plugin>) -> Result<CheckpointRules, Fault> {
    if let Some((name, _)) = raw.iter().nth(PLUGINS_MAX) {
        return Err(Fault::at(name, format!("`plugins` has more than {PLUGINS_MAX} entries")));
    }
    let rule = |(name, plugin): (&Spanned<String>, &raw::Plugin)| {
        let interval = plugin.checkpoint_interval.as_ref().map(checks::checkpoint_interval).transpose()?;
        Ok((checks::plugin(name)?, interval.unwrap_or(Some(CHECKPOINT_DEFAULT))))
    };
    raw.iter().map(rule).collect::<Result<_, _>>().map(CheckpointRules)
}

fn front(raw: &raw::Front) -> Result<Front, Fault> {
    Ok(Front {
        socket: socket("front.socket", &raw.socket)?,
        mode: mode(&raw.mode)?,
        group: raw.group.as_ref().map(checks::group).transpose()?,
        listen: raw.listen.as_ref().map(|listen| loopback("front.listen", listen)).transpose()?,
    })
}

fn sandbox_min(raw: &raw::Sandbox) -> Result<Level, Fault> {
    let text = raw.min.get_ref();
    text.parse().map_err(|wanted| Fault::at(&raw.min, format!("`sandbox.min` is `{text}`; {wanted}")))
}

fn limits(raw: &raw::Limits) -> Result<Limits, Fault> {
    let default = Limits::default();
    let memory_mib = range("limits.memory_mib", raw.memory_mib.as_ref(), 16..=65_536)?;
    Ok(Limits {
        memory_bytes: memory_mib.map_or(default.memory_bytes, |mib| u64::from(mib) * 1024 * 1024),
        threads: range("limits.threads", raw.threads.as_ref(), 1..=4_096)?.unwrap_or(default.threads),
        open_files: range("limits.files", raw.files.as_ref(), 16..=4_096)?.unwrap_or(default.open_files),
        cpu_percent: range("limits.cpu_percent", raw.cpu_percent.as_ref(), 1..=102_400)?,
        load_timeout: wait("limits.load_timeout_ms", raw.load_timeout_ms.as_ref(), default.load_timeout)?,
        control_timeout: wait(
            "limits.control_timeout_ms",
            raw.control_timeout_ms.as_ref(),
            default.control_timeout,
        )?,
        state_timeout: wait("limits.state_timeout_ms", raw.state_timeout_ms.as_ref(), default.state_timeout)?,
        ..default
    })
}

/// A wait for a worker, in milliseconds.
fn wait(key: &str, raw: Option<&Spanned<i64>>, default: Duration) -> Result<Duration, Fault> {
    let milliseconds = range(key, raw, 100..=600_000)?;
    Ok(milliseconds.map_or(default, |milliseconds| Duration::from_millis(milliseconds.into())))
}

#[cfg(test)]
mod tests;
