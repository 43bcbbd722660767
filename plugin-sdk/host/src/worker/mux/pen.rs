//! Pen: what is being written to the worker, by whoever holds it.
use super::Mux;
use crate::frames;
use bytes::{Buf, BytesMut};
use std::{io, sync::Arc};
use tokio::net::unix::OwnedWriteHalf;

/// Bytes after which no further frames are collected before a write.
const BATCH_BYTES: usize = 64 * 1024;

/// Frames to write, with the requests that end in them.
#[derive(Debug)]
pub(super) struct Pen {
    /// None once nothing more may be written.
    socket: Option<Arc<OwnedWriteHalf>>,
    frames: BytesMut,
    /// Id of each request, and the offset of its end in `frames`.
    ends: Vec<(u64, usize)>,
}

/// How far writing came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing is left.
    All,
    /// The socket is full.
    Part,
    /// Nothing is left, and nothing will come.
    Closed,
}

impl Pen {
    pub(super) fn new(socket: Arc<OwnedWriteHalf>) -> Self {
        Self { socket: Some(socket), frames: BytesMut::new(), ends: Vec::new() }
    }

    /// Writes what the socket takes now of what is asked. Between two writes exactly those requests are marked as
    /// written whose last byte is with the worker: a worker that dies has certainly not executed the others.
    pub(super) fn write(&mut self, mux: &Mux) -> io::Result<Written> {
        loop {
            let closing = self.collect(mux);
            if self.frames.is_empty() {
                if closing {
                    self.put_down();
                }
                return Ok(if closing { Written::Closed } else { Written::All });
            }
            if !self.write_once(mux)? {
                return Ok(Written::Part);
            }
        }
    }

    /// Nothing more is written.
    pub(super) fn put_down(&mut self) {
        self.socket = None;
    }

    /// True if nothing more will be asked.
    fn collect(&mut self, mux: &Mux) -> bool {
        let mut table = mux.lock();
        while self.frames.len() < BATCH_BYTES {
            let Some(request) = table.take() else { return table.closing };
            let id = request.id;
            frames::encode_request(request, &mut self.frames);
            self.ends.push((id, self.frames.len()));
        }
        false
    }

    /// False if the socket is full.
    fn write_once(&mut self, mux: &Mux) -> io::Result<bool> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        // Before the write, since the reply may be there before it returns.
        mux.mark(&self.ends, true);
        let (count, full) = match socket.try_write(&self.frames) {
            Ok(count) => (count, count < self.frames.len()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, true),
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
        Ok(!full)
    }
}
