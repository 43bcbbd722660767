//! Comparison of two JSON Schemas: whether the new one keeps what the old one promised.
//!
//! A schema is the conjunction of its keywords, so keyword is compared with keyword, and a missing one allows
//! everything. Keywords that this file does not understand must mean the same in both, references followed.

mod fields;
mod node;
mod same;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Change, Kind, Verdict};
use crate::name::shown;
use node::{Values, resolve};
use same::same_keyword;

/// Deepest nesting that is compared, references followed.
const DEPTH_MAX: usize = 128;
/// Most steps of one comparison. A recursive schema can unfold into far more pairs than it has parts.
const STEPS_MAX: usize = 100_000;
/// Longest name or value in a text, in characters.
const SHOWN_MAX: usize = 80;
/// Most values that a text lists.
const LISTED_MAX: usize = 5;

/// Keywords that only comment. `default` is one of them: it changes what a call does, not what it looks like.
const COMMENTS: [&str; 7] =
    ["$comment", "$schema", "default", "deprecated", "description", "examples", "title"];
/// Keywords that are compared by meaning; `$defs` is reached by references only.
const UNDERSTOOD: [&str; 5] = ["$defs", "enum", "properties", "required", "type"];

/// Who depends on a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Callers write it: the new schema must accept what the old one accepted.
    Input,
    /// Callers read it: the new schema must keep what the old one promised.
    Output,
}

/// The changes from one schema of a function to the next.
pub(super) fn compare(direction: Direction, function: &str, old: &Value, new: &Value) -> Vec<Change> {
    if old == new {
        return Vec::new();
    }
    let mut comparison = Comparison { direction, function, pairs: Pairs::new(old, new), changes: Vec::new() };
    comparison.schemas(old, new, &Place::root());
    comparison.changes
}

/// Whether two schemas differ in more than comments.
pub(super) fn differ(old: &Value, new: &Value) -> bool {
    old != new && !same::same(&mut Pairs::new(old, new), old, new, 0)
}

/// The two documents, and which pairs of their parts were compared already. Each pair is compared once, which
/// also ends recursion.
struct Pairs<'a> {
    old: &'a Value,
    new: &'a Value,
    seen: BTreeSet<(*const Value, *const Value)>,
    seen_same: BTreeSet<(*const Value, *const Value)>,
    steps: usize,
}

/// One comparison in one direction.
struct Comparison<'a> {
    direction: Direction,
    function: &'a str,
    pairs: Pairs<'a>,
    changes: Vec<Change>,
}

/// A place inside a schema: the names of the fields that lead there.
struct Place {
    fields: String,
    depth: usize,
}

impl<'a> Pairs<'a> {
    const fn new(old: &'a Value, new: &'a Value) -> Self {
        Self { old, new, seen: BTreeSet::new(), seen_same: BTreeSet::new(), steps: 0 }
    }

    /// Counts work; false when there was too much of it.
    const fn spend(&mut self, steps: usize) -> bool {
        self.steps = self.steps.saturating_add(steps);
        self.steps <= STEPS_MAX
    }
}

impl<'a> Comparison<'a> {
    fn schemas(&mut self, old: &'a Value, new: &'a Value, at: &Place) {
        if at.depth > DEPTH_MAX || !self.pairs.spend(1) {
            return self.breaks(Kind::Changed, at, "", "is too large or too deep to compare");
        }
        let (Some(old), Some(new)) = (resolve(self.pairs.old, old), resolve(self.pairs.new, new)) else {
            return self.breaks(Kind::Changed, at, "$ref", "uses a reference that can't be followed");
        };
        if !self.pairs.seen.insert((old, new)) {
            return;
        }
        match (node::keywords(old), node::keywords(new)) {
            (Some(old), Some(new)) => {
                self.types(old, new, at);
                self.enums(old, new, at);
                self.fields(old, new, at);
                self.others(old, new, at);
            }
            _ if old == new => {}
            _ => self.breaks(Kind::Changed, at, "", "changed between a schema and `false`"),
        }
    }

