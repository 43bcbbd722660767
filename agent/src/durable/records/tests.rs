//! Copies that are damaged, cut, missing or newer.

use std::fs;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    record: Record,
}

/// A record that was saved twice: "one", then "two".
fn saved() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let record = Record::new(dir.path(), "clock", Kind::Record);
    record.save(&"one").unwrap();
    record.save(&"two").unwrap();
    Fixture { dir, record }
}

impl Fixture {
    fn damage(&self, copy: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(&self.record.copies[copy]).unwrap();
        change(&mut bytes);
        fs::write(&self.record.copies[copy], bytes).unwrap();
    }

    fn load(&self) -> Result<Option<String>, DurableError> {
        self.record.load()
    }
}

#[test]
fn what_was_saved_last_is_loaded() {
    let fixture = saved();
    assert_eq!(fixture.load().unwrap().as_deref(), Some("two"));
    let records = Records::new(fixture.dir.path().to_owned());
    Record::new(fixture.dir.path(), "@host", Kind::HostRecord).save(&1).unwrap();
    assert_eq!(records.plugins().unwrap(), BTreeSet::from(["clock".to_owned()]));
    assert_eq!(records.of("clock").load::<String>().unwrap().as_deref(), Some("two"));
    assert_eq!(records.of("other").load::<String>().unwrap(), None);
}

#[test]
fn either_copy_may_be_cut_at_any_byte() {
    for copy in [0, 1] {
        let length = fs::read(&saved().record.copies[copy]).unwrap().len();
        for keep in 0..length {
            let fixture = saved();
            fixture.damage(copy, |bytes| bytes.truncate(keep));
            assert_eq!(fixture.load().unwrap().as_deref(), Some("two"), "copy {copy} cut at {keep}");
        }
    }
}

#[test]
fn either_copy_may_have_any_bit_flipped() {
    for copy in [0, 1] {
        let length = fs::read(&saved().record.copies[copy]).unwrap().len();
        for at in 0..length {
            let fixture = saved();
            fixture.damage(copy, |bytes| bytes[at] ^= 1 << (at % 8));
            assert_eq!(fixture.load().unwrap().as_deref(), Some("two"), "copy {copy} flipped at {at}");
        }
    }
}

#[test]
fn a_bad_copy_is_written_again_so_that_the_other_may_fail_next() {
    let fixture = saved();
    fixture.damage(0, |bytes| bytes.truncate(9));
    fixture.load().unwrap();
    fs::remove_file(&fixture.record.copies[1]).unwrap();
    assert_eq!(fixture.load().unwrap().as_deref(), Some("two"));
}

#[test]
fn a_crash_between_the_two_copies_keeps_the_newer_one() {
    let fixture = saved();
    let newer = encode(3, b"\"three\"");
    fs::write(&fixture.record.copies[0], &newer).unwrap();
    assert_eq!(fixture.load().unwrap().as_deref(), Some("three"));
    assert_eq!(fs::read(&fixture.record.copies[1]).unwrap(), newer);
}

#[test]
fn two_bad_copies_are_an_error_and_are_left_as_they_are() {
    let fixture = saved();
    for copy in [0, 1] {
        fixture.damage(copy, |bytes| *bytes.last_mut().unwrap() ^= 1);
    }
    let before = fs::read(&fixture.record.copies[0]).unwrap();
    let error = fixture.load().unwrap_err();
    assert_eq!(error.code(), "RECORD_DAMAGED");
    assert_eq!(fixture.record.save(&"reset").unwrap_err().code(), "RECORD_DAMAGED");
    assert_eq!(fs::read(&fixture.record.copies[0]).unwrap(), before);
}

#[test]
fn one_bad_copy_and_one_missing_is_an_error() {
    let fixture = saved();
    fixture.damage(0, Vec::clear);
    fs::remove_file(&fixture.record.copies[1]).unwrap();
    assert_eq!(fixture.load().unwrap_err().code(), "RECORD_DAMAGED");
}

#[test]
fn a_newer_format_is_refused_and_left_untouched() {
    let fixture = saved();
    let sum = checksum("2", "9", b"new body");
    let newer = format!("{MAGIC} 2 9 {sum}\nnew body");
    fs::write(&fixture.record.copies[1], &newer).unwrap();
    assert_eq!(fixture.load().unwrap_err().code(), "FORMAT_TOO_NEW");
    assert_eq!(fixture.record.save(&"old").unwrap_err().code(), "FORMAT_TOO_NEW");
    assert_eq!(fs::read_to_string(&fixture.record.copies[1]).unwrap(), newer);
}

#[test]
fn a_huge_record_is_refused_and_the_last_one_stays() {
    let fixture = saved();
    let huge = "x".repeat(usize::try_from(RECORD_MAX).unwrap());
    assert_eq!(fixture.record.save(&huge).unwrap_err().code(), "STATE_TOO_LARGE");
    assert_eq!(fixture.load().unwrap().as_deref(), Some("two"));
}
