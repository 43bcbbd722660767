//! Structural comparison: what changed between two descriptors, and whether callers would notice.

mod schema;

use std::fmt;

use semver::Version;
use serde::Serialize;

use crate::descriptor::{Descriptor, Function, State};
use schema::Direction;

/// Everything that changed between two descriptors, in the order in which operators read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    breaking: bool,
    one_way: bool,
    changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where, for programs: names joined by dots, for example `functions.time.output.unix_seconds`; a keyword of
    /// a schema follows after `#`.
    pub path: String,
    /// What happened to the thing at `path`.
    pub kind: Kind,
    /// Whether callers (or the saved state) would notice.
    pub verdict: Verdict,
    /// The change in one line, for people.
    pub text: String,
}

/// What happened to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is there in both, and different.
    Changed,
}

/// Whether callers would notice a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Whoever got along with the old one gets along with the new one.
    Compatible,
    /// Somebody who got along with the old one may fail with the new one.
    Breaking,
}

/// How a comparison stands under the two version numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing breaks.
    Acceptable,
    /// Something breaks under a number that promises that nothing does; refused unless allowed by hand.
    RefusedBreaking,
    /// Something breaks, and the number says so; printed, not refused.
    BreakingUnderMajor,
}

/// Compares two descriptors of the same plugin. Names and versions are not compared.
///
/// The rules: a new function is compatible, a lost one breaking; a lost mark (`idempotent`, `probe_safe`) is
/// breaking; a new input must accept whatever the old one accepted, a new output must keep whatever the old one
/// promised; the new release must be able to read a state version that the old one writes. In schemas the
/// keywords `type`, `properties`, `required`, `enum` and local `$defs` are understood; any other keyword that
/// differs is breaking, except those that only comment.
#[must_use]
pub fn compare(old: &Descriptor, new: &Descriptor) -> Diff {
    let mut diff = Diff::default();
    for before in &old.functions {
        match new.function(&before.name) {
            Some(after) => diff.function(before, after),
            None => diff.breaks(
                Kind::Removed,
                format!("functions.{}", before.name),
                format!("{}: function is gone (callers may call it)", before.name),
            ),
        }
    }
    for after in new.functions.iter().filter(|after| old.function(&after.name).is_none()) {
        diff.allows(
            Kind::Added,
            format!("functions.{}", after.name),
            format!("{}: new function", after.name),
        );
    }
    diff.state(&old.state, &new.state);
    diff.rest(old, new);
    diff
}

/// Whether the step from one version to the other promises that callers notice nothing: the same major number, or
/// for 0.x the same minor one.
#[must_use]
pub fn is_compatible_number(old: &Version, new: &Version) -> bool {
    old.major == new.major && (old.major != 0 || old.minor == new.minor)
}

impl Diff {
    /// All changes: functions, state, then the rest.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether any change is breaking.
    #[must_use]
    pub const fn is_breaking(&self) -> bool {
        self.breaking
    }

    /// Whether the old release can't read any state that the new one writes, so that going back would lose it.
    #[must_use]
    pub const fn one_way(&self) -> bool {
        self.one_way
    }

    /// How the changes stand when the old descriptor belongs to version `old` and the new one to version `new`.
    #[must_use]
    pub fn verdict_under(&self, old: &Version, new: &Version) -> Standing {
        if !self.breaking {
            Standing::Acceptable
        } else if is_compatible_number(old, new) {
            Standing::RefusedBreaking
        } else {
            Standing::BreakingUnderMajor
        }
    }

    fn function(&mut self, old: &Function, new: &Function) {
        let name = &old.name;
        let path = format!("functions.{name}");
        self.mark(&path, "idempotent", (old.idempotent, new.idempotent), name);
        self.mark(&path, "probe_safe", (old.probe_safe, new.probe_safe), name);
        if old.raw != new.raw {
            let (from, to) = if new.raw { ("JSON", "raw bytes") } else { ("raw bytes", "JSON") };
            let text = format!("{name}: input and reply change from {from} to {to}");
            self.breaks(Kind::Changed, format!("{path}.raw"), text);
        }
        if let (Some(old), Some(new)) = (&old.input, &new.input) {
            self.changes_of(schema::compare(Direction::Input, name, old, new));
        }
        if let (Some(old), Some(new)) = (&old.output, &new.output) {
            self.changes_of(schema::compare(Direction::Output, name, old, new));
        }
    }

