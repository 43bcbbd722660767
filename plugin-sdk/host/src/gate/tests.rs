//! What callers may rely on while the value behind the gate changes.
use super::*;
use std::time::Duration;
use tokio::task::yield_now;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// Lets spawned tasks run until they wait; the tests have one thread.
async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_stays_on_the_value_that_took_it() {
    let gate = Gate::open("old");
    let call = gate.enter(0, soon()).await.unwrap();
    let old = gate.swap("new").unwrap();
    assert_eq!((*call, old.in_flight(), gate.in_flight()), ("old", 1, 0));
    assert_eq!(*gate.enter(0, soon()).await.unwrap(), "new");
    drop(call);
    old.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_retired_value_is_drained_only_after_its_last_call() {
    let gate = Gate::open("old");
    let first = gate.enter(0, soon()).await.unwrap();
    let second = gate.enter(0, soon()).await.unwrap();
    let old = gate.swap("new").unwrap();
    let drained = tokio::spawn(async move { old.drained().await });
    drop(first);
    settle().await;
    assert!(!drained.is_finished());
    drop(second);
    drained.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn drained_means_closed_and_zero() {
    let gate = Gate::open(1);
    let waiting = tokio::spawn({
        let gate = gate.clone();
        async move { gate.drained().await }
    });
    settle().await;
    assert!(!waiting.is_finished(), "nothing is in flight, but the gate is open");
    gate.pause();
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_gate_holds_callers_and_lets_them_in_on_the_new_value() {
    let gate = Gate::open("old");
    gate.pause();
    let caller = tokio::spawn({
        let gate = gate.clone();
        async move { *gate.enter(10, soon()).await.unwrap() }
    });
    settle().await;
    let pressure = gate.queue_pressure();
    assert_eq!((pressure.calls, pressure.bytes), (1, 10));
    gate.replace("new");
    settle().await;
    assert!(!caller.is_finished(), "still paused");
    gate.resume();
    assert_eq!(caller.await.unwrap(), "new");
    assert_eq!(gate.queue_pressure(), Pressure { calls: 0, bytes: 0, earliest_due: None });
}

#[tokio::test(start_paused = true)]
async fn a_waiting_caller_is_told_at_its_deadline_and_leaves_the_queue() {
    let gate: Gate<()> = Gate::paused();
    let started = Instant::now();
    assert_eq!(gate.enter(7, soon()).await.unwrap_err(), EnterError::Deadline);
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    assert_eq!(gate.queue_pressure().calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_the_queue() {
    let gate: Gate<()> = Gate::paused();
    let caller = tokio::spawn({
        let gate = gate.clone();
        async move { gate.enter(7, soon()).await.map(drop) }
    });
    settle().await;
    assert_eq!(gate.queue_pressure().bytes, 7);
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(gate.queue_pressure().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_calls_and_in_bytes() {
    let gate: Gate<()> = Gate::paused();
    let enter = |bytes| {
        let gate = gate.clone();
        tokio::spawn(async move { gate.enter(bytes, soon()).await.map(drop) })
    };
    let big = enter(QUEUE_BYTES_MAX - QUEUE_CALLS_MAX);
    let small: Vec<_> = (1..QUEUE_CALLS_MAX).map(|_| enter(1)).collect();
    settle().await;
    assert!(gate.queue_pressure().is_above(99));
    assert_eq!(enter(0).await.unwrap(), Err(EnterError::QueueFull), "one call too many");
    small[0].abort();
    settle().await;
    assert_eq!(enter(3).await.unwrap(), Err(EnterError::QueueFull), "one byte too many");
    big.abort();
    settle().await;
    assert_eq!(enter(3).await.unwrap(), Err(EnterError::Deadline), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn the_first_call_that_must_be_let_in_is_known_and_a_hasty_one_keeps_half_of_its_time() {
    let gate: Gate<()> = Gate::paused();
    let now = Instant::now();
    for seconds in [9, 3, 6] {
        let gate = gate.clone();
        tokio::spawn(async move { gate.enter(0, now + Duration::from_secs(seconds)).await.map(drop) });
    }
    settle().await;
    assert_eq!(gate.queue_pressure().earliest_due, Some(now + Duration::from_secs(3) - WORK_RESERVE));
    let hasty = gate.clone();
    tokio::spawn(async move { hasty.enter(0, now + Duration::from_millis(300)).await.map(drop) });
    settle().await;
    assert_eq!(gate.queue_pressure().earliest_due, Some(now + Duration::from_millis(150)));
}

#[tokio::test(start_paused = true)]
async fn a_shut_gate_turns_queued_and_new_callers_away_until_there_is_a_value() {
    let gate = Gate::open("old");
    gate.pause();
    let caller = tokio::spawn({
        let gate = gate.clone();
        async move { gate.enter(0, soon()).await.map(|guard| *guard) }
    });
    settle().await;
    gate.shut().unwrap().drained().await;
    assert_eq!(caller.await.unwrap(), Err(EnterError::Shut));
    assert_eq!(gate.enter(0, soon()).await.map(|guard| *guard), Err(EnterError::Shut));
    for reopen in [Gate::pause, Gate::resume] {
        reopen(&gate);
        assert_eq!(
            gate.enter(0, soon()).await.map(|guard| *guard),
            Err(EnterError::Shut),
            "it is still shut"
        );
    }
    gate.replace("new");
    assert_eq!(gate.queue_pressure().calls, 0);
    gate.resume();
    assert_eq!(*gate.enter(0, soon()).await.unwrap(), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_call_is_on_a_value_that_was_said_to_be_drained() {
    use std::sync::atomic::{AtomicBool, Ordering};
    /// A value that notices a user after it was declared drained.
    #[derive(Default)]
    struct Value {
        dead: AtomicBool,
    }
    let gate = Gate::open(Arc::new(Value::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (gate, stop) = (gate.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let value = gate.enter(1, soon()).await.unwrap();
                    settle().await;
                    assert!(!value.dead.load(Ordering::SeqCst));
                }
            })
        })
        .collect();
    for round in 0..200 {
        if round % 2 == 0 {
            let old = gate.swap(Arc::default()).unwrap();
            old.drained().await;
            old.dead.store(true, Ordering::SeqCst);
        } else {
            gate.pause();
            gate.drained().await;
            let old = gate.swap(Arc::default()).unwrap();
            old.dead.store(true, Ordering::SeqCst);
            gate.resume();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
}
