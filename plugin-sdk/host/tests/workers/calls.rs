//! Requests to a healthy worker, and what their callers are told.
use crate::plugin::{LAUNCHER, PATIENCE, active, ask, launch, spec, specimen, until};
use bytes::Bytes;
use fleetswap_host::{CallError, LINE_MAX, LogLine, LogSink, LogSource, TAIL_MAX, Worker, WorkerSpec};
use fleetswap_plugin_abi::WORDS_MAX;
use std::time::Duration;
use tokio::sync::mpsc;

/// Rounds of calls in which, on a busy machine, all threads of a worker are found at work at once.
const ROUNDS_MAX: u32 = 50;

async fn call(worker: &Worker, function: &str, input: &str) -> Result<Bytes, CallError> {
    worker.call(function, Bytes::copy_from_slice(input.as_bytes()), PATIENCE).await
}

pub(crate) async fn a_call_answers_and_many_run_at_once() {
    let worker = active().await;
    assert_eq!(ask(&worker, "echo", "hello").await, "hello");
    assert_eq!(worker.health(PATIENCE).await.unwrap(), "well");
    for _ in 0..ROUNDS_MAX {
        futures_util::future::join_all((0..16).map(|_| ask(&worker, "slow", "20"))).await;
        if ask(&worker, "peaked", "").await == "4" {
            break;
        }
    }
    futures_util::future::join_all((0..16).map(|_| ask(&worker, "slow", "20"))).await;
    assert_eq!(ask(&worker, "peaked", "").await, "4", "the declared concurrency, and never more");
}

