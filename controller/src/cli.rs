//! The operator's command line: every verb of `controller`, its words and its exit codes.

mod args;
mod artifact;
mod client;
mod describe;
mod diff;
mod exit;
mod follow;
mod json;
mod output;
mod publish;
mod push;
mod query;
mod release;
mod rollback;
mod table;
mod text;
mod upload;
mod usage;
mod values;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command, HostCommand, PluginCommand};
use exit::{Exit, Failure};
use output::{Format, Output};

pub(crate) use args::ServeArgs;

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let matches = Cli::command().try_get_matches_from(&arguments);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            let output = Output::new(wanted_format(&arguments));
            return output.fail(&usage::explained(&error).into()).into();
        }
    };
    let output = Output::new(cli.command.format());
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(dispatch(cli.command, &output)).into(),
        Err(error) => output.fail(&Failure::io("starting the runtime", &error)).into(),
    }
}

async fn dispatch(command: Command, output: &Output) -> Exit {
    let done = match command {
        Command::Serve(args) => crate::serve::run(&args).await.map(|()| Exit::Ok).map_err(Failure::from),
        Command::Init(args) => query::init(&args, output),
        Command::Describe(args) => describe::run(&args, output).await,
        Command::Publish(args) => publish::run(&args, output).await,
        Command::Push(args) => Box::pin(push::run(&args, output)).await,
        Command::Rollback(args) => rollback::run(&args, output).await,
        Command::Status(args) => query::status(&args, output).await,
        Command::History(args) => query::history(&args, output).await,
        Command::Host(HostCommand::List(args)) => query::hosts(&args, output).await,
        Command::Plugin(PluginCommand::List(args)) => query::plugins(&args, output).await,
        Command::Diff(args) => diff::run(&args, output).await,
    };
    done.unwrap_or_else(|failure| output.fail(&failure))
}

/// The format that a mistyped command line asked for, so that its error comes in it as well.
fn wanted_format(arguments: &[OsString]) -> Format {
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let pair = words.windows(2).any(|pair| matches!(&*pair[0], "-o" | "--output") && pair[1] == "json");
    let joined = words.iter().any(|word| matches!(&**word, "-ojson" | "-o=json" | "--output=json"));
    if pair || joined { Format::Json } else { Format::Text }
}
