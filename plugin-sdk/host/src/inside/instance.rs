//! Instance: the plugin's functions as the worker runs them, each only where it is legal.
use super::{
    library::Plugin,
    occupancy::{Illegal, Occupancy},
    sink::{Answer, Output, lend, slice},
};
use crate::{
    LINE_MAX,
    frames::{EXPIRED, Op, Request, UNKNOWN},
    log::PLUGIN_MARK,
};
use fleetswap_plugin_abi::{
    self as abi, BODY_MAX, Function, LOG_DEBUG, LOG_ERROR, Phase, STATE_MAX, Status, WORDS_MAX,
};
use std::{
    ffi::c_void,
    io::Write,
    ptr::null_mut,
    sync::atomic::{AtomicPtr, Ordering},
    time::{Duration, Instant},
};

/// The error of a `create` that says OK and gives nothing.
const NO_INSTANCE: &str =
    r#"{"code":"NO_INSTANCE","message":"create returned OK, and the instance that it gave is null"}"#;

/// The loaded plugin with at most one instance.
pub(super) struct Instance {
    plugin: Plugin,
    occupancy: Occupancy,
    /// What `create` made. Only used within a stay in the occupancy, where it is set.
    pointer: AtomicPtr<c_void>,
}

/// A request with the moment when it came.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) arrived: Instant,
}

impl Job {
    /// Nanoseconds left until its deadline; None once it is over.
    fn left(&self) -> Option<u64> {
        let left = Duration::from_nanos(self.request.deadline_ns).checked_sub(self.arrived.elapsed())?;
        u64::try_from(left.as_nanos()).ok().filter(|&left| left > 0)
    }
}

/// Why the plugin was not asked.
enum NotAsked {
    /// Not now.
    Illegal,
    /// Its deadline was over.
    Expired,
}

impl From<Illegal> for NotAsked {
    fn from(_: Illegal) -> Self {
        Self::Illegal
    }
}

/// What every instance may use of its host.
static HOST: Host =
    Host(abi::Host { size: size_of::<abi::Host>() as u32, reserved: 0, context: null_mut(), log });

struct Host(abi::Host);

// SAFETY: the context is null and never followed; the rest is plain numbers and an address of code.
unsafe impl Sync for Host {}

impl Instance {
    pub(super) const fn new(plugin: Plugin, occupancy: Occupancy) -> Self {
        Self { plugin, occupancy, pointer: AtomicPtr::new(null_mut()) }
    }

    /// Runs one request; an illegal or a late one is answered without asking the plugin.
    pub(super) fn run(&self, op: Op, job: &Job) -> Answer {
        if job.left().is_none() {
            return Answer::only(EXPIRED);
        }
        let answer = match op {
            Op::Call => self.call(job),
            Op::Health => self.health(),
            Op::Create => self.create(&job.request.body),
            Op::Activate => self.activate(),
            Op::Deactivate => self.deactivate(),
            Op::SaveState => self.save_state(job.request.version),
            Op::RestoreState => self.restore_state(job.request.version, &job.request.body),
            Op::Destroy => self.destroy(),
        };
        match answer {
            Ok(answer) if is_known(answer.status) => answer,
            Ok(answer) => Answer { status: UNKNOWN, body: answer.status.0.to_string().into() },
            Err(NotAsked::Illegal) => Answer::only(Status::ILLEGAL),
            Err(NotAsked::Expired) => Answer::only(EXPIRED),
        }
    }

    fn call(&self, job: &Job) -> Result<Answer, NotAsked> {
        let request = &job.request;
        let name = std::str::from_utf8(&request.function).ok();
        let Some(function) = name.and_then(|name| self.plugin.parsed.function(name)) else {
            return Ok(Answer::only(Status::UNKNOWN_FUNCTION));
        };
        let kind = if function.probe_safe { Function::CallProbeSafe } else { Function::Call };
        let _stay = self.occupancy.enter(kind)?;
        // Asked only now: it may have waited for a control function.
        let Some(left) = job.left() else { return Err(NotAsked::Expired) };
        let (name, input) = (lend(&request.function), lend(&request.body));
        Ok(Output::new(BODY_MAX).collect(|out| {
            // SAFETY: the instance exists in each phase in which the stay is granted, and is not destroyed
            // during it; name, input and sink live while the function runs.
            unsafe { (self.plugin.table.call)(self.pointer(), name, input, left, out) }
        }))
    }

