//! From an image to a loaded worker, or to a clear reason why not.
use crate::plugin::{LAUNCHER, image, launch, limits, needs_newer_library, spec, specimen, until};
use bytes::Bytes;
use fleetswap_host::{Cause, Fault, Limits, LoadError, LogLine, LogSink, LogSource, WorkerSpec};
use std::time::Duration;
use tokio::sync::mpsc;

/// Child processes of this one, zombies included.
pub(crate) fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let parent = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(1).map(ToOwned::to_owned)
    };
    let all =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    all.filter(|pid| parent(pid).as_ref() == Some(&own)).collect()
}

fn refused(result: Result<fleetswap_host::Worker, LoadError>) -> (&'static str, Fault, String) {
    let error = result.unwrap_err();
    (error.code(), error.fault(), error.to_string())
}

pub(crate) async fn a_good_plugin_loads_and_says_what_it_is() {
    let worker = launch(&[]).await.unwrap();
    let descriptor = fleetswap_inspect::Descriptor::parse(worker.descriptor()).unwrap();
    assert_eq!(descriptor.name, "specimen");
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    for line in ["Name:\tfs-specimen", "NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
}

pub(crate) async fn a_line_of_a_constructor_reaches_the_log() {
    let (sender, mut lines) = mpsc::channel(16);
    let log = LogSink::channel(sender);
    let worker = LAUNCHER.launch(&specimen(&[]), WorkerSpec { log, ..spec() }).await.unwrap();
    let line = LogLine { source: LogSource::Output, text: "constructor ran".into() };
    assert_eq!(lines.recv().await, Some(line));
    assert_eq!(worker.log_tail(), "constructor ran\n");
}

pub(crate) async fn bytes_that_are_no_library_are_refused_in_the_loaders_words() {
    let (code, fault, text) = refused(LAUNCHER.launch(&image(b"this is no library"), spec()).await);
    assert_eq!((code, fault), ("LOAD_CANNOT_OPEN", Fault::Release));
    assert!(text.contains("file too short") || text.contains("invalid ELF header"), "{text}");
}

pub(crate) async fn a_library_that_was_not_preloaded_is_missed_in_the_loaders_words() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("libother.so");
    let cc = |args: &[&str]| {
        let mut cc = std::process::Command::new("cc");
        cc.args(["-shared", "-fPIC", "-x", "c", "/dev/null", "-x", "none", "-o"]).args(args);
        assert!(cc.status().unwrap().success());
    };
    cc(&[other.to_str().unwrap(), "-Wl,-soname,libother.so"]);
    let needy = folder.path().join("needy.so");
    let link = format!("-L{}", folder.path().display());
    let rpath = format!("-Wl,-rpath,{}", folder.path().display());
    cc(&[needy.to_str().unwrap(), "-Wl,--no-as-needed", &link, "-lother", &rpath]);
    let needy = image(&std::fs::read(needy).unwrap());
    let (code, _, text) = refused(LAUNCHER.launch(&needy, spec()).await);
    assert_eq!(code, "LOAD_CANNOT_OPEN");
    assert!(text.contains("libother.so: cannot open shared object file"), "{text}");
}

pub(crate) async fn a_system_library_that_is_too_old_is_the_hosts_lack() {
    let (code, fault, text) = refused(LAUNCHER.launch(&needs_newer_library(), spec()).await);
    assert_eq!((code, fault), ("LOAD_HOST_LACKS", Fault::Host), "{text}");
    assert!(text.contains("libstdc++.so.6: version `GLIBCXX_9.9.9' not found"), "{text}");
}

pub(crate) async fn a_library_without_the_entry_point_is_refused() {
    let (code, fault, text) = refused(launch(&["NO_ENTRY"]).await);
    assert_eq!((code, fault), ("LOAD_SYMBOL_MISSING", Fault::Release));
    assert!(text.contains("undefined symbol: fleetswap_plugin_v1"), "{text}");
}

pub(crate) async fn another_abi_and_no_table_are_refused() {
    let (code, fault, text) = refused(launch(&["MAJOR=2"]).await);
    assert_eq!((code, fault), ("LOAD_ABI_MISMATCH", Fault::Release));
    assert!(text.contains("the plugin has ABI 2.0, this host has 1"), "{text}");
    let (code, _, text) = refused(launch(&["NO_TABLE"]).await);
    assert_eq!(code, "LOAD_ABI_MISMATCH");
    assert!(text.contains("returned no table"), "{text}");
}

pub(crate) async fn a_descriptor_that_is_none_is_refused() {
    let (code, fault, text) = refused(launch(&["DESCRIPTOR=\"{\\\"format\\\":1}\""]).await);
    assert_eq!((code, fault), ("LOAD_DESCRIPTOR_INVALID", Fault::Release));
    assert!(text.contains("missing field"), "{text}");
}

