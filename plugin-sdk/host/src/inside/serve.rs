//! Serve: the worker's threads, from the first request to the end of the socket.
use super::{
    answers::Answers,
    crash,
    desk::{Desk, Seat, Task},
    instance::{Instance, Job},
    library::Plugin,
    occupancy::Occupancy,
    queue::Queue,
    sink::Answer,
};
use crate::{
    POOL_MAX,
    frames::{FrameReader, Op, Parts, Request},
};
use fleetswap_plugin_abi::Status;
use prost::Message;
use std::{
    fs::File,
    io,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Instant,
};

/// Stack of the threads that run the plugin's `call` and `health`, in bytes of address space.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// What the worker's threads share; it lives as long as the process.
pub(super) struct Shared {
    /// Set once the release is open. The host asks nothing before.
    instance: OnceLock<Instance>,
    answers: Answers,
    control: Queue<(Op, Job)>,
    health: Queue<(Op, Job)>,
    calls: Desk<Job>,
    /// Only for whoever is on duty at the desk.
    incoming: Mutex<Incoming>,
}

/// The socket's reading end.
struct Incoming {
    reader: FrameReader<&'static File>,
    parts: Parts,
}

impl Shared {
    /// Without threads and without a release yet.
    pub(super) fn new(socket: &'static File, reader: FrameReader<&'static File>) -> &'static Self {
        Box::leak(Box::new(Self {
            instance: OnceLock::new(),
            answers: Answers::new(socket),
            control: Queue::new(),
            health: Queue::new(),
            calls: Desk::new(),
            incoming: Mutex::new(Incoming { reader, parts: Parts::default() }),
        }))
    }

    /// Starts all threads but the control thread. They answer nothing before they are asked.
    pub(super) fn start(&'static self, pool: u32) -> io::Result<()> {
        let spawn = |name: &str| thread::Builder::new().name(name.into()).stack_size(STACK_BYTES);
        for number in 1..=pool.clamp(1, POOL_MAX) {
            spawn(&format!("call-{number}")).spawn(|| self.attend_calls())?;
        }
        spawn("health").spawn(|| self.begin(&self.health))?;
        spawn("reader").spawn(|| self.stand_in())?;
        Ok(())
    }

    /// The release is open.
    pub(super) fn set(&self, plugin: Plugin) {
        // There is one release in a worker.
        let _ = self.instance.set(Instance::new(plugin, Occupancy::default()));
    }

    /// The host asks nothing before the release is open.
    fn run(&self, op: Op, job: &Job) -> Answer {
        self.instance.get().map_or(Answer::only(Status::ILLEGAL), |instance| instance.run(op, job))
    }

    /// Serves requests until the host closes the socket. The calling thread is the control thread; it is also the
    /// one that ran the constructors.
    pub(super) fn serve(&self) -> ! {
        self.attend(&self.control)
    }

    /// As [`Shared::attend`], on a thread that has just been started.
    fn begin(&self, queue: &Queue<(Op, Job)>) -> ! {
        crash::ready();
        self.attend(queue)
    }

    /// Runs what comes into one queue, for ever.
    fn attend(&self, queue: &Queue<(Op, Job)>) -> ! {
        loop {
            let (op, job) = queue.pop();
            self.answers.send(job.request.id, self.run(op, &job), false);
        }
    }

    /// A thread of the pool.
    fn attend_calls(&self) -> ! {
        crash::ready();
        let (mut seat, mut took, mut holds) = (Seat::default(), None, false);
        loop {
            let task = self.calls.next(&mut seat, took.take());
            if holds && !matches!(task, Task::Run { quick: true, .. }) {
                self.answers.flush();
                holds = false;
            }
            match task {
                Task::Run { job, quick, more } => {
                    let started = Instant::now();
                    let answer = self.run(Op::Call, &job);
                    took = Some(started.elapsed());
                    if more {
                        holds = self.answers.hold(job.request.id, answer);
                    } else {
                        self.answers.send(job.request.id, answer, quick);
                        holds = false;
                    }
                }
                Task::Read => self.calls.bring(self.read()),
                Task::Rest => self.calls.rest(),
            }
        }
    }

    /// The reader thread: reads where no thread of the pool can.
    fn stand_in(&self) -> ! {
        loop {
            self.calls.stand_in(|| self.answers.flush());
            self.calls.bring_and_leave(self.read());
        }
    }

    /// Waits for requests, hands out those for control and health, and returns the calls. The end of the socket is the
    /// end of the worker, whatever else runs in it.
    fn read(&self) -> Vec<Job> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let Incoming { reader, parts } = &mut *incoming;
        let mut calls = Vec::new();
        let Ok(Some(first)) = reader.next() else { super::end(0) };
        let mut next = Some(first);
        while let Some(frame) = next {
            match accept(frame, parts) {
                Ok(Some((Op::Call, job))) => calls.push(job),
                Ok(Some((Op::Health, job))) => self.health.push((Op::Health, job)),
                Ok(Some((op, job))) => self.control.push((op, job)),
                Ok(None) => {}
                Err(what) => refuse(&what),
            }
            next = reader.ready().unwrap_or_else(|error| refuse(&error.to_string()));
        }
        calls
    }
}

/// The host broke the protocol.
fn refuse(what: &str) -> ! {
    eprintln!("the worker can't go on: {what}");
    super::end(super::EXIT_REFUSED)
}

/// A whole request, or None after a part that is not the last. The host sends the parts of one request in a row.
fn accept(frame: bytes::Bytes, parts: &mut Parts) -> Result<Option<(Op, Job)>, String> {
    let mut request = Request::decode(frame).map_err(|error| error.to_string())?;
    let op = Op::try_from(request.op).map_err(|error| error.to_string())?;
    let part = std::mem::take(&mut request.body);
    let body = parts
        .take(part, request.more, op.request_max())
        .map_err(|bad| format!("a request can't be put together: {bad:?}"))?;
    Ok(body.map(|body| (op, Job { request: Request { body, ..request }, arrived: Instant::now() })))
}
