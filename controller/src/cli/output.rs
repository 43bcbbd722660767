//! Where output goes: results, and for people the way to them, to standard output; errors to standard error, or as an
//! object to standard output where the output is for programs.

use std::{
    borrow::Cow,
    io::{IsTerminal, Write},
};

use clap::ValueEnum;
use fleetswap_proto::for_terminal;
use serde_json::{Value, json};

use super::exit::{Exit, Failure};

/// Version of all JSON output.
const SCHEMA: u32 = 1;

/// How output is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one object, or one a line while watching.
    Json,
}

/// Prints in the format that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether output is for programs.
    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Whether moving pictures are welcome.
    pub(super) fn is_interactive(self) -> bool {
        !self.is_json() && std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Prints a result in its two forms.
    pub(super) fn result(self, text: &str, json: Value) {
        match self.format {
            Format::Text => self.line(text),
            Format::Json => print(&with_schema(json).to_string()),
        }
    }

    /// Prints bytes that another program reads, exactly as they are; a terminal gets the end of the line as well.
    pub(super) fn bytes(self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        let is_terminal = out.is_terminal();
        drop(write_exactly(&mut out, bytes, is_terminal));
    }

    /// A line on the way to the result; for people only.
    pub(super) fn line(self, text: &str) {
        if !self.is_json() {
            print(text);
        }
    }

    /// Something for people beside the result, which may be read by a program.
    pub(super) fn note(self, text: &str) {
        let mut err = std::io::stderr().lock();
        let on_terminal = err.is_terminal();
        drop(writeln!(err, "{}", shown(text, on_terminal)));
    }

    /// Prints an error and gives its exit code.
    pub(super) fn fail(self, failure: &Failure) -> Exit {
        let error = &failure.error;
        match self.format {
            Format::Text => self.note(&error.to_string()),
            Format::Json => {
                let mut object = json!({ "error": {
                    "code": error.code, "what": error.what, "why": error.why, "fix": error.fix, "page": error.page(),
                }});
                if let Some(diff) = &failure.diff {
                    object["diff"] = diff.clone();
                }
                print(&with_schema(object).to_string());
            }
        }
        failure.exit
    }
}

/// Adds the version of the output to an object.
pub(super) fn with_schema(mut value: Value) -> Value {
    value["schema"] = SCHEMA.into();
    value
}

fn write_exactly(out: &mut impl Write, bytes: &[u8], is_terminal: bool) -> std::io::Result<()> {
    out.write_all(bytes)?;
    out.write_all(if is_terminal { b"\n" } else { b"" })?;
    out.flush()
}

/// A reader that has gone away is no reason to stop a rollout.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let on_terminal = out.is_terminal();
    drop(writeln!(out, "{}", shown(text, on_terminal)).and_then(|()| out.flush()));
}

/// What a plugin wrote is in failure records: it must not steer the terminal that shows it. A pipe or a file gets it
/// as it is.
fn shown(text: &str, on_terminal: bool) -> Cow<'_, str> {
    if on_terminal { for_terminal(text) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_words_do_not_steer_a_terminal() {
        let words = "got \u{1b}]0;title\u{7}";
        assert_eq!(shown(words, true), "got \\u{1b}]0;title\\u{7}");
        assert_eq!(shown(words, false), words);
    }

    #[test]
    fn a_descriptor_goes_into_a_file_byte_for_byte() {
        let written = |is_terminal| {
            let mut out = Vec::new();
            write_exactly(&mut out, br#"{"format":1}"#, is_terminal).unwrap();
            out
        };
        assert_eq!(written(false), br#"{"format":1}"#);
        assert_eq!(written(true), b"{\"format\":1}\n");
    }
}
