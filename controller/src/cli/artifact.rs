//! What a push does before anything leaves this machine: lint, describe in the sandbox, check the names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fleetswap_host::{Fault, Image, Launcher, Level, Limits, LoadError, LogSink, WorkerSpec, sandbox_level};
use fleetswap_inspect::{Descriptor, Elf, Platform, Rules, lint, native_platform};
use fleetswap_proto::Explained;
use fleetswap_trust::{Digest, manifest::ARTIFACT_MAX};
use semver::Version;

use super::exit::Failure;

/// An artifact that passed every check that needs no fleet.
#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) platform: Platform,
    pub(super) bytes: Vec<u8>,
    pub(super) descriptor: Descriptor,
    pub(super) descriptor_bytes: Vec<u8>,
}

impl Artifact {
    /// Reads, lints and describes the library, and demands that it is `name` in `version`.
    pub(super) async fn prepare(file: &Path, name: &str, version: &Version) -> Result<Self, Failure> {
        let (bytes, elf) = read(file)?;
        check_note(file, &elf, name, version)?;
        let descriptor_bytes = describe(file, &bytes, elf.platform).await?;
        let descriptor = parse(file, &descriptor_bytes)?;
        if descriptor.name != name || descriptor.version != *version {
            let why = format!(
                "its descriptor says {} {}, its ELF note {name} {version}",
                descriptor.name, descriptor.version
            );
            return Err(rejected("NOTE_DIFFERS", file, why, "build the plugin with one name and version"));
        }
        Ok(Self { platform: elf.platform, bytes, descriptor, descriptor_bytes })
    }
}

/// Reads a library and lints it.
pub(super) fn read(file: &Path) -> Result<(Vec<u8>, Elf), Failure> {
    let doing = || format!("reading {}", file.display());
    let length = fs::metadata(file).map_err(|error| Failure::io(&doing(), &error))?.len();
    if length > ARTIFACT_MAX {
        let why = format!("it has {length} bytes, and at most {ARTIFACT_MAX} are allowed");
        return Err(rejected("ARTIFACT_TOO_LARGE", file, why, "strip the library; ship data as data"));
    }
    let bytes = fs::read(file).map_err(|error| Failure::io(&doing(), &error))?;
    match lint(&bytes, &Rules::default()) {
        Ok(elf) => Ok((bytes, elf)),
        Err(error) => Err(rejected(
            error.code(),
            file,
            error.to_string(),
            "build the plugin as the page of this code says",
        )),
    }
}

/// The descriptor's bytes: from the sandbox on the native platform, else from the file beside the artifact.
pub(super) async fn describe(file: &Path, bytes: &[u8], platform: Platform) -> Result<Vec<u8>, Failure> {
    if platform != native_platform() {
        return read_descriptor(file, platform);
    }
    let digest = Digest::of(bytes);
    let image = Image::from_file(file, &digest.bytes(), bytes.len() as u64).map_err(|error| {
        let fix = "leave the file alone while it is pushed, and try again";
        rejected(error.code(), file, error.to_string(), fix)
    })?;
    let launcher = Launcher::start().map_err(|error| Failure::io("starting the launcher", &error))?;
    let spec = WorkerSpec {
        plugin: file.display().to_string(),
        version: String::new(),
        descriptor: None,
        limits: Limits::default(),
        // As on a host: what fails at the level that agents reach is to fail here.
        level: sandbox_level(Level::Standard).unwrap_or_default(),
        log: LogSink::discard(),
    };
    let worker = launcher.launch(&image, spec).await.map_err(|error| not_loaded(file, &error))?;
    let descriptor = worker.descriptor().to_vec();
    worker.close().await;
    Ok(descriptor)
}

/// A release that can't be loaded is rejected; a machine that can't load anything says nothing about the release.
fn not_loaded(file: &Path, error: &LoadError) -> Failure {
    match error.fault() {
        Fault::Release => {
            let fix = "mend the plugin; `controller describe FILE` tries it again";
            rejected(error.code(), file, error.to_string(), fix)
        }
        Fault::Host => {
            let what = format!("this machine can't try {}", file.display());
            let fix = "do it on a machine that the page of this code asks for";
            Explained::new(error.code(), what, error.to_string(), fix).into()
        }
    }
}

/// Parses a descriptor and refuses what no agent of this version could give.
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Descriptor, Failure> {
    let descriptor = Descriptor::parse(bytes).and_then(|descriptor| match descriptor.unsupported_needs() {
        Some(error) => Err(error),
        None => Ok(descriptor),
    });
    descriptor
        .map_err(|error| rejected(error.code(), file, error.to_string(), "mend the plugin's description"))
}

fn check_note(file: &Path, elf: &Elf, name: &str, version: &Version) -> Result<(), Failure> {
    let note = &elf.note;
    if note.name == name && note.version == *version {
        return Ok(());
    }
    let why = format!("its ELF note says {} {}, the push says {name} {version}", note.name, note.version);
    let fix = format!("push it as `{} --version {}`, or push the right file", note.name, note.version);
    Err(rejected("NOTE_DIFFERS", file, why, &fix))
}

fn read_descriptor(file: &Path, platform: Platform) -> Result<Vec<u8>, Failure> {
    let beside = descriptor_path(file);
    fs::read(&beside).map_err(|error| {
        let why = format!(
            "it is built for {platform}, so it can't be loaded here, and {}: {error}",
            beside.display()
        );
        let fix =
            format!("on such a machine run `controller describe {0} > {0}.descriptor.json`", file.display());
        rejected("DESCRIPTOR_MISSING", file, why, &fix)
    })
}

fn descriptor_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".descriptor.json");
    PathBuf::from(name)
}

fn rejected(code: &'static str, file: &Path, why: impl Into<String>, fix: &str) -> Failure {
    Explained::new(code, format!("{} can't be released", file.display()), why, fix).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;

    #[test]
    fn what_this_machine_lacks_is_not_blamed_on_the_plugin() {
        let lacks = LoadError::Host { what: "starting a process", error: std::io::Error::other("no memory") };
        let failure = not_loaded(Path::new("libclock.so"), &lacks);
        assert_eq!(
            (failure.exit, failure.error.what.as_str()),
            (Exit::Error, "this machine can't try libclock.so")
        );
    }
}
