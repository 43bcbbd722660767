//! Segments: what of the file is mapped where, and with which rights.

use object::{
    LittleEndian as Le, ReadRef,
    elf::{
        Dyn64, PF_W, PF_X, PT_DYNAMIC, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_NOTE, ProgramFlags,
        ProgramHeader64,
    },
};

use super::{Header, LintError};

/// The smallest page of any supported platform, in bytes. Segments must not share one, since the loader maps
/// whole pages and the later segment would hide a part of the earlier one.
const PAGE: u64 = 4096;
/// Most entries of the dynamic table; linkers write about thirty.
const DYNAMIC_MAX: usize = 1024;

/// The segments of a library, checked for rights and for contradictions.
pub(super) struct Segments<'data> {
    loads: Vec<Load<'data>>,
    notes: Vec<(&'data [u8], u64)>,
    dynamic: &'data [Dyn64<Le>],
}

/// A part of the address space that is filled from the file.
struct Load<'data> {
    start: u64,
    /// First address after it, zero-filled part included.
    end: u64,
    offset: u64,
    data: &'data [u8],
    flags: ProgramFlags,
}

impl<'data> Segments<'data> {
    /// Reads all program headers.
    pub(super) fn read(bytes: &'data [u8], header: &Header) -> Result<Self, LintError> {
        let headers = header.program_headers(bytes)?;
        let of_type = |wanted| headers.iter().filter(move |segment| segment.p_type.get(Le) == wanted);
        if of_type(PT_INTERP).next().is_some() {
            return Err(LintError::Interpreter);
        }
        let mut loads: Vec<Load<'data>> = Vec::new();
        for segment in of_type(PT_LOAD) {
            let load = Load::read(bytes, segment)?;
            if loads.last().is_some_and(|before| load.start - load.start % PAGE < before.end) {
                return Err(LintError::malformed("its segments overlap or are out of order"));
            }
            loads.push(load);
        }
        check_stack(of_type(PT_GNU_STACK))?;
        let mut dynamics = of_type(PT_DYNAMIC);
        let (Some(dynamic), None) = (dynamics.next(), dynamics.next()) else {
            return Err(LintError::malformed("it has not exactly one dynamic table"));
        };
        let dynamic = dynamic_table(&loads, dynamic)?;
        let notes = of_type(PT_NOTE)
            .map(|segment| Ok((contents(bytes, segment)?, segment.p_align.get(Le))))
            .collect::<Result<_, LintError>>()?;
        Ok(Self { loads, notes, dynamic })
    }

    /// The file's bytes from this address to the end of its segment; empty where nothing is mapped from the file.
    pub(super) fn at(&self, address: u64) -> &'data [u8] {
        load_of(&self.loads, address).map_or(&[], |(load, from)| &load.data[from..])
    }

    /// Whether this address holds code from the file.
    pub(super) fn is_code(&self, address: u64) -> bool {
        load_of(&self.loads, address).is_some_and(|(load, _)| load.flags.contains(PF_X))
    }

    /// The dynamic table, unterminated as it stands in the file.
    pub(super) const fn dynamic(&self) -> &'data [Dyn64<Le>] {
        self.dynamic
    }

    /// Contents and alignment of the note segments.
    pub(super) fn notes(&self) -> impl Iterator<Item = (&'data [u8], u64)> {
        self.notes.iter().copied()
    }
}

impl<'data> Load<'data> {
    fn read(bytes: &'data [u8], segment: &ProgramHeader64<Le>) -> Result<Self, LintError> {
        let flags = segment.p_flags.get(Le);
        if flags.contains(PF_W) && flags.contains(PF_X) {
            return Err(LintError::WritableCode);
        }
        let data = contents(bytes, segment)?;
        let (start, offset) = (segment.p_vaddr.get(Le), segment.p_offset.get(Le));
        let align = segment.p_align.get(Le);
        if !align.is_power_of_two() || align < PAGE || start % align != offset % align {
            return Err(LintError::malformed("a segment is not aligned to pages"));
        }
        if segment.p_memsz.get(Le) < segment.p_filesz.get(Le) {
            return Err(LintError::malformed("a segment is larger in the file than in memory"));
        }
        let end = start
            .checked_add(segment.p_memsz.get(Le))
            .ok_or_else(|| LintError::malformed("a segment ends beyond the address space"))?;
        Ok(Self { start, end, offset, data, flags })
    }
}

/// The segment that fills this address from the file, and the place inside it.
fn load_of<'loads, 'data>(
    loads: &'loads [Load<'data>],
    address: u64,
) -> Option<(&'loads Load<'data>, usize)> {
    loads.iter().find_map(|load| {
        let from = usize::try_from(address.checked_sub(load.start)?).ok()?;
        (from < load.data.len()).then_some((load, from))
    })
}

/// The dynamic table as the loader finds it: by address, not by place in the file. Where the two disagree, other
/// tools would see another table than the loader, so that is refused.
fn dynamic_table<'data>(
    loads: &[Load<'data>],
    segment: &ProgramHeader64<Le>,
) -> Result<&'data [Dyn64<Le>], LintError> {
    let misplaced = || LintError::malformed("its dynamic table is not where it is mapped");
    let (load, from) = load_of(loads, segment.p_vaddr.get(Le)).ok_or_else(misplaced)?;
    if load.offset.checked_add(from as u64) != Some(segment.p_offset.get(Le)) {
        return Err(misplaced());
    }
    let size = usize::try_from(segment.p_filesz.get(Le)).map_err(|_| misplaced())?;
    let data = load.data[from..].get(..size).ok_or_else(misplaced)?;
    let count = size / size_of::<Dyn64<Le>>();
    if count > DYNAMIC_MAX {
        let why = format!("its dynamic table has {count} entries, and {DYNAMIC_MAX} are allowed");
        return Err(LintError::Malformed(why));
    }
    data.read_slice_at(0, count).map_err(|()| misplaced())
}

/// A missing `PT_GNU_STACK` means what the kernel and glibc make of it on x86_64: an executable stack. It is
/// refused on every platform, since every current linker writes the header.
fn check_stack<'a>(stacks: impl Iterator<Item = &'a ProgramHeader64<Le>>) -> Result<(), LintError> {
    let mut ordered = false;
    for stack in stacks {
        if stack.p_flags.get(Le).contains(PF_X) {
            return Err(LintError::ExecutableStack("the library asks for an executable stack"));
        }
        ordered = true;
    }
    if ordered {
        Ok(())
    } else {
        let why = "the library does not say (by PT_GNU_STACK) that its stack need not be executable";
        Err(LintError::ExecutableStack(why))
    }
}

fn contents<'data>(bytes: &'data [u8], segment: &ProgramHeader64<Le>) -> Result<&'data [u8], LintError> {
    bytes
        .read_bytes_at(segment.p_offset.get(Le), segment.p_filesz.get(Le))
        .map_err(|()| LintError::malformed("a segment lies outside the file"))
}
