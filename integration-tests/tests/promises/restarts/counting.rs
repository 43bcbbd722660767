//! Callers that count, each in its own way, and never send a call twice.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use fleetswap_integration_tests::harness::KeptOpen;
use serde_json::Value;
use tokio::{runtime::Runtime, task::JoinSet, time::sleep};

/// A caller waits this long: a restart of an agent on a busy machine takes its time.
const TIMEOUT: &str = "30s";

/// Calls under way.
pub(super) struct Counting {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Counted>>,
    callers: JoinSet<u64>,
}

/// What came of them.
#[derive(Default)]
pub(super) struct Counted {
    /// Every value that was acknowledged, in order.
    pub(super) values: Vec<u64>,
    /// Every call that was not answered with one.
    pub(super) failures: Vec<String>,
    pub(super) connections: u64,
}

impl Counted {
    fn note(&mut self, name: &str, answered: Result<(u16, Value)>) {
        match answered {
            Ok((200, body)) if body["value"].is_u64() => self.values.extend(body["value"].as_u64()),
            other => self.failures.push(format!("{name}: {other:?}")),
        }
    }
}

/// How a caller goes about it.
#[derive(Clone, Copy)]
struct Habit {
    /// Between an answer and the next call.
    pause: Duration,
    keeps_open: bool,
}

impl Counting {
    /// Callers over the unix socket and over TCP, on connections that they keep open and on new ones.
    pub(super) fn start(runtime: &Runtime, front: &Path, tcp: SocketAddr) -> Self {
        let (stop, log) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut callers = JoinSet::new();
        for (number, (ms, keeps_open)) in
            [(5, true), (20, true), (90, true), (310, true), (10, false), (40, false)].into_iter().enumerate()
        {
            let habit = Habit { pause: Duration::from_millis(ms), keeps_open };
            for caller in [KeptOpen::unix(front, TIMEOUT), KeptOpen::tcp(tcp, TIMEOUT)] {
                let name = format!("caller {number}");
                let _ = callers.spawn_on(
                    count(name, caller, habit, (Arc::clone(&stop), Arc::clone(&log))),
                    runtime.handle(),
                );
            }
        }
        Self { stop, log, callers }
    }

    /// Lets every call under way come to its end.
    pub(super) async fn finish(mut self) -> Result<Counted> {
        self.stop.store(true, Ordering::Relaxed);
        let mut connections = 0;
        while let Some(opened) = self.callers.join_next().await {
            connections += opened?;
        }
        let mut counted = std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner));
        counted.values.sort_unstable();
        Ok(Counted { connections, ..counted })
    }
}

async fn count(
    name: String,
    mut caller: KeptOpen,
    habit: Habit,
    (stop, log): (Arc<AtomicBool>, Arc<Mutex<Counted>>),
) -> u64 {
    while !stop.load(Ordering::Relaxed) {
        let answered = caller.call("counter", "increment", "{}").await;
        log.lock().unwrap_or_else(PoisonError::into_inner).note(&name, answered);
        if !habit.keeps_open {
            caller.hang_up();
        }
        sleep(habit.pause).await;
    }
    caller.opened
}
