//! Test plugin: does what a useful plugin does, within the default limits: threads and a tokio runtime of its own, hash maps,
//! clocks, and 64 MiB that it keeps.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use plugin_sdk::{Host, Plugin, PluginError, plugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{runtime, sync::mpsc, time};

/// Threads that share the work of one call.
const THREADS: u64 = 4;
/// Tasks on the runtime that share the work of one call.
const TASKS: u64 = 8;
/// Bytes that are kept while it is active.
const KEPT_BYTES: usize = 64 * 1024 * 1024;
/// How often the background task ticks.
const TICK: Duration = Duration::from_millis(2);

/// Works between `activate` and `deactivate`, whether called or not.
pub struct Useful {
    running: Mutex<Option<Arc<Running>>>,
}

/// What there is while it is active.
struct Running {
    runtime: runtime::Runtime,
    ticks: Arc<AtomicU64>,
    kept: Vec<u8>,
}

/// How far to count.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Request {
    n: u64,
}

/// What became of it.
#[derive(Serialize, JsonSchema)]
struct Reply {
    /// 1 + 2 + … + n, by threads.
    by_threads: u64,
    /// The same, by tasks that sleep on the way.
    by_tasks: u64,
    /// How many different remainders by 7 there are up to n.
    remainders: u64,
    /// Whether time went on.
    moved: bool,
    /// Bytes kept that are as they were written.
    kept: u64,
    /// Ticks in the background so far.
    ticks: u64,
}

#[plugin(name = "useful", background, concurrency = 8)]
impl Useful {
    #[function(idempotent)]
    fn work(&self, request: Request) -> Result<Reply, PluginError> {
        let started = Instant::now();
        let running = self.running()?;
        let by_tasks = running.runtime.block_on(by_tasks(request.n));
        let remainders: HashMap<u64, u64> = (1..=request.n).map(|n| (n % 7, n)).collect();
        Ok(Reply {
            by_threads: by_threads(request.n)?,
            by_tasks,
            remainders: remainders.len() as u64,
            moved: started.elapsed() >= Duration::from_millis(1),
            kept: running.kept.iter().step_by(4096).filter(|byte| **byte == 7).count() as u64 * 4096,
            ticks: running.ticks.load(Ordering::Relaxed),
        })
    }

    fn running(&self) -> Result<Arc<Running>, PluginError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.clone().ok_or_else(|| PluginError::new("NOT_RUNNING", "it is not active"))
    }
}

fn by_threads(n: u64) -> Result<u64, PluginError> {
    let share = move |first: u64| (first..=n).step_by(THREADS as usize).sum::<u64>();
    let spawn = move |first| thread::Builder::new().spawn(move || share(first));
    let threads: Vec<_> = (1..=THREADS).map(spawn).collect::<Result<_, _>>().map_err(no_thread)?;
    Ok(threads.into_iter().filter_map(|thread| thread.join().ok()).sum())
}

fn no_thread(error: std::io::Error) -> PluginError {
    PluginError::new("NO_THREAD", error)
}

async fn by_tasks(n: u64) -> u64 {
    let (sender, mut sums) = mpsc::channel(1);
    for first in 1..=TASKS {
        let sender = sender.clone();
        tokio::spawn(async move {
            time::sleep(Duration::from_millis(1)).await;
            // Nobody listens any more where the call was given up.
            let _ = sender.send((first..=n).step_by(TASKS as usize).sum::<u64>()).await;
        });
    }
    drop(sender);
    let mut total = 0;
    while let Some(sum) = sums.recv().await {
        total += sum;
    }
    total
}

impl Plugin for Useful {
    type Config = ();

    fn create(_: Host, (): ()) -> Result<Self, PluginError> {
        Ok(Self { running: Mutex::default() })
    }

    fn activate(&self) -> Result<(), PluginError> {
        let mut builder = runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().map_err(no_thread)?;
        let ticks = Arc::new(AtomicU64::new(0));
        let ticking = Arc::clone(&ticks);
        runtime.spawn(async move {
            let mut interval = time::interval(TICK);
            loop {
                interval.tick().await;
                ticking.fetch_add(1, Ordering::Relaxed);
            }
        });
        let running = Arc::new(Running { runtime, ticks, kept: vec![7; KEPT_BYTES] });
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }

    fn deactivate(&self) -> Result<(), PluginError> {
        // The last one to hold the runtime ends its threads.
        drop(self.running.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use plugin_sdk::testing::{Driver, json};

    use super::Useful;

    #[test]
    fn it_counts_in_two_ways_while_it_is_active() {
        let useful = Driver::new::<Useful>("").unwrap();
        useful.activate().unwrap();
        let reply = useful.call("work", json!({"n": 100})).unwrap();
        assert_eq!((&reply["by_threads"], &reply["by_tasks"]), (&json!(5050), &json!(5050)));
        assert_eq!((&reply["remainders"], &reply["kept"]), (&json!(7), &json!(67_108_864)));
        useful.deactivate().unwrap();
    }
}
