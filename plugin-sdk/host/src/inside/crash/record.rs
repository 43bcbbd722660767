//! Record: the text of a crash, put together in memory that is there already. The host's side of it is `crate::death`.
use super::modules::MODULES;
use crate::log::CRASH_MARK;
use std::ffi::c_int;

/// Longest line of a record in bytes, its end included: at most what a pipe takes in one piece.
const RECORD_MAX: usize = crate::LINE_MAX;
/// Bytes of a thread's name as the kernel gives it.
const THREAD_MAX: usize = 16;
/// Hex digits of an address.
const HEX_MAX: usize = 16;
/// Decimal digits of a number and its sign.
const DECIMAL_MAX: usize = 20;

/// One line.
pub(super) struct Record {
    bytes: [u8; RECORD_MAX],
    len: usize,
}

impl Record {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; RECORD_MAX], len: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The whole first line: signal, code, address, thread id, and the thread's name, which may have spaces.
    pub(super) fn head(&mut self, signal: c_int, code: c_int, address: Option<usize>) {
        self.len = 0;
        self.push(&[CRASH_MARK]);
        self.push(b"crash ");
        self.decimal(signal.into());
        self.push(b" ");
        self.decimal(code.into());
        self.push(b" ");
        match address {
            Some(address) => self.hex(address),
            None => self.push(b"-"),
        }
        self.push(b" ");
        let mut name = [0_u8; THREAD_MAX];
        // SAFETY: both calls are about the calling thread; the name has the room that the kernel fills.
        let tid = unsafe {
            libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
            libc::gettid()
        };
        self.decimal(tid.into());
        self.push(b" ");
        for &byte in name.iter().take_while(|byte| **byte != 0) {
            self.push(&[if (b' '..=b'~').contains(&byte) { byte } else { b'?' }]);
        }
        self.end();
    }

    /// Begins the second line.
    pub(super) fn begin_frames(&mut self) {
        self.len = 0;
        self.push(&[CRASH_MARK]);
        self.push(b"frames");
    }

    /// One frame: `module+0xoffset`, or the address alone where no module is.
    pub(super) fn frame(&mut self, address: usize) {
        self.push(b" ");
        match MODULES.find(address) {
            Some(module) => {
                self.push(module.name.as_bytes());
                self.push(b"+");
                self.hex(module.offset(address));
            }
            None => self.hex(address),
        }
    }

    pub(super) fn end(&mut self) {
        self.push(b"\n");
    }

    /// Appends what there is room for; the last byte is kept for the end.
    fn push(&mut self, bytes: &[u8]) {
        let last = RECORD_MAX - usize::from(bytes != b"\n");
        for &byte in bytes {
            if self.len < last {
                self.bytes[self.len] = byte;
                self.len += 1;
            }
        }
    }

    fn hex(&mut self, number: usize) {
        let mut digits = [0; HEX_MAX];
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789abcdef"[rest & 0xf];
            rest >>= 4;
        }
        let zeros = (number.leading_zeros() as usize / 4).min(HEX_MAX - 1);
        self.push(b"0x");
        self.push(&digits[zeros..]);
    }

    fn decimal(&mut self, number: i64) {
        let mut digits = [0; DECIMAL_MAX];
        let (mut rest, mut at) = (number.unsigned_abs(), DECIMAL_MAX);
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            self.push(b"-");
        }
        self.push(&digits[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(record: &Record) -> String {
        String::from_utf8(record.bytes().to_vec()).unwrap()
    }

    #[test]
    fn the_head_names_signal_code_address_and_thread() {
        let name = "a b\u{e9}";
        let head = std::thread::Builder::new().name(name.into()).spawn(|| {
            let mut record = Record::new();
            record.head(11, -6, Some(0xdead_beef));
            text(&record)
        });
        let head = head.unwrap().join().unwrap();
        assert!(head.starts_with("\u{2}crash 11 -6 0xdeadbeef ") && head.ends_with(" a b??\n"), "{head:?}");
    }

    #[test]
    fn numbers_are_written_at_both_ends_of_their_range() {
        let mut record = Record::new();
        for number in [0, 10, i64::MIN] {
            record.decimal(number);
            record.push(b" ");
        }
        record.hex(0);
        record.hex(usize::MAX);
        assert_eq!(text(&record), format!("0 10 {} 0x0{:#x}", i64::MIN, usize::MAX));
    }

    #[test]
    fn a_line_that_is_full_still_ends() {
        let mut record = Record::new();
        record.begin_frames();
        for _ in 0..RECORD_MAX {
            record.frame(1);
        }
        record.end();
        assert_eq!((record.len, record.bytes().last()), (RECORD_MAX, Some(&b'\n')));
    }
}
