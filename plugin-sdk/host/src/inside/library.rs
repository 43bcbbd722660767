//! Library: opens the release and takes hold of its table.
use super::{sink::Output, table::IMAGE_PATH};
use crate::frames::{Refusal, Refused};
use bytes::Bytes;
use fleetswap_inspect::{Descriptor, elf::PRELOADED};
use fleetswap_plugin_abi::{self as abi, DESCRIPTOR_MAX, ENTRY_SYMBOL, Entry, Status, Table};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

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

/// Opens the image, which runs its constructors, and reads its table and descriptor. `lacking` is what could not be
/// preloaded.
pub(super) fn load(lacking: &[&str]) -> Result<Plugin, Refused> {
    let path = IMAGE_PATH.to_str().unwrap_or_default();
    // SAFETY: the code is not trusted; that is why this process has locked itself in.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|error| not_opened(words(&error), lacking))?;
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

/// Whose fault it is that the loader refused the library: its words name the library that it missed or found too old.
fn not_opened(words: String, lacking: &[&str]) -> Refused {
    let missing = lacking.iter().any(|name| words.contains(&format!("{name}: cannot open")));
    let too_old = PRELOADED.iter().any(|name| words.contains(&format!("{name}: version `")));
    refused(if missing || too_old { Refusal::LibraryLacking } else { Refusal::CannotOpen }, words)
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
        let kind = |words: &str, lacking: &[&str]| Refusal::try_from(not_opened(words.into(), lacking).kind);
        let missing = "dlopen failed: libstdc++.so.6: cannot open shared object file: Permission denied";
        assert_eq!(kind(missing, &["libstdc++.so.6"]), Ok(Refusal::LibraryLacking));
        assert_eq!(kind(missing, &[]), Ok(Refusal::CannotOpen), "it was there, so something else is wrong");
        let old = "dlopen failed: /lib/libstdc++.so.6: version `GLIBCXX_3.4.99' not found (required by x)";
        assert_eq!(kind(old, &[]), Ok(Refusal::LibraryLacking));
        for own in
            ["x: file too short", "libz.so.1: cannot open shared object file", "x: version `A' not found"]
        {
            assert_eq!(kind(own, &["libstdc++.so.6"]), Ok(Refusal::CannotOpen), "{own}");
        }
    }
}
