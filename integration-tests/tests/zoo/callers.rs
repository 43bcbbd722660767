//! Callers that go on calling while a cell is tried, and what each was answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fleetswap_integration_tests::harness::{CallError, Caller, Reply};
use tokio::{runtime::Handle, task::JoinHandle, time::sleep};

use crate::specimen::NAME;

/// Callers on a host at a time.
const CALLERS: u64 = 6;
/// Between two calls of one caller: for so many calls, so that a short trial sees many, and later, so that those who
/// wait for a timeout leave the machine to others.
const PAUSE_AT_FIRST: Duration = Duration::from_millis(1);
const AT_FIRST: u64 = 130;
const PAUSE_LATER: Duration = Duration::from_millis(300);
/// No answer by then is no answer at all: longer than any call may last.
const NEVER: Duration = Duration::from_secs(90);

/// How callers begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Fast.
    Quick,
    /// As they go on.
    Calm,
}

/// Running callers.
#[derive(Debug)]
pub(crate) struct Callers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<Answer>>>,
}

/// One call and its answer.
#[derive(Debug)]
pub(crate) struct Answer {
    nonce: u64,
    reply: Result<Reply, CallError>,
}

/// What the answers of a cell sum up to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Good answers of the release that ran before.
    pub(crate) of_the_old: usize,
    /// Good answers of the release that is tried.
    pub(crate) of_the_bad: usize,
    /// Whatever must not be, in words.
    pub(crate) wrong: Vec<String>,
}

impl Callers {
    /// Starts them; `timeout` is what each call asks for.
    pub(crate) fn start(runtime: &Handle, caller: &Caller, (timeout, pace): (&'static str, Pace)) -> Self {
        let (stop, nonces) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let caller = caller.clone().with_timeout(timeout);
        let tasks = (0..CALLERS)
            .map(|_| runtime.spawn(call_on(caller.clone(), Arc::clone(&stop), Arc::clone(&nonces), pace)))
            .collect();
        Self { stop, tasks }
    }

    /// Sends no further call, and waits for the answers of those in flight.
    pub(crate) fn finish(self, runtime: &Handle) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for task in self.tasks {
            answers.extend(runtime.block_on(task).unwrap_or_default());
        }
        answers
    }
}

async fn call_on(caller: Caller, stop: Arc<AtomicBool>, nonces: Arc<AtomicU64>, pace: Pace) -> Vec<Answer> {
    let mut answers = Vec::new();
    loop {
        let nonce = nonces.fetch_add(1, Ordering::Relaxed);
        let reply = caller.call(NAME, "echo", Bytes::from(nonce.to_string()), NEVER).await;
        answers.push(Answer { nonce, reply });
        if stop.load(Ordering::Relaxed) {
            return answers;
        }
        sleep(if pace == Pace::Quick && nonce < AT_FIRST { PAUSE_AT_FIRST } else { PAUSE_LATER }).await;
    }
}

/// Sums up: every answer must be the echo of its own call by the release that it names, or an error that the bad
/// release may cause.
pub(crate) fn tally(answers: &[Answer], (old, bad): (&str, &str), errors: &[u64]) -> Tally {
    let mut tally = Tally::default();
    for Answer { nonce, reply } in answers {
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                tally.wrong.push(format!("call {nonce} has no answer: {error}"));
                continue;
            }
        };
        let is_echo = reply.body["input"] == *nonce && reply.body["version"] == reply.version;
        match reply.status {
            200 if is_echo && reply.version == old => tally.of_the_old += 1,
            200 if is_echo && reply.version == bad => tally.of_the_bad += 1,
            status if errors.contains(&u64::from(status)) && reply.version == bad => {}
            _ => tally.wrong.push(format!("call {nonce} was answered {reply:?}")),
        }
    }
    tally
}

#[test]
fn an_answer_to_another_call_or_by_another_release_is_noticed() {
    let answer = |status, version: &str, body| Answer {
        nonce: 7,
        reply: Ok(Reply { status, release: "aa".to_owned(), version: version.to_owned(), body }),
    };
    let body = |version: &str, input: u64| serde_json::json!({ "version": version, "input": input });
    let wrong = |answer: Answer| tally(&[answer], ("1.0.0", "2.0.0"), &[504]).wrong.len();
    assert_eq!(wrong(answer(200, "1.0.0", body("1.0.0", 7))), 0);
    assert_eq!(wrong(answer(200, "1.0.0", body("1.0.0", 8))), 1, "the nonce is another call's");
    assert_eq!(wrong(answer(200, "1.0.0", body("2.0.0", 7))), 1, "the reply names another release");
    assert_eq!(wrong(answer(200, "3.0.0", body("3.0.0", 7))), 1, "nobody pushed this one");
    assert_eq!(wrong(answer(504, "2.0.0", serde_json::Value::Null)), 0);
    assert_eq!(wrong(answer(504, "1.0.0", serde_json::Value::Null)), 1, "the old release does no harm");
    assert_eq!(wrong(answer(503, "2.0.0", serde_json::Value::Null)), 1);
}
