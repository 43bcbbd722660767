//! Where output goes: data to standard output, notes for people to standard error, one format throughout.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
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

    /// A line on the way to the result; for people only.
    pub(super) fn line(self, text: &str) {
        if !self.is_json() {
            print(text);
        }
    }

    /// Prints an error and gives its exit code.
    pub(super) fn fail(self, failure: &Failure) -> Exit {
        let error = &failure.error;
        match self.format {
            Format::Text => drop(writeln!(anstream::stderr(), "{error}")),
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

fn with_schema(mut value: Value) -> Value {
    value["schema"] = SCHEMA.into();
    value
}

/// A reader that has gone away is no reason to stop a rollout.
fn print(text: &str) {
    let mut out = anstream::stdout();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}
