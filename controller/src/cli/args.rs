//! The arguments of every verb, each with its bounds.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use semver::Version;
use serde_json::json;

use super::output::Format;

/// Longest text argument (reason, selector), in bytes.
const TEXT_MAX: usize = 512;
/// Longest probe, in bytes; the manifest's own bound.
const PROBE_TEXT_MAX: usize = 16 * 1024;
/// Most artifacts, and most probes, of one push.
pub(super) const ARTIFACTS_MAX: usize = 16;
/// Shortest duration that an argument may name: less would be nothing on the wire.
const DURATION_MIN: Duration = Duration::from_millis(1);
/// Longest duration that an argument may name.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The controller's address unless another one is named.
const DEFAULT_CONTROLLER: &str = "127.0.0.1:7443";

/// Upgrades native plugins on a fleet of servers without stopping the service they give.
#[derive(Debug, Parser)]
#[command(name = "controller", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the controller.
    Serve(ServeArgs),
    /// Make the keys and folders of a new fleet.
    Init(InitArgs),
    /// Print what a plugin says about itself, from inside the sandbox.
    Describe(DescribeArgs),
    /// Sign and upload a release without starting a rollout.
    Publish(PublishArgs),
    /// Sign a release, roll it out, and wait for the end.
    Push(PushArgs),
    /// Move a plugin back to an earlier release.
    Rollback(RollbackArgs),
    /// Show what runs where, and what moves.
    Status(StatusArgs),
    /// List rollouts, newest first.
    History(HistoryArgs),
    /// Look at hosts.
    #[command(subcommand)]
    Host(HostCommand),
    /// Look at plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Compare the structure of two published versions.
    Diff(DiffArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum HostCommand {
    /// List hosts.
    List(ListArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// List published releases.
    List(ListArgs),
}

/// How to reach the controller, and how to print.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// Address of the controller.
    #[arg(long, value_name = "ADDR", env = "FLEETSWAP_CONTROLLER", default_value = DEFAULT_CONTROLLER, value_parser = address)]
    pub(super) controller: String,
    #[command(flatten)]
    pub(super) print: Print,
}

#[derive(Debug, Args)]
pub(super) struct Print {
    /// Output for people or for programs.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(super) output: Format,
}

/// `controller serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Folder of the controller's data, made by `controller init`.
    #[arg(long, value_name = "DIR", value_parser = path)]
    pub(crate) data_dir: PathBuf,
    /// Loopback address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_CONTROLLER, value_parser = address)]
    pub(crate) listen: String,
    #[command(flatten)]
    pub(super) print: Print,
}

impl ServeArgs {
    /// What `serve` prints when it listens.
    pub(crate) fn ready_line(&self, address: std::net::SocketAddr) -> String {
        match self.print.output {
            Format::Text => format!("controller ready on {address}"),
            Format::Json => super::output::with_schema(json!({ "ready": address.to_string() })).to_string(),
        }
    }

    /// As a test gives them.
    #[cfg(test)]
    pub(crate) fn text(data_dir: PathBuf, listen: &str) -> Self {
        Self { data_dir, listen: listen.to_owned(), print: Print { output: Format::Text } }
    }
}

/// `controller init`
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Make trust for trying things out: one key per role, refused by production agents.
    #[arg(long, required = true)]
    pub(crate) dev: bool,
    /// Folder of the controller's data; must be new or empty.
    #[arg(long, value_name = "DIR", value_parser = path)]
    pub(crate) data_dir: PathBuf,
    /// Folder of the publisher's keys; must be new or empty.
    #[arg(long, value_name = "DIR", env = "FLEETSWAP_PUBLISHER_DIR", value_parser = path)]
    pub(crate) publisher_dir: PathBuf,
    #[command(flatten)]
    pub(super) print: Print,
}

#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// The plugin's library.
    #[arg(value_name = "FILE", value_parser = path)]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) print: Print,
}

/// What makes a release.
#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    /// Name of the plugin.
    #[arg(value_parser = plugin_name)]
    pub(super) name: String,
    /// Version of the plugin; must equal the one inside the artifact.
    #[arg(long, value_name = "V", value_parser = version)]
    pub(super) version: Version,
    /// The plugin's library; once per platform. For a foreign platform `FILE.descriptor.json` must lie beside it.
    #[arg(long = "artifact", value_name = "FILE", required = true, value_parser = path)]
    pub(super) artifacts: Vec<PathBuf>,
    /// What the plugin's `create` is given.
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub(super) config: Option<PathBuf>,
    /// A call that must give this answer before the release serves: `FUNCTION INPUT => EXPECTED`, both JSON.
    #[arg(long = "probe", value_name = "PROBE", value_parser = probe_text)]
    pub(super) probes: Vec<String>,
    /// Folder of the publisher's keys.
    #[arg(long, value_name = "DIR", env = "FLEETSWAP_PUBLISHER_DIR", value_parser = path)]
    pub(super) publisher_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    #[command(flatten)]
    pub(super) release: ReleaseArgs,
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    #[command(flatten)]
    pub(super) release: ReleaseArgs,
    /// Which hosts: `all`, or comma-joined `key=value`, `key!=value`, `name=H`, `key in (a,b)`. Needed once.
    #[arg(long, value_name = "SELECTOR", value_parser = text)]
    pub(super) hosts: Option<String>,
    #[command(flatten)]
    pub(super) pace: Pace,
    /// Push although callers may break.
    #[arg(long)]
    pub(super) allow_breaking: bool,
    /// Push although the state can't be carried back.
    #[arg(long)]
    pub(super) allow_one_way: bool,
    /// Check everything and print the plan; change nothing.
    #[arg(long, conflicts_with = "detach")]
    pub(super) dry_run: bool,
    /// Don't wait for the rollout's end.
    #[arg(long)]
    pub(super) detach: bool,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = text)]
    pub(super) reason: String,
    #[command(flatten)]
    pub(super) wait: Wait,
    #[command(flatten)]
    pub(super) remote: Remote,
}

