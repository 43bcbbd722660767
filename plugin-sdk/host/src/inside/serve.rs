//! Serve: the worker's threads, from the first request to the end of the socket.
use super::{
    answers::Answers,
    crash,
    instance::{Instance, Job},
    library::Plugin,
    occupancy::Occupancy,
    queue::Queue,
};
use crate::{
    POOL_MAX,
    frames::{FrameReader, Op, Parts, Request},
};
use prost::Message;
use std::{fs::File, io, thread, time::Instant};

/// Stack of the threads that run the plugin's `call` and `health`, in bytes of address space.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// What the worker's threads share; it lives as long as the process.
pub(super) struct Shared {
    instance: Instance,
    answers: Answers,
    control: Queue<(Op, Job)>,
    health: Queue<(Op, Job)>,
    calls: Queue<(Op, Job)>,
}

impl Shared {
    fn queue(&self, op: Op) -> &Queue<(Op, Job)> {
        match op {
            Op::Call => &self.calls,
            Op::Health => &self.health,
            Op::Create | Op::Activate | Op::Deactivate | Op::SaveState | Op::RestoreState | Op::Destroy => {
                &self.control
            }
        }
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
            self.answers.send(job.request.id, self.instance.run(op, &job));
        }
    }
}

/// Starts all threads but the control thread. They answer nothing before they are asked.
pub(super) fn start(
    plugin: Plugin,
    socket: &'static File,
    reader: FrameReader<&'static File>,
) -> io::Result<&'static Shared> {
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        instance: Instance::new(plugin, Occupancy::default()),
        answers: Answers::new(socket),
        control: Queue::new(),
        health: Queue::new(),
        calls: Queue::new(),
    }));
    let spawn = |name: &str| thread::Builder::new().name(name.into()).stack_size(STACK_BYTES);
    for number in 1..=shared.instance.concurrency().clamp(1, POOL_MAX) {
        spawn(&format!("call-{number}")).spawn(|| shared.begin(&shared.calls))?;
    }
    spawn("health").spawn(|| shared.begin(&shared.health))?;
    spawn("reader").spawn(|| read(shared, reader))?;
    Ok(shared)
}

/// Hands requests out. The end of the socket is the end of the worker, whatever else runs in it.
fn read(shared: &Shared, mut reader: FrameReader<&'static File>) {
    let mut parts = Parts::default();
    loop {
        match reader.next() {
            Ok(Some(frame)) => match accept(frame, &mut parts) {
                Ok(Some((op, job))) => shared.queue(op).push((op, job)),
                Ok(None) => {}
                Err(what) => {
                    eprintln!("the worker can't go on: {what}");
                    super::end(super::EXIT_REFUSED);
                }
            },
            Ok(None) | Err(_) => super::end(0),
        }
    }
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
