//! An error in the words that an operator reads: the same on screen, in JSON and on the wire.

use std::{borrow::Cow, collections::HashMap, fmt};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of the `ErrorInfo` that carries an [`Explained`].
pub const ERROR_DOMAIN: &str = "fleetswap";

/// Longest text of one part on the wire, in bytes; longer ones are cut.
const PART_MAX: usize = 1024;

/// What happened, why, and what to do next, under a stable code that has a page in `docs/errors/`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Explained {
    /// Stable UPPER_SNAKE code.
    pub code: Cow<'static, str>,
    /// What happened: one sentence without a full stop.
    pub what: String,
    /// Why it happened.
    pub why: String,
    /// What to do next; a command where one helps.
    pub fix: String,
}

impl Explained {
    /// Puts an error together from its parts.
    pub fn new(
        code: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { code: Cow::Borrowed(code), what: what.into(), why: why.into(), fix: fix.into() }
    }

    /// The page that explains the code.
    #[must_use]
    pub fn page(&self) -> String {
        format!("docs/errors/{}.md", self.code)
    }

    /// As a gRPC status with an `ErrorInfo` (reason = code) that [`Explained::from_status`] reads back.
    #[must_use]
    pub fn to_status(&self, code: Code) -> Status {
        let parts = [("what", &self.what), ("why", &self.why), ("fix", &self.fix)];
        let metadata: HashMap<String, String> =
            parts.into_iter().map(|(key, text)| (key.to_owned(), cut(text))).collect();
        let details = ErrorDetails::with_error_info(self.code.clone(), ERROR_DOMAIN, metadata);
        Status::with_error_details(code, cut(&self.what), details)
    }

    /// The error that a peer put into a status; `None` if the status doesn't come from Fleetswap.
    #[must_use]
    pub fn from_status(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN)?;
        let part = |key: &str| info.metadata.get(key).cloned().unwrap_or_default();
        Some(Self {
            code: Cow::Owned(info.reason.clone()),
            what: part("what"),
            why: part("why"),
            fix: part("fix"),
        })
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}]: {}", self.code, self.what)?;
        writeln!(f, "  why:  {}", self.why)?;
        writeln!(f, "  fix:  {}", self.fix)?;
        write!(f, "  page: {}", self.page())
    }
}

impl std::error::Error for Explained {}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(PART_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_the_same_on_both_sides_of_the_wire() {
        let error = Explained::new("ROLLOUT_IN_PROGRESS", "r-000005 holds clock", "one at a time", "wait");
        let status = error.to_status(Code::FailedPrecondition);
        assert_eq!(Explained::from_status(&status), Some(error));
    }

    #[test]
    fn a_foreign_status_is_not_taken_for_ours() {
        assert_eq!(Explained::from_status(&Status::unavailable("connection refused")), None);
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let error = Explained::new("X", "é".repeat(1000), "", "");
        let back = Explained::from_status(&error.to_status(Code::Internal)).unwrap();
        assert_eq!(back.what, "é".repeat(512));
    }
}
