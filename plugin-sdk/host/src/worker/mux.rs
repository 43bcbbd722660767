//! Mux: many requests over one socket, each with an id that it keeps until its reply came.
mod pen;

use super::room::Room;
use crate::{
    CallError, Death,
    frames::{BadPart, Op, Parts, Reply, Request},
    launcher::Frames,
};
use bytes::Bytes;
use fleetswap_plugin_abi::Status;
use futures_util::StreamExt;
use pen::{Pen, Written};
use prost::Message;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::unix::OwnedWriteHalf,
    sync::{Notify, OwnedSemaphorePermit, oneshot},
    task::yield_now,
};

/// What a request gets: status and body, or the news that there will be none.
pub(super) type Answer = Result<(Status, Bytes), CallError>;

/// The requests that have no reply yet. Shared by callers, writer and reader.
#[derive(Debug)]
pub(super) struct Mux {
    table: Mutex<Table>,
    /// Taken before the table where both are; never waited for by a caller.
    pen: Mutex<Pen>,
    /// Told when there is something for the writer.
    work: Notify,
}

#[derive(Debug)]
struct Table {
    last_id: u64,
    /// In the order of their ids, which is the order in which they were asked.
    pending: BTreeMap<u64, Pending>,
    /// Those that were not taken up by the pen. It has no bound of its own: each request in it holds a place.
    queue: VecDeque<Request>,
    room: Room,
    /// Nothing more is asked.
    closing: bool,
    death: Option<Arc<Death>>,
}

#[derive(Debug)]
struct Pending {
    op: Op,
    function: Bytes,
    answer: oneshot::Sender<Answer>,
    /// Every byte of it may be with the worker.
    written: bool,
    parts: Parts,
    /// Its place in the worker; given back when the reply came, also if the caller has gone.
    place: OwnedSemaphorePermit,
}

impl Mux {
    /// A mux that writes to this socket, and its writer, which has to run. Calls take their places in this room.
    pub(super) fn new(
        socket: OwnedWriteHalf,
        room: Room,
    ) -> (Arc<Self>, impl Future<Output = io::Result<()>> + Send + 'static) {
        let socket = Arc::new(socket);
        let pen = Mutex::new(Pen::new(Arc::clone(&socket)));
        let table = Table {
            last_id: 0,
            pending: BTreeMap::new(),
            queue: VecDeque::new(),
            room,
            closing: false,
            death: None,
        };
        let mux = Arc::new(Self { table: Mutex::new(table), pen, work: Notify::new() });
        let writer = write(Arc::clone(&mux), socket);
        (mux, writer)
    }

    /// Asks. The id in `request` is chosen here.
    pub(super) fn send(&self, request: Request, place: OwnedSemaphorePermit) -> oneshot::Receiver<Answer> {
        let (receiver, alone) = self.enqueue(request, place);
        // With others about, the writer collects what they ask and writes it at once.
        let written =
            alone && self.pen.try_lock().is_ok_and(|mut pen| matches!(pen.write(self), Ok(Written::All)));
        if !written {
            self.work.notify_one();
        }
        receiver
    }

    /// Puts a request into the queue. True if it is the only one that has no reply.
    fn enqueue(
        &self,
        mut request: Request,
        place: OwnedSemaphorePermit,
    ) -> (oneshot::Receiver<Answer>, bool) {
        let (answer, receiver) = oneshot::channel();
        let mut table = self.lock();
        if let Some(death) = &table.death {
            let _ = answer.send(Err(CallError::Died { written: false, death: Arc::clone(death) }));
            return (receiver, false);
        }
        table.last_id += 1;
        request.id = table.last_id;
        let op = Op::try_from(request.op).unwrap_or(Op::Call);
        let function = request.function.clone();
        let pending = Pending { op, function, answer, written: false, parts: Parts::default(), place };
        table.pending.insert(request.id, pending);
        table.queue.push_back(request);
        (receiver, table.pending.len() == 1)
    }

