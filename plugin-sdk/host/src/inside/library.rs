//! Library: opens the release and takes hold of its table.
use super::{sink::Output, table::IMAGE_PATH};
use crate::{
    frames::{Refusal, Refused},
    image::Map,
};
use bytes::Bytes;
use fleetswap_inspect::{
    Descriptor,
    elf::{self, Need, PRELOADED},
};
use fleetswap_plugin_abi::{self as abi, DESCRIPTOR_MAX, ENTRY_SYMBOL, Entry, Status, Table};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::{
    collections::BTreeMap,
    ffi::{CStr, OsStr, c_void},
    fs::File,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// A loaded release. It stays loaded until the process ends.
pub(super) struct Plugin {
    pub(super) table: &'static Table,
    pub(super) descriptor: Bytes,
    pub(super) parsed: Descriptor,
}

/// Loads the system libraries that a release may need, before the sandbox closes the file system. Returns those
/// that this host lacks; most releases need none of them.
pub(super) fn preload() -> Vec<&'static str> {
    let mut lacking = Vec::new();
    for name in PRELOADED {
        // SAFETY: these are the system's own libraries, found by the system's own search path with an empty
        // environment; their constructors are those that any program runs.
        match unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) } {
            Ok(library) => std::mem::forget(library),
            Err(_) => lacking.push(name),
        }
    }
    lacking
}

/// What this host lacks of what the image needs, in words; empty: nothing. `missing` is what could not be preloaded. Asked
/// before any code of the image runs, so that the image has no say in it: its own failures are not the host's.
///
/// The versions of the C library's parts are not looked at: the lint has compared them with the host's before.
pub(super) fn lacking(missing: &[&str]) -> String {
    let Ok(image) = File::open(IMAGE_PATH.to_str().unwrap_or_default()) else { return String::new() };
    // What can't be read here, the loader refuses in its own words.
    let needs = Map::of_file(&image).ok().and_then(|map| elf::needs(map.bytes()).ok()).unwrap_or_default();
    lacking_of(&needs, missing, versions)
}

fn lacking_of(needs: &[Need], missing: &[&str], versions: impl Fn(&str) -> Option<Vec<String>>) -> String {
    let mut known: BTreeMap<&str, Option<Vec<String>>> = BTreeMap::new();
    for Need { library, version } in needs {
        match version {
            None if missing.contains(&library.as_str()) => {
                return format!("{library}: this host does not have it");
            }
            Some(version) if VERSIONED.contains(&library.as_str()) => {
                let given = known.entry(library).or_insert_with(|| versions(library));
                if given.as_ref().is_some_and(|given| !given.contains(version)) {
                    return format!("{library}: version `{version}' not found; this host's is too old");
                }
            }
            None | Some(_) => {}
        }
    }
    String::new()
}

/// Libraries whose versions no lint has compared with those of the host.
const VERSIONED: [&str; 2] = ["libgcc_s.so.1", "libstdc++.so.6"];

/// The versions that a preloaded library of this name has; None if it is not here or can't be read.
fn versions(library: &str) -> Option<Vec<String>> {
    let file = File::open(path_of(library)?).ok()?;
    let map = Map::of_file(&file).ok()?;
    elf::provides(map.bytes()).ok()
}

/// Where the loader found the library of this name.
fn path_of(library: &str) -> Option<PathBuf> {
    let mut search = Search { library, found: None };
    // SAFETY: the callback gets what is passed beside it, which outlives the call, and reads what the loader lends it.
    unsafe { libc::dl_iterate_phdr(Some(is_it), (&raw mut search).cast()) };
    search.found
}

struct Search<'a> {
    library: &'a str,
    found: Option<PathBuf>,
}

