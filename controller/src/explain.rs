//! Errors of the parts, in the words that an operator reads, and the gRPC code under which each one travels.

use fleetswap_proto::Explained;
use fleetswap_trust::{ManifestError, TrustError};
use tonic::{Code, Status};

use crate::{blobs::BlobError, store::StoreError};

/// An error as a gRPC status.
pub(crate) fn status(error: &Explained) -> Status {
    error.to_status(grpc_code(&error.code))
}

/// What a client of any language may branch on without knowing our codes.
fn grpc_code(code: &str) -> Code {
    match code {
        "REQUEST_TOO_LARGE" | "BLOB_TOO_LARGE" | "BLOB_OFFSET" => Code::OutOfRange,
        "METADATA_CONFLICT" | "STORE_CONFLICT" | "SESSION_REPLACED" => Code::Aborted,
        "VERSION_PUBLISHED" | "REQUEST_ID_REUSED" => Code::AlreadyExists,
        "HOST_IDENTITY_INVALID" => Code::Unauthenticated,
        "BLOB_BUSY" | "CONTROLLER_STOPPING" | "AGENT_SILENT" | "UPLOAD_STALLED" => Code::Unavailable,
        "BLOB_MISMATCH" => Code::DataLoss,
        "DISK_FULL" => Code::ResourceExhausted,
        "STORE_FAILED" | "STORE_TOO_NEW" => Code::Internal,
        _ if code.ends_with("_NOT_FOUND") => Code::NotFound,
        _ if code.ends_with("_INVALID") || code.ends_with("_UNKNOWN") => Code::InvalidArgument,
        _ => Code::FailedPrecondition,
    }
}

/// The command that goes back; `to` names a version, or it is the release before.
pub(crate) fn rollback_command(plugin: &str, selector: &str, to: Option<&str>) -> String {
    let hosts = match selector {
        "" | "all" => String::new(),
        selector => format!(" --hosts '{selector}'"),
    };
    let to = to.map(|version| format!(" --to {version}")).unwrap_or_default();
    format!("controller rollback {plugin}{hosts}{to} --reason TEXT")
}

/// Streams end when the server does.
pub(crate) fn stopping() -> Explained {
    Explained::new(
        "CONTROLLER_STOPPING",
        "the controller is stopping",
        "it was asked to end",
        "connect again in a moment; what was acknowledged is stored",
    )
}

/// The words of an error and of everything that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Why metadata was refused.
pub(crate) fn trust(error: &TrustError) -> Explained {
    Explained::new(error.code(), "the metadata was not accepted", chain(error), error.fix())
}

/// Why a manifest was refused.
pub(crate) fn manifest(error: &ManifestError) -> Explained {
    Explained::new(error.code(), "the manifest was not accepted", chain(error), error.fix())
}

impl From<StoreError> for Explained {
    fn from(error: StoreError) -> Self {
        let (what, fix) = match &error {
            StoreError::Conflict { .. } => {
                ("the store refused the change", "ask again: the controller reads the newest state first")
            }
            StoreError::TooNew { .. } => (
                "the store was written by a newer controller",
                "start the newer controller again, or restore a copy of the older store",
            ),
            StoreError::DiskFull => (
                "the store could not take the change in",
                "free some space on the disk of the data folder; nothing was written",
            ),
            StoreError::Unfit(_) => (
                "the store could not take the change in",
                "report it with the controller's log: a value came through that it should have refused",
            ),
            StoreError::Closed => {
                ("the store is closed", "wait until the controller has started again, then ask again")
            }
            StoreError::Database(_) | StoreError::Migration(_) | StoreError::Thread(_) => (
                "the controller's store failed",
                "look at the controller's log and at the disk of the data folder, then start it again",
            ),
        };
        Self::new(error.code(), what, chain(&error), fix)
    }
}

impl From<BlobError> for Explained {
    fn from(error: BlobError) -> Self {
        let fix = match &error {
            BlobError::Length { .. } => "make the file smaller; debug symbols are often the greatest part",
            BlobError::Offset { .. } => "ask StatBlob where the upload goes on, and continue there",
            BlobError::Mismatch { .. } => {
                "upload the file again from its start, and leave it alone meanwhile"
            }
            BlobError::Busy { .. } => "wait for the other upload to end, then ask again",
            BlobError::NotFound { .. } => "upload the blob first; `push` does so by itself",
            BlobError::DiskFull => {
                "free some space on the disk of the data folder, then upload again; it goes on where it ended"
            }
            BlobError::Io(_) => {
                "look at the controller's log and at the disk of the data folder, then ask again"
            }
        };
        Self::new(error.code(), "the blob was not stored or read", chain(&error), fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_words_and_gets_a_code_of_grpc() {
        let error = Explained::from(BlobError::DiskFull);
        let status = status(&error);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(Explained::from_status(&status), Some(error));
    }

    #[test]
    fn a_chain_tells_every_cause_once() {
        let io = std::io::Error::other("the cable is cut");
        assert_eq!(chain(&BlobError::Io(io)), "the blob could not be read or written: the cable is cut");
    }
}
