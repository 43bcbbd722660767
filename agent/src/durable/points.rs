//! Every place at which the agent can be told to fail: the one list of them. Only builds with feature `failpoints` are.

use fleetswap_update::{Fact, Outcome, Task};

/// What is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder that was missing.
    Folder,
    /// The state folder itself.
    State,
    /// The folder of records.
    Records,
    /// The folder of trusted metadata.
    Trust,
    /// The format of the state folder.
    Format,
    /// The host's id.
    HostId,
    /// A copy of a plugin's record.
    Record(Copy),
    /// A copy of the host's record.
    HostRecord(Copy),
    /// A copy of the trusted metadata.
    Trusted(Copy),
    /// A verified manifest, or the folder of them.
    Manifest,
    /// A blob, complete or not, or the folder of them.
    Blob,
    /// What a plugin handed over, or the folder of it.
    SavedState,
}

/// One of the two copies of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// Written first.
    A,
    /// Written second; then the folder of both is synced.
    B,
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

/// A moment of an update, not on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Fetch,
    Verify,
    Load,
    Loaded,
    Probe,
    Probed,
    Prepare,
    /// The next thing is to close the gate.
    BeforeGate,
    Restore,
    Activate,
    BeforePointer,
    AfterPointer,
    Probation,
    BeforeCommit,
    AfterCommit,
    GoBack,
    WentBack,
    BeforeReport,
    BeforeOldEnds,
    Tidied,
}

