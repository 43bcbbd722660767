//! Following a plugin's log: each line as it comes, until Ctrl-C, until nobody reads them, or until the agent stops.

use std::{path::Path, process::ExitCode};

use fleetswap_proto::Explained;
use serde_json::json;
use tokio::signal::ctrl_c;

use super::{Form, ask, output};
use crate::control::Event;

/// Lines of the past that are shown first, unless another number is asked for.
pub(super) const LINES: u32 = 10;
/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;
/// Longest event in bytes: a line of 4 KiB, in the longest form that JSON has for it, and what surrounds it.
const EVENT_MAX: usize = 64 * 1024;

/// Follows `target`: a plugin, and how many of its last lines come first.
pub(super) async fn follow(
    socket: &Path,
    (plugin, lines): (&str, u32),
    form: Form,
) -> Result<ExitCode, Explained> {
    let mut stream = ask::follow(socket, plugin, lines).await?;
    let mut events = Events::default();
    loop {
        let chunk = tokio::select! {
            interrupted = ctrl_c() => match interrupted {
                Ok(()) => return Ok(ExitCode::from(INTERRUPTED)),
                Err(error) => return Err(super::no_runtime(error)),
            },
            chunk = stream.chunk() => chunk.map_err(|error| broken(socket, &error.to_string()))?,
        };
        let Some(chunk) = chunk else { return Err(broken(socket, "its answer ended in the middle")) };
        for event in events.take(&chunk)? {
            match show(plugin, &event, form)? {
                Next::Goes => {}
                Next::Ends => return Ok(ExitCode::SUCCESS),
            }
        }
    }
}

/// Whether more is to be shown.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Goes,
    Ends,
}

fn show(plugin: &str, event: &Event, form: Form) -> Result<Next, Explained> {
    let lost = |count: u64| format!("{count} lines were lost: they came faster than they could be shown");
    let text = match (event, form) {
        (Event::Following { known: true }, _) => return Ok(Next::Goes),
        (Event::Following { known: false }, _) => {
            output::note(&format!("{plugin} is not on this host yet; waiting for it"));
            return Ok(Next::Goes);
        }
        (Event::Stopping, _) => {
            output::note("the agent stops");
            return Ok(Next::Ends);
        }
        (Event::Line(line), Form::Text) => output::log_line(line),
        (Event::Line(line), Form::Json) => json!({"schema": 1, "line": line}).to_string(),
        (Event::Lost(count), Form::Text) => {
            output::note(&lost(*count));
            return Ok(Next::Goes);
        }
        (Event::Lost(count), Form::Json) => json!({"schema": 1, "lost": count}).to_string(),
    };
    Ok(if output::next(&text)? { Next::Goes } else { Next::Ends })
}

fn broken(socket: &Path, why: &str) -> Explained {
    Explained::new(
        "AGENT_UNREACHABLE",
        format!("the agent on {} went away while its log was followed", socket.display()),
        why,
        "see with agent status whether it runs again, then follow again",
    )
}

/// Puts events together from the chunks of a stream.
#[derive(Debug, Default)]
struct Events {
    begun: Vec<u8>,
}

impl Events {
    fn take(&mut self, chunk: &[u8]) -> Result<Vec<Event>, Explained> {
        let mut events = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if self.begun.len() > EVENT_MAX {
                return Err(ask::not_understood("a line of it is too long"));
            }
            if piece.ends_with(b"\n") {
                let event = serde_json::from_slice(&self.begun);
                events.push(event.map_err(|error| ask::not_understood(&error.to_string()))?);
                self.begun.clear();
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_from_any_chunks() {
        let stream = b"{\"following\":{\"known\":true}}\n{\"lost\":7}\n\"stopping\"\n";
        for size in [1, 5, 99] {
            let mut events = Events::default();
            let got: Vec<Event> = stream.chunks(size).flat_map(|chunk| events.take(chunk).unwrap()).collect();
            assert_eq!(got, [Event::Following { known: true }, Event::Lost(7), Event::Stopping]);
        }
    }

    #[test]
    fn a_stream_of_something_else_is_not_understood_and_not_kept() {
        let code = |bytes: &[u8]| Events::default().take(bytes).unwrap_err().code;
        assert_eq!(code(b"hello\n"), "ANSWER_NOT_UNDERSTOOD");
        assert_eq!(code(&[b'x'; EVENT_MAX + 1]), "ANSWER_NOT_UNDERSTOOD");
    }
}
