//! Uploads of blobs, which go on where an earlier one broke off.

use backon::{ConstantBuilder, Retryable};
use fleetswap_proto::{
    CHUNK_MAX, Explained,
    v1::{BlobHeader, PutBlobRequest, StatBlobRequest},
};
use fleetswap_trust::Digest;

use super::{
    client::{Client, RESEND_PAUSE, RESENDS},
    exit::Failure,
};

/// How often an upload that ends before its end, without an error, starts again where it broke off.
const ATTEMPTS: usize = 3;

/// Uploads one blob unless the controller has it. While the controller is away, or still holds on to the connection
/// that broke, it is tried again, and goes on where it was.
pub(super) async fn blob(client: &Client, bytes: &[u8]) -> Result<(), Failure> {
    let sha256 = Digest::of(bytes).to_string();
    let policy = ConstantBuilder::default().with_delay(RESEND_PAUSE).with_max_times(RESENDS);
    for _ in 0..ATTEMPTS {
        let attempt = || go_on(client, &sha256, bytes);
        let may_pass = |failure: &Failure| failure.is_away() || failure.error.code == "BLOB_BUSY";
        if attempt.retry(policy).when(may_pass).await? {
            return Ok(());
        }
    }
    let what = format!("blob {sha256} could not be uploaded");
    let why = format!("the controller still lacks part of it after {ATTEMPTS} attempts");
    Err(Explained::new("UPLOAD_INCOMPLETE", what, why, "run the command again; it goes on where it stopped")
        .into())
}

/// Sends what the controller lacks of a blob. True if it then has all of it.
async fn go_on(client: &Client, sha256: &str, bytes: &[u8]) -> Result<bool, Failure> {
    let mut operator = client.operator();
    let request = StatBlobRequest { sha256: sha256.to_owned() };
    let stat = operator.stat_blob(request).await.map_err(|status| client.failure(&status))?.into_inner();
    if stat.complete {
        return Ok(true);
    }
    let offset = usize::try_from(stat.offset).unwrap_or(usize::MAX).min(bytes.len());
    let parts = tokio_stream::iter(messages(sha256, bytes, offset));
    let put = operator.put_blob(parts).await.map_err(|status| client.failure(&status))?;
    Ok(put.into_inner().complete)
}

fn messages(sha256: &str, bytes: &[u8], offset: usize) -> Vec<PutBlobRequest> {
    let header = BlobHeader { sha256: sha256.to_owned(), length: bytes.len() as u64, offset: offset as u64 };
    let first = PutBlobRequest { header: Some(header), data: Vec::new() };
    let chunks = bytes[offset..].chunks(CHUNK_MAX);
    std::iter::once(first)
        .chain(chunks.map(|chunk| PutBlobRequest { header: None, data: chunk.to_vec() }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_at_its_offset_in_bounded_chunks() {
        let bytes = vec![7; CHUNK_MAX * 2 + 5];
        let parts = messages("aa", &bytes, 5);
        assert_eq!(parts[0].header.as_ref().map(|header| header.offset), Some(5));
        let sizes: Vec<usize> = parts[1..].iter().map(|part| part.data.len()).collect();
        assert_eq!(sizes, [CHUNK_MAX, CHUNK_MAX]);
    }
}
