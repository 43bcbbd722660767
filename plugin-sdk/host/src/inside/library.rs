//! Library: opens the release and takes hold of its table.
use super::{sink::Output, table::IMAGE_PATH};
use crate::frames::{Refusal, Refused};
use bytes::Bytes;
use fleetswap_inspect::{Descriptor, elf::PRELOADED};
use fleetswap_plugin_abi::{ABI_MAJOR, DESCRIPTOR_MAX, ENTRY_SYMBOL, Entry, Status, Table};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::{mem::size_of, ptr::NonNull};

/// A loaded release. It stays loaded until the process ends.
pub(super) struct Plugin {
    pub(super) table: &'static Table,
    pub(super) descriptor: Bytes,
    pub(super) parsed: Descriptor,
}

/// Loads the system libraries that a release may need, before the sandbox closes the file system. Missing ones
/// are missed by the release that needs them, in the loader's words.
pub(super) fn preload() {
    for name in PRELOADED {
        // SAFETY: these are the system's own libraries, found by the system's own search path with an empty
        // environment; their constructors are those that any program runs.
        if let Ok(library) = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) } {
            std::mem::forget(library);
        }
    }
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
    let table = unsafe { examine(entry()) }.map_err(|text| refused(Refusal::AbiMismatch, text))?;
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

/// The part of a table that every ABI begins with.
#[repr(C)]
struct Head {
    abi_major: u16,
    abi_minor: u16,
    size: u32,
}

/// Checks a table before it is taken for one.
///
/// # Safety
/// The pointer is null, or points to a table of some ABI that lives as long as the process.
unsafe fn examine(table: *const Table) -> Result<&'static Table, String> {
    let Some(table) = NonNull::new(table.cast_mut()) else {
        return Err("the entry point returned no table".into());
    };
    if !table.is_aligned() {
        return Err("the entry point returned a misaligned address".into());
    }
    // SAFETY: every table begins with a head.
    let head = unsafe { table.cast::<Head>().read() };
    if head.abi_major != ABI_MAJOR {
        return Err(format!(
            "the plugin has ABI {}.{}, this host has {ABI_MAJOR}",
            head.abi_major, head.abi_minor
        ));
    }
    if (head.size as usize) < size_of::<Table>() {
        return Err(format!("the table has {} bytes, ABI 1.0 has {}", head.size, size_of::<Table>()));
    }
    let functions = (size_of::<Table>() - size_of::<Head>()) / size_of::<usize>();
    for index in 0..functions {
        // SAFETY: the table is at least as large as ours, and after its head consists of addresses.
        let address = unsafe { table.cast::<Head>().add(1).cast::<usize>().add(index).read() };
        if address == 0 {
            return Err(format!("function {index} of the table is null"));
        }
    }
    // SAFETY: not null, aligned, of our major version, large enough, no null function.
    Ok(unsafe { table.as_ref() })
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
mod tests;
