//! Worker: the host's handle of one worker process.
mod mux;
mod room;

use crate::{
    CallError, Cause, Death, Launcher, Level, Limits, LogSink, POOL_MAX,
    frames::{EXPIRED, Op, Request, UNKNOWN},
    launcher::Frames,
    limits::OWN_THREADS,
    log::{self, Tail},
    process::{Handle, Process},
};
use bytes::Bytes;
use fleetswap_plugin_abi::Status;
use mux::Mux;
use room::Room;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::unix::OwnedWriteHalf,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};

/// How long a worker that closed its socket may take to end.
const EXIT_GRACE: Duration = Duration::from_millis(200);
/// How long replies of a dead worker are still read.
const READ_GRACE: Duration = Duration::from_millis(500);

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// Name of the plugin, for process lists and logs.
    pub plugin: String,
    /// Version of the plugin, likewise.
    pub version: String,
    /// The signed descriptor, which `describe()` must equal byte by byte. None: whatever it says is taken.
    pub descriptor: Option<Bytes>,
    /// What it may use.
    pub limits: Limits,
    /// How strictly it is locked in: exactly so, or not at all. [`crate::sandbox_level`] says what this host can give.
    pub level: Level,
    /// Where its log lines go.
    pub log: LogSink,
}

/// A worker with a loaded library. Cheap to clone; when the last clone is dropped, the process is killed.
#[derive(Clone, Debug)]
pub struct Worker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Keeps the thread alive that the worker's life is tied to.
    _launcher: Launcher,
    process: Process,
    mux: Arc<Mux>,
    death: watch::Receiver<Option<Arc<Death>>>,
    tail: Arc<Tail>,
    descriptor: Bytes,
    limits: Limits,
    places: Places,
}

/// Requests that may be with the worker, by kind, each closed at its death.
#[derive(Clone, Debug)]
struct Places {
    calls: Arc<Semaphore>,
    health: Arc<Semaphore>,
    control: Arc<Semaphore>,
}

/// All that the launcher hands over.
pub(crate) struct Loaded {
    pub(crate) launcher: Launcher,
    pub(crate) process: Process,
    pub(crate) frames: Frames,
    pub(crate) writer: OwnedWriteHalf,
    pub(crate) tail: Arc<Tail>,
    pub(crate) drained: JoinHandle<()>,
    pub(crate) descriptor: Bytes,
    pub(crate) concurrency: u32,
    pub(crate) limits: Limits,
}

impl Worker {
    pub(crate) fn new(loaded: Loaded) -> Self {
        let threads = loaded.concurrency.clamp(1, POOL_MAX);
        loaded.process.set_own_threads(OWN_THREADS + threads);
        let room = Room::new(threads);
        let calls = room.places();
        let (mux, writer) = Mux::new(loaded.writer, room);
        let writer = tokio::spawn(writer);
        let places =
            Places { calls, health: Arc::new(Semaphore::new(1)), control: Arc::new(Semaphore::new(1)) };
        let (sender, death) = watch::channel(None);
        let end = End {
            process: loaded.process.handle(),
            mux: Arc::clone(&mux),
            places: places.clone(),
            tail: Arc::clone(&loaded.tail),
        };
        tokio::spawn(end.attend(loaded.frames, writer, loaded.drained, sender));
        Self(Arc::new(Inner {
            _launcher: loaded.launcher,
            process: loaded.process,
            mux,
            death,
            tail: loaded.tail,
            descriptor: loaded.descriptor,
            limits: loaded.limits,
            places,
        }))
    }

    /// What `describe()` wrote.
    #[must_use]
    pub fn descriptor(&self) -> &Bytes {
        &self.0.descriptor
    }

