//! Names and versions inside a plugin: what they may look like, in one place for note and descriptor.

use fleetswap_plugin_abi::{FUNCTION_NAME_MAX, NAME_MAX, VERSION_MAX};
use semver::Version;

/// Whether this may be the name of a plugin: `[a-z][a-z0-9_-]*`, at most [`NAME_MAX`] bytes.
pub(crate) fn is_plugin_name(name: &str) -> bool {
    name.len() <= NAME_MAX && starts_small(name) && name.bytes().all(|byte| is_word(byte) || byte == b'-')
}

/// Whether this may be the name of a function: `[a-z][a-z0-9_]*`, at most [`FUNCTION_NAME_MAX`] bytes.
pub(crate) fn is_function_name(name: &str) -> bool {
    name.len() <= FUNCTION_NAME_MAX && starts_small(name) && name.bytes().all(is_word)
}

/// A version of at most [`VERSION_MAX`] bytes.
pub(crate) fn version(text: &str) -> Option<Version> {
    if text.len() > VERSION_MAX { None } else { Version::parse(text).ok() }
}

/// At most `max` characters of a text from elsewhere, with what could confuse a terminal escaped.
pub(crate) fn shown(text: &str, max: usize) -> String {
    let mut short = String::new();
    for char in text.chars().take(max) {
        match char {
            '"' | '\'' | '\\' => short.push(char),
            _ => short.extend(char.escape_debug()),
        }
    }
    if text.chars().nth(max).is_some() {
        short.push('…');
    }
    short
}

fn starts_small(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_names_may_hold_a_dash_and_function_names_may_not() {
        assert!(is_plugin_name("geo-ip_2"));
        assert!(!is_function_name("geo-ip_2"));
        assert!(is_function_name("geo_ip2"));
    }

    #[test]
    fn names_start_with_a_small_letter_and_end_in_time() {
        for bad in ["", "1clock", "_clock", "-clock", "Clock", "clöck", "clock/..", "clock\0"] {
            assert!(!is_plugin_name(bad), "{bad:?}");
            assert!(!is_function_name(bad), "{bad:?}");
        }
        assert!(is_plugin_name(&"a".repeat(NAME_MAX)));
        assert!(!is_plugin_name(&"a".repeat(NAME_MAX + 1)));
        assert!(!is_function_name(&"a".repeat(FUNCTION_NAME_MAX + 1)));
    }

    #[test]
    fn versions_are_semver_of_bounded_length() {
        assert!(version("1.2.3-rc.1").is_some());
        assert!(version("1.2").is_none());
        assert!(version(&format!("1.2.3-{}", "a".repeat(VERSION_MAX))).is_none());
    }

    #[test]
    fn shown_text_is_cut_and_harmless() {
        assert_eq!(shown("a\u{1b}[31mb", 80), "a\\u{1b}[31mb");
        assert_eq!(shown("{\"a\": 'ü'}", 80), "{\"a\": 'ü'}");
        assert_eq!(shown("abcdef", 3), "abc…");
    }
}
