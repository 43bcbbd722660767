//! Notes, as bytes of a `PT_NOTE` segment.

use proptest::prelude::*;

use super::*;

/// One note in the layout of the ELF gABI.
fn note(owner: &str, kind: u32, desc: &[u8]) -> Vec<u8> {
    let padded = |bytes: &[u8]| [bytes, &vec![0; bytes.len().next_multiple_of(4) - bytes.len()]].concat();
    let owner = format!("{owner}\0");
    let sizes = [u32::try_from(owner.len()).unwrap(), u32::try_from(desc.len()).unwrap(), kind];
    let header: Vec<u8> = sizes.into_iter().flat_map(u32::to_le_bytes).collect();
    [header, padded(owner.as_bytes()), padded(desc)].concat()
}

fn ours(desc: &[u8]) -> Vec<u8> {
    note(NOTE_OWNER, NOTE_TYPE, desc)
}

fn find(segment: &[u8]) -> Result<Note, NoteError> {
    Note::find([(segment, 4)])
}

const GOOD: &[u8] = b"1.0\0clock\x001.2.3-rc.1\0";

#[test]
fn a_note_is_read_wherever_it_stands_among_others() {
    let build_id = note("GNU", 3, &[7; 20]);
    let segment = [build_id.clone(), ours(GOOD), build_id].concat();
    let note = find(&segment).unwrap();
    assert_eq!(note.name, "clock");
    assert_eq!(note.version, Version::parse("1.2.3-rc.1").unwrap());
    assert_eq!((note.abi_major, note.abi_minor), (1, 0));
    assert_eq!(Note::find([(&[][..], 8), (&segment[..], 4)]).unwrap(), note);
}

#[test]
fn notes_of_others_and_of_another_type_are_not_ours() {
    for segment in [note("GNU", NOTE_TYPE, GOOD), note(NOTE_OWNER, 2, GOOD), note("Fleetswap2", 1, GOOD)] {
        assert_eq!(find(&segment), Err(NoteError::Missing));
    }
    assert_eq!(Note::find([]), Err(NoteError::Missing));
}

#[test]
fn a_newer_minor_abi_is_fine_and_another_major_one_is_not() {
    assert_eq!(find(&ours(b"1.7\0clock\x001.0.0\0")).unwrap().abi_minor, 7);
    let error = find(&ours(b"2.0\0clock\x001.0.0\0")).unwrap_err();
    assert_eq!(error, NoteError::AbiMismatch { major: 2, minor: 0 });
    assert_eq!(error.code(), "ABI_MISMATCH");
}

#[test]
fn another_major_abi_is_named_even_if_the_rest_is_unknown() {
    assert_eq!(find(&ours(b"2.0\0")).unwrap_err().code(), "ABI_MISMATCH");
}

#[test]
fn padding_after_the_version_may_only_be_zeros() {
    assert!(find(&ours(&[GOOD, &[0; 3]].concat())).is_ok());
    assert_eq!(find(&ours(&[GOOD, b"x"].concat())).unwrap_err().code(), "NOTE_MALFORMED");
}

#[test]
fn what_breaks_the_format_is_malformed() {
    let bad: [&[u8]; 10] = [
        b"",
        b"1.0",
        b"1\0clock\x001.0.0\0",
        b"1.+0\0clock\x001.0.0\0",
        b"1.70000\0clock\x001.0.0\0",
        b"1.0\0Clock\x001.0.0\0",
        b"1.0\0\x001.0.0\0",
        b"1.0\0clock\x001.0\0",
        b"1.0\0clock\x001.0.0",
        b"1.0\0cl\xffck\x001.0.0\0",
    ];
    for desc in bad {
        let error = find(&ours(desc)).unwrap_err();
        assert_eq!(error.code(), "NOTE_MALFORMED", "{desc:?}: {error}");
    }
}

#[test]
fn a_second_note_is_refused_since_readers_would_disagree() {
    let segment = [ours(GOOD), ours(b"1.0\0other\x001.0.0\0")].concat();
    assert_eq!(find(&segment).unwrap_err().code(), "NOTE_MALFORMED");
}

#[test]
fn a_note_that_runs_out_of_its_segment_is_not_read() {
    let whole = ours(GOOD);
    for end in 0..whole.len() - 4 {
        assert!(find(&whole[..end]).is_err(), "{end}");
    }
    assert_eq!(Note::find([(&whole[..], 3 << 60)]), Err(NoteError::Missing));
}

proptest! {
    #[test]
    fn any_segment_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), align in any::<u64>()) {
        let _ = Note::find([(bytes.as_slice(), align)]);
    }

    #[test]
    fn any_description_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Note::parse(&bytes);
        let _ = Note::parse(&[b"1.0\0clock\0", bytes.as_slice()].concat());
    }
}
