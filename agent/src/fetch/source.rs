//! Where blobs come from: mirrors over HTTP, the controller over gRPC. Both are read as one kind of body.

use std::fmt;

use bytes::Bytes;
use fleetswap_proto::{
    Explained,
    v1::{self, bytes_service_client::BytesServiceClient},
};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_RANGE, RANGE},
};
use tonic::{Status, transport::Channel};

use super::Want;
use crate::{explain::root_cause, link::Identity};

/// One place that may have a blob.
#[derive(Debug)]
pub(super) enum Source {
    Mirror { client: Client, base: Url },
    Controller { channel: Channel, identity: Identity },
}

/// A body that has begun.
pub(super) struct Opened {
    /// The offset of its first byte: the one asked for, or 0.
    pub(super) start: u64,
    pub(super) body: BoxStream<'static, Result<Bytes, Fault>>,
}

/// What is wrong with a source; the next one is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("it can't be read: {0}")]
    Unreachable(String),
    #[error("it doesn't have the blob")]
    Missing,
    #[error("it answers with status {0}")]
    Refused(u16),
    #[error("it says that the blob has {said} bytes, wanted {wanted}")]
    WrongLength { said: u64, wanted: u64 },
    #[error("it answers with another range than was asked for")]
    WrongRange,
    #[error("it sent no byte for too long")]
    Stalled,
    #[error("it is too slow")]
    TooSlow,
    #[error("it was not asked: the mirrors before it took all the time that mirrors have")]
    NotAsked,
    #[error("it sends more bytes than the blob has")]
    TooMany,
    #[error("it sends fewer bytes than the blob has")]
    TooFew,
    #[error("its bytes are not the blob's: the SHA-256 is wrong")]
    WrongBytes,
}

impl Source {
    pub(super) fn mirror(client: Client, base: Url) -> Self {
        Self::Mirror { client, base }
    }

    pub(super) fn controller(channel: Channel, identity: Identity) -> Self {
        Self::Controller { channel, identity }
    }

    pub(super) fn is_mirror(&self) -> bool {
        matches!(self, Self::Mirror { .. })
    }

    /// For logs and errors.
    pub(super) fn name(&self) -> &dyn fmt::Display {
        match self {
            Self::Mirror { base, .. } => base,
            Self::Controller { .. } => &"controller",
        }
    }

    /// Asks for the bytes from `offset` on.
    pub(super) async fn open(&self, want: Want, offset: u64) -> Result<Opened, Fault> {
        match self {
            Self::Mirror { client, base } => Box::pin(open_mirror(client, base, want, offset)).await,
            Self::Controller { channel, identity } => {
                Box::pin(open_controller(channel.clone(), identity, want, offset)).await
            }
        }
    }
}

async fn open_mirror(client: &Client, base: &Url, want: Want, offset: u64) -> Result<Opened, Fault> {
    let url = format!("{}/{}", base.as_str().trim_end_matches('/'), want.sha256);
    let mut request = client.get(url);
    if offset > 0 {
        request = request.header(RANGE, format!("bytes={offset}-"));
    }
    let response = request.send().await.map_err(unreadable)?;
    let start = start_of(&response, offset)?;
    if let Some(rest) = response.content_length().filter(|rest| start.saturating_add(*rest) != want.length) {
        return Err(Fault::WrongLength { said: start.saturating_add(rest), wanted: want.length });
    }
    Ok(Opened { start, body: response.bytes_stream().map(|chunk| chunk.map_err(unreadable)).boxed() })
}

/// Where the answer begins: a mirror may ignore the range and send everything.
fn start_of(response: &Response, offset: u64) -> Result<u64, Fault> {
    match response.status() {
        StatusCode::OK => Ok(0),
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            let begins = |range: &str| range.starts_with(&format!("bytes {offset}-"));
            if range.is_some_and(begins) { Ok(offset) } else { Err(Fault::WrongRange) }
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Fault::Missing),
        other => Err(Fault::Refused(other.as_u16())),
    }
}

async fn open_controller(
    channel: Channel,
    identity: &Identity,
    want: Want,
    offset: u64,
) -> Result<Opened, Fault> {
    let request = identity.request(v1::GetBlobRequest { sha256: want.sha256.to_string(), offset });
    let lost = |status: Status| match status.code() {
        tonic::Code::NotFound => Fault::Missing,
        _ => Fault::Unreachable(words(&status)),
    };
    let mut chunks = BytesServiceClient::new(channel).get_blob(request).await.map_err(lost)?.into_inner();
    let Some(first) = chunks.message().await.map_err(lost)? else { return Err(Fault::TooFew) };
    if first.total != want.length {
        return Err(Fault::WrongLength { said: first.total, wanted: want.length });
    }
    let rest = chunks.map(move |chunk| chunk.map(|chunk| Bytes::from(chunk.data)).map_err(lost));
    let body = stream::once(async { Ok(Bytes::from(first.data)) }).chain(rest).boxed();
    Ok(Opened { start: offset, body })
}

/// A gRPC status in the sender's words.
pub(super) fn words(status: &Status) -> String {
    match Explained::from_status(status) {
        Some(error) => format!("{}: {}", error.code, error.what),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    }
}

fn unreadable(error: reqwest::Error) -> Fault {
    Fault::Unreachable(root_cause(&error.without_url()))
}
