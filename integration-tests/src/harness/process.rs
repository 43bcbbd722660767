//! One daemon as a child process: its ready line, its log, its end.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a daemon may take to say that it is ready, and to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon; dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts a program. Standard error is appended to `log`.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let stderr = File::options().create(true).append(true).open(log).context("opening the log")?;
        Self::spawn(name, command.stdin(Stdio::null()).stderr(stderr), log)
    }

    /// The same with standard input and error as the command has them; it logs to `log` by itself.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {name}"))?;
        let pipe = child.stdout.take().context("standard output is piped")?;
        let (lines, stdout) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { name: name.to_owned(), child, stdout, log: log.to_owned() })
    }

    /// Waits for a line of standard output that contains `words`, and returns it.
    ///
    /// # Errors
    /// The process ended or stayed silent; the error carries the end of its log.
    pub fn wait_for_line(&self, words: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.stdout.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(words) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} did not say `{words}`; its log ends with:\n{}", self.name, self.log_tail())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended early; its log ends with:\n{}", self.name, self.log_tail())
                }
            }
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines that the daemon logged.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Everything that the daemon logged, over restarts too.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// The system doesn't tell.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        // Both fail only when the process has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// The process does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        signal(self.pid(), Signal::TERM)?;
        self.wait()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The process does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{} did not end in time; its log ends with:\n{}", self.name, self.log_tail());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process by its id.
///
/// # Errors
/// There is no such process.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
    kill_process(pid, signal).context("sending a signal")
}
