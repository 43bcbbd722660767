//! One plugin as its callers see it: a gate, and behind it the release that answers.
//!
//! A call that was not yet written to a worker goes to whichever release is in place next, waiting in the gate's
//! bounded queue. One that was written when its worker died is repeated once if the function is idempotent.

mod instance;
mod leaving;
mod live;
mod package;
mod registry;
#[cfg(test)]
pub(crate) mod testing;
mod watch;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fleetswap_host::{CallError, EnterError, Gate, Guard, Retired};
use fleetswap_update::Installed;
use tokio::{sync::mpsc, task::AbortHandle, time::Instant};

use crate::calls::{Answer, CallFailure, CallRequest, PluginInfo};
use leaving::Leaving;

pub(crate) use instance::{Instance, Launch, Launcher};
pub(crate) use leaving::Leave;
pub(crate) use live::Live;
pub(crate) use package::{Package, RELEASE_FILES_MISSING, Shelf, disk};
pub(crate) use registry::Registry;
pub(crate) use watch::WorkerGone;

/// Largest output of a call, in bytes; the worker's sink enforces it.
const OUTPUT_MAX: usize = 1024 * 1024;
/// When a caller should ask again after a restart.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// One plugin as its callers see it.
pub(crate) struct Service {
    name: String,
    gate: Gate<Arc<Live>>,
    control: Mutex<Control>,
    leaving: Leaving,
    gone: mpsc::UnboundedSender<WorkerGone>,
}

/// What only one hand at a time may change, together with the gate.
struct Control {
    standing: Standing,
    watch: Option<AbortHandle>,
}

/// Why callers are let in or turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing runs here.
    Empty,
    /// A release answers.
    Serving,
    /// One will go on answering; callers wait while a swap is under way.
    Held,
    /// Its worker ended, or none was started yet; callers wait.
    Waiting,
    /// A start is tried at this time.
    Down(Instant),
    /// The agent is stopping.
    Stopping,
}

impl Service {
    /// A plugin without a worker: callers wait if one is `expected`, else there is nothing for them here. `gone`
    /// hears of every worker that ends in place.
    pub(crate) fn new(name: String, expected: bool, gone: mpsc::UnboundedSender<WorkerGone>) -> Arc<Self> {
        let gate = Gate::paused();
        let standing = if expected { Standing::Waiting } else { Standing::Empty };
        if !expected {
            drop(gate.shut());
        }
        let control = Mutex::new(Control { standing, watch: None });
        Arc::new(Self { name, gate, control, leaving: Leaving::default(), gone })
    }

    /// Puts a release in place and lets callers in. Its worker is watched from now on, the old one is not.
    pub(crate) fn place(self: &Arc<Self>, live: Arc<Live>) -> Option<Retired<Arc<Live>>> {
        let mut control = self.lock();
        let watch = watch::spawn(Arc::clone(self), Arc::clone(&live));
        if let Some(old) = control.watch.replace(watch) {
            old.abort();
        }
        control.standing = Standing::Serving;
        let old = self.gate.swap(live);
        self.gate.resume();
        old
    }

    /// Callers wait from now on, if anything answered them.
    pub(crate) fn hold(&self) {
        let mut control = self.lock();
        if control.standing == Standing::Serving {
            control.standing = Standing::Held;
            self.gate.pause();
        }
    }

    /// Whether callers wait for a swap.
    fn is_held(&self) -> bool {
        self.lock().standing == Standing::Held
    }

    /// Lets callers in again to the release in place, unless its worker has ended meanwhile.
    pub(crate) fn reopen(&self) {
        let mut control = self.lock();
        if control.standing == Standing::Held {
            control.standing = Standing::Serving;
            self.gate.resume();
        }
    }

    /// The release in place is given up; callers wait for another. Its calls in flight are the caller's to end.
    pub(crate) fn vacate(&self) -> Option<Arc<Live>> {
        let mut control = self.lock();
        if let Some(watch) = control.watch.take() {
            watch.abort();
        }
        if matches!(control.standing, Standing::Serving | Standing::Held) {
            control.standing = Standing::Waiting;
        }
        self.gate.pause();
        self.gate.peek()
    }

    /// Gives the release in place another id, without touching its worker.
    pub(crate) fn adopt(self: &Arc<Self>, installed: &Installed) {
        let same = |live: &Arc<Live>| live.installed.part == installed.part;
        if let Some(live) = self.live().filter(same) {
            drop(self.place(Arc::new(live.adopted(installed.clone()))));
        }
    }

    /// Callers are told to come back after `until`.
    pub(crate) fn down(&self, until: Instant) {
        self.turn_away(Standing::Down(until));
    }

    /// Nothing runs here any more. Returns what did.
    pub(crate) fn empty(&self) -> Option<Retired<Arc<Live>>> {
        self.turn_away(Standing::Empty)
    }

    /// The agent stops. Returns what ran.
    pub(crate) fn stop(&self) -> Option<Retired<Arc<Live>>> {
        self.turn_away(Standing::Stopping)
    }

    fn turn_away(&self, standing: Standing) -> Option<Retired<Arc<Live>>> {
        let mut control = self.lock();
        control.standing = standing;
        if let Some(watch) = control.watch.take() {
            watch.abort();
        }
        self.gate.shut()
    }

    /// A release that was in place is on its way out until the answer is dropped.
    pub(crate) fn leaves(&self, live: &Arc<Live>) -> Leave {
        self.leaving.enter(live)
    }

