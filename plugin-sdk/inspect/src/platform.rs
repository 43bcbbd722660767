//! Platforms that a plugin can be built for.

use std::{fmt, str::FromStr};

use object::elf::{EM_AARCH64, EM_X86_64, Machine};

use crate::elf::{Header, LintError};

/// A platform: processor, system and C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Platform {
    /// `aarch64-linux-gnu`
    Aarch64,
    /// `x86_64-linux-gnu`
    X86_64,
}

/// The platform of the program that asks.
#[must_use]
pub const fn native_platform() -> Platform {
    #[cfg(target_arch = "aarch64")]
    return Platform::Aarch64;
    #[cfg(target_arch = "x86_64")]
    return Platform::X86_64;
}

/// The platform that a library was built for, by its ELF header alone; the rest of the file is not read.
///
/// # Errors
/// [`LintError::Malformed`], [`LintError::Arch`] or [`LintError::Type`] as [`lint`](crate::lint) would give
/// them.
pub fn platform_of(bytes: &[u8]) -> Result<Platform, LintError> {
    Header::read(bytes).map(|header| header.platform)
}

/// A text that names no supported platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("platform `{0}` is not one of x86_64-linux-gnu, aarch64-linux-gnu")]
pub struct UnknownPlatform(String);

impl Platform {
    /// All platforms, in the order of their names.
    pub const ALL: [Self; 2] = [Self::Aarch64, Self::X86_64];

    /// The name that manifests and operators use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64-linux-gnu",
            Self::X86_64 => "x86_64-linux-gnu",
        }
    }

    /// The platform with this ELF machine number.
    pub(crate) fn of_machine(machine: Machine) -> Option<Self> {
        match machine {
            EM_AARCH64 => Some(Self::Aarch64),
            EM_X86_64 => Some(Self::X86_64),
            _ => None,
        }
    }

    /// File name of the platform's dynamic linker.
    pub(crate) const fn dynamic_linker(self) -> &'static str {
        match self {
            Self::Aarch64 => "ld-linux-aarch64.so.1",
            Self::X86_64 => "ld-linux-x86-64.so.2",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|platform| platform.as_str() == text)
            .ok_or_else(|| UnknownPlatform(text.chars().take(64).collect()))
    }
}

impl serde::Serialize for Platform {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_platform_find_each_other() {
        for platform in Platform::ALL {
            assert_eq!(platform.to_string().parse(), Ok(platform));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_in_a_bounded_sentence() {
        let error = "riscv".repeat(1000).parse::<Platform>().unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    #[test]
    fn bytes_that_are_no_library_have_no_platform() {
        assert_eq!(platform_of(b"MZ").unwrap_err().code(), "ELF_MALFORMED");
    }
}
