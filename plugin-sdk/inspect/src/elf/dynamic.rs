//! The dynamic table: what the library asks of the loader.

use fleetswap_plugin_abi::ENTRY_SYMBOL;
use object::{
    LittleEndian as Le,
    elf::{
        DF_1_PIE, DF_TEXTREL, DT_AUDIT, DT_AUXILIARY, DT_DEPAUDIT, DT_FILTER, DT_FLAGS, DT_FLAGS_1,
        DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, DT_TEXTREL, DynamicTag,
    },
};

use super::{LintError, PRELOADED, Segments};
use crate::{name::shown, platform::Platform};

/// Longest name that is read from the string table, in bytes; every name that matters is shorter.
const STRING_MAX: usize = 4096;
/// Longest part of a name that an error repeats, in characters.
const SHOWN_MAX: usize = 200;

/// The entries up to the closing one, and the string table that they point into.
pub(super) struct Dynamic<'data> {
    entries: Vec<(DynamicTag, u64)>,
    strings: &'data [u8],
}

impl<'data> Dynamic<'data> {
    /// Reads the table and finds its string table.
    pub(super) fn read(segments: &Segments<'data>) -> Result<Self, LintError> {
        let table = segments.dynamic();
        let end = table
            .iter()
            .position(|entry| entry.d_tag.get(Le) == DT_NULL)
            .ok_or_else(|| LintError::malformed("its dynamic table has no end"))?;
        let entries = table[..end].iter().map(|entry| (entry.d_tag.get(Le), entry.d_val.get(Le))).collect();
        let mut dynamic = Self { entries, strings: &[] };
        let (Some(start), Some(size)) = (dynamic.the(DT_STRTAB)?, dynamic.the(DT_STRSZ)?) else {
            return Err(LintError::malformed("its dynamic table has no string table"));
        };
        dynamic.strings = usize::try_from(size)
            .ok()
            .and_then(|size| segments.at(start).get(..size))
            .ok_or_else(|| LintError::malformed("its string table lies outside its segments"))?;
        Ok(dynamic)
    }

    /// The rules about what the table must not ask for.
    pub(super) fn check(&self) -> Result<(), LintError> {
        if self.any_bit(DT_FLAGS_1, DF_1_PIE.0) {
            return Err(LintError::Type("it is a position-independent program".to_owned()));
        }
        if self.all(DT_TEXTREL).next().is_some() || self.any_bit(DT_FLAGS, DF_TEXTREL.0) {
            return Err(LintError::TextRelocations);
        }
        for (tag, name) in [(DT_RPATH, "RPATH"), (DT_RUNPATH, "RUNPATH")] {
            if let Some(at) = self.all(tag).next() {
                let path = self.text(at).unwrap_or_default();
                return Err(LintError::SearchPath { tag: name, path });
            }
        }
        for (tag, name) in [(DT_AUDIT, "DT_AUDIT"), (DT_DEPAUDIT, "DT_DEPAUDIT")] {
            if self.all(tag).next().is_some() {
                return Err(LintError::Audit(name));
            }
        }
        for (tag, name) in [(DT_FILTER, "DT_FILTER"), (DT_AUXILIARY, "DT_AUXILIARY")] {
            if self.all(tag).next().is_some() {
                return Err(LintError::Filter(name));
            }
        }
        Ok(())
    }

    /// The needed libraries, each of which is one that a worker has.
    pub(super) fn needed(&self, platform: Platform) -> Result<Vec<String>, LintError> {
        let mut needed = Vec::new();
        for at in self.all(DT_NEEDED) {
            let name = self.text(at)?;
            if !PRELOADED.contains(&name.as_str()) && name != platform.dynamic_linker() {
                return Err(LintError::Needed(name));
            }
            needed.push(name);
        }
        Ok(needed)
    }

    /// The value of an entry that may be there once. The loader takes the last of several and other tools take the
    /// first, so several are refused.
    pub(super) fn the(&self, tag: DynamicTag) -> Result<Option<u64>, LintError> {
        let mut values = self.all(tag);
        let value = values.next();
        if values.next().is_some() {
            return Err(LintError::Malformed(format!("its dynamic table has entry {:#x} twice", tag.0)));
        }
        Ok(value)
    }

    /// The bytes of a name in the string table, without the closing zero.
    pub(super) fn string(&self, at: u64) -> Result<&'data [u8], LintError> {
        let wrong = || LintError::malformed("a name lies outside its string table");
        let from = usize::try_from(at).map_err(|_| wrong())?;
        let rest = self.strings.get(from..).ok_or_else(wrong)?;
        let end = rest.iter().take(STRING_MAX).position(|&byte| byte == 0).ok_or_else(wrong)?;
        Ok(&rest[..end])
    }

    /// Whether the name in the string table is that of the entry symbol.
    pub(super) fn is_entry(&self, at: u32) -> bool {
        let rest = usize::try_from(at).ok().and_then(|from| self.strings.get(from..));
        let after = rest.and_then(|rest| rest.strip_prefix(ENTRY_SYMBOL.as_bytes()));
        after.is_some_and(|after| after.first() == Some(&0))
    }

    /// A name as text, for operators and for comparison with names of ours.
    fn text(&self, at: u64) -> Result<String, LintError> {
        Ok(shown(&String::from_utf8_lossy(self.string(at)?), SHOWN_MAX))
    }

    pub(super) fn all(&self, tag: DynamicTag) -> impl Iterator<Item = u64> {
        self.entries.iter().filter(move |(found, _)| *found == tag).map(|&(_, value)| value)
    }

    fn any_bit(&self, tag: DynamicTag, bit: u64) -> bool {
        self.all(tag).any(|flags| flags & bit != 0)
    }
}
