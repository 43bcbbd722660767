//! Modules: which library lies where, in memory that a signal handler can read.
use super::super::table::IMAGE_PATH;
use std::{
    cell::UnsafeCell,
    ffi::{CStr, c_int, c_void},
    mem::MaybeUninit,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Modules that are known at most: the program, the system's libraries, the release.
const MODULES_MAX: usize = 32;
/// Longest name of a module in bytes; longer ones are cut.
const NAME_MAX: usize = 32;

/// All that are known.
pub(super) static MODULES: Modules = Modules {
    all: UnsafeCell::new([const { MaybeUninit::uninit() }; MODULES_MAX]),
    count: AtomicUsize::new(0),
    is_growing: AtomicBool::new(false),
};

/// A name of printable characters without spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    bytes: [u8; NAME_MAX],
    len: usize,
}

impl Name {
    /// Cuts a name to its bound; what a record can't hold becomes `_`.
    pub(super) fn new(text: &[u8]) -> Self {
        let mut name = Self { bytes: [0; NAME_MAX], len: 0 };
        for (into, &byte) in name.bytes.iter_mut().zip(text) {
            let plain = byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            *into = if plain { byte } else { b'_' };
            name.len += 1;
        }
        name
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// One library, or the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Module {
    /// What the addresses in its file are moved by.
    base: usize,
    start: usize,
    end: usize,
    pub(super) name: Name,
}

impl Module {
    /// The address as it stands in the module's file.
    pub(super) const fn offset(&self, address: usize) -> usize {
        address.wrapping_sub(self.base)
    }
}

/// A table that only grows, so that a handler can read it at any moment.
pub(super) struct Modules {
    all: UnsafeCell<[MaybeUninit<Module>; MODULES_MAX]>,
    count: AtomicUsize,
    is_growing: AtomicBool,
}

// SAFETY: entries below `count` never change; those above are written by whoever has set `is_growing`, and are seen by
// others only after `count` was stored.
unsafe impl Sync for Modules {}

impl Modules {
    /// Adds what has been loaded since the last time; gives up if another thread is doing that.
    pub(super) fn collect(&self, names: &[Name; 2]) {
        if !self.is_growing.swap(true, Ordering::Acquire) {
            let mut visitor = Visitor { modules: self, names };
            // SAFETY: the visitor lives while the function runs, and `visit` takes it as what it is.
            unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut visitor).cast()) };
            self.is_growing.store(false, Ordering::Release);
        }
    }

    /// The module that an address lies in.
    pub(super) fn find(&self, address: usize) -> Option<&Module> {
        self.known().find(|module| (module.start..module.end).contains(&address))
    }

    /// Whether a module of this name is known.
    pub(super) fn knows(&self, name: &Name) -> bool {
        self.known().any(|module| module.name == *name)
    }

    fn known(&self) -> impl Iterator<Item = &Module> {
        let count = self.count.load(Ordering::Acquire);
        let all = self.all.get().cast::<Module>();
        // SAFETY: entries below `count` are written and stay as they are.
        (0..count).map(move |n| unsafe { &*all.add(n) })
    }

    /// Only for whoever has set `is_growing`.
    fn push(&self, module: Module) {
        let count = self.count.load(Ordering::Relaxed);
        if count < MODULES_MAX && self.find(module.start).is_none() {
            // SAFETY: within the array, and nobody reads an entry that is not counted yet.
            unsafe { self.all.get().cast::<Module>().add(count).write(module) };
            self.count.store(count + 1, Ordering::Release);
        }
    }
}

struct Visitor<'a> {
    modules: &'a Modules,
    /// Of the program, and of the release.
    names: &'a [Name; 2],
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, visitor: *mut c_void) -> c_int {
    // SAFETY: `collect` passes a visitor that lives on, and the loader a description that does while this runs.
    let (visitor, info) = unsafe { (&*visitor.cast::<Visitor<'_>>(), &*info) };
    let base = info.dlpi_addr as usize;
    let (mut start, mut end) = (usize::MAX, 0);
    for n in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: the loader says that there are so many program headers.
        let segment = unsafe { &*info.dlpi_phdr.add(n) };
        if segment.p_type == libc::PT_LOAD {
            let at = base.wrapping_add(segment.p_vaddr as usize);
            start = start.min(at);
            end = end.max(at.saturating_add(segment.p_memsz as usize));
        }
    }
    if start < end {
        visitor.modules.push(Module { base, start, end, name: name_of(info, visitor.names) });
    }
    0
}

/// The file's name without its folder. The program has none, and that of the release is its descriptor.
fn name_of(info: &libc::dl_phdr_info, [program, release]: &[Name; 2]) -> Name {
    if info.dlpi_name.is_null() {
        return *program;
    }
    // SAFETY: a text of the loader's, which lives as long as the module.
    let path = unsafe { CStr::from_ptr(info.dlpi_name) };
    if path.is_empty() {
        return *program;
    }
    if path == IMAGE_PATH {
        return *release;
    }
    Name::new(path.to_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_bound_and_nothing_that_a_record_could_not_hold() {
        assert_eq!(Name::new(b"libc.so.6").as_bytes(), b"libc.so.6");
        assert_eq!(Name::new(b"a b\x1b+c").as_bytes(), b"a_b__c");
        assert_eq!(Name::new(&[b'x'; 99]).as_bytes().len(), NAME_MAX);
    }

    #[test]
    fn this_program_and_the_c_library_are_found_by_their_addresses() {
        let names = [Name::new(b"program"), Name::new(b"release")];
        MODULES.collect(&names);
        MODULES.collect(&names);
        let own = MODULES.find(visit as *const () as usize).unwrap();
        assert_eq!(own.name, names[0]);
        let libc = MODULES.find(libc::getpid as *const () as usize).unwrap();
        assert!(libc.name.as_bytes().starts_with(b"libc"), "{libc:?}");
        assert!(MODULES.find(0).is_none() && !MODULES.knows(&names[1]));
        let starts: std::collections::BTreeSet<_> = MODULES.known().map(|module| module.start).collect();
        assert_eq!(starts.len(), MODULES.known().count(), "each once");
    }
}
