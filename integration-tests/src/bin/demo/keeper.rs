//! The keeper: starts the story, waits for its end or a signal, and leaves nothing behind.
//!
//! The story leads a process group, so that a Ctrl-C in the terminal reaches the keeper alone, and one signal ends
//! all that the story has started. Should the keeper itself be killed, the story sees it, and does the same.

use std::{
    io::{self, Read},
    process::{ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitOptions, getpid, kill_current_process_group, kill_process_group,
        set_child_subreaper, wait,
    },
};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind},
};

use crate::{
    Format, Options, complain,
    report::{failed, interrupted},
    stage::Stage,
    tell,
};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks at them.
const PAUSE: Duration = Duration::from_millis(5);

/// How the demo came to its end.
enum End {
    /// The story's process ended by itself.
    Told(ExitStatus),
    Interrupted(Interrupt),
}

/// A signal that asks the demo to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interrupt {
    Hangup,
    CtrlC,
    Terminate,
}

/// Runs the story in a process of its own, and cleans up behind it.
pub(crate) async fn run(options: &Options) -> ExitCode {
    let ended = keep_order(options).await;
    let (last, code) = ended.unwrap_or_else(|error| judged(failed(&format!("{error:#}"))));
    if options.output == Format::Json {
        tell(&last.to_string());
    }
    code
}

/// Returns the last line for programs, and the exit code.
async fn keep_order(options: &Options) -> Result<(Value, ExitCode)> {
    let mut signals = Signals::listen()?;
    // Whoever loses its parent comes to the keeper, which so knows when all are gone.
    set_child_subreaper(Some(getpid())).context("becoming the parent of orphans")?;
    let stage = Stage::set_up()?;
    let end = until_the_end(&stage, options, &mut signals).await;
    let result = stage.result();
    // Before the first word about the end: when it is told, all is gone.
    let gone = everyone_is_gone().and_then(|()| stage.clear());
    let end = end?;
    gone.map(|()| verdict(end, result, options.keep))
}

async fn until_the_end(stage: &Stage, options: &Options, signals: &mut Signals) -> Result<End> {
    let mut story = start_the_story(stage, options)?;
    let group = story.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the story's id")?;
    // Open as long as the keeper lives: it is how the story knows.
    let alive = story.stdin.take();
    let end = tokio::select! {
        status = story.wait() => status.map(End::Told).context("waiting for the story"),
        interrupt = signals.next() => Ok(End::Interrupted(interrupt)),
    };
    match kill_process_group(group, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(error).context("ending the processes of the demo"),
    }
    drop(alive);
    end
}

fn start_the_story(stage: &Stage, options: &Options) -> Result<Child> {
    // This very program, even when the build has put another one in its place.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("fleetswap-story").arg("--stage").arg(stage.folder()).env("TMPDIR", stage.folder());
    for (wanted, option) in [(options.keep, "--keep"), (options.no_build, "--no-build")] {
        if wanted {
            command.arg(option);
        }
    }
    command.process_group(0).stdin(Stdio::piped()).spawn().context("starting the story")
}

/// Waits until no child is left; plugin workers, which lead groups of their own, end with their agents.
fn everyone_is_gone() -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return Ok(()),
            Err(error) if error != Errno::INTR => return Err(error).context("waiting for the processes"),
            Ok(None) => {
                ensure!(Instant::now() < end, "a process of the demo does not end; see `ps`");
                thread::sleep(PAUSE);
            }
            Ok(Some(_)) | Err(_) => {}
        }
    }
}

fn verdict(end: End, result: Option<Value>, keep: bool) -> (Value, ExitCode) {
    match (end, result) {
        (End::Told(_), Some(result)) => judged(result),
        (End::Told(status), None) => judged(failed(&format!("the story broke off: {status}"))),
        (End::Interrupted(Interrupt::CtrlC), Some(result)) if keep => {
            tell("\ndemo: the fleet is taken down");
            judged(result)
        }
        (End::Interrupted(interrupt), _) => {
            let name = interrupt.name();
            complain(&format!("interrupted by {name}; its processes and its folder are gone"));
            (interrupted(name), interrupt.exit_code())
        }
    }
}

/// What the story's own result means for the exit code; why it failed is told.
fn judged(result: Value) -> (Value, ExitCode) {
    if let Some(why) = result["failed"].as_str() {
        complain(why);
    }
    let code = if result["ok"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    (result, code)
}

/// For the story: should the keeper be killed, the story clears the stage and ends itself and all that it started.
pub(crate) fn end_with_the_keeper(stage: Stage) {
    thread::spawn(move || {
        // Nothing is ever written there: the read returns when the keeper has gone.
        drop(io::stdin().read(&mut [0]));
        if let Err(error) = stage.clear() {
            complain(&format!("{error:#}"));
        }
        // It ends this process too, so nobody would hear of an error.
        let _ = kill_current_process_group(Signal::KILL);
    });
}

/// The signals that ask the demo to end.
struct Signals {
    hangup: unix::Signal,
    ctrl_c: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| unix::signal(kind).context("listening for signals");
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            ctrl_c: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Interrupt {
        tokio::select! {
            _ = self.hangup.recv() => Interrupt::Hangup,
            _ = self.ctrl_c.recv() => Interrupt::CtrlC,
            _ = self.terminate.recv() => Interrupt::Terminate,
        }
    }
}

impl Interrupt {
    fn name(self) -> &'static str {
        match self {
            Self::Hangup => "SIGHUP",
            Self::CtrlC => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// 128 and the signal's number, as shells count.
    fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Hangup => 129,
            Self::CtrlC => 130,
            Self::Terminate => 143,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_story_that_has_ended_by_itself_decides() {
        for (ok, code) in [(true, ExitCode::SUCCESS), (false, ExitCode::FAILURE)] {
            let result = json!({ "ok": ok });
            let told = End::Told(ExitStatus::default());
            assert_eq!(verdict(told, Some(result.clone()), false), (result, code));
        }
    }
}