    fn health(&self) -> Result<Answer, NotAsked> {
        let _stay = self.occupancy.enter(Function::Health)?;
        Ok(Output::new(WORDS_MAX).collect(|detail| {
            // SAFETY: the instance exists and stays; the sink lives while the function runs.
            unsafe { (self.plugin.table.health)(self.pointer(), detail) }
        }))
    }

    fn create(&self, config: &[u8]) -> Result<Answer, NotAsked> {
        let _stay = self.occupancy.create()?;
        let mut instance = null_mut();
        let answer = Output::new(WORDS_MAX).collect(|error| {
            // SAFETY: the host table is static; config, the place for the instance and the sink live while the
            // function runs.
            unsafe { (self.plugin.table.create)(&raw const HOST.0, lend(config), &raw mut instance, error) }
        });
        if answer.status == Status::OK {
            if instance.is_null() {
                return Ok(Answer { status: Status::ERROR, body: NO_INSTANCE.into() });
            }
            self.pointer.store(instance, Ordering::Release);
            self.occupancy.set_phase(Some(Phase::Created));
        }
        Ok(answer)
    }

    fn activate(&self) -> Result<Answer, NotAsked> {
        self.turn(Function::Activate, self.plugin.table.activate, Phase::Active)
    }

    fn deactivate(&self) -> Result<Answer, NotAsked> {
        self.turn(Function::Deactivate, self.plugin.table.deactivate, Phase::Deactivated)
    }

    /// Calls a function that takes the instance into another phase, if it succeeds.
    fn turn(
        &self,
        function: Function,
        code: unsafe extern "C" fn(abi::Instance, *const abi::Sink) -> Status,
        next: Phase,
    ) -> Result<Answer, NotAsked> {
        let _stay = self.occupancy.control(function)?;
        let answer = Output::new(WORDS_MAX).collect(|error| {
            // SAFETY: the instance exists and stays; the sink lives while the function runs.
            unsafe { code(self.pointer(), error) }
        });
        if answer.status == Status::OK {
            self.occupancy.set_phase(Some(next));
        }
        Ok(answer)
    }

    fn save_state(&self, version: u32) -> Result<Answer, NotAsked> {
        let _stay = self.occupancy.control(Function::SaveState)?;
        Ok(Output::new(STATE_MAX).collect(|out| {
            // SAFETY: the instance exists and stays; the sink lives while the function runs.
            unsafe { (self.plugin.table.save_state)(self.pointer(), version, out) }
        }))
    }

    fn restore_state(&self, version: u32, state: &[u8]) -> Result<Answer, NotAsked> {
        let _stay = self.occupancy.control(Function::RestoreState)?;
        Ok(Output::new(WORDS_MAX).collect(|error| {
            // SAFETY: the instance exists and stays; state and sink live while the function runs.
            unsafe { (self.plugin.table.restore_state)(self.pointer(), version, lend(state), error) }
        }))
    }

    fn destroy(&self) -> Result<Answer, NotAsked> {
        let _stay = self.occupancy.control(Function::Destroy)?;
        // SAFETY: the instance exists, nothing else is in it, and it is not used again: it has no phase.
        unsafe { (self.plugin.table.destroy)(self.pointer()) };
        self.pointer.store(null_mut(), Ordering::Release);
        self.occupancy.set_phase(None);
        Ok(Answer::only(Status::OK))
    }

    fn pointer(&self) -> abi::Instance {
        self.pointer.load(Ordering::Acquire)
    }
}

/// Whether the ABI has this status.
const fn is_known(status: Status) -> bool {
    Status::OK.0 <= status.0 && status.0 <= Status::TOO_LARGE.0
}

/// The host's log function: one line to the log pipe, in one write, so that lines don't mix.
unsafe extern "C" fn log(_: *mut c_void, level: u32, line: abi::Bytes) {
    // SAFETY: the plugin says that these bytes are readable until this returns.
    let text = unsafe { slice(line) };
    let level = level.clamp(LOG_ERROR, LOG_DEBUG);
    let mut bytes = Vec::with_capacity(LINE_MAX);
    bytes.extend_from_slice(&[PLUGIN_MARK, b'0' + level as u8]);
    let room = LINE_MAX - bytes.len() - 1;
    bytes.extend(text.iter().take(room).map(|&byte| if byte == b'\n' { b' ' } else { byte }));
    bytes.push(b'\n');
    // The plugin has no use for the news that the host does not read its log.
    let _ = std::io::stderr().write_all(&bytes);
}
