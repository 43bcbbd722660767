//! What a library needs of others and what it gives them, as the loader compares the two before any code runs.

use object::{
    LittleEndian as Le, ReadRef,
    elf::{DT_NEEDED, DT_VERDEF, DT_VERNEED, VER_FLG_WEAK, Verdaux, Verdef, Vernaux, Verneed},
};

use super::{Header, LintError, dynamic::Dynamic, segments::Segments};

/// Most entries that are followed in one library, weak ones included.
const ENTRIES_MAX: usize = 4096;

/// Something that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Name of the library, such as `libstdc++.so.6`.
    pub library: String,
    /// A version that it must have; `None`: only the library itself.
    pub version: Option<String>,
}

/// What the library can't be loaded without. Versions that are marked weak are left out: the loader only warns of them.
///
/// # Errors
/// The bytes are no library, or its tables lie outside of it.
pub fn needs(bytes: &[u8]) -> Result<Vec<Need>, LintError> {
    let segments = Segments::read(bytes, &Header::read(bytes)?)?;
    let dynamic = Dynamic::read(&segments)?;
    let mut needs = Vec::new();
    for at in dynamic.all(DT_NEEDED) {
        needs.push(Need { library: text(&dynamic, at)?, version: None });
    }
    let Some(start) = dynamic.the(DT_VERNEED)? else { return Ok(needs) };
    let (mut files, mut followed) = (Some(segments.at(start)), 0);
    while let Some(file) = files {
        let entry = file.read_at::<Verneed<Le>>(0).map_err(|()| outside())?;
        let library = text(&dynamic, entry.vn_file.get(Le).into())?;
        let mut versions = Some(skip(file, entry.vn_aux.get(Le))?);
        while let Some(rest) = versions {
            let version = rest.read_at::<Vernaux<Le>>(0).map_err(|()| outside())?;
            if !version.vna_flags.get(Le).contains(VER_FLG_WEAK) {
                let name = text(&dynamic, version.vna_name.get(Le).into())?;
                needs.push(Need { library: library.clone(), version: Some(name) });
            }
            followed += 1;
            if followed > ENTRIES_MAX {
                return Err(LintError::malformed("it needs more than any library does"));
            }
            versions = next(rest, version.vna_next.get(Le))?;
        }
        files = next(file, entry.vn_next.get(Le))?;
    }
    Ok(needs)
}

/// The versions that the library gives to others.
///
/// # Errors
/// As for [`needs`].
pub fn provides(bytes: &[u8]) -> Result<Vec<String>, LintError> {
    let segments = Segments::read(bytes, &Header::read(bytes)?)?;
    let dynamic = Dynamic::read(&segments)?;
    let mut versions = Vec::new();
    let Some(start) = dynamic.the(DT_VERDEF)? else { return Ok(versions) };
    let mut entries = Some(segments.at(start));
    while let Some(rest) = entries {
        let entry = rest.read_at::<Verdef<Le>>(0).map_err(|()| outside())?;
        let name = skip(rest, entry.vd_aux.get(Le))?.read_at::<Verdaux<Le>>(0).map_err(|()| outside())?;
        versions.push(text(&dynamic, name.vda_name.get(Le).into())?);
        if versions.len() > ENTRIES_MAX {
            return Err(LintError::malformed("it gives more versions than any library does"));
        }
        entries = next(rest, entry.vd_next.get(Le))?;
    }
    Ok(versions)
}

/// The next entry of a list: so many bytes further on; 0 is the end.
fn next(rest: &[u8], count: u32) -> Result<Option<&[u8]>, LintError> {
    if count == 0 { Ok(None) } else { skip(rest, count).map(Some) }
}

fn skip(rest: &[u8], count: u32) -> Result<&[u8], LintError> {
    usize::try_from(count).ok().and_then(|count| rest.get(count..)).ok_or_else(outside)
}

fn text(dynamic: &Dynamic<'_>, at: u64) -> Result<String, LintError> {
    Ok(String::from_utf8_lossy(dynamic.string(at)?).into_owned())
}

fn outside() -> LintError {
    LintError::malformed("its symbol versions lie outside its segments")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_library_of_this_system_needs_and_gives_is_read() {
        // This very program is linked with it.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps
            .lines()
            .find_map(|line| line.get(line.find('/')?..).filter(|path| path.contains("libgcc_s")));
        let bytes = std::fs::read(path.unwrap()).unwrap();
        let given = provides(&bytes).unwrap();
        assert!(given.iter().any(|version| version == "GCC_3.0"), "{given:?}");
        let needed = needs(&bytes).unwrap();
        assert!(needed.contains(&Need { library: "libc.so.6".into(), version: None }), "{needed:?}");
        let versions = needed.iter().filter_map(|need| need.version.as_ref());
        assert!(
            versions.clone().count() > 0 && versions.clone().all(|name| name.starts_with("GLIBC_")),
            "{needed:?}"
        );
    }

    #[test]
    fn bytes_that_are_no_library_need_and_give_nothing() {
        assert!(needs(b"no library").is_err() && provides(b"").is_err());
    }
}
