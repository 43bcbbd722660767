//! Every place at which the controller can be told to fail: the one list. Only builds with feature `failpoints` are.

/// What is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder that was missing.
    Folder,
    /// A key, or a file that `init` writes.
    Init,
    /// What the publisher has seen and signed.
    Seen,
    /// The metadata that hosts are shown, the timestamp with it.
    Metadata,
    /// A blob, complete or not.
    Blob,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Make,
    Open,
    Write,
    Cut,
    Sync,
    Rename,
    SyncFolder,
    /// What a start finds is on disk before anybody acts on it.
    SyncAtStart,
    Remove,
}

/// An operation on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point(pub(crate) Kind, pub(crate) Operation);

/// A moment that is not on the disk of this file: the controller may be killed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Manifests are stored; the rows of the releases are not.
    BeforeRows,
    /// The rows are stored; no host is shown the release.
    BeforeShow,
    /// Hosts are shown it; the publisher was not answered.
    AfterShow,
    /// The timestamp is about to be renewed.
    BeforeRenewal,
}

impl Point {
    /// e.g. `blob.rename`
    #[cfg(any(test, feature = "failpoints"))]
    pub(crate) fn name(self) -> String {
        let Self(kind, operation) = self;
        let kind = match kind {
            Kind::Folder => "folder",
            Kind::Init => "init",
            Kind::Seen => "seen",
            Kind::Metadata => "metadata",
            Kind::Blob => "blob",
        };
        let operation = match operation {
            Operation::Make => "make",
            Operation::Open => "open",
            Operation::Write => "write",
            Operation::Cut => "cut",
            Operation::Sync => "sync",
            Operation::Rename => "rename",
            Operation::SyncFolder => "sync-folder",
            Operation::SyncAtStart => "sync-at-start",
            Operation::Remove => "remove",
        };
        format!("{kind}.{operation}")
    }

    /// All of them.
    #[cfg(any(test, feature = "failpoints"))]
    pub(crate) fn all() -> Vec<Self> {
        use Operation::{Cut, Make, Open, Remove, Rename, Sync, SyncAtStart, SyncFolder, Write};
        let mut all = Vec::new();
        let mut add =
            |kind, operations: &[Operation]| all.extend(operations.iter().map(|it| Self(kind, *it)));
        add(Kind::Folder, &[Make, SyncFolder]);
        for kind in [Kind::Init, Kind::Seen, Kind::Metadata, Kind::Blob] {
            add(kind, &[Write, Sync, Rename, SyncFolder, Remove]);
        }
        add(Kind::Blob, &[Open, Cut]);
        for kind in [Kind::Metadata, Kind::Blob] {
            add(kind, &[SyncAtStart]);
        }
        all
    }

    #[cfg(feature = "failpoints")]
    const fn actions(self) -> &'static str {
        match self.1 {
            Operation::Write => "kill eio enospc erofs emfile short",
            _ => "kill eio enospc erofs emfile",
        }
    }

    /// Passes the failpoint: an error is what the operation gives; `true`, it takes only half of the bytes.
    #[cfg(feature = "failpoints")]
    pub(super) fn pass(self) -> std::io::Result<bool> {
        use fleetswap_faults::Fault;
        match fleetswap_faults::hit(&self.name()) {
            None | Some(Fault::Hold) => Ok(false),
            Some(Fault::Short) => Ok(true),
            Some(Fault::Error(error)) => Err(error),
        }
    }

    /// As if it were not here.
    #[cfg(not(feature = "failpoints"))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "there are no failpoints in this build"
    )]
    pub(super) const fn pass(self) -> std::io::Result<bool> {
        Ok(false)
    }
}

impl Moment {
    /// Here the controller may be killed.
    #[cfg(feature = "failpoints")]
    pub(crate) fn pass(self) {
        // What can only be killed is never held.
        let _ = fleetswap_faults::is_held(self.name());
    }

    /// Nothing, in this build.
    #[cfg(not(feature = "failpoints"))]
    #[expect(clippy::unused_self, reason = "there are no failpoints in this build")]
    pub(crate) const fn pass(self) {}

    #[cfg(feature = "failpoints")]
    const ALL: [Self; 4] = [Self::BeforeRows, Self::BeforeShow, Self::AfterShow, Self::BeforeRenewal];

    #[cfg(feature = "failpoints")]
    const fn name(self) -> &'static str {
        match self {
            Self::BeforeRows => "publish.before-rows",
            Self::BeforeShow => "publish.before-show",
            Self::AfterShow => "publish.after-show",
            Self::BeforeRenewal => "timestamp.before-renewal",
        }
    }
}

/// Prints the list if the environment asks for it; whether it did.
#[cfg(feature = "failpoints")]
pub(crate) fn list() -> bool {
    let disk = Point::all().into_iter().map(|point| (point.name(), point.actions()));
    fleetswap_faults::list(disk.chain(Moment::ALL.into_iter().map(|it| (it.name().to_owned(), "kill"))))
}
