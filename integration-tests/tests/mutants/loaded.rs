//! Mutants that the lint lets through, loaded for real: each worker lives or dies alone.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetswap_host::{Launcher, Level, Limits, LogSink, WorkerSpec};
use fleetswap_inspect::{Rules, lint};
use tokio::runtime::Runtime;

use crate::{
    generator::{MUTANTS_PER_SEED, Mutable, Random, SEEDS},
    libraries,
};

/// So many mutants are loaded.
const LOADED: usize = 300;
/// So many at the same time.
const AT_ONCE: usize = 4;
/// Longest time for each step of a worker; a mutant that hangs costs this.
const STEP: Duration = Duration::from_secs(2);
/// How long the last process of all may take to be gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a mutant ended, and how often that happened.
type Ends = Mutex<BTreeMap<String, usize>>;

pub(crate) fn mutants_that_pass_the_lint_harm_no_host() {
    let queue = Arc::new(Mutex::new(passing()));
    let ends: Arc<Ends> = Arc::default();
    let runtime = Runtime::new().unwrap();
    let launcher = Arc::new(Launcher::start().unwrap());
    runtime.block_on(try_out(&launcher, libraries::real().remove(0), &ends));
    assert_eq!(ends.lock().unwrap().remove("lives"), Some(1), "the library itself loads: {ends:?}");
    let descriptors = descriptors();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (queue, ends, launcher) = (Arc::clone(&queue), Arc::clone(&ends), Arc::clone(&launcher));
            runtime.spawn(async move {
                while let Some(mutant) = { queue.lock().unwrap().pop() } {
                    try_out(&launcher, mutant, &ends).await;
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    let ends = ends.lock().unwrap();
    println!("ends: {ends:?}");
    assert_eq!(ends.values().sum::<usize>(), LOADED, "{ends:?}");
    assert!(ends.contains_key("lives"), "some mutants are harmless: {ends:?}");
    assert!(ends.contains_key("LOAD_CRASHED"), "some mutants crash the loader: {ends:?}");
    assert!(!ends.contains_key("WORKER_START_FAILED"), "the host is not to blame: {ends:?}");
    // The launcher's thread reaps; what it has not reaped yet is gone in a moment.
    let end = Instant::now() + PATIENCE;
    while (!children().is_empty() || self::descriptors() > descriptors) && Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(children(), Vec::<u32>::new(), "no process is left");
    assert!(self::descriptors() <= descriptors, "no descriptor is left");
}

/// Evenly spread over all that pass. Of the library in C: its mutants reach the loader with much less to map.
fn passing() -> Vec<Vec<u8>> {
    let mut library = Mutable::new(libraries::real().remove(0));
    let mut passing = Vec::new();
    for seed in SEEDS {
        let mut random = Random::new(seed);
        for _ in 0..MUTANTS_PER_SEED {
            let mutation = library.draw(&mut random);
            let same = library.original().to_vec();
            passing.extend(library.with(&mutation, |mutant| {
                (mutant != same && lint(mutant, &Rules::default()).is_ok()).then(|| mutant.to_vec())
            }));
        }
    }
    let step = passing.len() / LOADED;
    assert!(step > 0, "only {} mutants pass", passing.len());
    passing.into_iter().step_by(step).take(LOADED).collect()
}

/// Loads, makes an instance, asks it how it is, and ends it.
async fn try_out(launcher: &Launcher, mutant: Vec<u8>, ends: &Ends) {
    let limits = Limits { load_timeout: STEP, control_timeout: STEP, ..Limits::default() };
    let spec = WorkerSpec {
        plugin: "mutant".into(),
        version: String::new(),
        descriptor: None,
        limits,
        level: Level::Standard,
        log: LogSink::discard(),
    };
    let end = match launcher.launch(&libraries::image(&mutant), spec).await {
        Err(error) => error.code().to_owned(),
        Ok(worker) => {
            let created = worker.create(Bytes::new()).await;
            let healthy = worker.health(STEP).await;
            let activated = worker.activate().await;
            let called = worker.call("crc32", Bytes::from_static(b"bytes"), STEP).await;
            drop(worker.close().await);
            let ill = created.is_err() || healthy.is_err() || activated.is_err() || called.is_err();
            if ill { "lives badly".to_owned() } else { "lives".to_owned() }
        }
    };
    *ends.lock().unwrap().entry(end).or_default() += 1;
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Child processes of this one, zombies included.
fn children() -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of_task = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    of_task
        .flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}
