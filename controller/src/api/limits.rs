//! Bounds of messages, and the words for what is refused before any handler sees it.

use axum::response::Response;
use fleetswap_proto::Explained;
use tonic::{Code, Status};

use crate::explain;

/// Largest request of an operator, in bytes: two metadata files and the manifests of a publish.
pub(super) const OPERATOR_MAX: usize = 8 * 1024 * 1024;
/// Largest message of an agent, in bytes: a hello with all its plugins.
pub(super) const AGENT_MAX: usize = 4 * 1024 * 1024;
/// Largest request for bytes, in bytes: it only names them.
pub(super) const BYTES_MAX: usize = 64 * 1024;

/// Gives an answer that tonic made by itself our words: too large, or not readable.
pub(super) async fn explain(response: Response) -> Response {
    match Status::from_header_map(response.headers()).as_ref().and_then(explained) {
        Some(error) => explain::status(&error).into_http(),
        None => response,
    }
}

/// What a refusal by tonic means; `None` if it is none, or has our words already.
pub(super) fn explained(status: &Status) -> Option<Explained> {
    if Explained::from_status(status).is_some() {
        return None;
    }
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Some(Explained::new(
            "REQUEST_TOO_LARGE",
            "the request is too large",
            status.message(),
            "send less at once: blobs in chunks of 256 KiB, metadata files of at most 1 MiB",
        )),
        Code::Internal if status.message().contains("decode") => Some(Explained::new(
            "REQUEST_INVALID",
            "the request can't be read",
            status.message(),
            "use a client that was built from this controller's proto files",
        )),
        _ => None,
    }
}
