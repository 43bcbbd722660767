//! Build id: which build of a library this is, as its linker wrote it.
use object::{
    Endianness,
    elf::{FileHeader64, NT_GNU_BUILD_ID},
    read::elf::{FileHeader, ProgramHeader},
};

/// Longest build id in bytes; real ones have 8 to 32.
const BUILD_ID_MAX: usize = 32;
/// Program headers that are looked at.
const HEADERS_MAX: usize = 64;
/// Notes of one segment that are looked at.
const NOTES_MAX: usize = 64;

/// The GNU build id in hex, read from the notes that the program headers name. None where there is none.
pub(crate) fn build_id(library: &[u8]) -> Option<String> {
    let header = FileHeader64::<Endianness>::parse(library).ok()?;
    let endian = header.endian().ok()?;
    for segment in header.program_headers(endian, library).ok()?.iter().take(HEADERS_MAX) {
        let Ok(Some(mut notes)) = segment.notes(endian, library) else { continue };
        for _ in 0..NOTES_MAX {
            let Ok(Some(note)) = notes.next() else { break };
            let is_id = note.name() == b"GNU" && note.n_type(endian) == NT_GNU_BUILD_ID;
            if is_id && (1..=BUILD_ID_MAX).contains(&note.desc().len()) {
                return Some(hex::encode(note.desc()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_has_none() {
        assert_eq!(build_id(b""), None);
        assert_eq!(build_id(b"\x7fELF and then nothing of the kind"), None);
    }
}
