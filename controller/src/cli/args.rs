//! The arguments of every verb, each with its bounds.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use semver::Version;
use serde_json::json;

use super::{
    output::Format,
    values::{
        address, duration, health_interval, health_timeout, path, plugin_name, probe_text, reason, rollout,
        selector, text, version,
    },
};

/// Most artifacts, and most probes, of one push.
pub(super) const ARTIFACTS_MAX: usize = 16;
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
    #[command(flatten)]
    pub(super) health: Health,
    /// Folder of the publisher's keys.
    #[arg(long, value_name = "DIR", env = "FLEETSWAP_PUBLISHER_DIR", value_parser = path)]
    pub(super) publisher_dir: Option<PathBuf>,
}

/// When a worker of the release counts as healthy; it is signed with the release.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// Time between two health checks, 10ms to 1m [default: 1s].
    #[arg(long, value_name = "D", value_parser = health_interval)]
    pub(super) health_interval: Option<Duration>,
    /// Good health checks in a row before the release serves [default: 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) health_checks: Option<u32>,
    /// Longest time of one health check, 1ms to 1m [default: 2s].
    #[arg(long, value_name = "D", value_parser = health_timeout)]
    pub(super) health_timeout: Option<Duration>,
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
    #[arg(long, value_name = "SELECTOR", value_parser = selector)]
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
    #[arg(long, value_name = "SELECTOR", value_parser = selector)]
    pub(super) hosts: Option<String>,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
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
    /// The version to go from.
    #[arg(value_parser = version)]
    pub(super) old: Version,
    /// The version to go to.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
