//! Uploads of blobs: the stream of the operator on one side, the disk on the other.

use std::time::Duration;

use fleetswap_proto::{
    CHUNK_MAX, Explained,
    v1::{BlobHeader, PutBlobRequest, PutBlobResponse},
};
use fleetswap_trust::Digest;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Status, Streaming};

use super::{Failed, Shared, blocking, limits, validate};
use crate::{
    blobs::{BlobError, Blobs, Stat},
    explain,
};

/// Chunks that wait for the disk.
const CHUNKS_MAX: usize = 4;

/// The next chunk must come within this time.
const CHUNK_WAIT_MAX: Duration = Duration::from_secs(60);

/// Takes in one upload. Whatever ends it early, what has arrived stays for the next try.
pub(super) async fn put(
    shared: &Shared,
    mut inbound: Streaming<PutBlobRequest>,
) -> Result<PutBlobResponse, Status> {
    let first = next(shared, &mut inbound).await?.unwrap_or_default();
    let (sha256, header) = header(first.header).map_err(|error| explain::status(&error))?;
    let (chunks, queue) = mpsc::channel(CHUNKS_MAX);
    let blobs = shared.blobs.clone();
    let disk = tokio::spawn(blocking(move || store(&blobs, (sha256, header), queue)));
    // The disk's own error is the better one: its end of the queue closes when it gives up.
    let sent = feed(shared, &mut inbound, (first.data, chunks)).await;
    let stored = disk.await.map_err(|_| Failed)??;
    let stat = stored.map_err(|error| explain::status(&error.into()))?;
    sent?;
    Ok(PutBlobResponse { complete: stat.complete, offset: stat.offset })
}

fn header(header: Option<BlobHeader>) -> Result<(Digest, BlobHeader), Explained> {
    let header = validate::required("header", header)?;
    let sha256 = validate::sha256("header.sha256", &header.sha256)?;
    if header.length == 0 {
        return Err(validate::invalid("header.length", "it is missing: a blob has at least one byte"));
    }
    Ok((sha256, header))
}

/// Writes what comes through the queue, until its other end is dropped.
fn store(
    blobs: &Blobs,
    (sha256, header): (Digest, BlobHeader),
    mut queue: mpsc::Receiver<Vec<u8>>,
) -> Result<Stat, BlobError> {
    let mut upload = blobs.upload(sha256, header.length, header.offset)?;
    while let Some(chunk) = queue.blocking_recv() {
        upload.write(&chunk)?;
    }
    upload.finish()
}

/// Passes chunks on until the stream ends or the disk gives up.
async fn feed(
    shared: &Shared,
    inbound: &mut Streaming<PutBlobRequest>,
    (first, chunks): (Vec<u8>, mpsc::Sender<Vec<u8>>),
) -> Result<(), Status> {
    let mut data = first;
    loop {
        if data.len() > CHUNK_MAX {
            let why = format!("it has {} bytes; at most {CHUNK_MAX} are allowed", data.len());
            return Err(explain::status(&validate::invalid("data", why)));
        }
        if chunks.send(data).await.is_err() {
            return Ok(());
        }
        let Some(message) = next(shared, inbound).await? else { return Ok(()) };
        if message.header.is_some() {
            return Err(explain::status(&validate::invalid("header", "only the first message has one")));
        }
        data = message.data;
    }
}

/// The next message; `None` at the end of the stream.
async fn next(
    shared: &Shared,
    inbound: &mut Streaming<PutBlobRequest>,
) -> Result<Option<PutBlobRequest>, Status> {
    let message = tokio::select! {
        () = shared.stop.cancelled() => return Err(explain::status(&explain::stopping())),
        message = timeout(CHUNK_WAIT_MAX, inbound.message()) => message,
    };
    match message {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(status)) => Err(limits::explained(&status).map_or(status, |error| explain::status(&error))),
        Err(_) => Err(explain::status(&stalled())),
    }
}

fn stalled() -> Explained {
    Explained::new(
        "UPLOAD_STALLED",
        "the upload stands still",
        format!("no chunk came for {} s", CHUNK_WAIT_MAX.as_secs()),
        "send it again: it goes on where it ended",
    )
}
