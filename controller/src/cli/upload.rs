//! Uploads of blobs, which go on where an earlier one broke off.

use fleetswap_proto::{
    CHUNK_MAX, Explained,
    v1::{BlobHeader, PutBlobRequest, StatBlobRequest},
};
use fleetswap_trust::Digest;

use super::{client::Client, exit::Failure};

/// How often an upload starts again where it broke off.
const ATTEMPTS: usize = 3;

/// Uploads one blob unless the controller has it.
pub(super) async fn blob(client: &Client, bytes: &[u8]) -> Result<(), Failure> {
    let sha256 = Digest::of(bytes).to_string();
    for _ in 0..ATTEMPTS {
        let request = StatBlobRequest { sha256: sha256.clone() };
        let stat = client
            .operator()
            .stat_blob(request)
            .await
            .map_err(|status| client.failure(&status))?
            .into_inner();
        if stat.complete {
            return Ok(());
        }
        let offset = usize::try_from(stat.offset).unwrap_or(usize::MAX).min(bytes.len());
        let parts = messages(&sha256, bytes, offset);
        let put = client.operator().put_blob(tokio_stream::iter(parts)).await;
        if put.map_err(|status| client.failure(&status))?.into_inner().complete {
            return Ok(());
        }
    }
    let what = format!("blob {sha256} could not be uploaded");
    let why = format!("the controller still lacks part of it after {ATTEMPTS} attempts");
    Err(Explained::new("UPLOAD_INCOMPLETE", what, why, "run the command again; it goes on where it stopped")
        .into())
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
