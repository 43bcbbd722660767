//! Reading one node of a schema: its keywords, its references, its sets of values.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::{Map, Value};

use super::{COMMENTS, LISTED_MAX, SHOWN_MAX};
use crate::name::shown;

/// Longest chain of references that lead only to the next one.
const CHAIN_MAX: usize = 32;
/// Where local references point.
const DEFINITIONS: &str = "#/$defs/";
/// The schema `true`, which is the same as one without keywords.
static ANYTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// The keywords of a schema; `None` for `false` and for what is no schema at all.
pub(super) fn keywords(schema: &Value) -> Option<&Map<String, Value>> {
    match schema {
        Value::Object(keywords) => Some(keywords),
        Value::Bool(true) => Some(&ANYTHING),
        Value::Null | Value::Bool(false) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    }
}

/// Follows a schema that is nothing but a reference, comments aside. `None` if a reference leads nowhere, round in
/// a circle or out of the document.
pub(super) fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> Option<&'a Value> {
    for _ in 0..CHAIN_MAX {
        match reference(schema) {
            Some(reference) => schema = target(root, reference)?,
            None => return Some(schema),
        }
    }
    None
}

/// What a local reference points to.
pub(super) fn target<'a>(root: &'a Value, reference: &Value) -> Option<&'a Value> {
    root.get("$defs")?.get(reference.as_str()?.strip_prefix(DEFINITIONS)?)
}

fn reference(schema: &Value) -> Option<&Value> {
    let keywords = schema.as_object()?;
    let alone = |keyword: &String| {
        matches!(keyword.as_str(), "$ref" | "$defs") || COMMENTS.contains(&keyword.as_str())
    };
    keywords.get("$ref").filter(|_| keywords.keys().all(alone))
}

/// The set of values that a keyword allows or lists.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// The keyword is missing.
    Any,
    /// The values, each as JSON text.
    Listed(BTreeSet<String>),
}

impl Values {
    /// Reads the keyword, whose value is a list or, for a single string, that string. `None` if it is neither.
    pub(super) fn read(keywords: &Map<String, Value>, keyword: &str) -> Option<Self> {
        match keywords.get(keyword) {
            None => Some(Self::Any),
            Some(single @ Value::String(_)) => Some(Self::Listed(BTreeSet::from([single.to_string()]))),
            Some(Value::Array(values)) => Some(Self::Listed(values.iter().map(Value::to_string).collect())),
            Some(_) => None,
        }
    }

    /// Whether the keyword is missing.
    pub(super) fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// Whether the value is listed by name.
    pub(super) fn lists(&self, value: &str) -> bool {
        matches!(self, Self::Listed(values) if values.contains(&Value::from(value).to_string()))
    }

    /// Whether everything that `other` allows is allowed here too.
    pub(super) fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Listed(_), Self::Any) => false,
            (Self::Listed(wide), Self::Listed(narrow)) => narrow.is_subset(wide),
        }
    }

    /// Like [`Values::cover`] for types, where an integer is also a number.
    pub(super) fn cover_types(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Listed(wide), Self::Listed(narrow)) => {
                let number = self.lists("number");
                narrow.iter().all(|name| wide.contains(name) || number && name == "\"integer\"")
            }
            _ => self.cover(other),
        }
    }

    /// The values that `other` does not list, for a text; `None` if there are none.
    pub(super) fn beyond(&self, other: &Self) -> Option<String> {
        let (Self::Listed(mine), Self::Listed(theirs)) = (self, other) else { return None };
        let beyond: Vec<_> = mine.difference(theirs).map(|value| shown_value(value)).collect();
        if beyond.is_empty() { None } else { Some(listed(&beyond, ", ")) }
    }

    /// The values for a text, as alternatives.
    pub(super) fn alternatives(&self, any: &str) -> String {
        match self {
            Self::Any => any.to_owned(),
            Self::Listed(values) => {
                let values: Vec<_> = values.iter().map(|value| shown_value(value)).collect();
                listed(&values, " or ")
            }
        }
    }
}

/// A JSON text for people: a plain word goes without its quotation marks.
fn shown_value(json: &str) -> String {
    let bare = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let word = |text: &&str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    bare.filter(word).map_or_else(|| format!("`{}`", shown(json, SHOWN_MAX)), |word| shown(word, SHOWN_MAX))
}

fn listed(values: &[String], between: &str) -> String {
    let more = values.len().saturating_sub(LISTED_MAX);
    let text = values[..values.len() - more].join(between);
    if more == 0 { text } else { format!("{text} and {more} more") }
}
