//! The ELF file header: what kind of file this is, and where its program headers lie.

use object::{
    LittleEndian as Le, ReadRef,
    elf::{
        ELFCLASS64, ELFDATA2LSB, ELFMAG, ELFOSABI_GNU, ELFOSABI_SYSV, ET_DYN, EV_CURRENT, FileHeader64,
        ProgramHeader64,
    },
};

use super::{ARTIFACT_MAX, LintError};
use crate::platform::Platform;

/// Most program headers; linkers write about a dozen.
const PROGRAM_HEADERS_MAX: u16 = 64;

/// A file header that was checked.
pub(crate) struct Header {
    /// What the file was built for.
    pub(crate) platform: Platform,
    headers_at: u64,
    header_count: u16,
}

impl Header {
    /// Reads and checks the first 64 bytes.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, LintError> {
        let size = bytes.len() as u64;
        if size > ARTIFACT_MAX {
            return Err(LintError::TooLarge { size });
        }
        check_ident(bytes)?;
        let header = bytes
            .read_at::<FileHeader64<Le>>(0)
            .map_err(|()| LintError::malformed("it ends inside its header"))?;
        let machine = header.e_machine.get(Le);
        let platform = Platform::of_machine(machine)
            .ok_or_else(|| LintError::Arch(format!("no platform has its machine number {}", machine.0)))?;
        if header.e_type.get(Le) != ET_DYN {
            return Err(LintError::Type(format!("its ELF type is {}, not ET_DYN", header.e_type.get(Le).0)));
        }
        if header.e_version.get(Le) != u32::from(EV_CURRENT.0) {
            return Err(LintError::malformed("it has an unknown ELF version"));
        }
        if usize::from(header.e_phentsize.get(Le)) != size_of::<ProgramHeader64<Le>>() {
            return Err(LintError::malformed("its program headers have an unknown size"));
        }
        let header_count = header.e_phnum.get(Le);
        if header_count > PROGRAM_HEADERS_MAX {
            let why = format!("it has {header_count} program headers, and {PROGRAM_HEADERS_MAX} are allowed");
            return Err(LintError::Malformed(why));
        }
        Ok(Self { platform, headers_at: header.e_phoff.get(Le), header_count })
    }

    /// The program headers of the same file.
    pub(super) fn program_headers<'data>(
        &self,
        bytes: &'data [u8],
    ) -> Result<&'data [ProgramHeader64<Le>], LintError> {
        bytes
            .read_slice_at(self.headers_at, self.header_count.into())
            .map_err(|()| LintError::malformed("its program headers lie outside the file"))
    }
}

/// The part of the header that has the same layout in every ELF file.
fn check_ident(bytes: &[u8]) -> Result<(), LintError> {
    let &[a, b, c, d, class, data, version, system, ..] = bytes else {
        return Err(LintError::malformed("it is too short"));
    };
    if [a, b, c, d] != ELFMAG {
        return Err(LintError::malformed("it does not start as an ELF file"));
    }
    if class != ELFCLASS64.0 {
        return Err(LintError::Arch("it is not for a 64-bit processor".to_owned()));
    }
    if data != ELFDATA2LSB.0 {
        return Err(LintError::Arch("it is not for a little-endian processor".to_owned()));
    }
    if version != EV_CURRENT.0 {
        return Err(LintError::malformed("it has an unknown ELF version"));
    }
    if system != ELFOSABI_SYSV.0 && system != ELFOSABI_GNU.0 {
        return Err(LintError::Arch(format!("it is for another system (ELF OS ABI {system})")));
    }
    Ok(())
}
