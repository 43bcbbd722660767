//! Plugins to load: a specimen that is compiled in many forms.
use bytes::Bytes;
use fleetswap_host::{Image, ImageWriter, Launcher, Level, Limits, LoadError, LogSink, Worker, WorkerSpec};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex},
    time::Duration,
};

/// The one launcher of this program, as in the agent.
pub(crate) static LAUNCHER: LazyLock<Launcher> = LazyLock::new(|| Launcher::start().unwrap());

static FOLDER: LazyLock<Mutex<Option<tempfile::TempDir>>> =
    LazyLock::new(|| Mutex::new(Some(tempfile::tempdir().unwrap())));
/// The specimen as it is.
pub(crate) static HONEST: LazyLock<Image> = LazyLock::new(|| specimen(&[]));

/// What this host gives at most: the tests run there.
pub(crate) static LEVEL: LazyLock<Level> =
    LazyLock::new(|| fleetswap_host::sandbox_level(Level::Standard).unwrap_or_default());

/// Long enough for anything that is meant to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workers").join(name)
}

/// Removes what was compiled.
pub(crate) fn clean_up() {
    drop(FOLDER.lock().unwrap().take());
}

fn folder() -> PathBuf {
    FOLDER.lock().unwrap().as_ref().unwrap().path().to_owned()
}

fn compile(command: &mut Command) -> Image {
    static COUNT: Mutex<u32> = Mutex::new(0);
    let mut count = COUNT.lock().unwrap();
    *count += 1;
    let out = folder().join(format!("{count}.so"));
    build(command, &out);
    image(&std::fs::read(out).unwrap())
}

fn build(command: &mut Command, out: &Path) {
    let result = command.arg("-o").arg(out).output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
}

fn cc() -> Command {
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-w", "-I"]).arg(here("../../../include"));
    cc
}

/// The C specimen with these definitions, `NAME=value`.
pub(crate) fn specimen(definitions: &[&str]) -> Image {
    let mut cc = cc();
    cc.arg(here("specimen.c")).args(definitions.iter().map(|definition| format!("-D{definition}")));
    compile(&mut cc)
}

/// The C specimen, linked with a libstdc++ newer than any.
pub(crate) fn needs_newer_library() -> Image {
    let (source, versions) = (folder().join("newer.c"), folder().join("newer.map"));
    std::fs::write(&source, "int newest(void) { return 0; }\n").unwrap();
    std::fs::write(&versions, "GLIBCXX_9.9.9 { newest; };\n").unwrap();
    let library = folder().join("libstdc++.so.6");
    let script = format!("-Wl,--version-script={}", versions.display());
    build(cc().arg(&source).args(["-Wl,-soname,libstdc++.so.6", &script]), &library);
    compile(cc().arg("-DON_LOAD=newest()").arg(here("specimen.c")).arg(&library))
}

/// The Rust specimen.
pub(crate) fn rusty() -> Image {
    rusty_with(&[])
}

/// The Rust specimen with these arguments for the compiler.
pub(crate) fn rusty_with(args: &[&str]) -> Image {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "rusty"]).args(args);
    compile(rustc.arg(here("specimen.rs")))
}

/// An image of any bytes.
pub(crate) fn image(bytes: &[u8]) -> Image {
    let mut writer = ImageWriter::new(bytes.len() as u64).unwrap();
    writer.write(bytes).unwrap();
    writer.seal(&Sha256::digest(bytes).into()).unwrap()
}

/// Short limits, so that tests of time don't take long, but not so short that a busy machine breaks them.
pub(crate) fn limits() -> Limits {
    Limits { load_timeout: PATIENCE, control_timeout: PATIENCE, state_timeout: PATIENCE, ..Limits::default() }
}

pub(crate) fn spec() -> WorkerSpec {
    WorkerSpec {
        plugin: "specimen".into(),
        version: "1.0.0".into(),
        descriptor: None,
        limits: limits(),
        level: *LEVEL,
        log: LogSink::discard(),
    }
}

/// A loaded worker of the specimen with these definitions.
pub(crate) async fn launch(definitions: &[&str]) -> Result<Worker, LoadError> {
    LAUNCHER.launch(&specimen(definitions), spec()).await
}

/// An active worker of the specimen as it is.
pub(crate) async fn active() -> Worker {
    active_with(limits()).await
}

pub(crate) async fn active_with(limits: Limits) -> Worker {
    let worker = LAUNCHER.launch(&HONEST, WorkerSpec { limits, ..spec() }).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    worker.activate().await.unwrap();
    worker
}

/// Calls a function and returns its output as text.
pub(crate) async fn ask(worker: &Worker, function: &str, input: &str) -> String {
    let output = worker.call(function, Bytes::copy_from_slice(input.as_bytes()), PATIENCE).await;
    String::from_utf8(output.unwrap().to_vec()).unwrap()
}

/// Waits for a condition, looking often; panics after [`PATIENCE`].
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come true");
        tokio::task::yield_now().await;
    }
}