    fn types(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, at: &Place) {
        let (Some(old), Some(new)) = (Values::read(old, "type"), Values::read(new, "type")) else {
            return self.breaks(Kind::Changed, at, "type", "has a `type` that can't be read");
        };
        if old == new {
            return;
        }
        let text =
            format!("is now {}, was {}", new.alternatives("of any type"), old.alternatives("of any type"));
        let (wide, narrow) = self.wide_and_narrow(&old, &new);
        if wide.cover_types(narrow) {
            self.allows(Kind::Changed, at, "type", &text);
        } else {
            let why = match self.direction {
                Direction::Input => "callers may send what it was",
                Direction::Output => "callers may not expect it",
            };
            self.breaks(Kind::Changed, at, "type", &format!("{text} ({why})"));
        }
    }

    fn enums(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, at: &Place) {
        let (Some(old), Some(new)) = (Values::read(old, "enum"), Values::read(new, "enum")) else {
            return self.breaks(Kind::Changed, at, "enum", "has an `enum` that can't be read");
        };
        if old == new {
            return;
        }
        let text = match (new.beyond(&old), old.beyond(&new)) {
            (None, None) if old.is_any() => "is now limited to listed values".to_owned(),
            (None, None) => "is no longer limited to listed values".to_owned(),
            (Some(gained), None) => format!("can now also be {gained}"),
            (None, Some(lost)) => format!("can no longer be {lost}"),
            (Some(gained), Some(lost)) => format!("can now be {gained}, and no longer {lost}"),
        };
        let (wide, narrow) = self.wide_and_narrow(&old, &new);
        if wide.cover(narrow) {
            self.allows(Kind::Changed, at, "enum", &text);
        } else {
            let why = match self.direction {
                Direction::Input => "callers may send it",
                Direction::Output => "callers may not know it",
            };
            self.breaks(Kind::Changed, at, "enum", &format!("{text} ({why})"));
        }
    }

    /// Keywords that are not understood: equal or breaking.
    fn others(&mut self, old: &'a Map<String, Value>, new: &'a Map<String, Value>, at: &Place) {
        let keywords: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for keyword in keywords {
            if UNDERSTOOD.contains(&keyword.as_str()) || COMMENTS.contains(&keyword.as_str()) {
                continue;
            }
            let named = shown(keyword, SHOWN_MAX);
            match (old.get(keyword), new.get(keyword)) {
                (Some(old), Some(new)) if same_keyword(&mut self.pairs, keyword, (old, new), at.depth) => {}
                (Some(_), Some(_)) => {
                    self.breaks(Kind::Changed, at, keyword, &format!("has another `{named}`"));
                }
                (Some(_), None) => self.breaks(Kind::Removed, at, keyword, &format!("lost its `{named}`")),
                (None, _) => self.breaks(Kind::Added, at, keyword, &format!("has a new `{named}`")),
            }
        }
    }

    /// Which of the two must allow everything that the other one allows.
    const fn wide_and_narrow<'v, T>(&self, old: &'v T, new: &'v T) -> (&'v T, &'v T) {
        match self.direction {
            Direction::Input => (new, old),
            Direction::Output => (old, new),
        }
    }

    fn breaks(&mut self, kind: Kind, at: &Place, keyword: &str, text: &str) {
        self.change(kind, Verdict::Breaking, (at, keyword), text);
    }

    fn allows(&mut self, kind: Kind, at: &Place, keyword: &str, text: &str) {
        self.change(kind, Verdict::Compatible, (at, keyword), text);
    }

    fn change(&mut self, kind: Kind, verdict: Verdict, (at, keyword): (&Place, &str), text: &str) {
        let (part, subject) = match self.direction {
            Direction::Input => ("input", "input"),
            Direction::Output => ("output", "reply"),
        };
        let function = self.function;
        let mut path = format!("functions.{function}.{part}");
        let mut subject = subject.to_owned();
        if !at.fields.is_empty() {
            path = format!("{path}.{}", at.fields);
            subject = format!("{subject} field `{}`", at.fields);
        }
        if !keyword.is_empty() {
            path = format!("{path}#{}", shown(keyword, SHOWN_MAX));
        }
        self.changes.push(Change { path, kind, verdict, text: format!("{function}: {subject} {text}") });
    }
}

impl Place {
    const fn root() -> Self {
        Self { fields: String::new(), depth: 0 }
    }

    fn field(&self, name: &str) -> Self {
        let name = shown(name, SHOWN_MAX);
        let fields = if self.fields.is_empty() { name } else { format!("{}.{name}", self.fields) };
        Self { fields, depth: self.depth + 1 }
    }
}
