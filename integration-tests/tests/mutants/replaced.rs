//! A file that is replaced between its check and its load: what was hashed is what runs.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use fleetswap_host::{Image, Launcher, Level, Limits, LogSink, WorkerSpec};
use fleetswap_inspect::{Descriptor, Rules, lint};
use tokio::runtime::Runtime;

use crate::libraries::{sha256, subject};

/// Times that the file is read while somebody replaces it.
const TRIES: usize = 10_000;
/// Each so many-th image that was accepted is loaded too.
const LOAD_EACH: usize = 200;

pub(crate) fn an_artifact_that_is_replaced_while_it_is_read_never_loads_other_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (good, evil) = (subject(folder.path(), "1.0.0"), subject(folder.path(), "6.6.6"));
    assert_eq!(good.len(), evil.len(), "the length must not give it away");
    let file = folder.path().join("artifact");
    fs::write(&file, &good).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| replace(&file, &good, &evil, &over));
        let (accepted, refused) = read_and_load(&file, &good);
        over.store(true, Ordering::Relaxed);
        let replaced = attacker.join().unwrap();
        println!("{accepted} accepted, {refused} refused, {replaced} replaced");
        assert_eq!(accepted + refused, TRIES);
        assert!(accepted > TRIES / 100 && refused > TRIES / 100, "{accepted} accepted, {refused} refused");
    });
}

/// In turn overwritten in place and put there under its name, whole each time.
fn replace(file: &Path, good: &[u8], evil: &[u8], over: &AtomicBool) -> usize {
    let beside = file.with_extension("new");
    let mut replaced = 0;
    while !over.load(Ordering::Relaxed) {
        for bytes in [evil, good] {
            let open = fs::OpenOptions::new().write(true).open(file).unwrap();
            open.write_all_at(bytes, 0).unwrap();
        }
        for bytes in [evil, good] {
            fs::write(&beside, bytes).unwrap();
            fs::rename(&beside, file).unwrap();
        }
        replaced += 4;
    }
    replaced
}

fn read_and_load(file: &Path, good: &[u8]) -> (usize, usize) {
    let runtime = Runtime::new().unwrap();
    let launcher = Launcher::start().unwrap();
    let hash = sha256(good);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..TRIES {
        match Image::from_file(file, &hash, good.len() as u64) {
            Err(error) => {
                assert_eq!(error.code(), "ARTIFACT_HASH", "{error}");
                refused += 1;
            }
            Ok(image) => {
                // What is judged and what is loaded are the same sealed bytes, whatever the file is by now.
                assert!(image.bytes() == good, "an image of other bytes was accepted");
                assert_eq!(lint(image.bytes(), &Rules::default()).unwrap().note.version.to_string(), "1.0.0");
                accepted += 1;
                if accepted % LOAD_EACH == 1 {
                    assert_eq!(runtime.block_on(version_that_loads(&launcher, &image)), "1.0.0");
                }
            }
        }
    }
    (accepted, refused)
}

async fn version_that_loads(launcher: &Launcher, image: &Image) -> String {
    let spec = WorkerSpec {
        plugin: "subject".into(),
        version: "1.0.0".into(),
        descriptor: None,
        limits: Limits::default(),
        level: Level::Standard,
        log: LogSink::discard(),
    };
    let worker = launcher.launch(image, spec).await.unwrap();
    let version = Descriptor::parse(worker.descriptor()).unwrap().version.to_string();
    drop(worker.close().await);
    version
}
