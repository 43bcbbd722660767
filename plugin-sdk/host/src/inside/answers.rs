//! Answers: replies on their way to the host, written together where several are ready.
use super::sink::Answer;
use crate::frames::{self, PART_MAX, Reply};
use bytes::BytesMut;
use std::{
    fs::File,
    io::Write,
    sync::{Condvar, Mutex, PoisonError},
};

/// Bytes that wait to be written at most, beyond one part.
const WAITING_MAX: usize = 4 * 1024 * 1024;

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
    somebody_writes: bool,
}

impl Answers {
    pub(super) fn new(socket: &'static File) -> Self {
        Self { socket, waiting: Mutex::default(), written: Condvar::new() }
    }

    /// Sends a reply, in parts where it is large.
    pub(super) fn send(&self, id: u64, answer: Answer) {
        let Answer { status, mut body } = answer;
        while body.len() > PART_MAX {
            self.push(&Reply { id, status: status.0, body: body.split_to(PART_MAX), more: true });
        }
        self.push(&Reply { id, status: status.0, body, more: false });
    }

    fn push(&self, reply: &Reply) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.somebody_writes && waiting.frames.len() > WAITING_MAX {
            waiting = self.written.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        frames::encode(reply, &mut waiting.frames);
        if waiting.somebody_writes {
            return;
        }
        waiting.somebody_writes = true;
        while !waiting.frames.is_empty() {
            let frames = waiting.frames.split();
            drop(waiting);
            self.write(&frames);
            waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.written.notify_all();
        }
        waiting.somebody_writes = false;
    }

    fn write(&self, frames: &[u8]) {
        let mut socket = self.socket;
        if socket.write_all(frames).is_err() {
            // The host closed the socket: nobody is there to serve.
            super::end(0);
        }
    }
}
