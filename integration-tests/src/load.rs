//! An open-loop load: arrival times are fixed beforehand and no slow answer holds the next call back.

mod open;
mod oracle;
mod record;

pub use open::{Door, Outcome, Storm};
pub use oracle::{Oracle, clock_text};
pub use record::{Record, Tally};

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::harness::Caller;

/// A caller waits this long for a reply, in the same words as the front's default.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A running load; [`Load::finish`] ends it.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    streams: Vec<JoinHandle<()>>,
    records: mpsc::UnboundedReceiver<Record>,
}

/// One stream of calls: one plugin on one host at a fixed rate.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Name of the host.
    pub host: String,
    /// The host's front.
    pub caller: Caller,
    /// Which plugin.
    pub target: Target,
    /// Calls per second.
    pub rate: u32,
}

/// What a stream calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `clock time`, each call with another time.
    ClockTime,
    /// `counter increment`, each call with its own nonce.
    CounterIncrement,
}

impl Load {
    /// Starts all streams, offset against each other so that calls don't come in bursts.
    #[must_use]
    pub fn start(streams: impl IntoIterator<Item = Stream>) -> Self {
        let streams: Vec<Stream> = streams.into_iter().collect();
        let (sender, records) = mpsc::unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let count = u32::try_from(streams.len()).unwrap_or(u32::MAX).max(1);
        let streams = (0..)
            .zip(streams)
            .map(|(index, stream)| {
                let interval = Duration::from_secs(1) / stream.rate.max(1);
                let first = Instant::now() + interval * index / count;
                tokio::spawn(stream.run(first, interval, Arc::clone(&stop), sender.clone()))
            })
            .collect();
        Self { stop, streams, records }
    }

    /// Sends no further call, waits for those in flight, and returns one record per call sent.
    pub async fn finish(mut self) -> Vec<Record> {
        self.stop.store(true, Ordering::Relaxed);
        for stream in self.streams {
            // A stream that panicked has dropped its sender; its calls are then missing from the records.
            drop(stream.await);
        }
        let mut records = Vec::new();
        while let Some(record) = self.records.recv().await {
            records.push(record);
        }
        records
    }
}

impl Stream {
    async fn run(
        self,
        first: Instant,
        interval: Duration,
        stop: Arc<AtomicBool>,
        records: mpsc::UnboundedSender<Record>,
    ) {
        let mut at = first;
        for sequence in 0_u64.. {
            sleep_until(at).await;
            at += interval;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            tokio::spawn(self.clone().call(sequence, records.clone()));
        }
    }

    async fn call(self, sequence: u64, records: mpsc::UnboundedSender<Record>) {
        let (plugin, function, input) = match self.target {
            Target::ClockTime => {
                ("clock", "time", json!({ "unix_seconds": 1_795_500_000 + sequence * 86_399 }))
            }
            Target::CounterIncrement => ("counter", "increment", json!({ "nonce": sequence.to_string() })),
        };
        let started = Instant::now();
        let body = Bytes::from(input.to_string());
        let reply = self.caller.call(plugin, function, body, CALL_TIMEOUT).await;
        let took = started.elapsed();
        // The load has been dropped: nobody wants the record.
        drop(records.send(Record { host: self.host, target: self.target, input, reply, took }));
    }
}