    /// Process id, for reports.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.process.pid()
    }

    /// The last lines of its log, at most 64 KiB.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.0.tail.text()
    }

    /// Makes the instance from its config. Bounded by [`Limits::control_timeout`].
    ///
    /// # Errors
    /// The plugin's own error; a deadline; the worker's end; see [`CallError`].
    pub async fn create(&self, config: Bytes) -> Result<(), CallError> {
        self.control(Op::Create, 0, config, self.0.limits.control_timeout).await.map(drop)
    }

    /// Asks for health; the plugin's line of detail is returned.
    ///
    /// # Errors
    /// As for [`Worker::create`]; anything but `Ok` is not green.
    pub async fn health(&self, timeout: Duration) -> Result<String, CallError> {
        let request = Request { op: Op::Health as i32, ..Request::default() };
        let detail = self.request(&self.0.places.health, request, timeout).await?;
        Ok(String::from_utf8_lossy(&detail).into_owned())
    }

    /// Calls a function. At the deadline the caller is told so; the worker goes on with it, and its late reply is
    /// dropped.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(&self, function: &str, input: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let function = Bytes::copy_from_slice(function.as_bytes());
        let request = Request { op: Op::Call as i32, function, body: input, ..Request::default() };
        self.request(&self.0.places.calls, request, timeout).await
    }

    /// Starts background work. Bounded by [`Limits::control_timeout`].
    ///
    /// # Errors
    /// As for [`Worker::create`].
    pub async fn activate(&self) -> Result<(), CallError> {
        self.control(Op::Activate, 0, Bytes::new(), self.0.limits.control_timeout).await.map(drop)
    }

    /// Ends background work. Bounded by [`Limits::control_timeout`].
    ///
    /// # Errors
    /// As for [`Worker::create`].
    pub async fn deactivate(&self) -> Result<(), CallError> {
        self.control(Op::Deactivate, 0, Bytes::new(), self.0.limits.control_timeout).await.map(drop)
    }

    /// Has the plugin write its state, at most 64 MiB. Bounded by [`Limits::state_timeout`].
    ///
    /// # Errors
    /// As for [`Worker::create`].
    pub async fn save_state(&self, version: u32) -> Result<Bytes, CallError> {
        self.control(Op::SaveState, version, Bytes::new(), self.0.limits.state_timeout).await
    }

    /// Has the plugin take over a state. Bounded by [`Limits::state_timeout`].
    ///
    /// # Errors
    /// As for [`Worker::create`].
    pub async fn restore_state(&self, version: u32, state: Bytes) -> Result<(), CallError> {
        self.control(Op::RestoreState, version, state, self.0.limits.state_timeout).await.map(drop)
    }

    /// Frees the instance; illegal while it is active. Bounded by [`Limits::control_timeout`].
    ///
    /// # Errors
    /// As for [`Worker::create`].
    pub async fn destroy(&self) -> Result<(), CallError> {
        self.control(Op::Destroy, 0, Bytes::new(), self.0.limits.control_timeout).await.map(drop)
    }

    /// Waits for the end of the process; it is reaped then.
    pub async fn ended(&self) -> Arc<Death> {
        let mut death = self.0.death.clone();
        let known = death.wait_for(Option::is_some).await.ok().and_then(|death| death.clone());
        known.unwrap_or_else(|| Arc::new(shut_down()))
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn death(&self) -> Option<Arc<Death>> {
        self.0.death.borrow().clone()
    }

    /// Ends the process at once.
    pub fn kill(&self) {
        self.0.process.kill(Cause::Killed);
    }

    /// Ends the process in order: destroys the instance where that is legal, closes the socket, waits, and
    /// kills it after [`Limits::close_timeout`]. Returns when it is reaped.
    pub async fn close(&self) -> Arc<Death> {
        let patience = self.0.limits.close_timeout;
        // Illegal where there is no instance, or an active one: then it just ends.
        let _ = timeout(patience, self.destroy()).await;
        self.0.process.expect_exit();
        self.0.mux.close();
        if timeout(patience, self.ended()).await.is_err() {
            self.kill();
        }
        self.ended().await
    }

    async fn control(&self, op: Op, version: u32, body: Bytes, time: Duration) -> Result<Bytes, CallError> {
        let request = Request { op: op as i32, version, body, ..Request::default() };
        self.request(&self.0.places.control, request, time).await
    }

    /// Asks and waits, both within `time`.
    async fn request(
        &self,
        places: &Arc<Semaphore>,
        mut request: Request,
        time: Duration,
    ) -> Result<Bytes, CallError> {
        let op = Op::try_from(request.op).unwrap_or(Op::Call);
        if request.body.len() > op.request_max() {
            return Err(CallError::TooLarge);
        }
        let started = Instant::now();
        let asked = async {
            let Ok(place) = Arc::clone(places).acquire_owned().await else {
                return Err(CallError::Died { written: false, death: self.ended().await });
            };
            let left = time.saturating_sub(started.elapsed());
            request.deadline_ns = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            match self.0.mux.send(request, place).await {
                Ok(answer) => answer,
                // The runtime is shutting down and took the tasks of this worker with it.
                Err(_) => Err(CallError::Died { written: true, death: Arc::new(shut_down()) }),
            }
        };
        let (status, body) = timeout(time, asked).await.unwrap_or(Err(CallError::Deadline))?;
        interpret(status, body)
    }
}

/// The report where the runtime ended before the worker did.
fn shut_down() -> Death {
    Death::new(Cause::Killed, Vec::new(), String::new())
}