    fn mark(&mut self, path: &str, mark: &str, (old, new): (bool, bool), function: &str) {
        let path = format!("{path}.{mark}");
        match (old, new) {
            (true, false) => self.breaks(Kind::Removed, path, format!("{function}: is no longer {mark}")),
            (false, true) => self.allows(Kind::Added, path, format!("{function}: is now {mark}")),
            (true, true) | (false, false) => {}
        }
    }

    fn state(&mut self, old: &State, new: &State) {
        if (sorted(&old.writes), sorted(&old.reads)) == (sorted(&new.writes), sorted(&new.reads)) {
            return;
        }
        self.one_way = !new.writes.is_empty() && new.handover(old).is_none();
        let path = "state".to_owned();
        if old.is_stateless() {
            let text = format!("state: the plugin now has state (writes {})", listed(&new.writes));
            self.allows(Kind::Added, path, text);
        } else if new.is_stateless() {
            let text = "state: the plugin has no state any more (what it saved would be lost)".to_owned();
            self.breaks(Kind::Removed, path, text);
        } else if old.handover(new).is_none() {
            let (writes, reads) = (listed(&old.writes), listed(&new.reads));
            let text = format!("state: the new release reads {reads}, and the old one writes {writes}");
            self.breaks(Kind::Changed, path, text);
        } else {
            let (writes, reads) = (listed(&new.writes), listed(&new.reads));
            self.allows(Kind::Changed, path, format!("state: now writes {writes} and reads {reads}"));
        }
    }

    fn rest(&mut self, old: &Descriptor, new: &Descriptor) {
        if old.concurrency != new.concurrency {
            let text = format!("concurrency: {} instead of {}", new.concurrency, old.concurrency);
            self.allows(Kind::Changed, "concurrency".to_owned(), text);
        }
        if old.background != new.background {
            let text = if new.background {
                "background: now works between calls"
            } else {
                "background: no longer works between calls"
            };
            self.allows(Kind::Changed, "background".to_owned(), text.to_owned());
        }
        if old.needs != new.needs {
            let text = "needs: other capabilities are needed".to_owned();
            self.breaks(Kind::Changed, "needs".to_owned(), text);
        }
        self.config(old, new);
    }

    /// A push brings its own config, so a change of the schema breaks no caller.
    fn config(&mut self, old: &Descriptor, new: &Descriptor) {
        let path = "config".to_owned();
        match (&old.config, &new.config) {
            (None, None) => {}
            (None, Some(_)) => self.allows(Kind::Added, path, "config: now has a schema".to_owned()),
            (Some(_), None) => self.allows(Kind::Removed, path, "config: has no schema any more".to_owned()),
            (Some(old), Some(new)) if schema::differ(old, new) => {
                let text = "config: its schema changed (check the config of this push)".to_owned();
                self.allows(Kind::Changed, path, text);
            }
            (Some(_), Some(_)) => {}
        }
    }

    fn breaks(&mut self, kind: Kind, path: String, text: String) {
        self.changes_of([Change { path, kind, verdict: Verdict::Breaking, text }]);
    }

    fn allows(&mut self, kind: Kind, path: String, text: String) {
        self.changes_of([Change { path, kind, verdict: Verdict::Compatible, text }]);
    }

    fn changes_of(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.breaking |= change.verdict == Verdict::Breaking;
            self.changes.push(change);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Compatible => "compatible",
            Self::Breaking => "breaking",
        })
    }
}

fn sorted(versions: &[u32]) -> Vec<u32> {
    let mut versions = versions.to_vec();
    versions.sort_unstable();
    versions
}

/// Versions as people read them: `1, 2`.
fn listed(versions: &[u32]) -> String {
    let texts: Vec<_> = sorted(versions).iter().map(u32::to_string).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests;
