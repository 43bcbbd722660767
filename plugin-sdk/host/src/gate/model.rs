//! The gate under loom: every interleaving of a few threads, with what the memory model allows between them. A thread
//! that waits for ever is a deadlock, which loom reports.
//!
//! Run with `cargo test -p fleetswap-host --features loom --lib gate::model`.
use super::*;
use futures_util::FutureExt;
use loom::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

/// Threads that are suspended against their will in one run at most: nearly all known races need two.
const PREEMPTIONS_MAX: usize = 3;

/// A value that knows whether it may still be used.
#[derive(Clone)]
struct Release(Arc<AtomicBool>);

impl Release {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn use_it(&self) {
        assert!(!self.0.load(Ordering::Relaxed), "a caller is on a release that was drained");
    }
}

/// Plays every interleaving.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(model);
}

/// Under loom nothing is ever pending: a wait blocks its thread.
fn done<R>(future: impl Future<Output = R>) -> R {
    future.now_or_never().expect("a future that blocks instead of waiting")
}

/// A caller that comes in, if it is let in, and uses what it gets. No clock runs here.
fn call(gate: &Gate<Release>) -> Result<(), EnterError> {
    let guard = match gate.knock(1, Instant::now() + Duration::from_secs(60))? {
        Knock::Admitted(guard) => guard,
        Knock::Queued(ticket) => done(gate.wait(&ticket))?,
    };
    guard.use_it();
    Ok(())
}

fn caller(gate: &Gate<Release>) -> thread::JoinHandle<Result<(), EnterError>> {
    let gate = gate.clone();
    thread::spawn(move || call(&gate))
}

fn nobody_is_left(gate: &Gate<Release>) {
    let queue = gate.queue_pressure();
    assert_eq!((queue.calls, queue.bytes, gate.in_flight()), (0, 0, 0));
}

#[test]
fn a_pause_is_over_for_every_caller_and_none_is_on_what_was_drained() {
    explore(|| {
        let old = Release::new();
        let gate = Gate::open(old.clone());
        let callers = [caller(&gate), caller(&gate)];
        gate.pause();
        done(gate.drained());
        old.end();
        gate.replace(Release::new());
        gate.resume();
        for caller in callers {
            assert_eq!(caller.join().unwrap(), Ok(()));
        }
        nobody_is_left(&gate);
    });
}

#[test]
fn a_swap_without_a_pause_is_drained_when_its_last_caller_left() {
    explore(|| {
        let old = Release::new();
        let gate = Gate::open(old.clone());
        let callers = [caller(&gate), caller(&gate)];
        let retired = gate.swap(Release::new()).unwrap();
        done(retired.drained());
        old.end();
        for caller in callers {
            assert_eq!(caller.join().unwrap(), Ok(()));
        }
        nobody_is_left(&gate);
    });
}

#[test]
fn a_caller_at_a_gate_that_is_shut_is_let_in_or_turned_away_and_never_kept() {
    explore(|| {
        let old = Release::new();
        let gate = Gate::open(old.clone());
        gate.pause();
        let waiting = caller(&gate);
        let resuming = thread::spawn({
            let gate = gate.clone();
            move || gate.resume()
        });
        let retired = gate.shut().unwrap();
        done(retired.drained());
        old.end();
        resuming.join().unwrap();
        assert!(matches!(waiting.join().unwrap(), Ok(()) | Err(EnterError::Shut)));
        nobody_is_left(&gate);
    });
}

#[test]
fn one_who_goes_away_while_the_gate_opens_leaves_nothing_behind() {
    explore(|| {
        let gate = Gate::open(Release::new());
        gate.pause();
        let other = caller(&gate);
        let goes = thread::spawn({
            let gate = gate.clone();
            move || drop(gate.knock(1, Instant::now() + Duration::from_secs(60)))
        });
        gate.resume();
        goes.join().unwrap();
        assert_eq!(other.join().unwrap(), Ok(()));
        nobody_is_left(&gate);
    });
}

/// The mistake that the gate's one lock excludes: the flag is looked at first, and the call counted after.
struct Careless {
    closed: AtomicBool,
    in_flight: AtomicUsize,
}

#[test]
#[should_panic(expected = "a caller is on a release that was drained")]
fn a_gate_that_looks_before_it_counts_is_found_out() {
    explore(|| {
        let release = Release::new();
        let gate = Arc::new(Careless { closed: AtomicBool::new(false), in_flight: AtomicUsize::new(0) });
        let caller = thread::spawn({
            let (gate, release) = (Arc::clone(&gate), release.clone());
            move || {
                if !gate.closed.load(Ordering::SeqCst) {
                    gate.in_flight.fetch_add(1, Ordering::SeqCst);
                    release.use_it();
                    gate.in_flight.fetch_sub(1, Ordering::SeqCst);
                }
            }
        });
        gate.closed.store(true, Ordering::SeqCst);
        if gate.in_flight.load(Ordering::SeqCst) == 0 {
            release.end();
        }
        caller.join().unwrap();
    });
}

/// And that of a waiter that looks first and listens after: a ring in between is missed.
#[test]
#[should_panic(expected = "deadlock")]
fn a_waiter_that_listens_after_its_look_is_found_out() {
    explore(|| {
        let (open, bell) = (Arc::new(AtomicBool::new(false)), Arc::new(Bell::new()));
        let opener = thread::spawn({
            let (open, bell) = (Arc::clone(&open), Arc::clone(&bell));
            move || {
                open.store(true, Ordering::SeqCst);
                bell.ring();
            }
        });
        if !open.load(Ordering::SeqCst) {
            bell.wait_for_more_than(bell.rings());
        }
        opener.join().unwrap();
    });
}
