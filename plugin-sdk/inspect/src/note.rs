//! The ELF note `.note.fleetswap`: ABI, name and version of a plugin, readable without running it.

use fleetswap_plugin_abi::{ABI_MAJOR, NOTE_OWNER, NOTE_TYPE, VERSION_MAX};
use object::{
    LittleEndian,
    elf::{FileHeader64, NoteType},
    read::elf::NoteIterator,
};
use semver::Version;

use crate::name::{is_plugin_name, shown, version};

/// Largest `PT_NOTE` segment that is read, in bytes.
pub const NOTE_SEGMENT_MAX: usize = 64 * 1024;
/// Most notes that are looked at in one segment.
const NOTES_MAX: usize = 1024;
/// Longest part of a note that an error repeats, in characters.
const SHOWN_MAX: usize = 80;

/// What a plugin says about itself in its note.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// Major version of the table; always the one that this build understands.
    pub abi_major: u16,
    /// Minor version of the table.
    pub abi_minor: u16,
    /// Name of the plugin.
    pub name: String,
    /// Version of the plugin.
    pub version: Version,
}

/// Why a library's note can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// No note of ours in any `PT_NOTE` segment.
    #[error(
        "the library carries no Fleetswap note, so it is not a plugin or was not built with the plugin SDK"
    )]
    Missing,
    /// A note of ours that breaks the format.
    #[error("the library's Fleetswap note can't be read: {0}")]
    Malformed(String),
    /// Built for a table that this build does not understand.
    #[error("the plugin was built for ABI {major}.{minor}, and this program understands ABI {ABI_MAJOR}.x")]
    AbiMismatch {
        /// Major version in the note.
        major: u16,
        /// Minor version in the note.
        minor: u16,
    },
}

impl NoteError {
    /// Stable code with a page in `docs/errors/`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "NOTE_MISSING",
            Self::Malformed(_) => "NOTE_MALFORMED",
            Self::AbiMismatch { .. } => "ABI_MISMATCH",
        }
    }

    fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed(why.into())
    }
}

impl Note {
    /// Finds and reads the one Fleetswap note in the given `PT_NOTE` segments (contents and alignment).
    pub(crate) fn find<'data>(
        segments: impl IntoIterator<Item = (&'data [u8], u64)>,
    ) -> Result<Self, NoteError> {
        let mut descs = segments.into_iter().flat_map(|(data, align)| ours(data, align));
        let desc = descs.next().ok_or(NoteError::Missing)?;
        if descs.next().is_some() {
            return Err(NoteError::malformed("there is more than one"));
        }
        Self::parse(desc)
    }

    /// Reads the descriptor of a note: three NUL-ended strings, then nothing but zeros.
    fn parse(desc: &[u8]) -> Result<Self, NoteError> {
        let mut rest = desc;
        let abi = part(&mut rest, "ABI")?;
        let (major, minor) = abi_version(abi)?;
        if major != ABI_MAJOR {
            return Err(NoteError::AbiMismatch { major, minor });
        }
        let name = part(&mut rest, "name")?;
        if !is_plugin_name(name) {
            let name = shown(name, SHOWN_MAX);
            return Err(NoteError::Malformed(format!("`{name}` is not a plugin name ([a-z][a-z0-9_-]*)")));
        }
        let text = part(&mut rest, "version")?;
        let version = version(text).ok_or_else(|| {
            let text = shown(text, SHOWN_MAX);
            NoteError::Malformed(format!("`{text}` is not a semver version of at most {VERSION_MAX} bytes"))
        })?;
        if rest.iter().any(|&byte| byte != 0) {
            return Err(NoteError::malformed("there is something after the version"));
        }
        Ok(Self { abi_major: major, abi_minor: minor, name: name.to_owned(), version })
    }
}

/// The descriptors of our notes in one segment. What follows an unreadable note is not looked at.
fn ours(data: &[u8], align: u64) -> impl Iterator<Item = &[u8]> {
    let data = data.get(..NOTE_SEGMENT_MAX).unwrap_or(data);
    let notes = NoteIterator::<FileHeader64<LittleEndian>>::new(LittleEndian, align, data).ok();
    notes
        .into_iter()
        .flat_map(|notes| notes.map_while(Result::ok).take(NOTES_MAX))
        .filter(|note| {
            note.name() == NOTE_OWNER.as_bytes() && note.n_type(LittleEndian) == NoteType(NOTE_TYPE)
        })
        .map(|note| note.desc())
}

/// Takes one NUL-ended string off the front.
fn part<'data>(rest: &mut &'data [u8], what: &str) -> Result<&'data str, NoteError> {
    let end = rest
        .iter()
        .position(|&byte| byte == 0)
        .ok_or_else(|| NoteError::Malformed(format!("its {what} is not ended by a zero byte")))?;
    let (text, after) = rest.split_at(end);
    *rest = &after[1..];
    std::str::from_utf8(text).map_err(|_| NoteError::Malformed(format!("its {what} is not UTF-8")))
}

fn abi_version(text: &str) -> Result<(u16, u16), NoteError> {
    let wrong =
        || NoteError::Malformed(format!("`{}` is not an ABI version MAJOR.MINOR", shown(text, SHOWN_MAX)));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse().ok() } else { None }
    };
    let (major, minor) = text.split_once('.').ok_or_else(wrong)?;
    Ok((number(major).ok_or_else(wrong)?, number(minor).ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests;
