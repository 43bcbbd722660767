//! The levels of the sandbox: what each holds, and what becomes of them on older kernels.
use crate::{
    agents::this_program,
    masks::{KERNELS, Kernel},
    plugin::{HONEST, LAUNCHER, LEVEL, PATIENCE, active, ask, rusty, spec},
    prison::ways_out,
};
use bytes::Bytes;
use fleetswap_host::{Level, Worker, WorkerSpec, sandbox_level};
use std::sync::LazyLock;

/// `argv[1]` of this program as a host on another kernel; its name and the lowest level that will do follow.
const POSES: &str = "--host-on-kernel";
/// What a plugin can do where there is no Landlock, and nowhere else.
const ONLY_LANDLOCK_REFUSES: [&str; 3] = ["passwd", "folder", "own_exe"];

/// Becomes such a host if asked; returns false otherwise.
pub(crate) fn run_if_asked() -> bool {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(POSES) {
        return false;
    }
    let (name, min) = (args.next().unwrap(), args.next().unwrap().parse().unwrap());
    LazyLock::force(&HONEST);
    KERNELS.iter().find(|kernel| kernel.name == name).unwrap().pose();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tell(min));
    true
}

/// A line for the level that is reached, one for what keeps it from the next, and what a plugin does there.
async fn tell(min: Level) {
    let level = match sandbox_level(min) {
        Ok(level) => level,
        Err(error) => {
            let refused = LAUNCHER.launch(&HONEST, WorkerSpec { level: min, ..spec() }).await.unwrap_err();
            println!("{error}\n{} {:?} {refused}", refused.code(), refused.fault());
            return;
        }
    };
    let stricter = Level::ALL.into_iter().find(|other| *other > level).unwrap();
    let lacks = sandbox_level(stricter).unwrap_err();
    let refused = LAUNCHER.launch(&HONEST, WorkerSpec { level: stricter, ..spec() }).await.unwrap_err();
    let worker = at(level).await;
    let reads = ask(&worker, "attempt", "passwd").await;
    println!("{level}\n{lacks}\n{} {:?} {refused}", refused.code(), refused.fault());
    println!("{} {:?} {reads}", ask(&worker, "work", "").await, beyond(&worker, level).await);
}

async fn at(level: Level) -> Worker {
    let worker = LAUNCHER.launch(&HONEST, WorkerSpec { level, ..spec() }).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    worker.activate().await.unwrap();
    worker
}

/// What the worker can do and should not at this level.
async fn beyond(worker: &Worker, level: Level) -> Vec<String> {
    let mut wrong = ways_out(worker).await;
    if level < Level::Standard {
        wrong.retain(|what| {
            !ONLY_LANDLOCK_REFUSES.iter().any(|known| *what == format!("{known}: OK, not EACCES"))
        });
    }
    wrong
}

fn told(kernel: &Kernel, min: Level) -> Vec<String> {
    let output = this_program(POSES).args([kernel.name, min.as_str()]).output().unwrap();
    assert!(output.status.success(), "{}", kernel.name);
    String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect()
}

/// The error of a host that can't give `level` for want of a piece.
fn lacks(level: Level, piece: &str) -> String {
    format!("sandbox level {level} can't be reached on this host: {piece}: ")
}

fn named(name: &str) -> &'static Kernel {
    KERNELS.iter().find(|kernel| kernel.name == name).unwrap()
}

pub(crate) async fn every_level_of_this_host_holds_and_lets_honest_plugins_work() {
    let rusty = rusty();
    for level in Level::ALL.into_iter().filter(|level| level <= &LEVEL) {
        let worker = at(level).await;
        assert_eq!(ask(&worker, "work", "").await, "fine", "{level}");
        assert_eq!(beyond(&worker, level).await, [""; 0], "{level}");
        if level > Level::Basic {
            let worker = LAUNCHER.launch(&rusty, WorkerSpec { level, ..spec() }).await.unwrap();
            worker.create(Bytes::new()).await.unwrap();
            let got = worker.call("work", Bytes::new(), PATIENCE).await.unwrap();
            assert_eq!(got, "4 threads, 67108864 bytes, true true true true", "{level}");
        }
    }
    if *LEVEL < Level::Strict {
        println!("  only up to level {}: {}", *LEVEL, sandbox_level(Level::Strict).unwrap_err());
    }
}

pub(crate) async fn memory_that_was_written_becomes_code_at_no_strict_level() {
    assert_eq!(ask(&at(Level::Standard).await, "attempt", "mprotect_code").await, "OK");
    if *LEVEL < Level::Strict {
        println!("  {}", sandbox_level(Level::Strict).unwrap_err());
        return;
    }
    assert_eq!(ask(&active().await, "attempt", "mprotect_code").await, "EACCES");
}

pub(crate) async fn an_older_kernel_gives_standard_and_says_what_strict_lacks() {
    for kernel in &KERNELS[..3] {
        let lines = told(kernel, Level::Standard);
        let lacks = lacks(Level::Strict, kernel.lacks);
        assert_eq!((lines.len(), lines[0].as_str()), (4, "standard"), "{}: {lines:?}", kernel.name);
        assert!(lines[1].starts_with(&lacks), "{}: {lines:?}", kernel.name);
        let refused = format!("SANDBOX_UNAVAILABLE Host {lacks}");
        assert!(lines[2].starts_with(&refused), "{}: {lines:?}", kernel.name);
        assert_eq!(lines[3], "fine [] EACCES", "{}", kernel.name);
        let lines = told(kernel, Level::Strict);
        assert!(lines[0].starts_with(&lacks) && lines[1].starts_with(&refused), "{}: {lines:?}", kernel.name);
    }
}

pub(crate) async fn without_landlock_a_host_refuses_until_its_operator_lowers_the_level() {
    for kernel in [named("without-landlock"), named("landlock-off")] {
        let lines = told(kernel, Level::Standard);
        let lacks = lacks(Level::Standard, kernel.lacks);
        assert!(lines[0].starts_with(&lacks), "{}: {lines:?}", kernel.name);
        assert!(
            lines[1].starts_with(&format!("SANDBOX_UNAVAILABLE Host {lacks}")),
            "{}: {lines:?}",
            kernel.name
        );
        let lines = told(kernel, Level::Basic);
        assert_eq!(
            (lines[0].as_str(), lines[3].as_str()),
            ("basic", "fine [] OK"),
            "{}: {lines:?}",
            kernel.name
        );
        assert!(lines[1].starts_with(&lacks), "{}: {lines:?}", kernel.name);
    }
}

pub(crate) async fn without_a_filter_no_level_is_reached() {
    for min in Level::ALL {
        let lines = told(named("without-seccomp"), min);
        let lacks = lacks(min, "seccomp");
        assert!(lines[0].starts_with(&lacks), "{lines:?}");
        assert!(lines[1].starts_with(&format!("SANDBOX_UNAVAILABLE Host {lacks}")), "{lines:?}");
    }
}
