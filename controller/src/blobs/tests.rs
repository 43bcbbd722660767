//! Uploads that are cut, go on, lie, or meet each other.

use super::*;

fn blobs(dir: &tempfile::TempDir) -> Blobs {
    Blobs::open(dir.path(), SystemTime::now()).unwrap()
}

fn names(dir: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(dir.path().join("blobs")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_upload_that_was_cut_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    let sha256 = Digest::of(&bytes);
    let mut first = blobs(&dir).upload(sha256, 200_000, 0).unwrap();
    first.write(&bytes[..150_000]).unwrap();
    drop(first);

    let reopened = blobs(&dir);
    assert_eq!(reopened.stat(sha256).unwrap(), Stat { complete: false, offset: 150_000 });
    let mut second = reopened.upload(sha256, 200_000, 150_000).unwrap();
    second.write(&bytes[150_000..]).unwrap();
    assert_eq!(second.finish().unwrap(), Stat { complete: true, offset: 200_000 });
    assert_eq!(reopened.get(sha256, BLOB_MAX).unwrap(), bytes);
    assert_eq!(names(&dir), [sha256.to_string()]);
}

#[test]
fn an_upload_may_go_back_behind_what_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let sha256 = Digest::of(b"hello");
    let mut first = blobs.upload(sha256, 5, 0).unwrap();
    first.write(b"hexx").unwrap();
    assert_eq!(first.finish().unwrap(), Stat { complete: false, offset: 4 });
    let mut second = blobs.upload(sha256, 5, 2).unwrap();
    second.write(b"llo").unwrap();
    assert!(second.finish().unwrap().complete);
}

#[test]
fn an_upload_cannot_leave_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let refused = blobs(&dir).upload(Digest::of(b"hello"), 5, 3).map(drop);
    assert!(matches!(refused, Err(BlobError::Offset { asked: 3, held: 0 })), "{refused:?}");
}

#[test]
fn other_bytes_are_refused_and_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let sha256 = Digest::of(b"hello");
    let mut upload = blobs.upload(sha256, 5, 0).unwrap();
    upload.write(b"hellO").unwrap();
    assert!(matches!(upload.finish(), Err(BlobError::Mismatch { .. })));
    assert_eq!(blobs.stat(sha256).unwrap(), Stat { complete: false, offset: 0 });
    assert!(names(&dir).is_empty());
}

#[test]
fn one_byte_more_than_announced_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let mut upload = blobs.upload(Digest::of(b"hello"), 5, 0).unwrap();
    assert!(matches!(upload.write(b"hello!"), Err(BlobError::Mismatch { .. })));
    assert!(names(&dir).is_empty());
}

#[test]
fn a_part_that_rotted_on_the_disk_never_becomes_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let sha256 = Digest::of(b"hello");
    fs::write(blobs.part(sha256), b"hexx").unwrap();
    let mut upload = blobs.upload(sha256, 5, 4).unwrap();
    upload.write(b"o").unwrap();
    assert!(matches!(upload.finish(), Err(BlobError::Mismatch { .. })));
    assert!(matches!(blobs.read(sha256, 0), Err(BlobError::NotFound { .. })));
}

#[test]
fn what_is_here_already_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let sha256 = blobs.put(b"hello").unwrap();
    let mut again = blobs.upload(sha256, 5, 0).unwrap();
    again.write(b"xxxxx").unwrap();
    assert_eq!(again.finish().unwrap(), Stat { complete: true, offset: 5 });
    assert_eq!(blobs.get(sha256, 5).unwrap(), b"hello");
}

#[test]
fn two_uploads_of_one_blob_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let first = blobs.upload(Digest::of(b"hello"), 5, 0).unwrap();
    assert!(matches!(blobs.upload(Digest::of(b"hello"), 5, 0).map(drop), Err(BlobError::Busy { .. })));
    drop(first);
    assert!(blobs.upload(Digest::of(b"hello"), 5, 0).is_ok());
}

#[test]
fn an_empty_or_too_long_blob_is_refused_before_a_byte_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    for length in [0, BLOB_MAX + 1, u64::MAX] {
        let refused = blobs(&dir).upload(Digest::of(b"x"), length, 0).map(drop);
        assert!(matches!(refused, Err(BlobError::Length { .. })), "{length}");
    }
    assert!(names(&dir).is_empty());
}

#[test]
fn reading_starts_at_the_offset_and_tells_the_whole_length() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs(&dir);
    let sha256 = blobs.put(b"hello").unwrap();
    let (mut file, total) = blobs.read(sha256, 3).unwrap();
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), total), ("lo", 5));
    assert!(matches!(blobs.read(sha256, 6), Err(BlobError::Offset { asked: 6, held: 5 })));
}

#[test]
fn an_upload_that_was_given_up_long_ago_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let first = blobs(&dir);
    first.put(b"whole").unwrap();
    drop(first.upload(Digest::of(b"hello"), 5, 0).unwrap());
    let later = SystemTime::now() + PART_AGE_MAX * 2;
    Blobs::open(dir.path(), later).unwrap();
    assert_eq!(names(&dir), [Digest::of(b"whole").to_string()]);
}

#[test]
fn a_full_disk_has_a_code_of_its_own() {
    let error = BlobError::from(io::Error::from(io::ErrorKind::StorageFull));
    assert_eq!(error.code(), "DISK_FULL");
}
