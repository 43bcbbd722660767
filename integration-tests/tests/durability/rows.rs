//! The table: what becomes of an update when a failpoint is hit in it.

/// How a trial ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The new release runs; nobody is blamed.
    Committed,
    /// The old release was never touched; the release is blamed, and denied on this host.
    RejectedRelease,
    /// The old release was never touched; the host is blamed, and takes the release when it is pushed again.
    RejectedHost,
    /// The old release has its place again; the release is blamed.
    RolledBackRelease,
    /// The old release has its place again; the host is blamed.
    RolledBackHost,
}

/// What lies in the state folder before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// A part of the candidate's manifest that is too long.
    LongPart,
    /// One of the right length, with other bytes.
    WrongPart,
    /// The candidate's manifest, with other bytes.
    WrongManifest,
    /// A blob that nobody needs.
    Stray,
}

/// Some failpoints, which pass of them, and the classes by what is done there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// e.g. `record-a`
    pub(crate) kind: &'static str,
    pub(crate) operations: &'static [&'static str],
    /// Behind the action, e.g. `:1:update.verify`.
    pub(crate) pass: &'static str,
    pub(crate) left: Left,
    /// The candidate dies as soon as it is active.
    pub(crate) candidate_dies: bool,
    /// After `kill -9` of itself, and a start.
    pub(crate) killed: Class,
    /// After an error of the operating system.
    pub(crate) failed: Class,
}

use Class::{Committed, RejectedHost, RejectedRelease, RolledBackHost, RolledBackRelease};

const REPLACED: &[&str] = &["write", "sync", "rename"];
const REPLACED_LAST: &[&str] = &["write", "sync", "rename", "sync-folder"];

const fn row(
    kind: &'static str,
    operations: &'static [&'static str],
    pass: &'static str,
    (killed, failed): (Class, Class),
) -> Row {
    Row { kind, operations, pass, left: Left::Nothing, candidate_dies: false, killed, failed }
}

const fn left(left: Left, row: Row) -> Row {
    Row { left, ..row }
}

/// A moment at which the agent can only be killed.
const fn moment(name: &'static [&'static str], killed: Class) -> Row {
    row("update", name, "", (killed, killed))
}

const fn dying(row: Row) -> Row {
    Row { candidate_dies: true, ..row }
}

/// In the order of an update. What is only there at the first start of an agent is in [`crate::starts`], and what only
/// releases with state have in [`crate::states`].
pub(crate) const ROWS: &[Row] = &[
    // The start: it finds out, and the next one goes on.
    row("state", &["sync-at-start"], "", (Committed, Committed)),
    row("records", &["sync-at-start"], "", (Committed, Committed)),
    row("trust", &["sync-at-start"], "", (Committed, Committed)),
    row("manifest", &["sync-at-start"], "", (Committed, Committed)),
    row("blob", &["sync-at-start"], "", (Committed, Committed)),
    row("saved-state", &["sync-at-start"], "", (Committed, Committed)),
    row("host-record-a", REPLACED, "", (Committed, Committed)),
    row("host-record-b", REPLACED_LAST, "", (Committed, Committed)),
    // What it is told is not accepted before it is kept, and kept a second later.
    row("host-record-a", REPLACED, ":2", (Committed, Committed)),
    row("host-record-b", REPLACED_LAST, ":2", (Committed, Committed)),
    // Before Loading a kill blames nobody.
    moment(&["fetch"], Committed),
    row("trusted-a", REPLACED, "", (Committed, RejectedHost)),
    row("trusted-b", REPLACED_LAST, "", (Committed, RejectedHost)),
    row("blob", &["open", "write", "sync", "rename", "sync-folder"], "", (Committed, RejectedHost)),
    left(Left::LongPart, row("blob", &["cut"], "", (Committed, RejectedHost))),
    left(Left::WrongPart, row("blob", &["remove"], "", (Committed, RejectedHost))),
    left(Left::WrongManifest, row("manifest", &["remove"], "", (Committed, RejectedHost))),
    row("manifest", REPLACED_LAST, "", (Committed, RejectedHost)),
    moment(&["verify"], Committed),
    // The record of Loading: from its first copy on a kill blames the release.
    row("record-a", REPLACED, ":1:update.verify", (Committed, RejectedHost)),
    row("record-b", REPLACED_LAST, ":1:update.verify", (RejectedRelease, RejectedHost)),
    moment(&["load", "loaded", "probe", "probed", "prepare"], RejectedRelease),
    // From here on callers may have been answered by it.
    moment(&["before-gate", "restore", "activate", "before-pointer", "after-pointer"], RolledBackRelease),
    row("record-a", REPLACED, ":1:update.after-pointer", (RolledBackRelease, RolledBackHost)),
    row("record-b", REPLACED_LAST, ":1:update.after-pointer", (RolledBackRelease, RolledBackHost)),
    moment(&["probation", "before-commit"], RolledBackRelease),
    // The record of the commit: its first copy is the commit.
    row("record-a", REPLACED, ":1:update.before-commit", (RolledBackRelease, RolledBackHost)),
    row("record-b", REPLACED_LAST, ":1:update.before-commit", (Committed, RolledBackHost)),
    moment(&["after-commit", "before-old-ends", "tidied"], Committed),
    row("update", &["before-report"], ":1:update.after-commit", (Committed, Committed)),
    left(Left::Stray, row("blob", &["remove"], ":1:update.before-old-ends", (Committed, Committed))),
    // The way back.
    dying(moment(&["go-back", "went-back"], RolledBackRelease)),
    dying(row("record-a", REPLACED, ":1:update.go-back", (RolledBackRelease, RolledBackRelease))),
    dying(row("record-b", REPLACED_LAST, ":1:update.go-back", (RolledBackRelease, RolledBackRelease))),
];
