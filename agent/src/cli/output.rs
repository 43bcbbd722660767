//! Writing results and errors: data on standard output, notes for people on standard error.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, IsTerminal, Write, stderr, stdout},
    time::{Duration, SystemTime},
};

use fleetswap_proto::Explained;
use serde::Serialize;

use super::Form;
use crate::control::{LogReply, Release, Status, Trial};

/// Digits of a release id that are shown to people.
const SHORT_ID: usize = 12;

/// Writes an error: text on standard error, JSON on standard output.
pub(super) fn error(form: Form, error: &Explained) {
    match form {
        Form::Text => eprintln!("{}", shown(&error.to_string(), stderr().is_terminal())),
        // A reader that is gone is told by the exit code.
        Form::Json => drop(data(&error_json(error))),
    }
}

/// Writes a result and a line's end.
pub(super) fn data(text: &str) -> Result<(), Explained> {
    let mut out = stdout().lock();
    let text = shown(text.trim_end(), out.is_terminal());
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.or_else(|error| match error.kind() {
        // `agent logs clock | head` is no failure.
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Explained::new(
            "OUTPUT_FAILED",
            "the result can't be written to standard output",
            error.to_string(),
            "see where standard output goes",
        )),
    })
}

/// What a plugin wrote must not steer the terminal that shows it. A pipe or a file gets it as it is.
fn shown(text: &str, on_terminal: bool) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !on_terminal || !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// One object on one line.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::json!(value).to_string()
}

pub(super) fn status(status: &Status) -> String {
    let mut text = format!("{} (agent {}, id {})\n", status.name, status.agent_version, status.host_id);
    let controller = &status.controller;
    let link = match (controller.connected, controller.last_error.as_str()) {
        (true, _) => format!("connected, version {}", controller.version),
        (false, "") => "not connected".to_owned(),
        (false, error) => format!("not connected: {error}"),
    };
    push(&mut text, &format!("controller {}  {link}", controller.address));
    if status.plugins.is_empty() {
        push(&mut text, "no plugins yet");
        return text;
    }
    push(
        &mut text,
        &format!("\n{:<16} {:<12} {:<28} {:<28} TRIAL", "PLUGIN", "SERVICE", "ACTIVE", "PREVIOUS"),
    );
    for plugin in &status.plugins {
        let active = release(plugin.active.as_ref());
        let previous = release(plugin.previous.as_ref());
        let trial = plugin.trial.as_ref().map_or_else(|| "-".to_owned(), trial);
        push(
            &mut text,
            &format!("{:<16} {:<12} {active:<28} {previous:<28} {trial}", plugin.plugin, plugin.service),
        );
    }
    text
}

pub(super) fn logs(reply: &LogReply) -> String {
    let mut text = String::new();
    for line in &reply.lines {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(line.unix_ms);
        let time = humantime::format_rfc3339_millis(time);
        push(
            &mut text,
            &format!("{time} {} {:<5} {} {}", short(&line.release), line.level, line.source, line.text),
        );
    }
    text
}

fn error_json(error: &Explained) -> String {
    let Explained { code, what, why, fix } = error;
    let page = error.page();
    serde_json::json!({"schema": 1, "error": {"code": code, "what": what, "why": why, "fix": fix, "page": page}})
        .to_string()
}

fn release(release: Option<&Release>) -> String {
    release
        .map_or_else(|| "-".to_owned(), |r| format!("{} r{} {}", r.version, r.revision, short(&r.release_id)))
}

fn trial(trial: &Trial) -> String {
    let version = trial.candidate.as_ref().map_or("-", |candidate| candidate.version.as_str());
    match &trial.failure {
        Some(failure) => format!("{version} {} {}: {}", trial.state, failure.code, failure.message),
        None => format!("{version} {}", trial.state),
    }
}

fn short(release_id: &str) -> &str {
    &release_id[..release_id.floor_char_boundary(SHORT_ID)]
}

fn push(text: &mut String, line: &str) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_words_do_not_steer_a_terminal() {
        let words = "one\ttwo\n\u{1b}]0;title\u{7}\rthree";
        assert_eq!(shown(words, true), "one\ttwo\n\\u{1b}]0;title\\u{7}\\rthree");
        assert_eq!(shown(words, false), words, "a pipe gets what was written");
    }
}