    /// Waits until this release may be active: at most one is, if either has state or works in the background.
    pub(crate) async fn cleared_for(&self, installed: &Installed) {
        self.leaving.cleared_for(installed).await;
    }

    /// The release in place.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.gate.peek()
    }

    /// The gate, to look at its queue and its calls in flight.
    pub(crate) const fn gate(&self) -> &Gate<Arc<Live>> {
        &self.gate
    }

    /// The worker of `live` ended. Callers wait, if it was in place.
    fn worker_gone(&self, live: &Arc<Live>) -> bool {
        let mut control = self.lock();
        let in_place = self.gate.peek().is_some_and(|present| Arc::ptr_eq(&present, live));
        if in_place && matches!(control.standing, Standing::Serving | Standing::Held) {
            control.standing = Standing::Waiting;
            self.gate.pause();
        }
        in_place
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one call; answers exactly once, by its deadline.
    pub(crate) async fn call(&self, request: CallRequest) -> Answer {
        let deadline = Instant::now() + request.timeout;
        let mut repeated = false;
        loop {
            let guard = match self.gate.enter(request.input.len(), deadline).await {
                Ok(guard) => guard,
                Err(error) => return self.turned_away(error),
            };
            let outcome = ask(&guard, &request, deadline).await;
            let Err(CallError::Died { written, .. }) = outcome else {
                return answer(&guard, &request, outcome);
            };
            let live = Arc::clone(&guard);
            self.worker_gone(&live);
            // The dead worker's count must fall before the call waits for the next one.
            drop(guard);
            if written && (repeated || !is_idempotent(&live, &request.function)) {
                return failed(&live, CallFailure::WorkerDied { executed: "unknown" });
            }
            repeated |= written;
        }
    }

    fn turned_away(&self, error: EnterError) -> Answer {
        let failure = match error {
            EnterError::QueueFull => CallFailure::QueueFull,
            EnterError::Deadline => CallFailure::Deadline,
            EnterError::Shut => match self.lock().standing {
                Standing::Empty => CallFailure::UnknownPlugin(self.name.clone()),
                Standing::Down(until) => {
                    let wait = until.saturating_duration_since(Instant::now());
                    CallFailure::Down { retry_after: wait.max(RETRY_SOON) }
                }
                Standing::Serving | Standing::Held | Standing::Waiting => {
                    CallFailure::Down { retry_after: RETRY_SOON }
                }
                Standing::Stopping => CallFailure::Stopping,
            },
        };
        Answer { tag: self.live().map(|live| Arc::clone(&live.tag)), outcome: Err(failure) }
    }

    /// As `GET /v1/plugins` shows it; `None` if nothing runs here.
    pub(crate) fn info(&self) -> Option<PluginInfo> {
        let standing = self.lock().standing;
        let service = match standing {
            Standing::Empty => return None,
            Standing::Serving | Standing::Held => "SERVING",
            Standing::Waiting | Standing::Stopping => "RESTARTING",
            Standing::Down(_) => "DOWN",
        };
        let live = self.live();
        let functions =
            |live: &Live| live.package.descriptor.functions.iter().map(|it| it.name.clone()).collect();
        Some(PluginInfo {
            plugin: self.name.clone(),
            service,
            release_id: live.as_ref().map(|live| live.tag.release_id.clone()).unwrap_or_default(),
            version: live.as_ref().map(|live| live.tag.version.clone()).unwrap_or_default(),
            functions: live.as_deref().map(functions).unwrap_or_default(),
            worker_pid: live.as_ref().filter(|live| !live.instance.is_gone()).map(|live| live.instance.pid()),
        })
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}

async fn ask(live: &Guard<Arc<Live>>, request: &CallRequest, deadline: Instant) -> Result<Bytes, CallError> {
    let function = request.function.as_str();
    if live.package.descriptor.function(function).is_none() {
        return Err(CallError::UnknownFunction);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let outcome = live.instance.call(function, request.input.clone(), left).await;
    live.signs.note_call(function, left, outcome.as_ref().map(drop));
    outcome
}

fn is_idempotent(live: &Live, function: &str) -> bool {
    live.package.descriptor.function(function).is_some_and(|function| function.idempotent)
}

fn answer(live: &Live, request: &CallRequest, outcome: Result<Bytes, CallError>) -> Answer {
    match outcome {
        Ok(output) => Answer { tag: Some(Arc::clone(&live.tag)), outcome: Ok(output) },
        Err(error) => failed(live, failure(request, error)),
    }
}

fn failed(live: &Live, failure: CallFailure) -> Answer {
    Answer { tag: Some(Arc::clone(&live.tag)), outcome: Err(failure) }
}

fn failure(request: &CallRequest, error: CallError) -> CallFailure {
    match error {
        CallError::UnknownFunction => CallFailure::UnknownFunction(request.function.clone()),
        CallError::BadInput { field, message } => CallFailure::BadInput { field, message },
        CallError::Plugin { code, message } => CallFailure::Plugin { code, message },
        CallError::Panic(message) => CallFailure::Panic(message),
        CallError::TooLarge => CallFailure::TooLarge { what: "output", limit: OUTPUT_MAX },
        CallError::Deadline => CallFailure::Deadline,
        CallError::Illegal | CallError::Unsupported => {
            CallFailure::Panic(format!("the plugin refused the call: {error}"))
        }
        CallError::Died { .. } => CallFailure::WorkerDied { executed: "unknown" },
    }
}

#[cfg(test)]
mod tests;
