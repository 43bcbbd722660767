//! Constructors: code of a release that runs before anybody has asked it anything, signed and listed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::eventually;

use super::{
    stage::{NEW, OLD, Stage, answers},
    thief::Forged,
};

/// Longer than a constructor may take to load, in milliseconds.
const PATIENT_MS: u64 = 60_000;

/// Tries what no plugin may, and says how that went.
const BREAKS_OUT: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void tell(const char *what, long result) {
    char line[96];
    int length = snprintf(line, sizeof line, "%s: %s\n", what, result < 0 ? "refused" : "ALLOWED");
    if (write(1, line, length) < 0) _exit(9);
}

__attribute__((constructor)) static void break_out(void) {
    char *const none[] = {0};
    tell("passwd", open("/etc/passwd", O_RDONLY));
    tell("unix socket", socket(AF_UNIX, SOCK_STREAM, 0));
    tell("inet socket", socket(AF_INET, SOCK_STREAM, 0));
    tell("inet6 socket", socket(AF_INET6, SOCK_DGRAM, 0));
    tell("netlink socket", socket(AF_NETLINK, SOCK_RAW, 0));
    tell("execve", execve("/bin/true", none, none));
    tell("fork", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    tell("ask about the parent", kill(getppid(), 0));
    tell("kill the parent", kill(getppid(), SIGKILL));
    tell("ptrace", ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    tell("the end", 0);
}
"#;

#[test]
fn a_constructor_that_breaks_out_is_denied_everything_and_the_agent_is_unharmed() -> Result<()> {
    let stage = Stage::set()?;
    let pid = stage.pid()?;
    let rollout = stage.release(NEW, stage.library(NEW, BREAKS_OUT, &[])?)?;
    ensure!(rollout["state"] == "SUCCEEDED", "the probe decides, and it is green: {rollout}");
    let log = stage.log()?;
    let attempts =
        BREAKS_OUT.lines().filter_map(|line| line.trim().strip_prefix("tell(\"")?.split('"').next());
    for attempt in attempts.filter(|attempt| *attempt != "the end") {
        ensure!(log.contains(&format!("{attempt}: refused")), "{attempt} is not refused: {log}");
    }
    ensure!(log.contains("the end: ALLOWED"), "it came to its end: {log}");
    ensure!(stage.pid()? == pid && stage.children()?.len() == 1, "one agent, one worker");
    stage.serves(NEW)
}

/// A constructor that never comes to its end, and how it may be told.
struct Death {
    name: &'static str,
    code: &'static str,
    failures: &'static [&'static str],
}

const DEATHS: [Death; 5] = [
    Death { name: "abort", code: "abort();", failures: &["LOAD_CRASHED"] },
    Death { name: "infinite loop", code: "for (;;) nothing++;", failures: &["LOAD_TIMEOUT"] },
    Death {
        name: "10 GiB",
        code: "for (long mib = 0; mib < 10240; mib++) memset(malloc(1 << 20), 1, 1 << 20);",
        failures: &["LOAD_CRASHED", "WORKER_MEMORY", "LOAD_TIMEOUT"],
    },
    Death {
        name: "100,000 threads",
        code: "pthread_t thread; for (int n = 0; n < 100000; n++) pthread_create(&thread, 0, rests, 0); rests(0);",
        failures: &["WORKER_THREADS"],
    },
    Death { name: "stack overflow", code: "nothing = deep(1);", failures: &["LOAD_CRASHED"] },
];

#[test]
fn a_constructor_that_never_ends_well_costs_no_call_and_leaves_no_process() -> Result<()> {
    let stage = Stage::set()?;
    let (pid, workers) = (stage.pid()?, stage.children()?);
    ensure!(workers.len() == 1, "one worker: {workers:?}");
    for (number, death) in DEATHS.iter().enumerate() {
        let version = format!("1.1.{number}");
        let code = format!(
            "#include <pthread.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
             static volatile long nothing;\n\
             static void *rests(void *none) {{ for (;;) sleep(1000); return none; }}\n\
             static long deep(long n) {{ volatile char page[4096]; page[0] = n; return deep(n + 1) + page[0]; }}\n\
             __attribute__((constructor(65535))) static void die(void) {{ (void)rests, (void)deep; {} }}\n",
            death.code
        );
        let library = stage.library(&version, &code, &[])?;
        let release = Forged::subject(&version, library)?;
        stage.runtime.block_on(stage.thief.publish(&release))?;
        let roll_out = || stage.roll_out_within(&release, PATIENT_MS);
        let rollout = answered_meanwhile(&stage, roll_out).context(death.name)?;
        let failure = &rollout["failure"];
        ensure!(failure["fault"] == "release", "{}: {failure}", death.name);
        ensure!(death.failures.iter().any(|code| failure["code"] == *code), "{}: {failure}", death.name);
        ensure!(failure["failed_state"] == "LOADING", "{}: {failure}", death.name);
        eventually("nothing is left of it", || Ok((stage.children()? == workers).then_some(())))?;
        ensure!(stage.pid()? == pid, "{}: the agent is another one", death.name);
    }
    stage.recovers("1.2.0")
}

/// Does something while a caller calls: every call is answered by the old release.
fn answered_meanwhile<T>(stage: &Stage, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let host = stage.agent().caller();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                answers(&host, OLD)?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        caller.join().ok().context("the caller panicked")??;
        ensure!(answered.load(Ordering::Relaxed) > 0, "nobody has called");
        done
    })
}
