//! A functional probe: one call and what its answer must contain.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::Index};

use super::{ManifestError, rules};

/// Longest probe, in bytes of its text.
pub const PROBE_MAX: usize = 16 * 1024;
/// Longest piece of JSON that a message shows, in characters.
const SHOWN_MAX: usize = 200;

/// One call, made before a release serves, and what its answer must contain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Name of the function.
    pub function: String,
    /// Its input.
    pub input: Value,
    /// What the answer must contain: objects match as subsets, everything else exactly.
    pub expected: Value,
}

/// The first place where an answer differs from what a probe expects.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// Where, e.g. `$.hands[0].hour`; `$` is the whole answer.
    pub path: String,
    /// What stands there; `None` if nothing does.
    pub got: Option<Value>,
    /// What should stand there; `None` if nothing should.
    pub wanted: Option<Value>,
}

impl Probe {
    /// Reads `FUNCTION INPUT => EXPECTED`, both JSON.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        read(text).map_err(|reason| ManifestError::Probe { text: cut(text), reason })
    }

    /// Compares an answer with what is expected.
    pub fn matches(&self, got: &Value) -> Result<(), Mismatch> {
        compare("$", got, &self.expected)
    }

    /// Checks the bounds of a probe; the error says what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        if !rules::is_name(&self.function, b"_") {
            return Err(format!("`{}` is not the name of a function", cut(&self.function)));
        }
        let length = self.to_string().len();
        if length > PROBE_MAX {
            return Err(format!("it has {length} bytes; at most {PROBE_MAX} are allowed"));
        }
        Ok(())
    }
}

/// The text that [`Probe::parse`] reads.
impl fmt::Display for Probe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} => {}", self.function, self.input, self.expected)
    }
}

impl Mismatch {
    /// What stood there, as JSON, cut if long; `nothing` if nothing did.
    #[must_use]
    pub fn got_text(&self) -> String {
        shown(self.got.as_ref())
    }

    /// What should have stood there, as JSON, cut if long.
    #[must_use]
    pub fn wanted_text(&self) -> String {
        shown(self.wanted.as_ref())
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: got {}, wanted {}", self.path, self.got_text(), self.wanted_text())
    }
}

fn read(text: &str) -> Result<Probe, String> {
    let text = text.trim();
    if text.len() > PROBE_MAX {
        return Err(format!("it has {} bytes; at most {PROBE_MAX} are allowed", text.len()));
    }
    let (function, rest) =
        text.split_once(char::is_whitespace).ok_or("after the function, an input in JSON is missing")?;
    let (input, rest) = leading_json(rest)?;
    let expected = rest.trim_start().strip_prefix("=>").ok_or("after the input, `=>` is missing")?;
    let expected = serde_json::from_str(expected).map_err(|cause| format!("after `=>`: {cause}"))?;
    let probe = Probe { function: function.to_owned(), input, expected };
    probe.check()?;
    Ok(probe)
}

/// One JSON value from the start of `text`, and what follows it.
fn leading_json(text: &str) -> Result<(Value, &str), String> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    match values.next() {
        Some(Ok(value)) => Ok((value, text.get(values.byte_offset()..).unwrap_or_default())),
        Some(Err(cause)) => Err(format!("the input is not JSON: {cause}")),
        None => Err("after the function, an input in JSON is missing".to_owned()),
    }
}

fn compare(path: &str, got: &Value, wanted: &Value) -> Result<(), Mismatch> {
    match (got, wanted) {
        (Value::Object(got), Value::Object(wanted)) => wanted
            .iter()
            .try_for_each(|(key, wanted)| compare_at(&format!("{path}.{key}"), got.get(key), Some(wanted))),
        (Value::Array(items), Value::Array(wanted_items)) => (0..items.len().max(wanted_items.len()))
            .try_for_each(|index| compare_at(&format!("{path}[{index}]"), at(got, index), at(wanted, index))),
        _ if same(got, wanted) => Ok(()),
        _ => Err(Mismatch { path: path.to_owned(), got: Some(got.clone()), wanted: Some(wanted.clone()) }),
    }
}

fn compare_at(path: &str, got: Option<&Value>, wanted: Option<&Value>) -> Result<(), Mismatch> {
    match (got, wanted) {
        (Some(got), Some(wanted)) => compare(path, got, wanted),
        (got, wanted) => Err(Mismatch { path: path.to_owned(), got: got.cloned(), wanted: wanted.cloned() }),
    }
}

fn at(value: &Value, index: impl Index) -> Option<&Value> {
    value.get(index)
}

/// Equal values; `1` and `1.0` are the same number, as JSON Schema has it.
fn same(got: &Value, wanted: &Value) -> bool {
    match (got, wanted) {
        (Value::Number(got), Value::Number(wanted)) => {
            got == wanted || (got.is_f64() != wanted.is_f64() && got.as_f64() == wanted.as_f64())
        }
        _ => got == wanted,
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| cut(&value.to_string()))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
