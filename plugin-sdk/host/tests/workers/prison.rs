//! What the sandbox refuses and what it allows. Run as root and as anybody else alike.
use crate::{
    deaths::die,
    plugin::{LAUNCHER, PATIENCE, active, ask, launch, rusty, spec},
};
use bytes::Bytes;
use fleetswap_host::{Cause, Worker};
use fleetswap_inspect::elf::{Glibc, PRELOADED};

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
    ("pair_datagram", "EPERM"),
    ("pair_packet", "EPERM"),
    ("pair_other", "EPERM"),
    ("pass_a_descriptor", "EPERM"),
    ("hurry", "EPERM"),
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
    ("mmap_shared", "EPERM"),
    ("mmap_shared_validate", "EPERM"),
    ("mmap_huge", "EPERM"),
    ("mprotect_wx", "EPERM"),
    ("memfd", "EPERM"),
    #[cfg(target_arch = "x86_64")]
    ("x32", "EPERM"),
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
    for what in ["name_thread", "mmap_private", "pair"] {
        assert_eq!(ask(&worker, "attempt", what).await, "OK", "the test can tell a success");
    }
    assert!(worker.death().is_none());
}

pub(crate) async fn neither_the_host_nor_another_worker_can_be_looked_into() {
    let (worker, other) = (active().await, active().await);
    let host = std::process::id();
    for path in [
        format!("/proc/{host}/fd/0"),
        format!("/proc/{host}/fd"),
        format!("/proc/{host}/mem"),
        format!("/proc/{host}/maps"),
        format!("/proc/{host}/environ"),
        format!("/proc/{}/fd/3", other.pid()),
        format!("/proc/{}/fd/4", other.pid()),
        format!("/proc/{}/mem", other.pid()),
    ] {
        assert!(path.ends_with("/fd") || std::fs::symlink_metadata(&path).is_ok(), "{path} is there");
        assert_eq!(ask(&worker, "attempt", &path).await, "EACCES", "{path}");
    }
}

pub(crate) async fn a_worker_leaves_no_core_dump() {
    let worker = active().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.pid())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    let core: Vec<&str> = core.split_whitespace().collect();
    // Too small for a file, and what the kernel takes for "to no program either".
    let lower_before = core == ["0", "0", "bytes"];
    assert!(lower_before || core == ["1", "1", "bytes"], "{core:?}");
}

/// What decision 0008 says about `newfstatat`: an older C library needs it, and then it sees more than it should.
pub(crate) async fn a_files_metadata_is_seen_only_where_the_c_library_can_not_do_without_the_call() {
    // SAFETY: the C library returns a text that lives as long as the process.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) }.to_str().unwrap();
    let needs_the_call = Glibc::parse(version) < Glibc::parse("2.39");
    let worker = active().await;
    let expected = if needs_the_call { "OK" } else { "EPERM" };
    assert_eq!(ask(&worker, "attempt", "stat_flag").await, expected, "glibc {version}");
    assert_eq!(ask(&worker, "attempt", "stat").await, "EPERM");
}

pub(crate) async fn old_ways_to_call_the_kernel_end_the_worker() {
    if cfg!(target_arch = "x86_64") {
        let cause = die(&active().await, "32-bit call").await;
        // The latter where the kernel has no such calls at all.
        assert!(matches!(cause, Cause::Signal(libc::SIGSYS | libc::SIGSEGV)), "{cause:?}");
    }
}

pub(crate) async fn what_an_honest_plugin_needs_works() {
    let worker = active().await;
    assert_eq!(ask(&worker, "work", "").await, "fine");
    let worker = launch(&["ON_LOAD=pthread_create(&(pthread_t){0},0,do_nothing,0)"]).await.unwrap();
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
    let fds = std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap();
    let mut fds: Vec<_> = fds.map(|fd| fd.unwrap().file_name().into_string().unwrap()).collect();
    fds.sort();
    assert_eq!(fds, ["0", "1", "2", "3", "4"], "what the kernel says");
    assert_eq!(std::fs::read(format!("/proc/{}/environ", worker.pid())).unwrap(), b"");
    let link = |fd: u32| std::fs::read_link(format!("/proc/{}/fd/{fd}", worker.pid())).unwrap();
    assert_eq!(link(0).to_str(), Some("/dev/null"));
    assert_eq!(link(1), link(2));
    assert!(link(1).to_string_lossy().starts_with("pipe:"));
    assert!(link(3).to_string_lossy().starts_with("socket:"));
    assert!(link(4).to_string_lossy().contains("memfd:fleetswap-image"));
    assert_eq!(std::fs::read_link(format!("/proc/{}/cwd", worker.pid())).unwrap().to_str(), Some("/"));
}

pub(crate) async fn what_a_plugin_may_need_is_loaded_before_it() {
    let worker = active().await;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", worker.pid())).unwrap();
    let at = |name: &str| maps.lines().position(|line| line.contains(name));
    assert!(at("memfd:fleetswap-image").is_some(), "{maps}");
    let (mut found, mut missing) = (0, Vec::new());
    for name in PRELOADED {
        // SAFETY: a library of the system, as any program loads it.
        let is_here = unsafe { libloading::Library::new(name) }.is_ok();
        assert_eq!(at(&format!("/{name}")).is_some(), is_here, "{name} in {maps}");
        if is_here { found += 1 } else { missing.push(name) }
    }
    assert!(found >= 2, "the C library and its mathematics, at least");
    if !missing.is_empty() {
        println!("  this host lacks {missing:?}");
    }
    let writable_code = maps.lines().filter(|line| line.contains("rwx") || line.contains("-wx"));
    assert_eq!(writable_code.collect::<Vec<_>>(), [""; 0]);
}

/// The nice of each thread of a process.
fn nices(pid: u32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nice = |path: std::path::PathBuf| {
        let stat = std::fs::read_to_string(path.join("stat")).unwrap();
        // The seventeenth field behind the name.
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse().unwrap()
    };
    threads.map(|thread| nice(thread.unwrap().path())).collect()
}

pub(crate) async fn every_thread_of_a_worker_yields_to_its_host() {
    let own = nices(std::process::id())[0];
    let worker = active().await;
    assert_eq!(ask(&worker, "threads", "4").await, "started");
    let theirs = nices(worker.pid());
    assert!(theirs.len() > 4 && theirs.iter().all(|nice| *nice == (own + 5).min(19)), "{own}, {theirs:?}");
}
