//! What the sandbox refuses and what it allows. Run as root and as anybody else alike.
use crate::plugin::{LAUNCHER, PATIENCE, active, ask, launch, rusty, spec};
use bytes::Bytes;
use fleetswap_host::Worker;

/// What a plugin may try, and the error that it must get.
const FORBIDDEN: &[(&str, &str)] = &[
    ("passwd", "EACCES"),
    ("folder", "EACCES"),
    ("own_exe", "EACCES"),
    ("own_memory", "EPERM"),
    ("passwd_path", "EPERM"),
    ("create", "EPERM"),
    ("tmpfile", "EPERM"),
    ("stat", "EPERM"),
    ("unlink", "EPERM"),
    ("socket_unix", "EPERM"),
    ("socket_inet", "EPERM"),
    ("socket_netlink", "EPERM"),
    ("socketpair", "EPERM"),
    ("execve", "EPERM"),
    ("fexecve", "EPERM"),
    ("fork", "EPERM"),
    ("clone", "EPERM"),
    ("clone_newns", "EPERM"),
    ("clone3", "ENOSYS"),
    ("unshare", "EPERM"),
    ("kill_parent", "EPERM"),
    ("tgkill_parent", "EPERM"),
    ("ptrace", "EPERM"),
    ("mmap_wx", "EPERM"),
    ("mprotect_wx", "EPERM"),
    ("memfd", "EPERM"),
    ("io_uring", "EPERM"),
    ("bpf", "EPERM"),
    ("seccomp", "EPERM"),
    ("pdeathsig", "EPERM"),
    ("dumpable", "EPERM"),
    ("setrlimit", "EPERM"),
    ("setown", "EPERM"),
    ("setuid", "EPERM"),
    ("chroot", "EPERM"),
    ("mount", "EPERM"),
];

/// What got another answer than it should.
pub(crate) async fn ways_out(worker: &Worker) -> Vec<String> {
    let mut wrong = Vec::new();
    for (what, error) in FORBIDDEN {
        let got = ask(worker, "attempt", what).await;
        if got != *error {
            wrong.push(format!("{what}: {got}, not {error}"));
        }
    }
    wrong
}

pub(crate) async fn what_is_forbidden_is_refused() {
    let worker = active().await;
    assert_eq!(ways_out(&worker).await, [""; 0]);
    assert_eq!(ask(&worker, "attempt", "name_thread").await, "OK", "the test can tell a success");
    assert!(worker.death().is_none());
}

pub(crate) async fn what_an_honest_plugin_needs_works() {
    let worker = active().await;
    assert_eq!(ask(&worker, "work", "").await, "fine");
    let worker = launch(&["ON_LOAD=pthread_create(&(pthread_t){0},0,count_one,0)"]).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    assert_eq!(ask(&worker, "work", "").await, "fine");
}

pub(crate) async fn a_rust_plugin_works() {
    let worker = LAUNCHER.launch(&rusty(), spec()).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    let got = worker.call("work", Bytes::new(), PATIENCE).await.unwrap();
    assert_eq!(got, "4 threads, 67108864 bytes, true true true true", "{}", worker.log_tail());
}

pub(crate) async fn a_worker_has_five_descriptors_and_no_environment() {
    // Something to inherit, if anything were: a descriptor without close-on-exec.
    let file = std::fs::File::open("/dev/null").unwrap();
    let copy = rustix::io::fcntl_dupfd_cloexec(&file, 30).unwrap();
    rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).unwrap();
    let worker = active().await;
    assert_eq!(ask(&worker, "surroundings", "").await, "fds 0 1 2 3 4, environment 0");
    let link = |fd: u32| std::fs::read_link(format!("/proc/{}/fd/{fd}", worker.pid())).unwrap();
    assert_eq!(link(0).to_str(), Some("/dev/null"));
    assert_eq!(link(1), link(2));
    assert!(link(3).to_string_lossy().starts_with("socket:"));
    assert!(link(4).to_string_lossy().contains("memfd:fleetswap-image"));
    assert_eq!(std::fs::read_link(format!("/proc/{}/cwd", worker.pid())).unwrap().to_str(), Some("/"));
}
