//! Tail: the last lines of a worker, kept for the report of its death.
use super::TAIL_MAX;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// The last lines, at most [`TAIL_MAX`] bytes.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    /// Appends a line, dropping the oldest ones beyond the bound.
    pub(crate) fn push(&self, line: String) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.bytes += line.len() + 1;
        tail.lines.push_back(line);
        while tail.bytes > TAIL_MAX {
            let Some(oldest) = tail.lines.pop_front() else { break };
            tail.bytes -= oldest.len() + 1;
        }
    }

    /// All lines, each with its end.
    pub(crate) fn text(&self) -> String {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(tail.bytes);
        for line in &tail.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_within_its_bound() {
        let tail = Tail::default();
        for n in 0..1000 {
            tail.push(format!("{n:0>200}"));
        }
        let text = tail.text();
        assert!(text.len() <= TAIL_MAX && text.len() > TAIL_MAX - 402, "{}", text.len());
        assert!(text.ends_with("999\n"));
        assert_eq!(text.lines().count(), TAIL_MAX / 201);
    }
}