/// How fast a rollout goes.
#[derive(Debug, Args)]
pub(super) struct Pace {
    /// Hosts changed at once [default: 10 % of the hosts, at least 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) max_parallel: Option<u32>,
    /// How long a release must stay healthy before a host commits it [default: 10s].
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(super) min_healthy_time: Option<Duration>,
    /// A host must have committed this long after the offer [default: 5m].
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(super) healthy_deadline: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Stop waiting after this time; the rollout goes on [default: 1h].
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(super) wait_timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// Name of the plugin.
    #[arg(value_parser = plugin_name)]
    pub(super) name: String,
    /// The version to go back to [default: the release before].
    #[arg(long, value_name = "V", value_parser = version)]
    pub(super) to: Option<Version>,
    /// The assignment's selector, where the plugin has several.
    #[arg(long, value_name = "SELECTOR", value_parser = text)]
    pub(super) hosts: Option<String>,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", value_parser = text)]
    pub(super) reason: String,
    /// Check everything and print the plan; change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) wait: Wait,
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// A rollout, e.g. r-000007 [default: the whole fleet].
    #[arg(value_name = "ROLLOUT", value_parser = rollout)]
    pub(super) rollout: Option<String>,
    /// Follow until the rollout ends; exit with its outcome.
    #[arg(long)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) wait: Wait,
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// Only rollouts of this plugin.
    #[arg(value_name = "NAME", value_parser = plugin_name)]
    pub(super) name: Option<String>,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) limit: u32,
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) remote: Remote,
}

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// Name of the plugin.
    #[arg(value_parser = plugin_name)]
    pub(super) name: String,
    /// The older version.
    #[arg(value_parser = version)]
    pub(super) old: Version,
    /// The newer version.
    #[arg(value_parser = version)]
    pub(super) new: Version,
    #[command(flatten)]
    pub(super) remote: Remote,
}

impl Command {
    /// The output format that was asked for.
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Serve(args) => args.print.output,
            Self::Init(args) => args.print.output,
            Self::Describe(args) => args.print.output,
            Self::Publish(args) => args.remote.print.output,
            Self::Push(args) => args.remote.print.output,
            Self::Rollback(args) => args.remote.print.output,
            Self::Status(args) => args.remote.print.output,
            Self::History(args) => args.remote.print.output,
            Self::Host(HostCommand::List(args)) | Self::Plugin(PluginCommand::List(args)) => {
                args.remote.print.output
            }
            Self::Diff(args) => args.remote.print.output,
        }
    }
}

fn plugin_name(name: &str) -> Result<String, String> {
    if fleetswap_trust::manifest::is_plugin_name(name) {
        return Ok(name.to_owned());
    }
    Err("a plugin's name is a lower-case letter, then letters, digits, `_` and `-`, at most 64 in all"
        .to_owned())
}

fn version(value: &str) -> Result<Version, String> {
    let version = Version::parse(bounded(value, 64)?).map_err(|error| error.to_string())?;
    if version.build.is_empty() {
        return Ok(version);
    }
    Err("build metadata (`+…`) has no order, so it can't name a release".to_owned())
}

fn text(value: &str) -> Result<String, String> {
    if value.chars().any(char::is_control) {
        return Err("it must be one line without control characters".to_owned());
    }
    bounded(value, TEXT_MAX).map(str::to_owned)
}

fn probe_text(value: &str) -> Result<String, String> {
    bounded(value, PROBE_TEXT_MAX).map(str::to_owned)
}

fn path(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() {
        return Err("a path must not be empty".to_owned());
    }
    bounded(value, 4096).map(PathBuf::from)
}

fn address(value: &str) -> Result<String, String> {
    let address = value.strip_prefix("http://").unwrap_or(value);
    let (host, port) = address.rsplit_once(':').ok_or("it must be HOST:PORT, e.g. 127.0.0.1:7443")?;
    if bounded(host, 255)?.is_empty() || port.parse::<u16>().is_err() {
        return Err("it must be HOST:PORT, e.g. 127.0.0.1:7443".to_owned());
    }
    Ok(address.to_owned())
}

fn duration(value: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(bounded(value, 64)?)
        .map_err(|error| format!("{error}; write it like 10s, 5m or 1h30m"))?;
    if !(DURATION_MIN..=DURATION_MAX).contains(&duration) {
        return Err("it must be at least 1ms and at most 7 days".to_owned());
    }
    Ok(duration)
}

fn rollout(value: &str) -> Result<String, String> {
    if value.len() <= 22 && value.strip_prefix("r-").is_some_and(|id| id.parse::<u64>().is_ok()) {
        return Ok(value.to_owned());
    }
    Err("a rollout is named like r-000007".to_owned())
}

fn bounded(value: &str, max: usize) -> Result<&str, String> {
    if value.len() <= max {
        Ok(value)
    } else {
        Err(format!("{} bytes; at most {max} are allowed", value.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_duration_has_a_unit_and_a_bound() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "5", "0s", "999us", "8days", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(address("http://127.0.0.1:7443"), Ok("127.0.0.1:7443".to_owned()));
        for wrong in ["", "localhost", "127.0.0.1:", ":7443", "127.0.0.1:99999"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reason_is_one_line() {
        assert!(text("because").is_ok());
        assert!(text("two\nlines").is_err());
        assert!(text(&"x".repeat(513)).is_err());
    }
}
