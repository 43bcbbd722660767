//! Reads plugin artifacts without running them: ELF lint and note, descriptor, structural comparison.
//!
//! Everything here is a pure function over bytes that may come from anyone: it never executes them, never
//! panics, reads no clock, file or environment, and every count that it follows is bounded.
//!
//! - [`lint`] checks a shared library by its program headers, as the dynamic loader would read it, and returns
//!   its [`Elf`] facts with the [`Note`] inside.
//! - [`Descriptor::parse`] reads what `describe()` of a plugin writes.
//! - [`compare`] says what changed between two descriptors and whether callers would notice.
#![forbid(unsafe_code)]

pub mod descriptor;
pub mod diff;
pub mod elf;
mod name;
pub mod note;
pub mod platform;

pub use descriptor::{Descriptor, DescriptorError, Function, State};
pub use diff::{Change, Diff, Standing, compare};
pub use elf::{Elf, LintError, Rules, lint};
pub use note::{Note, NoteError};
pub use platform::{Platform, native_platform, platform_of};