/// Looks after the end of a worker.
struct End {
    process: Handle,
    mux: Arc<Mux>,
    places: Places,
    tail: Arc<Tail>,
}

impl End {
    /// Reads replies until the worker ends, and then tells everybody. The order matters: first the replies that
    /// it still wrote, then the writer, so that what was written is final, then the report.
    async fn attend(
        self,
        frames: Frames,
        writer: JoinHandle<std::io::Result<()>>,
        drained: JoinHandle<()>,
        sender: watch::Sender<Option<Arc<Death>>>,
    ) {
        let end_of_grace = async {
            self.process.exited().await;
            tokio::time::sleep(READ_GRACE).await;
        };
        tokio::select! {
            read = mux::read(&self.mux, frames) => match read {
                Err(what) => self.process.kill(Cause::Protocol(what)),
                Ok(()) => if timeout(EXIT_GRACE, self.process.exited()).await.is_err() {
                    self.process.kill(Cause::Protocol("it closed its socket and went on".into()));
                },
            },
            () = end_of_grace => {}
            signal = self.tail.crash_is_overdue() => self.process.kill(Cause::Signal(signal)),
        }
        let cause = self.process.exited().await;
        writer.abort();
        // Either its result or that it was aborted; what it marked as written is final now.
        let _ = writer.await;
        log::drained(drained, &self.tail).await;
        let death = Arc::new(Death::report(cause, self.mux.running(), &self.tail));
        sender.send_replace(Some(Arc::clone(&death)));
        for places in [&self.places.calls, &self.places.health, &self.places.control] {
            places.close();
        }
        self.mux.bury(&death);
    }
}

/// What a status means to a caller.
fn interpret(status: Status, body: Bytes) -> Result<Bytes, CallError> {
    let text = || String::from_utf8_lossy(&body).into_owned();
    Err(match status {
        Status::OK => return Ok(body),
        Status::ERROR => {
            let [code, message] = fields(&body, ["code", "message"]);
            match code {
                Some(code) => CallError::Plugin { code, message: message.unwrap_or_default() },
                None => CallError::Plugin { code: "PLUGIN_ERROR".into(), message: text() },
            }
        }
        Status::BAD_INPUT => {
            let [field, message] = fields(&body, ["field", "message"]);
            CallError::BadInput { field: field.unwrap_or_default(), message: message.unwrap_or_else(text) }
        }
        Status::UNKNOWN_FUNCTION => CallError::UnknownFunction,
        Status::PANIC => CallError::Panic(text()),
        Status::ILLEGAL => CallError::Illegal,
        Status::UNSUPPORTED => CallError::Unsupported,
        Status::TOO_LARGE => CallError::TooLarge,
        EXPIRED => CallError::Deadline,
        UNKNOWN => CallError::Plugin {
            code: "PLUGIN_STATUS".into(),
            message: format!("the plugin returned status {}, which the ABI does not have", text()),
        },
        other => CallError::Plugin {
            code: "PLUGIN_STATUS".into(),
            message: format!("the worker answered with status {}", other.0),
        },
    })
}

/// Texts of a JSON object; a field that is missing or no text is None.
fn fields<const N: usize>(json: &[u8], names: [&str; N]) -> [Option<String>; N] {
    let object: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    names.map(|name| object.get(name).and_then(|value| value.as_str()).map(Into::into))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: Status, body: &'static str) -> CallError {
        interpret(status, Bytes::from_static(body.as_bytes())).unwrap_err()
    }

    #[test]
    fn a_plugins_error_keeps_its_code_and_words() {
        let got = error(Status::ERROR, r#"{"code":"NO_SUCH_ZONE","message":"Mars"}"#);
        assert_eq!(got, CallError::Plugin { code: "NO_SUCH_ZONE".into(), message: "Mars".into() });
    }

    #[test]
    fn an_error_that_is_no_json_still_says_what_the_plugin_said() {
        let got = error(Status::ERROR, "oops");
        assert_eq!(got, CallError::Plugin { code: "PLUGIN_ERROR".into(), message: "oops".into() });
        let got = error(Status::BAD_INPUT, "[1]");
        assert_eq!(got, CallError::BadInput { field: String::new(), message: "[1]".into() });
    }

    #[test]
    fn a_status_that_the_abi_does_not_have_is_an_error_of_the_plugin() {
        assert!(matches!(error(UNKNOWN, "-1"), CallError::Plugin { code, message }
            if code == "PLUGIN_STATUS" && message.contains("status -1")));
        assert_eq!(error(EXPIRED, ""), CallError::Deadline);
    }
}
