//! Which hosts an assignment is for: `all`, or terms over labels and the name that all must hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Most bytes of a selector's text.
const TEXT_MAX: usize = 1024;
/// Most terms of a selector.
const TERMS_MAX: usize = 16;
/// Most values of one `in (…)`.
const VALUES_MAX: usize = 64;
/// The key that stands for the host's name instead of a label.
const NAME: &str = "name";

/// A set of hosts: `all`, or comma-joined `key=value`, `key!=value`, `key in (a,b)`, where the key `name` is the host's
/// name. Its text is canonical: sorted, without repetition, so equal sets of terms are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(BTreeSet<Term>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Term {
    Equals { key: String, value: String },
    Differs { key: String, value: String },
    OneOf { key: String, values: BTreeSet<String> },
}

impl Selector {
    /// Every host.
    #[must_use]
    pub fn all() -> Self {
        Self(BTreeSet::new())
    }

    /// Whether it stands for every host.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a host with these labels and this name is in the set. A missing label differs from every value.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>, name: &str) -> bool {
        let value = |key: &str| if key == NAME { Some(name) } else { labels.get(key).map(String::as_str) };
        self.0.iter().all(|term| match term {
            Term::Equals { key, value: wanted } => value(key) == Some(wanted),
            Term::Differs { key, value: unwanted } => value(key) != Some(unwanted),
            Term::OneOf { key, values } => value(key).is_some_and(|value| values.contains(value)),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        for (at, term) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match term {
                Term::Equals { key, value } => write!(f, "{comma}{key}={value}")?,
                Term::Differs { key, value } => write!(f, "{comma}{key}!={value}")?,
                Term::OneOf { key, values } => {
                    let values: Vec<&str> = values.iter().map(String::as_str).collect();
                    write!(f, "{comma}{key} in ({})", values.join(","))?;
                }
            }
        }
        Ok(())
    }
}

/// The text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// Nothing but space.
    #[error("it is empty; write `all` for every host")]
    Empty,
    /// More than the text may have.
    #[error("it is longer than {TEXT_MAX} bytes")]
    TooLong,
    /// More terms, or more values of one, than it may have.
    #[error("it has more than {TERMS_MAX} terms, or more than {VALUES_MAX} values in one")]
    TooMany,
    /// `all` beside something else.
    #[error("`all` stands alone; leave it away beside other terms")]
    AllWithOthers,
    /// A `(` without `)`, or the other way round.
    #[error("the brackets of `{0}` don't match")]
    Brackets(String),
    /// Not `key=value`, `key!=value` or `key in (a,b)`.
    #[error("`{0}` is none of key=value, key!=value, name=HOST, key in (a,b)")]
    Term(String),
    /// A key or value with other characters.
    #[error("`{word}` in `{term}` is not made of letters, digits, '-', '_', '.', '/' and ':'")]
    Word {
        /// The key or value.
        word: String,
        /// Where it stands.
        term: String,
    },
}

impl InvalidSelector {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "SELECTOR_INVALID"
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > TEXT_MAX {
            return Err(InvalidSelector::TooLong);
        }
        let text = text.trim();
        match text {
            "" => return Err(InvalidSelector::Empty),
            "all" => return Ok(Self::all()),
            _ => {}
        }
        let parts = split(text)?;
        if parts.contains(&"all") {
            return Err(InvalidSelector::AllWithOthers);
        }
        if parts.len() > TERMS_MAX {
            return Err(InvalidSelector::TooMany);
        }
        parts.into_iter().map(term).collect::<Result<_, _>>().map(Self)
    }
}

impl TryFrom<String> for Selector {
    type Error = InvalidSelector;

    fn try_from(text: String) -> Result<Self, InvalidSelector> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

/// Splits at the commas outside brackets.
fn split(text: &str) -> Result<Vec<&str>, InvalidSelector> {
    let mut parts = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, character) in text.char_indices() {
        match character {
            '(' | ')' if inside == (character == '(') => {
                return Err(InvalidSelector::Brackets(text.to_owned()));
            }
            '(' | ')' => inside = character == '(',
            ',' if !inside => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(InvalidSelector::Brackets(text.to_owned()));
    }
    parts.push(text[start..].trim());
    Ok(parts)
}

fn term(text: &str) -> Result<Term, InvalidSelector> {
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(Term::Differs { key: word(key, text)?, value: word(value, text)? });
    }
    if let Some((key, value)) = text.split_once('=') {
        return Ok(Term::Equals { key: word(key, text)?, value: word(value, text)? });
    }
    let (key, rest) = text.split_once(" in").ok_or_else(|| InvalidSelector::Term(text.to_owned()))?;
    let values = rest.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let values = values.ok_or_else(|| InvalidSelector::Term(text.to_owned()))?;
    let values: BTreeSet<String> =
        values.split(',').map(|value| word(value, text)).collect::<Result<_, _>>()?;
    if values.len() > VALUES_MAX {
        return Err(InvalidSelector::TooMany);
    }
    Ok(Term::OneOf { key: word(key, text)?, values })
}

fn word(text: &str, term: &str) -> Result<String, InvalidSelector> {
    let text = text.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    if text.is_empty() {
        return Err(InvalidSelector::Term(term.to_owned()));
    }
    if !text.bytes().all(fits) {
        return Err(InvalidSelector::Word { word: text.to_owned(), term: term.to_owned() });
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)], name: &str) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        selector.parse::<Selector>().unwrap().matches(&labels, name)
    }

    #[test]
    fn every_term_must_hold() {
        let labels = [("zone", "a"), ("tier", "edge")];
        for (selector, holds) in [
            ("all", true),
            ("zone=a", true),
            ("zone=a,tier=core", false),
            ("zone!=b", true),
            ("rack!=7", true),
            ("rack=7", false),
            ("name=h1", true),
            ("name!=h1", false),
            ("zone in (b, a),name in (h1)", true),
            ("rack in (7)", false),
        ] {
            assert_eq!(matches(selector, &labels, "h1"), holds, "{selector}");
        }
    }

    #[test]
    fn the_text_is_canonical() {
        let selector: Selector = " zone in (b,a, b) , tier = edge,tier=edge, rack!=7 ".parse().unwrap();
        assert_eq!(selector.to_string(), "tier=edge,rack!=7,zone in (a,b)");
        assert_eq!(selector.to_string().parse(), Ok(selector));
    }

    #[test]
    fn a_wrong_text_says_what_is_wrong() {
        for (text, words) in [
            ("", "write `all`"),
            ("all,zone=a", "stands alone"),
            ("zone", "`zone` is none of"),
            ("zone=", "`zone=` is none of"),
            ("=a", "`=a` is none of"),
            ("zone=a,,tier=b", "`` is none of"),
            ("zone in a", "`zone in a` is none of"),
            ("zone in (a", "brackets"),
            ("zone in a)", "brackets"),
            ("zone in ((a))", "brackets"),
            ("zone=a b", "`a b` in `zone=a b`"),
            ("zöne=a", "`zöne` in"),
        ] {
            let error = text.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_text_beyond_its_bounds_is_refused() {
        let terms = vec!["a=b"; TERMS_MAX + 1].join(",");
        assert_eq!(terms.parse::<Selector>(), Err(InvalidSelector::TooMany));
        assert_eq!("x".repeat(TEXT_MAX + 1).parse::<Selector>(), Err(InvalidSelector::TooLong));
        let values: Vec<String> = (0..=VALUES_MAX).map(|n| n.to_string()).collect();
        assert_eq!(format!("a in ({})", values.join(",")).parse::<Selector>(), Err(InvalidSelector::TooMany));
    }
}
