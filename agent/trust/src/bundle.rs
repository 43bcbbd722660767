//! What a server offered: a few named metadata files, bounded before anything reads them.

use std::collections::BTreeMap;

use crate::TrustError;

/// Most files of a bundle.
pub const BUNDLE_FILES_MAX: usize = 64;
/// Most bytes of a bundle, over all its files.
pub const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Metadata files as a server offered them, by name: `N.root.json`, `timestamp.json`, `snapshot.json`,
/// `targets.json` (the last two also as `N.snapshot.json` and `N.targets.json`). Nothing in it is trusted yet.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    files: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Bundle {
    /// An empty bundle.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to the file `name`, which starts empty; so a stream of chunks is bounded as it arrives.
    /// Fails with `TRUST_TOO_LARGE` beyond [`BUNDLE_FILES_MAX`] or [`BUNDLE_BYTES_MAX`].
    pub fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), TrustError> {
        let total = self.bytes.saturating_add(bytes.len());
        if total > BUNDLE_BYTES_MAX {
            return Err(TrustError::TooLarge { limit: format!("{BUNDLE_BYTES_MAX} bytes in all") });
        }
        if !is_metadata_name(name) {
            return Err(TrustError::UnknownFile { name: name.chars().take(64).collect() });
        }
        if !self.files.contains_key(name) && self.files.len() == BUNDLE_FILES_MAX {
            return Err(TrustError::TooLarge { limit: format!("{BUNDLE_FILES_MAX} files") });
        }
        self.bytes = total;
        self.files.entry(name.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    /// A file by its name; for a name with a version (`7.targets.json`) the one without it counts too.
    pub(crate) fn file(&self, name: &str) -> Option<&[u8]> {
        let plain = || match name.split_once('.') {
            Some((version, plain)) if is_version(version) => self.files.get(plain),
            _ => None,
        };
        self.files.get(name).or_else(plain).map(Vec::as_slice)
    }

    /// The root of this version.
    pub(crate) fn root(&self, version: u64) -> Option<&[u8]> {
        self.files.get(&format!("{version}.root.json")).map(Vec::as_slice)
    }

    /// The versions of all offered roots, as their names say.
    pub(crate) fn root_versions(&self) -> impl Iterator<Item = u64> {
        self.files.keys().filter_map(|name| name.strip_suffix(".root.json")?.parse().ok())
    }
}

fn is_metadata_name(name: &str) -> bool {
    match name {
        "timestamp.json" | "snapshot.json" | "targets.json" => true,
        _ => match name.split_once('.') {
            Some((version, "root.json" | "snapshot.json" | "targets.json")) => is_version(version),
            _ => false,
        },
    }
}

fn is_version(text: &str) -> bool {
    text.parse::<u64>().is_ok_and(|version| version > 0 && version.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_one_file_are_joined_in_order() {
        let mut bundle = Bundle::new();
        bundle.append("timestamp.json", b"{").unwrap();
        bundle.append("timestamp.json", b"}").unwrap();
        assert_eq!(bundle.file("timestamp.json"), Some(&b"{}"[..]));
    }

    #[test]
    fn a_versioned_name_also_finds_the_plain_file_but_no_root() {
        let mut bundle = Bundle::new();
        bundle.append("targets.json", b"{}").unwrap();
        assert!(bundle.file("7.targets.json").is_some());
        assert!(bundle.file("7.snapshot.json").is_none());
    }

    #[test]
    fn endless_bytes_are_refused_before_they_are_kept() {
        let mut bundle = Bundle::new();
        bundle.append("targets.json", &vec![b' '; BUNDLE_BYTES_MAX]).unwrap();
        let refused = bundle.append("targets.json", b" ").unwrap_err();
        assert_eq!(refused.code(), "TRUST_TOO_LARGE");
        assert_eq!(bundle.file("targets.json").map(<[u8]>::len), Some(BUNDLE_BYTES_MAX));
    }

    #[test]
    fn endless_files_are_refused() {
        let mut bundle = Bundle::new();
        let mut add = |version: usize| bundle.append(&format!("{version}.root.json"), b"{}");
        assert!((1..=BUNDLE_FILES_MAX).all(|version| add(version).is_ok()));
        assert_eq!(add(BUNDLE_FILES_MAX + 1).unwrap_err().code(), "TRUST_TOO_LARGE");
    }

    #[test]
    fn names_that_no_role_has_are_refused() {
        for name in
            ["", "../timestamp.json", "01.root.json", "0.root.json", "root.json", "1.timestamp.json", "a/b"]
        {
            let refused = Bundle::new().append(name, b"{}").unwrap_err();
            assert_eq!(refused.code(), "TRUST_MALFORMED", "{name}");
        }
    }
}
