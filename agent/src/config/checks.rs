//! Checks of single values, and the message for a value that fails one.

use std::{
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    time::Duration,
};

use fleetswap_proto::{
    Explained,
    address::{self, Refused},
};
use reqwest::Url;
use toml::{Spanned, Value};

/// Longest name of a host, in bytes.
const NAME_MAX: usize = 128;
/// Longest path, in bytes (Linux: PATH_MAX less the closing NUL).
const PATH_LENGTH_MAX: usize = 4_095;
/// Longest path of a unix socket, in bytes (Linux: `sun_path` less the closing NUL).
const SOCKET_PATH_MAX: usize = 107;
/// Longest mirror URL, in bytes.
const URL_MAX: usize = 2_048;
/// Longest key of a label, in bytes.
const LABEL_KEY_MAX: usize = 63;
/// Longest value of a label, in bytes.
const LABEL_VALUE_MAX: usize = 253;
/// Longest name of a group, in bytes (useradd's own bound).
const GROUP_MAX: usize = 32;
/// Longest text of a time, in bytes.
const TIME_TEXT_MAX: usize = 64;
/// Shortest and longest time between two checkpoints.
const CHECKPOINT_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// A value that can't be used, and where it stands.
#[derive(Debug)]
pub(super) struct Fault {
    span: Option<Range<usize>>,
    message: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Invalid,
    NotLoopback { key: &'static str },
}

impl Fault {
    /// A value at its place.
    pub(super) fn at<T>(value: &Spanned<T>, message: String) -> Self {
        Self { span: Some(value.span()), message, kind: Kind::Invalid }
    }

    /// What the TOML parser found: syntax, a wrong type, an unknown or a missing key.
    pub(super) fn toml(error: &toml::de::Error) -> Self {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        Self { span: error.span(), message, kind: Kind::Invalid }
    }

    /// In the operator's words.
    pub(super) fn explain(self, path: &Path, text: &str) -> Explained {
        let place = match self.span {
            Some(span) => {
                let (line, column) = place(text, span.start);
                format!("{}, line {line}, column {column}", path.display())
            }
            None => path.display().to_string(),
        };
        let what = format!("{place}: {}", self.message);
        match self.kind {
            Kind::Invalid => Explained::new(
                "CONFIG_INVALID",
                what,
                "the agent starts only when it has understood every key of its configuration",
                "correct the line; docs/errors/CONFIG_INVALID.md lists the keys and their bounds",
            ),
            Kind::NotLoopback { key } => Explained::new(
                "ADDRESS_NOT_LOOPBACK",
                what,
                "this version has no TLS yet: beyond this machine everybody on the way could read and change \
                 what is sent",
                format!(
                    "give `{key}` a loopback address such as 127.0.0.1:7443, and reach other machines \
                         through a tunnel that encrypts"
                ),
            ),
        }
    }
}

/// Line and column, both counted from 1, the column in characters.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

pub(super) fn name(raw: &Spanned<String>) -> Result<String, Fault> {
    let name = bounded("name", raw, NAME_MAX)?;
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return Ok(name.to_owned());
    }
    Err(Fault::at(
        raw,
        format!("`name` is `{name}`; wanted letters, digits, `.`, `_`, `-`, a letter or digit first"),
    ))
}

pub(super) fn absolute(key: &str, raw: &Spanned<String>) -> Result<PathBuf, Fault> {
    path(key, raw, PATH_LENGTH_MAX)
}

pub(super) fn socket(key: &str, raw: &Spanned<String>) -> Result<PathBuf, Fault> {
    path(key, raw, SOCKET_PATH_MAX)
}

fn path(key: &str, raw: &Spanned<String>, max: usize) -> Result<PathBuf, Fault> {
    let text = bounded(key, raw, max)?;
    if !text.starts_with('/') || text.contains('\0') {
        return Err(Fault::at(raw, format!("`{key}` is `{}`; wanted an absolute path", text.escape_debug())));
    }
    Ok(PathBuf::from(text))
}

/// `IP:PORT`, `localhost:PORT` or the same behind `http://`.
pub(super) fn loopback(key: &'static str, raw: &Spanned<String>) -> Result<SocketAddr, Fault> {
    let text = bounded(key, raw, URL_MAX)?;
    address::loopback(text).map_err(|refused| match refused {
        Refused::NotLoopback | Refused::Name => not_loopback(key, raw),
        Refused::Unreadable => {
            Fault::at(raw, format!("`{key}` is `{text}`; wanted an address such as 127.0.0.1:7443"))
        }
    })
}

