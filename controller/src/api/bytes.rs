//! Bytes for agents: metadata files and blobs, on a connection of their own.

use std::{pin::Pin, sync::Arc, time::Duration};

use fleetswap_proto::{
    CHUNK_MAX,
    v1::{
        GetBlobRequest, GetBlobResponse, GetMetadataRequest, GetMetadataResponse,
        bytes_service_server::BytesService,
    },
};
use fleetswap_trust::Versions;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{Shared, agent_fields, blocking, validate};
use crate::{blobs::BlobError, explain, published::MetadataFile};

/// Blobs that are sent at the same time; further requests wait their turn.
const SENDS_MAX: usize = 256;

/// Chunks that wait for the connection.
const CHUNKS_MAX: usize = 2;

/// A chunk must be taken within this time, else the place is given to someone else.
const SEND_MAX: Duration = Duration::from_secs(60);

/// The service of the bytes.
pub(crate) struct Bytes {
    shared: Arc<Shared>,
    sends: Arc<Semaphore>,
}

impl Bytes {
    /// The service over the parts of a server.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, sends: Arc::new(Semaphore::new(SENDS_MAX)) }
    }
}

#[tonic::async_trait]
impl BytesService for Bytes {
    type GetMetadataStream = Pin<Box<dyn Stream<Item = Result<GetMetadataResponse, Status>> + Send>>;
    type GetBlobStream = Pin<Box<dyn Stream<Item = Result<GetBlobResponse, Status>> + Send>>;

    async fn get_metadata(
        &self,
        request: Request<GetMetadataRequest>,
    ) -> Result<Response<Self::GetMetadataStream>, Status> {
        let known = request.into_inner().known.unwrap_or_default();
        agent_fields::versions("known", &known).map_err(|error| explain::status(&error))?;
        let known = Versions {
            root: known.root,
            timestamp: known.timestamp,
            snapshot: known.snapshot,
            targets: known.targets,
        };
        let published = Arc::clone(&self.shared.published);
        let files = blocking(move || published.files_after(known)).await?;
        let chunks = files.into_iter().flat_map(chunks).map(Ok);
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let GetBlobRequest { sha256, offset } = request.into_inner();
        let sha256 = validate::sha256("sha256", &sha256).map_err(|error| explain::status(&error))?;
        let blobs = self.shared.blobs.clone();
        let opened = blocking(move || blobs.read(sha256, offset)).await?;
        let (file, total) = opened.map_err(|error: BlobError| explain::status(&error.into()))?;
        let (outbound, messages) = mpsc::channel(CHUNKS_MAX);
        let (sends, stop) = (Arc::clone(&self.sends), self.shared.stop.clone());
        tokio::spawn(async move {
            let Ok(_place) = sends.acquire_owned().await else { return };
            tokio::select! {
                () = stop.cancelled() => {}
                () = send_blob(File::from_std(file), total, &outbound) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// The messages of one file; the last one says so.
fn chunks(file: MetadataFile) -> Vec<GetMetadataResponse> {
    let MetadataFile { name, bytes } = file;
    let count = bytes.len().div_ceil(CHUNK_MAX).max(1);
    let part = |index: usize| bytes.chunks(CHUNK_MAX).nth(index).unwrap_or_default().to_vec();
    (0..count)
        .map(|index| GetMetadataResponse { name: name.clone(), data: part(index), last: index + 1 == count })
        .collect()
}

/// Sends the rest of a blob; an empty rest is one empty message, which still tells the length.
async fn send_blob(
    mut file: impl AsyncRead + Unpin,
    total: u64,
    outbound: &mpsc::Sender<Result<GetBlobResponse, Status>>,
) {
    let mut first = true;
    loop {
        let message = match chunk(&mut file).await {
            Ok(data) if data.is_empty() && !first => return,
            Ok(data) => Ok(GetBlobResponse { data, total }),
            Err(error) => Err(explain::status(&BlobError::from(error).into())),
        };
        let ends = !matches!(&message, Ok(response) if !response.data.is_empty());
        first = false;
        if !matches!(timeout(SEND_MAX, outbound.send(message)).await, Ok(Ok(()))) || ends {
            return;
        }
    }
}

/// Up to [`CHUNK_MAX`] bytes; empty at the end.
async fn chunk(file: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(CHUNK_MAX);
    file.take(CHUNK_MAX as u64).read_to_end(&mut data).await?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_travels_in_chunks_and_its_last_one_says_so() {
        let bytes = vec![7; CHUNK_MAX + 1];
        let messages = chunks(MetadataFile { name: "targets.json".to_owned(), bytes: bytes.clone() });
        assert_eq!(messages.iter().map(|message| message.last).collect::<Vec<_>>(), [false, true]);
        assert_eq!(messages.into_iter().flat_map(|message| message.data).collect::<Vec<_>>(), bytes);
    }

    #[tokio::test]
    async fn a_blob_travels_in_bounded_chunks_with_its_whole_length() {
        let bytes = vec![7; 2 * CHUNK_MAX + 5];
        let (outbound, mut messages) = mpsc::channel(8);
        send_blob(&bytes[..], 600_000, &outbound).await;
        drop(outbound);
        let mut sizes = Vec::new();
        while let Some(message) = messages.recv().await {
            let message = message.unwrap();
            assert_eq!(message.total, 600_000);
            sizes.push(message.data.len());
        }
        assert_eq!(sizes, [CHUNK_MAX, CHUNK_MAX, 5]);
    }

    #[tokio::test]
    async fn an_empty_rest_still_tells_the_length() {
        let (outbound, mut messages) = mpsc::channel(8);
        send_blob(&[][..], 5, &outbound).await;
        drop(outbound);
        assert_eq!(messages.recv().await.unwrap().unwrap(), GetBlobResponse { data: Vec::new(), total: 5 });
        assert!(messages.recv().await.is_none());
    }
}
