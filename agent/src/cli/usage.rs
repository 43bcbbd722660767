//! A command line that clap refused, in the words of every other error.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use fleetswap_proto::Explained;

/// What is wrong with the arguments.
pub(super) fn explain(error: &clap::Error) -> Explained {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let (hints, rest): (Vec<&str>, Vec<&str>) =
        lines.partition(|line| ["tip:", "Usage:", "For more"].iter().any(|start| line.starts_with(start)));
    let (what, why) = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            return no_command();
        }
        ErrorKind::MissingRequiredArgument => missing(error),
        _ => (first.strip_prefix("error: ").unwrap_or(first).to_owned(), rest.join("; ")),
    };
    let (what, why) = match what.split_once("': ") {
        // The reason that the value's own parser gives.
        Some((value, reason)) if why.is_empty() => (format!("{value}'"), reason.to_owned()),
        _ => (what, why),
    };
    let why = if why.is_empty() { "the command line was not understood".to_owned() } else { why };
    Explained::new("USAGE", what, why, fix(&hints))
}

fn no_command() -> Explained {
    Explained::new(
        "USAGE",
        "no command was given",
        "`agent` by itself does nothing",
        "`agent daemon` runs the daemon; `agent status`, `agent call` and `agent logs` ask it; `agent hold`, `agent release` \
         and `agent rollback` steer it by hand; `agent --help` says more",
    )
}

fn missing(error: &clap::Error) -> (String, String) {
    let arguments = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(arguments)) => arguments.join(" and "),
        Some(ContextValue::String(argument)) => argument.clone(),
        _ => "an argument".to_owned(),
    };
    (format!("the command line lacks {arguments}"), "the command can't do its work without".to_owned())
}

fn fix(hints: &[&str]) -> String {
    let readable = |hint: &&str| match hint.split_once(": ") {
        Some(("tip", tip)) => tip.to_owned(),
        Some(("Usage", usage)) => format!("write {usage}"),
        _ => "--help lists the arguments".to_owned(),
    };
    hints.iter().map(readable).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn explained(line: &str) -> Explained {
        explain(&super::super::Cli::try_parse_from(line.split(' ')).unwrap_err())
    }

    #[test]
    fn a_missing_argument_is_named_in_the_first_line() {
        let error = explained("agent call");
        assert_eq!(error.what, "the command line lacks <PLUGIN> and <FUNCTION>");
        assert_eq!(error.fix, "write agent call <PLUGIN> <FUNCTION> [INPUT]; --help lists the arguments");
    }

    #[test]
    fn without_a_command_the_commands_are_named() {
        let error = explained("agent");
        assert_eq!(error.what, "no command was given");
        assert!(["daemon", "status", "call", "logs"].iter().all(|verb| error.fix.contains(verb)), "{error}");
    }

    #[test]
    fn a_wrong_value_says_which_are_right_or_why_not() {
        let error = explained("agent status -o yaml");
        assert_eq!((error.what.contains("'yaml'"), &*error.why), (true, "[possible values: text, json]"));
        let error = explained("agent call a b c --timeout soon");
        assert_eq!(error.what, "invalid value 'soon' for '--timeout <DURATION>'");
        assert!(error.why.starts_with("expected"), "{error}");
    }

    #[test]
    fn a_misspelt_word_gets_a_tip() {
        for (line, tip) in [("agent statsu", "'status'"), ("agent status --confg x", "'--config'")] {
            let error = explained(line);
            assert!(error.fix.contains(tip), "{error}");
            assert!(!error.why.is_empty() && !error.to_string().contains("tip:"), "{error}");
        }
    }
}
