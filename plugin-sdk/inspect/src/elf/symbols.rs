//! Dynamic symbols: whether the entry function is there.

use object::{
    LittleEndian as Le, ReadRef,
    elf::{
        DT_GNU_HASH, DT_HASH, DT_SYMTAB, FileHeader64, HashHeader, SHN_UNDEF, STB_GLOBAL, STB_GNU_UNIQUE,
        STB_WEAK, STT_FUNC, STT_NOTYPE, STV_DEFAULT, STV_PROTECTED, Sym64,
    },
    read::elf::GnuHashTable,
};

use super::{LintError, dynamic::Dynamic, segments::Segments};

/// Most symbols that are looked at; libraries have some thousands.
const SYMBOLS_MAX: u32 = 1024 * 1024;

/// Checks that the library defines and exports the entry function.
///
/// The whole table is walked instead of following the hash chains. That finds whatever the loader can find; a
/// symbol that only the walk finds is a damaged hash table, and the worker says so when it looks the symbol up.
pub(super) fn check_entry(segments: &Segments<'_>, dynamic: &Dynamic<'_>) -> Result<(), LintError> {
    let symbols = table(segments, dynamic)?;
    let mut named = symbols.iter().filter(|symbol| dynamic.is_entry(symbol.st_name.get(Le))).peekable();
    if named.peek().is_none() {
        return Err(LintError::NoEntry("its dynamic symbol table has no such name"));
    }
    if !named.any(|symbol| is_exported(symbol) && segments.is_code(symbol.st_value.get(Le))) {
        return Err(LintError::NoEntry(
            "the name is there, but not as a function that the library defines itself",
        ));
    }
    Ok(())
}

fn is_exported(symbol: &Sym64<Le>) -> bool {
    symbol.st_shndx.get(Le) != SHN_UNDEF
        && matches!(symbol.st_bind(), STB_GLOBAL | STB_WEAK | STB_GNU_UNIQUE)
        && matches!(symbol.st_type(), STT_FUNC | STT_NOTYPE)
        && matches!(symbol.st_visibility(), STV_DEFAULT | STV_PROTECTED)
}

/// The dynamic symbol table. Its length stands nowhere; the hash tables imply it.
fn table<'data>(segments: &Segments<'data>, dynamic: &Dynamic<'_>) -> Result<&'data [Sym64<Le>], LintError> {
    let Some(start) = dynamic.the(DT_SYMTAB)? else {
        return Err(LintError::NoEntry("it has no dynamic symbol table"));
    };
    let count = count(segments, dynamic)?;
    if count > SYMBOLS_MAX {
        return Err(LintError::Malformed(format!("it has {count} symbols, and {SYMBOLS_MAX} are allowed")));
    }
    segments
        .at(start)
        .read_slice_at(0, usize::try_from(count).unwrap_or(usize::MAX))
        .map_err(|()| LintError::malformed("its dynamic symbol table lies outside its segments"))
}

fn count(segments: &Segments<'_>, dynamic: &Dynamic<'_>) -> Result<u32, LintError> {
    let damaged = || LintError::malformed("its symbol hash table can't be read");
    if let Some(start) = dynamic.the(DT_GNU_HASH)? {
        let table = GnuHashTable::<FileHeader64<Le>>::parse(Le, segments.at(start)).map_err(|_| damaged())?;
        return Ok(table.symbol_table_length(Le).unwrap_or(0));
    }
    if let Some(start) = dynamic.the(DT_HASH)? {
        let header = segments.at(start).read_at::<HashHeader<Le>>(0).map_err(|()| damaged())?;
        return Ok(header.chain_count.get(Le));
    }
    Err(LintError::NoEntry("it has no symbol hash table, so no symbol of it can be looked up"))
}
