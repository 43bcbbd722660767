//! Examine: what must be true of a table before it is taken for one.

use core::{fmt, ptr::NonNull};

use crate::{ABI_MAJOR, ABI_MINOR, Table};

/// Why a pointer is no table of this ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTable {
    /// The entry point returned null.
    Missing,
    /// The address can't be that of a table.
    Misaligned,
    /// A table of another ABI.
    Other {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// Fewer bytes than the first table of this ABI had.
    Short {
        /// Its size in bytes.
        size: u32,
    },
    /// A function is null.
    NoFunction {
        /// Which one, counted from 0 in the order of [`Table`].
        index: usize,
    },
}

impl fmt::Display for BadTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the entry point returned no table"),
            Self::Misaligned => f.write_str("the entry point returned a misaligned address"),
            Self::Other { major, minor } => {
                write!(f, "the plugin has ABI {major}.{minor}, this host has {ABI_MAJOR}")
            }
            Self::Short { size } => {
                let own = size_of::<Table>();
                write!(f, "the table has {size} bytes, ABI {ABI_MAJOR}.{ABI_MINOR} has {own}")
            }
            Self::NoFunction { index } => write!(f, "function {index} of the table is null"),
        }
    }
}

/// The part of a table that every ABI begins with.
#[repr(C)]
struct Head {
    abi_major: u16,
    abi_minor: u16,
    size: u32,
}

/// Checks what an entry point returned before it is taken for a table: to a null function there can be no `&Table`.
///
/// # Safety
/// The pointer is null, or points to a table of some ABI that lives as long as the process.
///
/// # Errors
/// The first thing that is wrong with it.
pub unsafe fn examine(table: *const Table) -> Result<&'static Table, BadTable> {
    let table = NonNull::new(table.cast_mut()).ok_or(BadTable::Missing)?;
    if !table.is_aligned() {
        return Err(BadTable::Misaligned);
    }
    // SAFETY: every table begins with a head.
    let Head { abi_major, abi_minor, size } = unsafe { table.cast::<Head>().read() };
    if abi_major != ABI_MAJOR {
        return Err(BadTable::Other { major: abi_major, minor: abi_minor });
    }
    if (size as usize) < size_of::<Table>() {
        return Err(BadTable::Short { size });
    }
    let functions = (size_of::<Table>() - size_of::<Head>()) / size_of::<usize>();
    for index in 0..functions {
        // SAFETY: the table is at least as large as ours, and after its head consists of addresses.
        let address = unsafe { table.cast::<Head>().add(1).cast::<usize>().add(index).read() };
        if address == 0 {
            return Err(BadTable::NoFunction { index });
        }
    }
    // SAFETY: not null, aligned, of our major version, large enough, no null function.
    Ok(unsafe { table.as_ref() })
}

#[cfg(test)]
mod tests;
