//! Command lines that were not understood: clap's findings in our four parts.

use clap::{
    CommandFactory, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};
use fleetswap_proto::Explained;

use super::args::Cli;

/// Characters of a mistyped value that are repeated.
const SHOWN_MAX: usize = 80;

/// What is wrong with the command line, and how it is written.
pub(super) fn explained(error: &Error) -> Explained {
    let line = Line::of(error);
    let (what, why) = what_and_why(error, &line);
    Explained::new("USAGE", what, why, fix(error, &line))
}

/// The command line as it should be.
struct Line {
    /// e.g. `controller push`
    verb: String,
    /// With its arguments; empty if the error is about one value only.
    usage: String,
}

impl Line {
    fn of(error: &Error) -> Self {
        let text = error.render().to_string();
        let usage = text.lines().find_map(|line| line.trim().strip_prefix("Usage: ")).unwrap_or_default();
        let is_name = |word: &&str| word.starts_with(|first: char| first.is_ascii_lowercase());
        let verb: Vec<&str> = usage.split(' ').take_while(is_name).collect();
        // Clap writes no usage where a single value is wrong.
        let verb = if verb.is_empty() { verb_of(std::env::args().skip(1)) } else { verb.join(" ") };
        // Which address is used where none is named is no part of what has to be written.
        Self { verb, usage: usage.replace(" --controller <ADDR>", "") }
    }
}

/// The program and the verb that these arguments begin with.
fn verb_of(arguments: impl Iterator<Item = String>) -> String {
    let (mut command, mut words) = (Cli::command(), vec!["controller".to_owned()]);
    for word in arguments {
        let Some(next) = command.find_subcommand(&word).cloned() else { break };
        command = next;
        words.push(word);
    }
    words.join(" ")
}

fn what_and_why(error: &Error, line: &Line) -> (String, String) {
    let argument = || strings(error, ContextKind::InvalidArg);
    let of_value = |why: String| {
        let value = strings(error, ContextKind::InvalidValue).concat();
        (format!("{} can't be the value of {}", quoted(&value), all(&argument())), why)
    };
    match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            let missing = argument();
            let (are, them) = if missing.len() > 1 { ("are", "them") } else { ("is", "it") };
            (format!("{} {are} missing", all(&missing)), format!("`{}` can't do without {them}", line.verb))
        }
        ErrorKind::UnknownArgument => {
            let words = argument().concat();
            let why = if words.starts_with('-') {
                format!("`{}` has no such argument", line.verb)
            } else {
                format!("`{}` expects no more words", line.verb)
            };
            (format!("{} was not expected", quoted(&words)), why)
        }
        ErrorKind::InvalidSubcommand => {
            let word = strings(error, ContextKind::InvalidSubcommand).concat();
            (format!("{} is no verb of `{}`", quoted(&word), line.verb), verbs(&line.verb))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            (format!("a verb is missing behind `{}`", line.verb), verbs(&line.verb))
        }
        ErrorKind::ArgumentConflict => conflict(error),
        ErrorKind::ValueValidation => of_value(source(error)),
        ErrorKind::InvalidValue if strings(error, ContextKind::InvalidValue).concat().is_empty() => {
            (format!("the value of {} is missing", all(&argument())), choice(error))
        }
        ErrorKind::InvalidValue => of_value(choice(error)),
        _ => ("the command line can't be read".to_owned(), first_line(error)),
    }
}

fn conflict(error: &Error) -> (String, String) {
    let (argument, prior) = (strings(error, ContextKind::InvalidArg), strings(error, ContextKind::PriorArg));
    if argument == prior {
        return (format!("{} is there twice", all(&argument)), "it has one value".to_owned());
    }
    let what = format!("{} and {} exclude each other", all(&argument), all(&prior));
    (what, "only one of them can be done at a time".to_owned())
}

/// What to write instead, and where all of it is listed.
fn fix(error: &Error, line: &Line) -> String {
    let mut parts = Vec::new();
    let guesses = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let guess: Vec<String> = guesses.iter().flat_map(|kind| strings(error, *kind)).collect();
    if !guess.is_empty() {
        parts.push(format!("did you mean {}?", quotes(&guess).join(" or ")));
    }
    let argument = strings(error, ContextKind::InvalidArg).concat();
    if let Some((_, variable)) = VARIABLES.iter().find(|(flag, _)| argument.starts_with(flag)) {
        parts.push(format!("look at {variable} as well, which stands for it where it is not written"));
    }
    if !line.usage.is_empty() {
        parts.push(format!("write it like: {}", line.usage));
    }
    parts.push(format!("`{} --help` lists what there is", line.verb));
    parts.join("; ")
}

