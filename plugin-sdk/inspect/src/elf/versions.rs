//! Symbol versions that the library needs from others: how new a glibc must be.

use object::{
    LittleEndian as Le, ReadRef,
    elf::{DT_VERNEED, VER_FLG_WEAK, Vernaux, Verneed},
};

use super::{Glibc, LintError, dynamic::Dynamic, segments::Segments};

/// Most libraries that symbol versions are needed from.
const FILES_MAX: usize = 64;
/// Most symbol versions that are needed from one library.
const VERSIONS_MAX: usize = 512;
/// Version name that stands for a feature of the loader: packed relative relocations.
const PACKED_RELOCATIONS: &[u8] = b"GLIBC_ABI_DT_RELR";
/// The glibc that brought [`PACKED_RELOCATIONS`] (its NEWS file, version 2.36).
const PACKED_RELOCATIONS_SINCE: Glibc = Glibc { major: 2, minor: 36 };

/// The newest glibc version that the library can't do without. Versions that are marked weak don't count: the
/// loader only warns about those. The two lists are followed by their links to the end as the loader follows
/// them, which never asks the counts beside them.
pub(super) fn newest_glibc(
    segments: &Segments<'_>,
    dynamic: &Dynamic<'_>,
) -> Result<Option<Glibc>, LintError> {
    let Some(start) = dynamic.the(DT_VERNEED)? else { return Ok(None) };
    let mut rest = segments.at(start);
    let mut newest = None;
    for _ in 0..FILES_MAX {
        let file = rest.read_at::<Verneed<Le>>(0).map_err(|()| outside())?;
        newest = newest.max(newest_of_file(skip(rest, file.vn_aux.get(Le))?, dynamic)?);
        match file.vn_next.get(Le) {
            0 => return Ok(newest),
            next => rest = skip(rest, next)?,
        }
    }
    Err(LintError::malformed("its list of needed symbol versions is too long"))
}

fn newest_of_file(mut rest: &[u8], dynamic: &Dynamic<'_>) -> Result<Option<Glibc>, LintError> {
    let mut newest = None;
    for _ in 0..VERSIONS_MAX {
        let version = rest.read_at::<Vernaux<Le>>(0).map_err(|()| outside())?;
        if !version.vna_flags.get(Le).contains(VER_FLG_WEAK) {
            newest = newest.max(glibc(dynamic.string(version.vna_name.get(Le).into())?));
        }
        match version.vna_next.get(Le) {
            0 => return Ok(newest),
            next => rest = skip(rest, next)?,
        }
    }
    Err(LintError::malformed("its list of needed symbol versions is too long"))
}

/// The glibc that a version name stands for; `None` for other libraries' names and for glibc's private ones.
fn glibc(name: &[u8]) -> Option<Glibc> {
    if name == PACKED_RELOCATIONS {
        return Some(PACKED_RELOCATIONS_SINCE);
    }
    Glibc::parse(std::str::from_utf8(name.strip_prefix(b"GLIBC_")?).ok()?)
}

fn skip(bytes: &[u8], count: u32) -> Result<&[u8], LintError> {
    usize::try_from(count).ok().and_then(|count| bytes.get(count..)).ok_or_else(outside)
}

fn outside() -> LintError {
    LintError::malformed("its needed symbol versions lie outside its segments")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_and_private_ones_say_nothing_about_glibc() {
        for name in ["GCC_3.0", "GLIBCXX_3.4.30", "GLIBC_PRIVATE", "GLIBC_ABI_NEW", ""] {
            assert_eq!(glibc(name.as_bytes()), None, "{name}");
        }
        assert_eq!(glibc(b"GLIBC_2.2.5"), Glibc::parse("2.2"));
    }

    #[test]
    fn packed_relocations_need_the_glibc_that_brought_them() {
        assert_eq!(glibc(b"GLIBC_ABI_DT_RELR"), Glibc::parse("2.36"));
    }
}
