//! Writing results and errors: data on standard output, notes for people on standard error.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, IsTerminal, Write, stderr, stdout},
    time::{Duration, SystemTime},
};

use fleetswap_proto::{Explained, for_terminal};
use serde::Serialize;

use super::{Form, failure::Failure, overrides};
use crate::{
    control::{LogReply, Release, Status, Trial},
    logs::Line,
};

/// Digits of a release id that are shown to people.
const SHORT_ID: usize = 12;

/// Writes an error: text on standard error, JSON on standard output.
pub(super) fn error(form: Form, failure: &Failure) {
    match form {
        Form::Text => note(&failure.error.to_string()),
        // A reader that is gone is told by the exit code.
        Form::Json => drop(data(&error_json(failure))),
    }
}

/// Writes something for people on standard error. Where nobody can read it, the exit code has to do.
pub(super) fn note(text: &str) {
    let mut out = stderr().lock();
    let text = shown(text, out.is_terminal());
    drop(writeln!(out, "{text}"));
}

/// Writes a result and a line's end.
pub(super) fn data(text: &str) -> Result<(), Explained> {
    // `agent logs clock | head` is no failure.
    next(text).map(drop)
}

/// As [`data`], for one of many: false once nobody reads them any more.
pub(super) fn next(text: &str) -> Result<bool, Explained> {
    let mut out = stdout().lock();
    let text = shown(text.trim_end(), out.is_terminal());
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map(|()| true).or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(false),
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
    if on_terminal { for_terminal(text) } else { Cow::Borrowed(text) }
}

/// One object on one line.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::json!(value).to_string()
}

pub(super) fn status(status: &Status) -> String {
    let mut text = String::new();
    if status.safe_mode {
        push(
            &mut text,
            "SAFE MODE: no plugin is started, callers get 503; restart the agent without --safe to go on",
        );
    }
    push(&mut text, &format!("{} (agent {}, id {})", status.name, status.agent_version, status.host_id));
    let controller = &status.controller;
    let link = match (controller.connected, controller.last_error.as_str()) {
        (true, _) => format!("connected, version {}", controller.version),
        (false, "") => "not connected".to_owned(),
        (false, error) => format!("not connected: {error}"),
    };
    push(&mut text, &format!("controller {}  {link}", controller.address));
    push(&mut text, &format!("sandbox {}", status.sandbox.line()));
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
        if let Some(it) = &plugin.local_override {
            let undo = format!("agent release {} --reason TEXT", plugin.plugin);
            push(&mut text, &format!("  HELD: {}\n  undo: {undo}", overrides::standing(it)));
        }
        if !plugin.functions.is_empty() {
            push(&mut text, &format!("  functions: {}", plugin.functions.join(", ")));
        }
        if let Some(saved) = &plugin.saved_state {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(saved.unix_ms);
            let (time, bytes) = (humantime::format_rfc3339_millis(time), saved.bytes);
            push(&mut text, &format!("  state: saved {time}, {bytes} bytes of version {}", saved.version));
        }
        if !plugin.state_lost.is_empty() {
            push(&mut text, &format!("  state lost: {}", plugin.state_lost));
        }
    }
    text
}

pub(super) fn logs(reply: &LogReply) -> String {
    let mut text = String::new();
    for line in &reply.lines {
        push(&mut text, &log_line(line));
    }
    text
}

/// Time, version, release, rollout, level, source, text.
pub(super) fn log_line(line: &Line) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(line.unix_ms);
    let time = humantime::format_rfc3339_millis(time);
    let known = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let (version, rollout) = (known(&line.version), known(&line.rollout));
    let Line { release, level, source, text, .. } = line;
    format!("{time} {version} {} {rollout} {level:<5} {source} {text}", short(release))
}

fn error_json(failure: &Failure) -> String {
    let Failure { error, plugin_code } = failure;
    let Explained { code, what, why, fix } = error;
    let page = error.page();
    let mut shown = serde_json::json!({"code": code, "what": what, "why": why, "fix": fix, "page": page});
    if let Some(plugin_code) = plugin_code {
        shown["plugin_code"] = plugin_code.as_str().into();
    }
    serde_json::json!({"schema": 1, "error": shown}).to_string()
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
    fn the_status_lists_what_can_be_called() {
        let plugin = serde_json::json!({
            "plugin": "clock", "service": "SERVING", "active": null, "previous": null, "trial": null, "denied": [],
            "functions": ["time", "zone"], "worker_pid": 7,
        });
        let whole = serde_json::json!({
            "schema": 1, "name": "a", "host_id": "id", "agent_version": "1.0.0",
            "controller": {"address": "127.0.0.1:1", "connected": true, "version": "1.0.0", "last_error": ""},
            "generation": {"epoch": 1, "n": 1},
            "metadata": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}, "plugins": [plugin],
        });
        let text = status(&serde_json::from_value(whole).unwrap());
        assert!(text.ends_with("  functions: time, zone\n"), "{text}");
    }

    #[test]
    fn a_plugins_own_code_is_told_beside_the_page_of_ours() {
        let error = Explained::new("PLUGIN_ERROR", "NOT_TODAY: no", "w", "f");
        let failure = Failure { error, plugin_code: Some("NOT_TODAY".to_owned()) };
        let shown: serde_json::Value = serde_json::from_str(&error_json(&failure)).unwrap();
        let shown = &shown["error"];
        assert_eq!((&shown["code"], &shown["plugin_code"]), (&"PLUGIN_ERROR".into(), &"NOT_TODAY".into()));
        assert_eq!(shown["page"], "docs/errors/PLUGIN_ERROR.md");
    }

    #[test]
    fn a_plugins_words_do_not_steer_a_terminal() {
        let words = "one\u{1b}]0;title\u{7}";
        assert_eq!(shown(words, true), "one\\u{1b}]0;title\\u{7}");
        assert_eq!(shown(words, false), words, "a pipe gets what was written");
    }
}