pub(crate) async fn the_plugins_answers_reach_the_caller_as_what_they_are() {
    let worker = active().await;
    let answer = async |input: &str| call(&worker, "answer", input).await.unwrap_err();
    let own = |code: &str, message: &str| CallError::Plugin { code: code.into(), message: message.into() };
    assert_eq!(answer(r#"1 {"code":"NO_ZONE","message":"Mars"}"#).await, own("NO_ZONE", "Mars"));
    assert_eq!(answer("1 oops").await, own("PLUGIN_ERROR", "oops"));
    assert_eq!(answer("2").await, CallError::UnknownFunction);
    let bad = CallError::BadInput { field: "a.b[0]".into(), message: "no number".into() };
    assert_eq!(answer(r#"3 {"field":"a.b[0]","message":"no number"}"#).await, bad);
    assert_eq!(answer("4 index out of bounds").await, CallError::Panic("index out of bounds".into()));
    assert_eq!(answer("5").await, CallError::Illegal);
    assert_eq!(answer("6").await, CallError::Unsupported);
    assert_eq!(answer("7").await, CallError::TooLarge);
    for status in ["8", "-1", "-2", "99"] {
        assert!(answer(status).await.to_string().contains(&format!("status {status},")), "{status}");
    }
    assert_eq!(call(&worker, "no_such", "").await, Err(CallError::UnknownFunction));
}

pub(crate) async fn a_call_past_its_deadline_is_told_so_and_its_late_reply_is_dropped() {
    let worker = active().await;
    let late = worker.call("slow", Bytes::from_static(b"300"), Duration::from_millis(50)).await;
    assert_eq!(late, Err(CallError::Deadline));
    assert_eq!(ask(&worker, "echo", "next").await, "next");
    ask(&worker, "slow", "400").await;
    assert_eq!(ask(&worker, "echo", "after the late reply").await, "after the late reply");
}

pub(crate) async fn a_call_that_is_too_late_when_its_turn_comes_is_not_executed() {
    let worker = launch(&["CONCURRENCY=\"1\""]).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    worker.activate().await.unwrap();
    let late = async {
        // Written behind the slow one, and too late when that is done; then one that never leaves the host.
        for _ in 0..2 {
            let late = worker.call("count", Bytes::new(), Duration::from_millis(40)).await;
            assert_eq!(late, Err(CallError::Deadline));
        }
    };
    // Asked in this order.
    tokio::join!(ask(&worker, "slow", "300"), late);
    assert_eq!(ask(&worker, "count", "").await, "1");
}

pub(crate) async fn a_call_whose_deadline_passes_behind_a_control_function_is_not_executed() {
    let activate = "ON_ACTIVATE=(void)!write(1,\"activating\\n\",11);while(checks<2)nap(1)";
    let worker = launch(&[activate, "ON_HEALTH=checks++"]).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    let late = async {
        until("activate", || worker.log_tail().contains("activating")).await;
        let call = async |function, ms| worker.call(function, Bytes::new(), Duration::from_millis(ms)).await;
        // When the check is answered, the call before it has arrived as well; then its time passes in the worker.
        let (late, check) = tokio::join!(call("count", 50), worker.health(PATIENCE));
        assert_eq!((late, check), (Err(CallError::Deadline), Ok("well".into())));
        assert_eq!(call("peaked", 100).await, Err(CallError::Deadline));
        worker.health(PATIENCE).await.unwrap();
    };
    let (activated, ()) = tokio::join!(worker.activate(), late);
    activated.unwrap();
    assert_eq!(ask(&worker, "count", "").await, "1");
}

pub(crate) async fn an_instance_that_is_null_is_an_error_of_create() {
    let worker = launch(&["INSTANCE=0"]).await.unwrap();
    let error = worker.create(Bytes::new()).await.unwrap_err();
    assert!(matches!(&error, CallError::Plugin { code, .. } if code == "NO_INSTANCE"), "{error}");
    assert_eq!(worker.health(PATIENCE).await, Err(CallError::Illegal), "nothing was created");
}

pub(crate) async fn words_of_health_have_the_bound_that_the_header_names() {
    let health = async |len: usize, status: i32| {
        let worker = launch(&[&format!("ON_HEALTH=return words(detail,{len},{status})")]).await.unwrap();
        worker.create(Bytes::new()).await.unwrap();
        worker.health(PATIENCE).await
    };
    assert_eq!(health(5000, 0).await.map(|text| text.len()), Ok(5000));
    assert_eq!(health(WORDS_MAX, 0).await.map(|text| text.len()), Ok(WORDS_MAX));
    assert_eq!(health(WORDS_MAX + 1, 0).await, Err(CallError::TooLarge));
    let own = CallError::Plugin { code: "PLUGIN_ERROR".into(), message: "x".repeat(WORDS_MAX) };
    assert_eq!(health(WORDS_MAX + 9, 1).await, Err(own), "an error stays one, its words are cut");
}

pub(crate) async fn bodies_of_a_mebibyte_pass_and_larger_ones_do_not() {
    const MIB: usize = 1 << 20;
    let worker = active().await;
    let echoed = worker.call("echo", vec![7; MIB].into(), PATIENCE).await.unwrap();
    assert_eq!(echoed, vec![7; MIB]);
    let too_large = worker.call("echo", vec![7; MIB + 1].into(), PATIENCE).await;
    assert_eq!(too_large, Err(CallError::TooLarge));
    assert_eq!(call(&worker, "output", &MIB.to_string()).await.unwrap().len(), MIB);
    assert_eq!(call(&worker, "output", &(MIB + 1).to_string()).await, Err(CallError::TooLarge));
    assert_eq!(call(&worker, "output", "1073741824").await, Err(CallError::TooLarge));
}

pub(crate) async fn the_matrix_is_enforced() {
    let worker = launch(&[]).await.unwrap();
    let illegal = Err(CallError::Illegal);
    assert_eq!(worker.health(PATIENCE).await, Err(CallError::Illegal), "nothing was created");
    assert_eq!(worker.activate().await, illegal);
    let bad = worker.create(Bytes::from_static(b"!")).await.unwrap_err();
    assert!(matches!(bad, CallError::Plugin { code, .. } if code == "BAD_CONFIG"));
    worker.create(Bytes::new()).await.unwrap();
    assert_eq!(worker.create(Bytes::new()).await, illegal, "there is one already");
    assert_eq!(ask(&worker, "echo", "probe").await, "probe");
    assert_eq!(call(&worker, "count", "").await, Err(CallError::Illegal), "not probe_safe");
    assert_eq!(worker.save_state(1).await, Err(CallError::Illegal));
    worker.activate().await.unwrap();
    assert_eq!(worker.destroy().await, illegal);
    assert_eq!(ask(&worker, "count", "").await, "1");
    let slow = tokio::spawn({
        let worker = worker.clone();
        async move { ask(&worker, "slow", "200").await }
    });
    while ask(&worker, "peaked", "").await != "1" {}
    assert_eq!(worker.save_state(1).await, Err(CallError::Illegal), "a call is in flight");
    assert_eq!(worker.deactivate().await, illegal, "a call is in flight");
    slow.await.unwrap();
    worker.deactivate().await.unwrap();
    assert_eq!(call(&worker, "echo", "").await, Err(CallError::Illegal));
    assert_eq!(worker.save_state(9).await, Err(CallError::Unsupported));
    worker.activate().await.unwrap();
    worker.deactivate().await.unwrap();
    worker.destroy().await.unwrap();
    assert_eq!(worker.destroy().await, illegal);
}

pub(crate) async fn health_answers_while_all_call_threads_are_busy() {
    let worker = active().await;
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let worker = worker.clone();
            tokio::spawn(async move { ask(&worker, "slow", "300").await })
        })
        .collect();
    assert_eq!(worker.health(Duration::from_millis(250)).await.unwrap(), "well");
    for call in busy {
        call.await.unwrap();
    }
}

pub(crate) async fn a_state_of_64_mib_goes_out_and_in_again() {
    const SIZE: usize = 64 << 20;
    let old = active().await;
    ask(&old, "grow", &SIZE.to_string()).await;
    let state = old.save_state(1).await.unwrap();
    assert_eq!(state.len(), SIZE);
    old.close().await;
    let new = launch(&[]).await.unwrap();
    new.create(Bytes::new()).await.unwrap();
    new.restore_state(1, state.clone()).await.unwrap();
    assert_eq!(ask(&new, "echo", "still quick").await, "still quick");
    new.activate().await.unwrap();
    assert!(new.save_state(1).await.unwrap() == state, "it came back otherwise");
    assert!(new.death().is_none());
}

pub(crate) async fn a_state_beyond_its_bound_is_refused() {
    const SIZE: usize = (64 << 20) + 1;
    let worker = active().await;
    ask(&worker, "grow", &SIZE.to_string()).await;
    assert_eq!(worker.save_state(1).await, Err(CallError::TooLarge));
    assert_eq!(worker.restore_state(1, vec![0; SIZE].into()).await, Err(CallError::TooLarge));
}

pub(crate) async fn log_lines_carry_their_source() {
    let (sender, mut lines) = mpsc::channel(16);
    let log = LogSink::channel(sender);
    let worker = LAUNCHER.launch(&specimen(&[]), WorkerSpec { log, ..spec() }).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    worker.activate().await.unwrap();
    ask(&worker, "logs", "two\nlines").await;
    ask(&worker, "logs", &"long".repeat(LINE_MAX)).await;
    let mut next = async || lines.recv().await.unwrap();
    assert_eq!(next().await.text, "constructor ran");
    assert_eq!(next().await, LogLine { source: LogSource::Plugin { level: 2 }, text: "two lines".into() });
    assert_eq!(next().await, LogLine { source: LogSource::Output, text: "on stderr".into() });
    assert_eq!(next().await, LogLine { source: LogSource::Output, text: "on stdout".into() });
    let long = next().await.text.len();
    assert!(long > LINE_MAX - 8 && long <= LINE_MAX, "{long}");
}

pub(crate) async fn a_flood_of_lines_is_bounded() {
    let (sender, mut lines) = mpsc::channel(100_000);
    let log = LogSink::channel(sender);
    let worker = LAUNCHER.launch(&specimen(&[]), WorkerSpec { log, ..spec() }).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    worker.activate().await.unwrap();
    ask(&worker, "flood", "20000").await;
    assert!(worker.log_tail().len() <= TAIL_MAX);
    worker.close().await;
    let mut count = 0;
    let mut dropped = false;
    while let Some(line) = lines.recv().await {
        count += 1;
        dropped |= line.source == LogSource::Host && line.text.contains("lines were dropped");
    }
    assert!(count < 10_000 && dropped, "{count} of 20,000 lines came through");
}

pub(crate) async fn a_storm_of_calls_is_answered_one_by_one() {
    let worker = active().await;
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let worker = worker.clone();
            tokio::spawn(async move {
                for n in 0..100 {
                    let body = format!("{caller}:{n}");
                    assert_eq!(ask(&worker, "echo", &body).await, body);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(worker.death().is_none());
}