/// Arguments that a variable can give.
const VARIABLES: [(&str, &str); 2] =
    [("--controller", "FLEETSWAP_CONTROLLER"), ("--publisher-dir", "FLEETSWAP_PUBLISHER_DIR")];

fn choice(error: &Error) -> String {
    let valid = strings(error, ContextKind::ValidValue);
    if valid.is_empty() {
        "a value must follow it".to_owned()
    } else {
        format!("it takes {}", quotes(&valid).join(" or "))
    }
}

/// The parser's own words.
fn source(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| first_line(error), ToString::to_string)
}

/// The verbs that may stand behind `verb`.
fn verbs(verb: &str) -> String {
    let mut command = Cli::command();
    for word in verb.split(' ').skip(1) {
        command = command.find_subcommand(word).cloned().unwrap_or_default();
    }
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    format!("its verbs are {}", names.join(", "))
}

fn first_line(error: &Error) -> String {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

fn strings(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

fn all(names: &[String]) -> String {
    quotes(names).join(" and ")
}

fn quotes(names: &[String]) -> Vec<String> {
    names.iter().map(|name| quoted(name)).collect()
}

fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() == text.len() { format!("`{shown}`") } else { format!("`{shown}…`") }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_verb_is_known_from_the_arguments_alone() {
        let of = |line: &str| verb_of(line.split(' ').map(str::to_owned));
        assert_eq!(of("push clock --version x"), "controller push");
        assert_eq!(of("host list --output x"), "controller host list");
        assert_eq!(of("--help"), "controller");
    }

    fn refused(words: &str) -> Explained {
        let words = ["controller"].into_iter().chain(words.split_whitespace());
        explained(&Cli::try_parse_from(words).unwrap_err())
    }

    #[test]
    fn every_way_to_mistype_is_a_sentence_with_its_reason() {
        let cases = [
            ("rollback clock", "`--reason <TEXT>` is missing", "`controller rollback` can't do without it"),
            (
                "push clock",
                "`--version <V>` and `--artifact <FILE>` are missing",
                "`controller push` can't do without them",
            ),
            ("status r-1 --nope", "`--nope` was not expected", "`controller status` has no such argument"),
            ("status r-1 r-2", "`r-2` was not expected", "`controller status` expects no more words"),
            ("host lst", "`lst` is no verb of `controller host`", "its verbs are list"),
            ("host", "a verb is missing behind `controller host`", "its verbs are list"),
            ("history --limit 0", "`0` can't be the value of `--limit <N>`", "0 is not in 1..=1000"),
            (
                "status --output yaml",
                "`yaml` can't be the value of `--output <OUTPUT>`",
                "it takes `text` or `json`",
            ),
            ("status --output", "the value of `--output <OUTPUT>` is missing", "it takes `text` or `json`"),
            ("status --watch --watch", "`--watch` is there twice", "it has one value"),
            (
                "push clock --version 1.0.0 --artifact a --dry-run --detach",
                "`--dry-run` and `--detach` exclude each other",
                "only one of them can be done at a time",
            ),
        ];
        for (words, what, why) in cases {
            let error = refused(words);
            assert_eq!((error.what.as_str(), error.why.as_str()), (what, why), "{words}");
            assert!(error.fix.ends_with("--help` lists what there is"), "{words}: {}", error.fix);
            assert!(!error.fix.contains("--controller <ADDR>"), "{words}: {}", error.fix);
        }
    }

    #[test]
    fn a_typing_error_is_answered_with_what_was_meant() {
        assert!(refused("push clock --verison 1.0.0").fix.starts_with("did you mean `--version`?"));
        assert!(refused("statsu").fix.starts_with("did you mean `status`?"));
        assert!(refused("").why.starts_with("its verbs are serve, init, describe"));
        assert!(
            refused("rollback clock")
                .fix
                .contains("write it like: controller rollback --reason <TEXT> <NAME>")
        );
    }

    #[test]
    fn a_value_may_have_come_from_a_variable() {
        let error = refused("status --controller nowhere");
        assert_eq!(error.why, "it must be HOST:PORT, e.g. 127.0.0.1:7443");
        assert!(error.fix.starts_with("look at FLEETSWAP_CONTROLLER as well"), "{}", error.fix);
    }

    #[test]
    fn a_long_value_is_cut() {
        let error = refused(&format!("status {}", "x".repeat(5000)));
        assert!(error.what.len() < 200, "{}", error.what);
    }
}
