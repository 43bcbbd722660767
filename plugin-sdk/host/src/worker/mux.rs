//! Mux: many requests over one socket, each with an id that it keeps until its reply came.
use crate::{
    CallError, Death,
    frames::{self, BadPart, Op, Parts, Reply, Request},
    launcher::Frames,
};
use bytes::{Buf, Bytes, BytesMut};
use fleetswap_plugin_abi::Status;
use futures_util::StreamExt;
use prost::Message;
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::unix::OwnedWriteHalf,
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    task::yield_now,
};

/// Bytes after which the writer stops collecting frames and writes.
const BATCH_BYTES: usize = 64 * 1024;

/// What a request gets: status and body, or the news that there will be none.
pub(super) type Answer = Result<(Status, Bytes), CallError>;

/// The requests that have no reply yet. Shared by callers, writer and reader.
#[derive(Debug)]
pub(super) struct Mux {
    table: Mutex<Table>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    /// In the order of their ids, which is the order in which they were asked.
    pending: BTreeMap<u64, Pending>,
    death: Option<Arc<Death>>,
}

#[derive(Debug)]
struct Pending {
    op: Op,
    function: String,
    answer: oneshot::Sender<Answer>,
    /// Every byte of it may be with the worker.
    written: bool,
    parts: Parts,
    /// Its place in the worker; given back when the reply came, also if the caller has gone.
    _place: OwnedSemaphorePermit,
}

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Outgoing {
    Request(Request),
    Close,
}

impl Mux {
    /// A mux and what its writer takes. The queue has no bound of its own: each request in it holds a place.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Outgoing>) {
        let (outgoing, queue) = mpsc::unbounded_channel();
        (Self { table: Mutex::default(), outgoing }, queue)
    }

    /// Asks. The id in `request` is chosen here.
    pub(super) fn send(
        &self,
        mut request: Request,
        place: OwnedSemaphorePermit,
    ) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let mut table = self.lock();
        if let Some(death) = &table.death {
            let _ = answer.send(Err(CallError::Died { written: false, death: Arc::clone(death) }));
            return receiver;
        }
        table.last_id += 1;
        request.id = table.last_id;
        let op = Op::try_from(request.op).unwrap_or(Op::Call);
        let function = request.function.clone();
        let pending =
            Pending { op, function, answer, written: false, parts: Parts::default(), _place: place };
        table.pending.insert(request.id, pending);
        // A writer that is gone is about to be followed by the death, which answers.
        let _ = self.outgoing.send(Outgoing::Request(request));
        receiver
    }

    /// Closes the socket after what was asked so far.
    pub(super) fn close(&self) {
        // A writer that is gone has closed it.
        let _ = self.outgoing.send(Outgoing::Close);
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
            .map(|pending| format!("{} {}", pending.op.name(), pending.function).trim_end().into())
            .collect()
    }

    /// Tells everybody, and everybody who asks later.
    pub(super) fn bury(&self, death: &Arc<Death>) {
        let pending = {
            let mut table = self.lock();
            table.death = Some(Arc::clone(death));
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

    /// Forgets a request that was not written and whose caller has gone.
    fn forget_if_unwanted(&self, id: u64) -> bool {
        let mut table = self.lock();
        let unwanted = table.pending.get(&id).is_none_or(|pending| pending.answer.is_closed());
        if unwanted {
            table.pending.remove(&id);
        }
        unwanted
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

/// Writes requests, several in one write where several are there.
pub(super) async fn write(
    mux: Arc<Mux>,
    socket: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
) -> io::Result<()> {
    let mut batch = Batch::default();
    while let Some(first) = queue.recv().await {
        if mux.is_busy() {
            // Lets other callers add theirs, so that one write carries them all.
            yield_now().await;
        }
        let mut closes = !batch.add(&mux, first);
        while !closes && batch.frames.len() < BATCH_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            closes = !batch.add(&mux, next);
        }
        batch.write(&mux, &socket).await?;
        if closes {
            break;
        }
    }
    // Dropping the half shuts it down: the worker sees the end of the stream.
    Ok(())
}

/// Frames to write, with the requests that end in them.
#[derive(Debug, Default)]
struct Batch {
    frames: BytesMut,
    /// Id of each request, and the offset of its end in `frames`.
    ends: Vec<(u64, usize)>,
}

impl Batch {
    /// False for the order to close.
    fn add(&mut self, mux: &Mux, outgoing: Outgoing) -> bool {
        let Outgoing::Request(request) = outgoing else { return false };
        let id = request.id;
        if !mux.forget_if_unwanted(id) {
            frames::encode_request(request, &mut self.frames);
            self.ends.push((id, self.frames.len()));
        }
        true
    }

    /// Writes all. At any await point exactly those requests are marked as written whose last byte is with the
    /// worker: a worker that dies has certainly not executed the others.
    async fn write(&mut self, mux: &Mux, socket: &OwnedWriteHalf) -> io::Result<()> {
        while !self.frames.is_empty() {
            socket.writable().await?;
            // Before the write, since the reply may be there before it returns.
            mux.mark(&self.ends, true);
            let count = match socket.try_write(&self.frames) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => {
                    mux.mark(&self.ends, false);
                    return Err(error);
                }
            };
            self.frames.advance(count);
            self.ends.retain_mut(|(_, end)| {
                let left = end.saturating_sub(count);
                *end = left;
                left > 0
            });
            mux.mark(&self.ends, false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
