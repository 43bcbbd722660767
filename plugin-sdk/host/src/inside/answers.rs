//! Answers: replies on their way to the host, written together where several are ready.
use super::sink::Answer;
use crate::frames::{self, PART_MAX, Reply};
use bytes::BytesMut;
use std::{
    fs::File,
    io::Write,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Bytes that wait to be written at most, beyond one part.
const WAITING_MAX: usize = 4 * 1024 * 1024;
/// Replies to quick calls that are held for one write at most.
const HELD_MAX: usize = 32;
/// Bytes of replies at which none is held any more.
const HELD_BYTES_MAX: usize = 16 * 1024;

/// The one place where replies are written. The thread that finds nobody writing writes, also what others add
/// meanwhile.
#[derive(Debug)]
pub(super) struct Answers {
    socket: &'static File,
    waiting: Mutex<Waiting>,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: BytesMut,
    /// Replies in it that nobody is writing yet.
    held: usize,
    /// Threads that wait until some of it is written.
    for_room: usize,
    somebody_writes: bool,
}

impl Answers {
    pub(super) fn new(socket: &'static File) -> Self {
        Self { socket, waiting: Mutex::default(), written: Condvar::new() }
    }

    /// Sends a reply, in parts where it is large, and all that is held. `quick`: as [`Reply::quick`].
    pub(super) fn send(&self, id: u64, answer: Answer, quick: bool) {
        let Answer { status, mut body } = answer;
        while body.len() > PART_MAX {
            let part = body.split_to(PART_MAX);
            self.push(&Reply { id, status: status.0, body: part, more: true, quick });
        }
        self.push(&Reply { id, status: status.0, body, more: false, quick });
    }

    /// Takes the reply to a quick call, which may wait for the next one, whoever sends it. False if it was sent at once.
    pub(super) fn hold(&self, id: u64, answer: Answer) -> bool {
        let Answer { status, body } = answer;
        if body.len() > HELD_BYTES_MAX {
            self.send(id, Answer { status, body }, true);
            return false;
        }
        let mut waiting = self.lock();
        frames::encode(&Reply { id, status: status.0, body, more: false, quick: true }, &mut waiting.frames);
        waiting.held += 1;
        let full = waiting.held >= HELD_MAX || waiting.frames.len() > HELD_BYTES_MAX;
        if full {
            self.write_all(waiting);
        }
        !full
    }

    /// Sends what is held.
    pub(super) fn flush(&self) {
        self.write_all(self.lock());
    }

    fn push(&self, reply: &Reply) {
        let mut waiting = self.lock();
        while waiting.somebody_writes && waiting.frames.len() > WAITING_MAX {
            waiting.for_room += 1;
            waiting = self.written.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.for_room -= 1;
        }
        frames::encode(reply, &mut waiting.frames);
        self.write_all(waiting);
    }

    /// Writes unless somebody does, who then takes this along.
    fn write_all<'a>(&'a self, mut waiting: MutexGuard<'a, Waiting>) {
        if waiting.somebody_writes {
            return;
        }
        waiting.somebody_writes = true;
        while !waiting.frames.is_empty() {
            let frames = waiting.frames.split();
            waiting.held = 0;
            drop(waiting);
            self.write(&frames);
            waiting = self.lock();
            // Telling nobody is a call of the kernel as well.
            if waiting.for_room > 0 {
                self.written.notify_all();
            }
        }
        waiting.somebody_writes = false;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, frames: &[u8]) {
        let mut socket = self.socket;
        if socket.write_all(frames).is_err() {
            // The host closed the socket: nobody is there to serve.
            super::end(0);
        }
    }
}