impl Point {
    /// e.g. `record-a.rename`
    #[cfg(any(test, feature = "failpoints"))]
    pub(crate) fn name(self) -> String {
        let Self(kind, operation) = self;
        let kind = match kind {
            Kind::Folder => "folder",
            Kind::State => "state",
            Kind::Records => "records",
            Kind::Trust => "trust",
            Kind::Format => "format",
            Kind::HostId => "host-id",
            Kind::Record(Copy::A) => "record-a",
            Kind::Record(Copy::B) => "record-b",
            Kind::HostRecord(Copy::A) => "host-record-a",
            Kind::HostRecord(Copy::B) => "host-record-b",
            Kind::Trusted(Copy::A) => "trusted-a",
            Kind::Trusted(Copy::B) => "trusted-b",
            Kind::Manifest => "manifest",
            Kind::Blob => "blob",
            Kind::SavedState => "saved-state",
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
        let replaced = [Write, Sync, Rename];
        let mut all = Vec::new();
        let mut add =
            |kind, operations: &[Operation]| all.extend(operations.iter().map(|it| Self(kind, *it)));
        add(Kind::Folder, &[Make, SyncFolder]);
        for kind in [Kind::State, Kind::Records, Kind::Trust, Kind::Manifest, Kind::Blob, Kind::SavedState] {
            add(kind, &[SyncAtStart]);
        }
        add(Kind::Format, &replaced);
        add(Kind::HostId, &replaced);
        add(Kind::HostId, &[SyncFolder]);
        for kind in [Kind::Record, Kind::HostRecord, Kind::Trusted] {
            add(kind(Copy::A), &replaced);
            add(kind(Copy::B), &replaced);
            add(kind(Copy::B), &[SyncFolder]);
        }
        add(Kind::Manifest, &replaced);
        add(Kind::Manifest, &[SyncFolder, Remove]);
        add(Kind::SavedState, &replaced);
        add(Kind::SavedState, &[SyncFolder, Remove]);
        add(Kind::Blob, &[Open, Write, Cut, Sync, Rename, SyncFolder, Remove]);
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
    /// The one at the beginning of a task.
    pub(crate) const fn of(task: &Task) -> Option<Self> {
        Some(match task {
            Task::Idle | Task::AwaitSlot | Task::Wait => return None,
            Task::Fetch { .. } => Self::Fetch,
            Task::Verify(_) => Self::Verify,
            Task::Load(_) => Self::Load,
            Task::Probe(_) => Self::Probe,
            Task::Prepare(_) => Self::Prepare,
            Task::Pause(_) => Self::BeforeGate,
            Task::Restore(_) => Self::Restore,
            Task::Activate(_) => Self::Activate,
            Task::Move(_) => Self::BeforePointer,
            Task::Watch { .. } => Self::Probation,
            Task::GoBack { .. } => Self::GoBack,
        })
    }

    /// The one between the outcome of a task and the record of it.
    pub(crate) const fn after(fact: &Fact) -> Option<Self> {
        let Fact::Trial { outcome, .. } = fact else { return None };
        Some(match outcome {
            Outcome::Loaded => Self::Loaded,
            Outcome::Probed => Self::Probed,
            Outcome::Switched { .. } => Self::AfterPointer,
            Outcome::Proven(_) => Self::BeforeCommit,
            Outcome::WentBack { .. } => Self::WentBack,
            Outcome::Fetched | Outcome::Verified(_) | Outcome::Prepared | Outcome::Saved { .. } => {
                return None;
            }
            Outcome::Restored | Outcome::Activated | Outcome::Failed(_) => return None,
        })
    }

    #[cfg(feature = "failpoints")]
    const ALL: [Self; 20] = [
        Self::Fetch,
        Self::Verify,
        Self::Load,
        Self::Loaded,
        Self::Probe,
        Self::Probed,
        Self::Prepare,
        Self::BeforeGate,
        Self::Restore,
        Self::Activate,
        Self::BeforePointer,
        Self::AfterPointer,
        Self::Probation,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::GoBack,
        Self::WentBack,
        Self::BeforeReport,
        Self::BeforeOldEnds,
        Self::Tidied,
    ];

    #[cfg(feature = "failpoints")]
    const fn name(self) -> &'static str {
        match self {
            Self::Fetch => "update.fetch",
            Self::Verify => "update.verify",
            Self::Load => "update.load",
            Self::Loaded => "update.loaded",
            Self::Probe => "update.probe",
            Self::Probed => "update.probed",
            Self::Prepare => "update.prepare",
            Self::BeforeGate => "update.before-gate",
            Self::Restore => "update.restore",
            Self::Activate => "update.activate",
            Self::BeforePointer => "update.before-pointer",
            Self::AfterPointer => "update.after-pointer",
            Self::Probation => "update.probation",
            Self::BeforeCommit => "update.before-commit",
            Self::AfterCommit => "update.after-commit",
            Self::GoBack => "update.go-back",
            Self::WentBack => "update.went-back",
            Self::BeforeReport => "update.before-report",
            Self::BeforeOldEnds => "update.before-old-ends",
            Self::Tidied => "update.tidied",
        }
    }

    /// Whether a task begins here, so that it can be held.
    #[cfg(feature = "failpoints")]
    const fn begins_a_task(self) -> bool {
        match self {
            Self::Fetch | Self::Verify | Self::Load | Self::Probe | Self::Prepare | Self::BeforeGate => true,
            Self::Restore | Self::Activate | Self::BeforePointer | Self::Probation | Self::GoBack => true,
            Self::Loaded | Self::Probed | Self::AfterPointer | Self::BeforeCommit | Self::AfterCommit => {
                false
            }
            Self::WentBack | Self::BeforeReport | Self::BeforeOldEnds | Self::Tidied => false,
        }
    }

    /// The agent may be killed here.
    #[cfg(feature = "failpoints")]
    pub(crate) fn pass(self) {
        // What can only be killed is never held.
        let _ = fleetswap_faults::is_held(self.name());
    }

    /// The agent may be killed here, or the task be held for ever.
    #[cfg(feature = "failpoints")]
    pub(crate) async fn begin(self) {
        if fleetswap_faults::is_held(self.name()) {
            std::future::pending::<()>().await;
        }
    }

    /// Nothing, in this build.
    #[cfg(not(feature = "failpoints"))]
    #[expect(clippy::unused_self, reason = "there are no failpoints in this build")]
    pub(crate) const fn pass(self) {}

    /// Nothing, in this build.
    #[cfg(not(feature = "failpoints"))]
    #[expect(clippy::unused_async, reason = "there are no failpoints in this build")]
    pub(crate) async fn begin(self) {}
}

/// Prints the list if the environment asks for it; whether it did.
#[cfg(feature = "failpoints")]
pub(crate) fn list() -> bool {
    let disk = Point::all().into_iter().map(|point| (point.name(), point.actions()));
    let moments = Moment::ALL.into_iter();
    let moments =
        moments.map(|it| (it.name().to_owned(), if it.begins_a_task() { "kill hold" } else { "kill" }));
    fleetswap_faults::list(disk.chain(moments))
}
