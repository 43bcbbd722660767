//! Real plugins to make mutants of: in C and in Rust.

use std::{fs, path::Path};

use fleetswap_host::{Image, ImageWriter};
use fleetswap_integration_tests::harness::{Binaries, compile_c, repository};
use sha2::{Digest, Sha256};

/// The examples: a small one in C, a large one in Rust.
pub(crate) fn real() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let source = repository().join("plugin-sdk/examples/checksum/checksum.c");
    let checksum = compile_c(&source, "checksum", "1.0.0", &[], folder.path()).unwrap();
    let clock = Binaries::find().unwrap().example("clock", "1.0.0").unwrap();
    [checksum.file, clock.file].map(|file| fs::read(file).unwrap()).into()
}

/// The test subject in a version, as bytes.
pub(crate) fn subject(folder: &Path, version: &str) -> Vec<u8> {
    let source = repository().join("integration-tests/zoo/subject.c");
    let define = format!("VERSION=\"{version}\"");
    let plugin = compile_c(&source, "subject", version, &[&define], folder).unwrap();
    fs::read(plugin.file).unwrap()
}

/// An image of any bytes.
pub(crate) fn image(bytes: &[u8]) -> Image {
    let mut writer = ImageWriter::new(bytes.len() as u64).unwrap();
    writer.write(bytes).unwrap();
    writer.seal(&sha256(bytes)).unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
