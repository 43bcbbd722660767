//! What an image refuses, and that nobody can change one.
use super::*;

fn sha(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn image_of(bytes: &[u8]) -> Image {
    let mut writer = ImageWriter::new(bytes.len() as u64).unwrap();
    writer.write(bytes).unwrap();
    writer.seal(&sha(bytes)).unwrap()
}

#[test]
fn an_image_holds_the_bytes_that_were_written_piece_by_piece() {
    let mut writer = ImageWriter::new(6).unwrap();
    for piece in ["ab", "", "cd", "ef"] {
        writer.write(piece.as_bytes()).unwrap();
    }
    let image = writer.seal(&sha(b"abcdef")).unwrap();
    assert_eq!(image.bytes(), b"abcdef");
    assert_eq!((image.len(), image.sha256()), (6, &sha(b"abcdef")));
}

#[test]
fn one_byte_too_many_is_refused_before_it_is_stored() {
    let mut writer = ImageWriter::new(3).unwrap();
    writer.write(b"abc").unwrap();
    let error = writer.write(b"d").unwrap_err();
    assert!(matches!(error, ImageError::Length { got: 4, wanted: 3 }), "{error}");
    assert_eq!(error.code(), "ARTIFACT_LENGTH");
    assert_eq!(writer.written, 3);
}

#[test]
fn one_byte_too_few_is_refused() {
    let mut writer = ImageWriter::new(3).unwrap();
    writer.write(b"ab").unwrap();
    let error = writer.seal(&sha(b"ab")).unwrap_err();
    assert!(matches!(error, ImageError::Length { got: 2, wanted: 3 }), "{error}");
}

#[test]
fn a_flipped_byte_is_refused() {
    let mut writer = ImageWriter::new(3).unwrap();
    writer.write(b"abX").unwrap();
    let error = writer.seal(&sha(b"abc")).unwrap_err();
    assert_eq!(error.code(), "ARTIFACT_HASH");
}

#[test]
fn lengths_of_zero_and_beyond_the_bound_are_refused() {
    for length in [0, IMAGE_MAX + 1, u64::MAX] {
        assert!(matches!(ImageWriter::new(length), Err(ImageError::Bound(_))), "{length}");
    }
}

#[test]
fn a_sealed_image_can_be_neither_written_nor_resized_even_when_reopened() {
    let image = image_of(b"abc");
    let mut own = File::from(image.0.fd.try_clone().unwrap());
    assert_eq!(own.write(b"X").unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert_eq!(own.set_len(1).unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert_eq!(own.set_len(9).unwrap_err().raw_os_error(), Some(libc::EPERM));
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&image.0.fd));
    let mut again = File::options().read(true).write(true).open(path).unwrap();
    assert_eq!(again.write(b"X").unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert_eq!(image.bytes(), b"abc");
}

#[test]
fn seals_can_not_be_taken_back() {
    let image = image_of(b"abc");
    let seals = rustix::fs::fcntl_get_seals(&image.0.fd).unwrap();
    assert!(seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
}

#[test]
fn a_file_that_changes_after_it_was_copied_does_not_change_the_image() {
    let path = std::env::temp_dir().join(format!("fleetswap-image-{}", std::process::id()));
    std::fs::write(&path, b"before").unwrap();
    let image = Image::from_file(&path, &sha(b"before"), 6).unwrap();
    std::fs::write(&path, b"after!").unwrap();
    assert_eq!(image.bytes(), b"before");
    let error = Image::from_file(&path, &sha(b"before"), 6).unwrap_err();
    assert_eq!(error.code(), "ARTIFACT_HASH");
    let error = Image::from_file(&path, &sha(b"before"), 5).unwrap_err();
    assert_eq!(error.code(), "ARTIFACT_LENGTH");
    std::fs::remove_file(&path).unwrap();
    let error = Image::from_file(&path, &sha(b"before"), 6).unwrap_err();
    assert_eq!(error.code(), "IMAGE_IO");
}