    /// Closes the socket after what was asked so far.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    /// Takes a reply, or says in which way it breaks the protocol.
    fn accept(&self, reply: Reply) -> Result<(), String> {
        let mut table = self.lock();
        let id = reply.id;
        let Some(pending) = table.pending.get_mut(&id).filter(|pending| pending.written) else {
            return Err(format!("it answered request {id}, which it was not asked"));
        };
        let max = pending.op.reply_max();
        let whole =
            pending.parts.take(reply.body, reply.more, max).map_err(|bad| bad_reply(pending.op, &bad))?;
        if let Some(body) = whole
            && let Some(pending) = table.pending.remove(&id)
        {
            match pending.op {
                Op::Call => table.room.answered(pending.place, reply.quick),
                _ => drop(pending.place),
            }
            drop(table);
            // A caller that has gone, at its deadline for example, has no use for the reply.
            let _ = pending.answer.send(Ok((Status(reply.status), body)));
        }
        Ok(())
    }

    /// What the worker has been asked and has not answered.
    pub(super) fn running(&self) -> Vec<String> {
        let table = self.lock();
        let written = table.pending.values().filter(|pending| pending.written);
        written
            .map(|pending| {
                let function = String::from_utf8_lossy(&pending.function);
                format!("{} {function}", pending.op.name()).trim_end().into()
            })
            .collect()
    }

    /// Tells everybody, and everybody who asks later. What is marked as written is final: nobody writes any more.
    pub(super) fn bury(&self, death: &Arc<Death>) {
        self.pen.lock().unwrap_or_else(PoisonError::into_inner).put_down();
        let pending = {
            let mut table = self.lock();
            table.death = Some(Arc::clone(death));
            table.queue.clear();
            std::mem::take(&mut table.pending)
        };
        for pending in pending.into_values() {
            let death = Arc::clone(death);
            let _ = pending.answer.send(Err(CallError::Died { written: pending.written, death }));
        }
    }

    fn is_busy(&self) -> bool {
        self.lock().pending.len() > 1
    }

    fn mark(&self, ids: &[(u64, usize)], written: bool) {
        let mut table = self.lock();
        for (id, _) in ids {
            if let Some(pending) = table.pending.get_mut(id) {
                pending.written = written;
            }
        }
    }

    /// A panic while the lock is held would be a bug of the standard maps; the table is used on.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bad_reply(op: Op, bad: &BadPart) -> String {
    match bad {
        BadPart::TooLong => format!("its reply to {} has more than {} bytes", op.name(), op.reply_max()),
        BadPart::Short(len) => {
            format!("a part of its reply to {} has {len} bytes, and more follow", op.name())
        }
    }
}

/// Reads replies until the socket ends; an error says how the worker broke the protocol.
pub(super) async fn read(mux: &Mux, mut frames: Frames) -> Result<(), String> {
    while let Some(frame) = frames.next().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(format!("a frame can't be read: {error}")),
        };
        let reply = Reply::decode(frame).map_err(|error| format!("a reply can't be read: {error}"))?;
        mux.accept(reply)?;
    }
    Ok(())
}

/// Writes requests, several in one write where several are there. Ends after [`Mux::close`]; dropping its socket then
/// shuts it down, so that the worker sees the end of the stream.
async fn write(mux: Arc<Mux>, socket: Arc<OwnedWriteHalf>) -> io::Result<()> {
    loop {
        mux.work.notified().await;
        if mux.is_busy() {
            // Lets other callers add theirs, so that one write carries them all.
            yield_now().await;
        }
        loop {
            match mux.pen.lock().unwrap_or_else(PoisonError::into_inner).write(&mux)? {
                Written::All => break,
                Written::Closed => return Ok(()),
                Written::Part => {}
            }
            socket.writable().await?;
        }
    }
}

impl Table {
    /// The next request that somebody still waits for; those before it are forgotten.
    fn take(&mut self) -> Option<Request> {
        while let Some(request) = self.queue.pop_front() {
            let wanted = self.pending.get(&request.id).is_some_and(|pending| !pending.answer.is_closed());
            if wanted {
                return Some(request);
            }
            self.pending.remove(&request.id);
        }
        None
    }
}

#[cfg(test)]
mod tests;
