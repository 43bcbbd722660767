//! The command line.

mod ask;
mod door;
mod failure;
mod follow;
mod output;
mod overrides;
mod refusal;
mod usage;

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use fleetswap_proto::Explained;
use tokio::runtime::Builder;

use crate::{
    config::{self, Config},
    daemon::{self, Conduct},
    run::Verb,
};
use failure::Failure;

/// Runs plugins on this host and swaps their releases without stopping the service.
#[derive(Debug, Parser)]
#[command(name = "agent", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon until SIGTERM or SIGINT.
    Daemon(Daemon),
    /// Shows how this host stands: its plugins, its controller.
    Status(Common),
    /// Calls a function of a plugin through the front.
    Call(Call),
    /// Shows the last log lines of a plugin.
    Logs(LogsOf),
    /// Keeps a plugin as it is on this host, whatever the controller says.
    Hold(overrides::Order),
    /// Lifts a hold: the controller decides about the plugin again.
    Release(overrides::Order),
    /// Returns a plugin to the release before, and holds it there; needs no controller.
    Rollback(overrides::Order),
}

#[derive(Args, Debug)]
struct Daemon {
    /// Starts no plugin: only status, logs and orders are answered, and callers get 503.
    #[arg(long)]
    safe: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct Common {
    /// The agent's configuration.
    #[arg(long, value_name = "FILE", env = "FLEETSWAP_AGENT_CONFIG", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Args, Debug)]
struct Call {
    /// The plugin's name.
    plugin: String,
    /// The function's name.
    function: String,
    /// The function's input; JSON, unless the function takes raw bytes.
    #[arg(default_value = "{}")]
    input: String,
    /// Time until the answer must be there, such as 2s or 500ms; at most 60s.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "5s")]
    timeout: Duration,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct LogsOf {
    /// The plugin's name.
    plugin: String,
    /// Goes on with each new line, until Ctrl-C or until the agent stops; waits for a plugin that is still to come.
    #[arg(short, long)]
    follow: bool,
    /// Lines of the past at most; all that are kept, or 10 with --follow.
    #[arg(short = 'n', long, value_name = "LINES")]
    lines: Option<u32>,
    #[command(flatten)]
    common: Common,
}

/// How results and errors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl Command {
    fn common(&self) -> &Common {
        match self {
            Self::Daemon(daemon) => &daemon.common,
            Self::Status(common) => common,
            Self::Call(call) => &call.common,
            Self::Logs(logs) => &logs.common,
            Self::Hold(order) | Self::Release(order) | Self::Rollback(order) => &order.common,
        }
    }
}

/// Exit code for arguments that are wrong.
const USAGE: u8 = 2;

/// Does what the arguments say: 0 done, 1 failed, 2 the arguments are wrong, 130 Ctrl-C while it followed.
pub(crate) fn run() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        // Help or version; this ends the process.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            output::error(wanted_form(env::args()), &usage::explain(&error).into());
            return ExitCode::from(USAGE);
        }
    };
    let form = command.common().output;
    match perform(command) {
        Ok(code) => code,
        Err(error) => {
            output::error(form, &error);
            ExitCode::FAILURE
        }
    }
}

/// The form that arguments which could not be parsed ask for, so that their error comes in it as well.
fn wanted_form(args: impl Iterator<Item = String>) -> Form {
    let words: Vec<String> = args.collect();
    let pair = |pair: &[String]| ["-o", "--output"].contains(&pair[0].as_str()) && pair[1] == "json";
    let joined = |word: &String| ["-ojson", "-o=json", "--output=json"].contains(&word.as_str());
    if words.windows(2).any(pair) || words.iter().any(joined) { Form::Json } else { Form::Text }
}

fn perform(command: Command) -> Result<ExitCode, Failure> {
    let Common { config, output: form } = command.common();
    let (config, form) = (Config::load(config)?, *form);
    if let Command::Daemon(Daemon { safe, .. }) = command {
        let conduct = if safe { Conduct::Safe } else { Conduct::Normal };
        return Ok(daemon::run(config, conduct).map(|()| ExitCode::SUCCESS)?);
    }
    let runtime = Builder::new_current_thread().enable_all().build().map_err(no_runtime)?;
    if let Command::Logs(LogsOf { plugin, follow: true, lines, .. }) = &command {
        let lines = lines.unwrap_or(follow::LINES);
        return Ok(runtime.block_on(Box::pin(follow::follow(
            &config.control_socket,
            (plugin, lines),
            form,
        )))?);
    }
    let text = runtime.block_on(Box::pin(asked(command, &config, form)))?;
    text.map_or(Ok(()), |text| output::data(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// The answer to show; none where there is nothing to show.
async fn asked(command: Command, config: &Config, form: Form) -> Result<Option<String>, Failure> {
    Ok(Some(match command {
        Command::Daemon(_) | Command::Status(_) => {
            let status = ask::status(&config.control_socket).await?;
            if form == Form::Json { output::json(&status) } else { output::status(&status) }
        }
        Command::Logs(logs) => {
            let reply = ask::logs(&config.control_socket, &logs.plugin, logs.lines).await?;
            if form == Form::Text && reply.lines.is_empty() && logs.lines != Some(0) {
                let words = "has written no log lines since the agent started";
                output::note(&format!("{} {words}", reply.plugin));
                return Ok(None);
            }
            if form == Form::Json { output::json(&reply) } else { output::logs(&reply) }
        }
        Command::Hold(order) => ordered(config, form, (Verb::Hold, order)).await?,
        Command::Release(order) => ordered(config, form, (Verb::Release, order)).await?,
        Command::Rollback(order) => ordered(config, form, (Verb::RollBack, order)).await?,
        Command::Call(call) => {
            let path = [call.plugin.as_str(), call.function.as_str()];
            let reply = ask::call(&config.front.socket, path, call.input, call.timeout).await?;
            if form == Form::Json { output::json(&reply) } else { reply.text() }
        }
    }))
}

async fn ordered(
    config: &Config,
    form: Form,
    (verb, order): (Verb, overrides::Order),
) -> Result<String, Explained> {
    let reply = ask::order(&config.control_socket, verb, (&order.plugin, order.reason)).await?;
    Ok(if form == Form::Json { output::json(&reply) } else { overrides::text(verb, &reply) })
}

/// The runtime could not be made.
pub(crate) fn no_runtime(error: std::io::Error) -> Explained {
    Explained::new(
        "OUT_OF_RESOURCES",
        "the program could not start its threads",
        error.to_string(),
        "see whether this machine has descriptors, threads and memory left",
    )
}

#[cfg(test)]
mod tests;
