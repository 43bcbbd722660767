//! What may be shown on a terminal.

use std::borrow::Cow;

/// A text as a terminal may get it: control characters, with which a plugin's words could steer it, are escaped; line
/// ends and tabs stay. A pipe or a file should get the text itself.
#[must_use]
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_do_not_steer_a_terminal() {
        let words = "one\ttwo\n\u{1b}]0;title\u{7}\rthree";
        assert_eq!(for_terminal(words), "one\ttwo\n\\u{1b}]0;title\\u{7}\\rthree");
        assert!(matches!(for_terminal("one\ttwo\n"), Cow::Borrowed(_)));
    }
}
