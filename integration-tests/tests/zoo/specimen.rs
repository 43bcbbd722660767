//! Specimens: the library that is compiled once, and the copies of it that are cells of the matrix.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{Outcome, Plugin, repository};

use crate::matrix::Cell;

/// The plugin's name, as `hostile.c` has it.
pub(crate) const NAME: &str = "zoo";
/// The version that `hostile.c` is compiled with; every other one has as many digits.
const VERSION: &str = "1.1000.0";
/// What stands before the cell in the library, and how many bytes the two have.
const MARK: &[u8] = b"ZOOCELL:";
const CELL_BYTES: usize = 64;
/// What a release does that does no harm.
const GOOD: &str = "never/nothing";

/// The libraries that cells are copies of.
#[derive(Debug)]
pub(crate) struct Specimens {
    plain: Vec<u8>,
    unwinds: Vec<u8>,
    aborts: Vec<u8>,
}

impl Specimens {
    /// Compiles them in `folder`.
    pub(crate) fn compile(folder: &Path) -> Result<Self> {
        Ok(Self {
            plain: compile(folder, "plain", &[])?,
            unwinds: compile(folder, "unwind", &panics(folder, "unwind")?)?,
            aborts: compile(folder, "abort", &panics(folder, "abort")?)?,
        })
    }

    /// Writes a release that does a cell's harm, or none.
    pub(crate) fn make(&self, cell: Option<&Cell>, version: &str, folder: &Path) -> Result<Plugin> {
        let template = match cell.map(|cell| cell.kind.name) {
            Some("panic") => &self.unwinds,
            Some("panic_abort") => &self.aborts,
            Some(_) | None => &self.plain,
        };
        let text = cell.map_or_else(|| GOOD.to_owned(), Cell::text);
        let file = folder.join(format!("{version}.so"));
        fs::write(&file, patched(template, version, &text)?)?;
        Ok(Plugin { name: NAME.to_owned(), version: version.to_owned(), file })
    }
}

fn source(name: &str) -> PathBuf {
    repository().join("integration-tests/zoo").join(name)
}

/// The arguments that link Rust's panics to the library.
fn panics(folder: &Path, how: &str) -> Result<Vec<String>> {
    let archive = folder.join(format!("panics_{how}.a"));
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command
        .args(["--edition", "2024", "--crate-type", "staticlib", "--crate-name", "panics", "-C"])
        .arg(format!("panic={how}"))
        .arg("-o")
        .arg(&archive)
        .arg(source("panics.rs"));
    Outcome::of(&mut command)?.expect(0)?;
    Ok(vec!["-DPANICS".to_owned(), archive.display().to_string()])
}

fn compile(folder: &Path, name: &str, more: &[String]) -> Result<Vec<u8>> {
    let file = folder.join(format!("{name}.so"));
    let mut command = Command::new("cc");
    command
        .args(["-shared", "-fPIC", "-O1", "-fexceptions", "-Wall", "-Werror", "-pthread", "-s"])
        .arg("-Wl,--gc-sections")
        .arg("-I")
        .arg(repository().join("plugin-sdk/include"))
        .arg("-o")
        .arg(&file)
        .arg(source("hostile.c"))
        .args(more);
    Outcome::of(&mut command).context("a C compiler is needed")?.expect(0)?;
    Ok(fs::read(file)?)
}

/// The library as if it had been compiled with another version and for another cell.
fn patched(template: &[u8], version: &str, cell: &str) -> Result<Vec<u8>> {
    ensure!(version.len() == VERSION.len(), "{version} is longer or shorter than {VERSION}");
    ensure!(MARK.len() + cell.len() < CELL_BYTES, "`{cell}` is too long");
    let mut library = template.to_vec();
    let versions = places(template, VERSION.as_bytes());
    ensure!(versions.len() >= 3, "the version stands in note, descriptor and reply, not {versions:?}");
    for place in versions {
        library[place..place + version.len()].copy_from_slice(version.as_bytes());
    }
    let marks = places(template, MARK);
    let [place] = *marks else { anyhow::bail!("the cell stands in one place, not {marks:?}") };
    let place = place + MARK.len();
    library[place..place + CELL_BYTES - MARK.len()].fill(0);
    library[place..place + cell.len()].copy_from_slice(cell.as_bytes());
    Ok(library)
}

fn places(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(wanted.len()).enumerate();
    windows.filter(|(_, window)| *window == wanted).map(|(place, _)| place).collect()
}

#[test]
fn a_patched_library_differs_from_its_template_only_in_version_and_cell() {
    let template = [b"1.1000.0 1.1000.0 1.1000.0 ZOOCELL:never/nothing".as_slice(), &[0; 64]].concat();
    let library = patched(&template, "1.1007.0", "call/abort").unwrap();
    assert_eq!(library.len(), template.len());
    let text = String::from_utf8_lossy(&library);
    assert!(text.starts_with("1.1007.0 1.1007.0 1.1007.0 ZOOCELL:call/abort\0\0\0"), "{text}");
    assert!(patched(&template, "1.100.0", "call/abort").is_err());
    assert!(patched(&template[..20], "1.1007.0", "call/abort").is_err());
}
