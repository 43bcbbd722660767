//! Hosts in processes of their own: what becomes of workers when theirs is killed, lacks something or lies.
use crate::{
    loading::children,
    plugin::{HONEST, LAUNCHER, active, ask, spec, specimen, until},
    prison::ways_out,
};
use fleetswap_host::{LogSink, WorkerSpec};
use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid, kill_process, setrlimit};
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
};

/// `argv[1]` of this program as a host that starts a worker, says its number and waits.
const WAITS: &str = "--host-that-waits";
/// `argv[1]` of this program as a host of an ordinary user, whose worker tries to get out.
const ORDINARY: &str = "--host-of-an-ordinary-user";
/// `argv[1]` of this program as a host that may have no more threads than its worker begins with.
const CROWDED: &str = "--host-out-of-threads";
/// `argv[1]` of this program as a host that may have few descriptors.
const NARROW: &str = "--host-with-few-descriptors";
/// Descriptors of such a host: fewer than a worker gets elsewhere.
const NARROW_MAX: u64 = 40;
/// Threads and processes that the user of such a host may have: its own, the launcher's, a worker's first few.
const CROWD_MAX: u64 = 8;
/// The first of the users that such hosts have: each one of its own, since threads are counted by user.
const LONELY: u32 = 60_000;
/// An ordinary user: `nobody`.
const NOBODY: u32 = 65534;

/// Becomes such a host if asked; returns false otherwise.
pub(crate) fn run_if_asked() -> bool {
    let mode = std::env::args().nth(1).unwrap_or_default();
    match mode.as_str() {
        ORDINARY => become_ordinary(NOBODY),
        CROWDED => {
            become_ordinary(LONELY + std::process::id() % 5_000);
            let most = Rlimit { current: Some(CROWD_MAX), maximum: Some(CROWD_MAX) };
            setrlimit(Resource::Nproc, most).unwrap();
        }
        NARROW => {
            let most = Rlimit { current: Some(NARROW_MAX), maximum: Some(NARROW_MAX) };
            setrlimit(Resource::Nofile, most).unwrap();
        }
        WAITS => {}
        _ => return false,
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match mode.as_str() {
            CROWDED => {
                let error = LAUNCHER.launch(&HONEST, spec()).await.unwrap_err();
                println!("{} {:?} {error}", error.code(), error.fault());
            }
            NARROW => {
                let limits = format!("/proc/{}/limits", active().await.pid());
                let limits = std::fs::read_to_string(limits).unwrap();
                println!("{}", limits.lines().find(|line| line.starts_with("Max open files")).unwrap());
            }
            ORDINARY => {
                let worker = active().await;
                let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
                let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
                println!("{uid} {} {:?}", ask(&worker, "work", "").await, ways_out(&worker).await);
            }
            _ => wait_in_a_constructor().await,
        }
    });
    true
}

/// Gives up being root. The specimen is compiled before, where root may write.
fn become_ordinary(user: u32) {
    LazyLock::force(&HONEST);
    rustix::thread::set_thread_groups(&[]).unwrap();
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    // A service that starts as an ordinary user is dumpable; one that changed its user is not.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).unwrap();
}

/// Starts a worker that hangs in its constructor, where nobody reads its socket, and says its number.
async fn wait_in_a_constructor() {
    let (sender, mut lines) = tokio::sync::mpsc::channel(1);
    let log = LogSink::channel(sender);
    let image = specimen(&["ON_LOAD=spin()"]);
    let told = async {
        lines.recv().await.unwrap();
        println!("{}", children().concat());
        std::future::pending().await
    };
    tokio::select! {
        result = LAUNCHER.launch(&image, WorkerSpec { log, ..spec() }) => panic!("{result:?}"),
        () = told => {}
    }
}

pub(crate) fn this_program(mode: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(mode).stdout(Stdio::piped());
    command
}

pub(crate) async fn workers_die_with_a_host_that_is_killed() {
    let mut host = this_program(WAITS).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let worker = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    let status = format!("/proc/{}/status", worker.as_raw_pid());
    assert!(Path::new(&status).exists(), "it runs");
    kill_process(Pid::from_child(&host), Signal::KILL).unwrap();
    host.wait().unwrap();
    // Whoever inherits it may be slow to reap it; a zombie runs no more.
    until("the worker's end", || {
        std::fs::read_to_string(&status).map_or(true, |text| text.contains("State:\tZ"))
    })
    .await;
}

pub(crate) async fn a_worker_of_an_ordinary_user_is_locked_in_as_well() {
    if !rustix::process::geteuid().is_root() {
        println!("  not root: the other tests ran as an ordinary user, and none ran as root");
        return;
    }
    let output = this_program(ORDINARY).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "Uid:\t65534\t65534\t65534\t65534 fine []\n");
}

pub(crate) async fn a_host_out_of_threads_does_not_blame_the_release() {
    if !rustix::process::geteuid().is_root() {
        println!("  not root: no user of its own for this test");
        return;
    }
    let output = this_program(CROWDED).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("WORKER_START_FAILED Host"), "{text}");
    assert!(text.contains("threads of a worker"), "{text}");
}

pub(crate) async fn a_worker_gets_no_more_descriptors_than_its_host() {
    let output = this_program(NARROW).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["Max", "open", "files", "40", "40", "files"]);
}

/// This program as a worker, started by hand.
fn worker_by_hand(host: &str) -> (std::process::Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new("/proc/self/exe");
    command.arg0("fleetswap-worker").args(["--fleetswap-worker", host]).env_clear();
    let theirs = std::os::fd::OwnedFd::from(theirs);
    let child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    (child, ours)
}

pub(crate) async fn another_build_is_told_apart_before_anything_else() {
    let (mut child, mut socket) = worker_by_hand(&std::process::id().to_string());
    // Frame of 7 bytes; field 1, text of 5 bytes. Any two builds must agree on this much.
    socket.write_all(b"\0\0\0\x07\x0a\x05other").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let (version, file) = (env!("CARGO_PKG_VERSION"), std::fs::metadata("/proc/self/exe").unwrap().len());
    let text = String::from_utf8_lossy(&answer[6..]).into_owned();
    assert_eq!(answer[4], 0x0a, "field 1: another build");
    assert!(text.starts_with(version) && text.ends_with(&format!("-{file:x}")), "{text}");
    assert_eq!(child.wait().unwrap().code(), Some(70));
}

pub(crate) async fn a_worker_whose_host_is_not_its_parent_ends() {
    for host in ["1", "", "x"] {
        let (mut child, mut socket) = worker_by_hand(host);
        assert_eq!(child.wait().unwrap().code(), Some(70), "{host}");
        assert_eq!(socket.read(&mut [0; 9]).unwrap(), 0);
    }
}

pub(crate) async fn a_worker_whose_host_says_nothing_ends_with_the_socket() {
    let (mut child, socket) = worker_by_hand(&std::process::id().to_string());
    drop(socket);
    assert_eq!(child.wait().unwrap().code(), Some(70));
    until("no child is left", || children().is_empty()).await;
}