fn not_loopback(key: &'static str, raw: &Spanned<String>) -> Fault {
    let message = format!("`{key}` is `{}`, which is not a loopback address", raw.get_ref());
    Fault { span: Some(raw.span()), message, kind: Kind::NotLoopback { key } }
}

pub(super) fn mirror(raw: &Spanned<String>) -> Result<Url, Fault> {
    let text = bounded("mirrors", raw, URL_MAX)?;
    let url = Url::parse(text).map_err(|error| Fault::at(raw, format!("`mirrors` has `{text}`: {error}")))?;
    let plain = url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !plain {
        let wanted = "wanted an http or https URL without query and fragment";
        return Err(Fault::at(raw, format!("`mirrors` has `{text}`; {wanted}")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::at(
            raw,
            "`mirrors` has a URL with a user or password; secrets don't belong here".into(),
        ));
    }
    Ok(url)
}

pub(super) fn label(key: &Spanned<String>, value: &Spanned<String>) -> Result<(String, String), Fault> {
    let name = bounded("labels", key, LABEL_KEY_MAX)?;
    if name == "name" {
        return Err(Fault::at(key, "`labels.name` is taken: selectors use it for the host's name".into()));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c)) {
        return Err(Fault::at(
            key,
            format!("`labels` has the key `{name}`; wanted letters, digits, `.`, `_`, `/`, `-`"),
        ));
    }
    let text = bounded("labels", value, LABEL_VALUE_MAX)?;
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c)) {
        let message = format!("`labels.{name}` is `{text}`; wanted letters, digits, `.`, `_`, `/`, `-`");
        return Err(Fault::at(value, message));
    }
    Ok((name.to_owned(), text.to_owned()))
}

/// An octal integer, or the same as text: `0o660` or `"0660"`.
pub(super) fn mode(raw: &Spanned<Value>) -> Result<u32, Fault> {
    let bits = match raw.get_ref() {
        Value::Integer(bits) => u32::try_from(*bits).ok(),
        Value::String(text) if text.len() <= 5 => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
        _ => None,
    };
    bits.filter(|bits| *bits <= 0o777).ok_or_else(|| {
        Fault::at(raw, format!("`front.mode` is {}; wanted permission bits such as 0o660", raw.get_ref()))
    })
}

pub(super) fn group(raw: &Spanned<String>) -> Result<String, Fault> {
    let name = bounded("front.group", raw, GROUP_MAX)?;
    if name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return Ok(name.to_owned());
    }
    Err(Fault::at(raw, format!("`front.group` is `{}`; wanted the name of a group", name.escape_debug())))
}

/// The name of a plugin.
pub(super) fn plugin(raw: &Spanned<String>) -> Result<String, Fault> {
    let name = raw.get_ref();
    if fleetswap_trust::manifest::is_plugin_name(name) {
        return Ok(name.clone());
    }
    Err(Fault::at(raw, format!("`plugins.{}` does not name a plugin", name.escape_debug())))
}

/// A time such as `10s`, or `off`.
pub(super) fn checkpoint_interval(raw: &Spanned<String>) -> Result<Option<Duration>, Fault> {
    let text = bounded("checkpoint_interval", raw, TIME_TEXT_MAX)?;
    if text == "off" {
        return Ok(None);
    }
    let time = humantime::parse_duration(text).ok().filter(|time| CHECKPOINT_BOUNDS.contains(time));
    let wanted = "wanted a time from 1s to 1day such as 10s or 5min, or off";
    time.map(Some).ok_or_else(|| {
        Fault::at(raw, format!("`checkpoint_interval` is `{}`; {wanted}", text.escape_debug()))
    })
}

pub(super) fn range(
    key: &str,
    raw: Option<&Spanned<i64>>,
    allowed: RangeInclusive<u32>,
) -> Result<Option<u32>, Fault> {
    let Some(raw) = raw else { return Ok(None) };
    match u32::try_from(*raw.get_ref()) {
        Ok(value) if allowed.contains(&value) => Ok(Some(value)),
        _ => {
            let (low, high) = (allowed.start(), allowed.end());
            Err(Fault::at(raw, format!("`{key}` is {}; wanted {low} to {high}", raw.get_ref())))
        }
    }
}

/// Not empty and not longer than `max` bytes.
fn bounded<'a>(key: &str, raw: &'a Spanned<String>, max: usize) -> Result<&'a str, Fault> {
    let text = raw.get_ref();
    match text.len() {
        0 => Err(Fault::at(raw, format!("`{key}` has an empty value"))),
        length if length > max => {
            Err(Fault::at(raw, format!("`{key}` has a value of {length} bytes; at most {max} are allowed")))
        }
        _ => Ok(text),
    }
}
