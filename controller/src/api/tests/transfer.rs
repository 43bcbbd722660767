//! Uploads and downloads over the wire.

use fleetswap_proto::{CHUNK_MAX, v1};
use fleetswap_trust::Digest;
use tonic::Status;

use super::world::{World, code, names};

/// Sends `bytes` from `offset` on, in chunks of `size`.
async fn put(
    world: &World,
    (sha256, length, offset): (Digest, u64, u64),
    (bytes, size): (&[u8], usize),
) -> Result<v1::PutBlobResponse, Status> {
    let header = v1::BlobHeader { sha256: sha256.to_string(), length, offset };
    let first = v1::PutBlobRequest { header: Some(header), data: Vec::new() };
    let rest = bytes.chunks(size).map(|chunk| v1::PutBlobRequest { header: None, data: chunk.to_vec() });
    let messages: Vec<_> = std::iter::once(first).chain(rest).collect();
    let response = world.operator().put_blob(tokio_stream::iter(messages)).await?;
    Ok(response.into_inner())
}

#[tokio::test]
async fn an_upload_goes_on_where_it_ended_and_comes_back_whole() {
    let world = World::start().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(2 * CHUNK_MAX + 77).collect();
    let (sha256, length) = (Digest::of(&bytes), bytes.len() as u64);
    let half = put(&world, (sha256, length, 0), (&bytes[..CHUNK_MAX], CHUNK_MAX)).await.unwrap();
    assert_eq!(half, v1::PutBlobResponse { complete: false, offset: CHUNK_MAX as u64 });
    let ask = v1::StatBlobRequest { sha256: sha256.to_string() };
    let stat = world.operator().stat_blob(ask.clone()).await.unwrap().into_inner();
    assert_eq!((stat.complete, stat.offset), (false, CHUNK_MAX as u64));
    let rest = put(&world, (sha256, length, stat.offset), (&bytes[CHUNK_MAX..], 1000)).await.unwrap();
    assert_eq!(rest, v1::PutBlobResponse { complete: true, offset: length });
    assert!(world.operator().stat_blob(ask).await.unwrap().into_inner().complete);

    let ask = v1::GetBlobRequest { sha256: sha256.to_string(), offset: 10 };
    let mut chunks = world.bytes().get_blob(ask).await.unwrap().into_inner();
    let mut back = bytes[..10].to_vec();
    while let Some(chunk) = chunks.message().await.unwrap() {
        assert_eq!(chunk.total, length);
        assert!(chunk.data.len() <= CHUNK_MAX);
        back.extend(chunk.data);
    }
    assert!(back == bytes, "other bytes came back");
}

#[tokio::test]
async fn an_upload_that_lies_is_refused_with_its_reason() {
    let world = World::start().await;
    let sha256 = Digest::of(b"hello");
    let cases: [(u64, u64, &[u8], &str); 5] = [
        (5, 0, b"hellO", "BLOB_MISMATCH"),
        (5, 0, b"hello!", "BLOB_MISMATCH"),
        (5, 3, b"lo", "BLOB_OFFSET"),
        (0, 0, b"", "REQUEST_INVALID"),
        (u64::MAX, 0, b"hello", "BLOB_TOO_LARGE"),
    ];
    for (length, offset, bytes, expected) in cases {
        let refused = put(&world, (sha256, length, offset), (bytes, 100)).await.unwrap_err();
        assert_eq!(code(&refused), expected, "{length} {offset}");
    }
    let big = vec![0; CHUNK_MAX + 1];
    let refused = put(&world, (Digest::of(&big), big.len() as u64, 0), (&big, big.len())).await.unwrap_err();
    assert_eq!(code(&refused), "REQUEST_INVALID");
}

#[tokio::test]
async fn an_upload_without_a_header_or_with_two_is_refused() {
    let world = World::start().await;
    let bare = v1::PutBlobRequest { header: None, data: b"hello".to_vec() };
    let refused = world.operator().put_blob(tokio_stream::iter([bare])).await.unwrap_err();
    assert_eq!(code(&refused), "REQUEST_INVALID");
    let header = v1::BlobHeader { sha256: Digest::of(b"hello").to_string(), length: 5, offset: 0 };
    let message = v1::PutBlobRequest { header: Some(header), data: b"he".to_vec() };
    let refused =
        world.operator().put_blob(tokio_stream::iter([message.clone(), message])).await.unwrap_err();
    assert_eq!(code(&refused), "REQUEST_INVALID");
    let none: [v1::PutBlobRequest; 0] = [];
    assert_eq!(
        code(&world.operator().put_blob(tokio_stream::iter(none)).await.unwrap_err()),
        "REQUEST_INVALID"
    );
}

#[tokio::test]
async fn an_upload_of_what_has_no_name_is_refused() {
    let world = World::start().await;
    for sha256 in [String::new(), "abc".to_owned(), "AB".repeat(32), "ab".repeat(33), "a".repeat(2000)] {
        let header = v1::BlobHeader { sha256, length: 5, offset: 0 };
        let message = v1::PutBlobRequest { header: Some(header), data: b"hello".to_vec() };
        let refused = world.operator().put_blob(tokio_stream::iter([message])).await.unwrap_err();
        names("header.sha256", &refused);
    }
    let header = v1::BlobHeader { sha256: Digest::of(b"hello").to_string(), length: 0, offset: 0 };
    let message = v1::PutBlobRequest { header: Some(header), data: b"hello".to_vec() };
    let refused = world.operator().put_blob(tokio_stream::iter([message])).await.unwrap_err();
    names("header.length", &refused);
}

#[tokio::test]
async fn a_host_is_sent_only_the_metadata_that_it_lacks() {
    let world = World::start().await;
    let names = async |known| {
        let mut files =
            world.bytes().get_metadata(v1::GetMetadataRequest { known }).await.unwrap().into_inner();
        let mut names = Vec::new();
        while let Some(chunk) = files.message().await.unwrap() {
            assert!(chunk.last);
            names.push(chunk.name);
        }
        names
    };
    assert_eq!(names(None).await, ["1.root.json", "timestamp.json", "snapshot.json", "targets.json"]);
    let known = v1::MetadataVersions { root: 1, timestamp: 0, snapshot: 1, targets: 0 };
    assert_eq!(names(Some(known)).await, ["timestamp.json", "targets.json"]);
}