unsafe extern "C" fn is_it(object: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> i32 {
    // SAFETY: `path_of` passes a search, and nothing else refers to it meanwhile; the loader passes a live object.
    let (search, object) = unsafe { (&mut *search.cast::<Search<'_>>(), &*object) };
    if object.dlpi_name.is_null() {
        return 0;
    }
    // SAFETY: the loader's names are texts that live as long as the library is loaded.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(object.dlpi_name) }.to_bytes()));
    if path.file_name() == Some(OsStr::new(search.library)) {
        search.found = Some(path.to_owned());
    }
    i32::from(search.found.is_some())
}

/// Opens the image, which runs its constructors, and reads its table and descriptor.
pub(super) fn load() -> Result<Plugin, Refused> {
    let path = IMAGE_PATH.to_str().unwrap_or_default();
    // SAFETY: the code is not trusted; that is why this process has locked itself in.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|error| refused(Refusal::CannotOpen, words(&error)))?;
    // SAFETY: the type is what the ABI says of this symbol; a library that lies breaks only this process.
    let entry: Entry = unsafe { library.get::<Entry>(ENTRY_SYMBOL.as_bytes()) }
        .map(|symbol| *symbol)
        .map_err(|error| refused(Refusal::SymbolMissing, words(&error)))?;
    std::mem::forget(library);
    // SAFETY: the entry takes nothing and returns a pointer, which is examined before it is used.
    let table =
        unsafe { abi::examine(entry()) }.map_err(|bad| refused(Refusal::AbiMismatch, bad.to_string()))?;
    let (descriptor, parsed) = describe(table).map_err(|text| refused(Refusal::DescriptorInvalid, text))?;
    Ok(Plugin { table, descriptor, parsed })
}

fn refused(kind: Refusal, words: String) -> Refused {
    Refused { kind: kind as i32, words }
}

fn words(error: &libloading::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn describe(table: &Table) -> Result<(Bytes, Descriptor), String> {
    let answer = Output::new(DESCRIPTOR_MAX).collect(|out| {
        // SAFETY: `describe` needs no instance, and the sink lives while it runs.
        unsafe { (table.describe)(out) }
    });
    match answer.status {
        Status::OK => {}
        Status::TOO_LARGE => return Err(format!("describe() wrote more than {DESCRIPTOR_MAX} bytes")),
        other => return Err(format!("describe() returned status {}", other.0)),
    }
    let parsed = Descriptor::parse(&answer.body).map_err(|error| error.to_string())?;
    Ok((answer.body, parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_library_that_is_missing_or_too_old_is_not_the_releases_fault() {
        let need = |library: &str, version: Option<&str>| Need {
            library: library.into(),
            version: version.map(Into::into),
        };
        let given = |_: &str| Some(vec!["GLIBCXX_3.4".to_owned()]);
        let whole = need("libstdc++.so.6", None);
        let words = lacking_of(std::slice::from_ref(&whole), &["libstdc++.so.6"], given);
        assert_eq!(words, "libstdc++.so.6: this host does not have it");
        assert_eq!(lacking_of(&[whole], &["libgcc_s.so.1"], given), "", "not what it needs");
        let newer = need("libstdc++.so.6", Some("GLIBCXX_9.9.9"));
        let words = lacking_of(std::slice::from_ref(&newer), &[], given);
        assert!(words.starts_with("libstdc++.so.6: version `GLIBCXX_9.9.9' not found"), "{words}");
        assert_eq!(lacking_of(&[newer], &[], |_| None), "", "nothing is known, so the loader decides");
        for own in [
            need("libstdc++.so.6", Some("GLIBCXX_3.4")),
            need("libz.so.1", None),
            need("libz.so.1", Some("Z_9")),
        ] {
            assert_eq!(lacking_of(&[own], &["libstdc++.so.6"], given), "");
        }
    }

    #[test]
    fn a_loaded_library_of_the_system_is_found_with_its_versions() {
        preload();
        assert!(path_of("libm.so.6").is_some_and(|path| path.is_absolute()));
        assert!(versions("libgcc_s.so.1").unwrap().contains(&"GCC_3.0".to_owned()));
        assert_eq!(path_of("libfleetswap-none.so.1"), None);
    }
}
