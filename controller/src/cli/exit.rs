//! Exit codes, and which error gives which.

use std::{error::Error, io, process::ExitCode};

use fleetswap_proto::Explained;
use serde_json::Value;
use tonic::{Code, Status};

/// What the process ends with. The numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It went as asked.
    Ok = 0,
    /// Something went wrong; the error says what.
    Error = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The rollout failed, was halted, or rolled back.
    Failed = 3,
    /// The wait ran out; the rollout goes on.
    WaitRanOut = 5,
    /// Somebody else was first: another rollout, other metadata.
    Conflict = 6,
    /// The release was rejected before it was offered to a host.
    Rejected = 7,
    /// Ctrl-C: the rollout goes on.
    Detached = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error on its way to the operator.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(super) error: Box<Explained>,
    pub(super) exit: Exit,
    /// The comparison that the error is about, for JSON output.
    pub(super) diff: Option<Value>,
}

impl Failure {
    /// An error with the exit code that belongs to its code.
    pub(super) fn new(error: Explained) -> Self {
        Self { exit: exit_of(&error.code), error: Box::new(error), diff: None }
    }

    /// A file or the system refused.
    pub(super) fn io(doing: &str, error: &io::Error) -> Self {
        let fix = "check that the path is right, that you may use it, and that the disk has room";
        Self::new(Explained::new("IO", format!("{doing} failed"), error.to_string(), fix))
    }

    /// A call to the controller failed.
    pub(super) fn status(status: &Status, address: &str) -> Self {
        if let Some(error) = Explained::from_status(status) {
            return Self::new(error);
        }
        // A status with a source was made on this side: the connection broke, or the call took too long.
        let is_ours = status.source().is_some() || status.code() == Code::Cancelled;
        if is_ours || status.code() == Code::Unavailable {
            return Self::unreachable(address, status.message());
        }
        let what = format!("the controller at {address} answered {}", status.code());
        let fix = "check that the address is a Fleetswap controller of this version; its log says more";
        Self::new(Explained::new("CONTROLLER_FAILED", what, status.message(), fix))
    }

    /// Nobody answers there.
    pub(super) fn unreachable(address: &str, why: &str) -> Self {
        let fix = "set --controller or FLEETSWAP_CONTROLLER; start one with `controller serve`";
        Self::new(Explained::new("UNREACHABLE", format!("no controller at {address}"), why, fix))
    }

    /// Somebody listens there who does not speak as a controller does.
    pub(super) fn not_a_controller(address: &str, how: &str) -> Self {
        let what = format!("no controller answers at {address}");
        let why = format!("something listens there, but it doesn't speak as a controller: {how}");
        let fix = "set --controller or FLEETSWAP_CONTROLLER to the controller's address; `ss -ltnp` shows who listens, \
                   and if it is the controller, its log says what it waits for";
        Self::new(Explained::new("UNREACHABLE", what, why, fix))
    }

    /// Whether the controller may only be gone for a moment, so that asking again makes sense.
    pub(super) fn is_away(&self) -> bool {
        matches!(&*self.error.code, "UNREACHABLE" | "CONTROLLER_STOPPING")
    }

    /// The same error with the comparison that it is about.
    pub(super) fn with_diff(mut self, diff: Value) -> Self {
        self.diff = Some(diff);
        self
    }
}

impl From<Explained> for Failure {
    fn from(error: Explained) -> Self {
        Self::new(error)
    }
}

fn exit_of(code: &str) -> Exit {
    match code {
        "USAGE"
        | "REQUEST_INVALID"
        | "ASSIGNMENT_AMBIGUOUS"
        | "ASSIGNMENT_MISSING"
        | "SELECTOR_INVALID"
        | "ADDRESS_NOT_LOOPBACK"
        | "LISTEN_INVALID"
        | "INIT_FOLDERS_OVERLAP"
        | "PROBE_INVALID"
        | "POLICY_INVALID"
        | "NO_HOSTS_MATCH" => Exit::Usage,
        "WAIT_TIMEOUT" => Exit::WaitRanOut,
        "ROLLOUT_IN_PROGRESS"
        | "METADATA_CONFLICT"
        | "REVISION_PUBLISHED"
        | "ASSIGNMENT_OVERLAP"
        | "STORE_CONFLICT" => Exit::Conflict,
        "NOTE_DIFFERS" | "VERSION_PUBLISHED" | "STRUCTURE_BREAKING" | "STATE_ONE_WAY" | "NEEDS_UNKNOWN"
        | "DESCRIPTOR_MISSING" | "PROBE_UNSAFE" | "ABI_MISMATCH" | "PUSH_DOWNGRADE"
        | "ARTIFACT_TOO_LARGE" | "RELEASE_WITHDRAWN" | "RELEASE_DENIED" => Exit::Rejected,
        // This machine could not try the release.
        "WORKER_START_FAILED" | "LOAD_HOST_LACKS" => Exit::Error,
        _ if ["ELF_", "NOTE_", "LOAD_", "DESCRIPTOR_", "MANIFEST_", "WORKER_"]
            .iter()
            .any(|start| code.starts_with(start)) =>
        {
            Exit::Rejected
        }
        _ => Exit::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_told_apart_from_a_rejected_release() {
        assert_eq!(exit_of("ROLLOUT_IN_PROGRESS"), Exit::Conflict);
        assert_eq!(exit_of("VERSION_PUBLISHED"), Exit::Rejected);
        assert_eq!(exit_of("ELF_RPATH"), Exit::Rejected);
        assert_eq!(exit_of("ARTIFACT_TOO_LARGE"), Exit::Rejected);
        assert_eq!(exit_of("RELEASE_DENIED"), Exit::Rejected);
        assert_eq!(exit_of("UNREACHABLE"), Exit::Error);
    }

    #[test]
    fn a_release_that_this_machine_could_not_try_is_not_rejected() {
        for code in
            ["WORKER_START_FAILED", "LOAD_HOST_LACKS", "SANDBOX_UNAVAILABLE", "BUILD_MISMATCH", "IMAGE_IO"]
        {
            assert_eq!(exit_of(code), Exit::Error, "{code}");
        }
        assert_eq!(exit_of("WORKER_MEMORY"), Exit::Rejected);
    }

    #[test]
    fn a_connection_that_breaks_is_a_controller_that_is_away() {
        let broken = Status::from_error(Box::new(io::Error::from(io::ErrorKind::BrokenPipe)));
        assert!(Failure::status(&broken, "127.0.0.1:1").is_away());
        let odd = Status::unknown("what a foreign server says");
        assert_eq!(Failure::status(&odd, "127.0.0.1:1").error.code, "CONTROLLER_FAILED");
    }

    #[test]
    fn a_dead_controller_is_unreachable() {
        let failure = Failure::status(&Status::unavailable("connection refused"), "127.0.0.1:1");
        assert_eq!(failure.error.code, "UNREACHABLE");
        assert_eq!(failure.exit, Exit::Error);
    }
}
