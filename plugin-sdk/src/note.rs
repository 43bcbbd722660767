//! The ELF note: who a library is, readable without running it.

use fleetswap_plugin_abi::{ABI_MAJOR, ABI_MINOR, NOTE_OWNER, NOTE_TYPE};

use crate::function::About;

/// The ABI version as the note spells it.
const ABI: &str = "1.0";
const _: () = assert!(ABI_MAJOR == 1 && ABI_MINOR == 0, "the note must say the version of the table");

/// Two sizes and a type, 4 bytes each.
const HEADER: usize = 12;

/// The bytes of a note, aligned as ELF demands.
#[repr(C, align(4))]
pub struct Note<const LENGTH: usize>([u8; LENGTH]);

/// Length of the note in bytes.
#[must_use]
pub const fn note_length(about: &About) -> usize {
    HEADER + (NOTE_OWNER.len() + 1).next_multiple_of(4) + desc_length(about).next_multiple_of(4)
}

/// The note. `LENGTH` is [`note_length`].
#[must_use]
pub const fn note<const LENGTH: usize>(about: &About) -> Note<LENGTH> {
    let mut bytes = [0; LENGTH];
    put(&mut bytes, 0, &(NOTE_OWNER.len() as u32 + 1).to_ne_bytes());
    put(&mut bytes, 4, &(desc_length(about) as u32).to_ne_bytes());
    put(&mut bytes, 8, &NOTE_TYPE.to_ne_bytes());
    put(&mut bytes, HEADER, NOTE_OWNER.as_bytes());
    let desc = HEADER + (NOTE_OWNER.len() + 1).next_multiple_of(4);
    put(&mut bytes, desc, ABI.as_bytes());
    put(&mut bytes, desc + ABI.len() + 1, about.name.as_bytes());
    put(&mut bytes, desc + ABI.len() + 1 + about.name.len() + 1, about.version.as_bytes());
    Note(bytes)
}

/// Three strings, each with its NUL.
const fn desc_length(about: &About) -> usize {
    ABI.len() + 1 + about.name.len() + 1 + about.version.len() + 1
}

const fn put(bytes: &mut [u8], at: usize, text: &[u8]) {
    let mut i = 0;
    while i < text.len() {
        bytes[at + i] = text[i];
        i += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_owner_type_and_three_strings_each_padded_to_four_bytes() {
        const ABOUT: About = About { name: "clock", version: "1.0.0", concurrency: 1, background: false };
        const NOTE: Note<{ note_length(&ABOUT) }> = note(&ABOUT);
        let mut expected = Vec::new();
        for number in [10_u32, 16, 1] {
            expected.extend(number.to_ne_bytes());
        }
        expected.extend(b"Fleetswap\0\0\0");
        expected.extend(b"1.0\0clock\x001.0.0\0");
        assert_eq!(NOTE.0.as_slice(), expected);
    }
}