pub(crate) async fn a_descriptor_other_than_the_signed_one_is_refused() {
    let good = launch(&[]).await.unwrap().descriptor().clone();
    let launch = async |descriptor: Bytes| {
        LAUNCHER.launch(&specimen(&[]), WorkerSpec { descriptor: Some(descriptor), ..spec() }).await
    };
    launch(good.clone()).await.unwrap();
    let signed = String::from_utf8(good.to_vec()).unwrap().replace("1.0.0", "1.0.1");
    let (code, fault, text) = refused(launch(signed.into()).await);
    assert_eq!((code, fault), ("LOAD_DESCRIPTOR_DIFFERS", Fault::Release));
    assert!(text.contains("from byte") && text.contains("1.0.1"), "{text}");
}

pub(crate) async fn a_constructor_that_crashes_is_a_crash_of_the_release() {
    for (act, cause) in [
        ("abort()", Cause::Signal(libc::SIGABRT)),
        ("*(volatile int *)0=1", Cause::Signal(libc::SIGSEGV)),
        ("exit(0)", Cause::Exited(0)),
        ("_exit(7)", Cause::Exited(7)),
    ] {
        let error = launch(&[&format!("ON_LOAD={act}")]).await.unwrap_err();
        assert_eq!((error.code(), error.fault()), ("LOAD_CRASHED", Fault::Release), "{act}: {error}");
        let LoadError::Crashed(death) = &error else { panic!("{error}") };
        assert_eq!(death.cause, cause, "{act}");
        assert_eq!(death.running, ["the loading"]);
        let (own, crash) = error.log_tail().split_at("constructor ran\n".len());
        assert_eq!(own, "constructor ran\n", "{act}");
        assert_eq!(
            crash.starts_with("crash: SIG"),
            matches!(death.cause, Cause::Signal(_)),
            "{act}: {crash}"
        );
    }
}

pub(crate) async fn a_constructor_that_does_not_end_runs_out_of_time() {
    let limits = Limits { load_timeout: Duration::from_millis(400), ..limits() };
    for act in ["spin()", "nap(1000000)"] {
        let image = specimen(&[&format!("ON_LOAD={act}")]);
        let error =
            LAUNCHER.launch(&image, WorkerSpec { limits: limits.clone(), ..spec() }).await.unwrap_err();
        assert_eq!((error.code(), error.fault()), ("LOAD_TIMEOUT", Fault::Release), "{error}");
        assert!(error.to_string().ends_with("400 ms; its last line: constructor ran"), "{error}");
    }
    until("the end of all children", || children().is_empty()).await;
}

pub(crate) async fn a_host_too_slow_to_lock_a_worker_in_blames_itself() {
    for load_timeout in [Duration::ZERO, Duration::from_millis(1)] {
        let limits = Limits { load_timeout, ..limits() };
        let result = LAUNCHER.launch(&specimen(&[]), WorkerSpec { limits, ..spec() }).await;
        let (code, fault, text) = refused(result);
        assert_eq!((code, fault), ("WORKER_START_FAILED", Fault::Host), "{text}");
    }
    until("the end of all children", || children().is_empty()).await;
}

pub(crate) async fn a_constructor_that_eats_memory_is_ended_for_it() {
    let error = launch(&["ON_LOAD=eat(600),nap(1000000)"]).await.unwrap_err();
    assert_eq!((error.code(), error.fault()), ("WORKER_MEMORY", Fault::Release), "{error}");
}

pub(crate) async fn a_launch_that_nobody_waits_for_leaves_nothing() {
    let image = specimen(&["ON_LOAD=spin()"]);
    let launch = tokio::spawn(async move { LAUNCHER.launch(&image, spec()).await.map(drop) });
    until("the worker's start", || !children().is_empty()).await;
    launch.abort();
    assert!(launch.await.unwrap_err().is_cancelled());
    until("the worker's end", || children().is_empty()).await;
}

/// What a constructor may write to the host, to look like a host that can't help it: a frame's length, field, and words.
const CLAIMS: [(&str, &str); 5] = [
    ("no threads", r"\0\0\0\7\042\005\010\005\022\001x"),
    ("a library is missing", r"\0\0\0\7\042\005\010\004\022\001x"),
    ("another build", r"\0\0\0\3\012\001x"),
    ("no sandbox", r"\0\0\0\010\022\006\012\001x\022\001x"),
    ("a library is missing, said too late", r"\0\0\0\3\032\001x"),
];

pub(crate) async fn a_constructor_that_claims_a_lack_of_the_host_is_blamed_itself() {
    let signed = launch(&[]).await.unwrap().descriptor().clone();
    for (claim, frame) in CLAIMS {
        let image = specimen(&[&format!("ON_LOAD=claim(\"{frame}\",sizeof(\"{frame}\")-1)")]);
        let spec = WorkerSpec { descriptor: Some(signed.clone()), ..spec() };
        let (code, fault, text) = refused(LAUNCHER.launch(&image, spec).await);
        assert_eq!(fault, Fault::Release, "{claim}: {code} {text}");
    }
}
