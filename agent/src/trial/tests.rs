//! The tasks of a trial against played workers.

mod checkpoints;
mod leaving;
mod probing;

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use fleetswap_proto::v1;
use fleetswap_update::{Carry, Fault, Installed, Outcome, Problem, Proof, Swap, Task, Time};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::{Bench, Tools, perform};
use crate::{
    calls::{Answer, CallRequest},
    clock,
    durable::StateDir,
    fetch::Fetcher,
    link::{Identity, Standing, endpoint},
    service::{
        Instance, Package, Service, Shelf, WorkerGone,
        testing::{Counter, Kind, PLATFORM, Zoo, installed},
    },
};
use std::{sync::Arc, time::Duration};

/// One host with nobody to fetch from.
struct Scene {
    zoo: Arc<Zoo>,
    tools: Tools,
    service: Arc<Service>,
    bench: Bench,
    _gone: mpsc::UnboundedReceiver<WorkerGone>,
    _dir: tempfile::TempDir,
}

pub(crate) fn tools(state: &StateDir, zoo: &Arc<Zoo>, standing: watch::Sender<Standing>) -> Tools {
    let shelf = Shelf { manifests: state.manifests(), blobs: state.blobs(), platform: PLATFORM.to_owned() };
    let nowhere = endpoint(([127, 0, 0, 1], 9).into());
    let identity = Identity::new("id", "name").unwrap();
    Tools {
        fetcher: Fetcher::new(state.blobs(), &nowhere, identity, &[]).unwrap(),
        shelf,
        trust: state.trust(std::path::Path::new("/nonexistent/root.json")),
        allow_dev_trust: false,
        keeper: crate::keeper::Keeper::new(state.states(), 1),
        rules: fleetswap_inspect::Rules::default(),
        launch: Arc::clone(zoo) as Arc<dyn crate::service::Launch>,
        standing,
        metrics: Arc::new(crate::metrics::Metrics::new()),
        logs: crate::logs::Logs::default(),
        updating: Arc::default(),
    }
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let zoo = Arc::new(Zoo::default());
        let (sender, gone) = mpsc::unbounded_channel();
        Self {
            tools: tools(&state, &zoo, watch::Sender::default()),
            zoo,
            service: Service::new("counter".into(), false, sender),
            bench: Bench::default(),
            _gone: gone,
            _dir: dir,
        }
    }

    /// Puts the package where `verify` would have put it.
    fn verified(&self, version: &str, kind: Kind) -> Installed {
        let package: Arc<Package> = self.zoo.package(version, kind);
        let record = installed(&package);
        self.bench.lock().package = Some(package);
        record
    }

    async fn run(&self, task: Task) -> Result<Outcome, Problem> {
        match perform(&self.tools, &self.service, &self.bench, task).await {
            Outcome::Failed(problem) => Err(problem),
            other => Ok(other),
        }
    }

    /// The switch up to the saved state.
    async fn pause(&self, swap: &Swap) -> Result<Outcome, Problem> {
        self.run(Task::Prepare(Box::new(swap.to.clone().unwrap()))).await?;
        self.run(Task::Pause(Box::new(swap.clone()))).await
    }

    /// The whole switch.
    async fn switch(&self, swap: &Swap) -> Result<Outcome, Problem> {
        self.pause(swap).await?;
        self.run(Task::Restore(Box::new(swap.clone()))).await?;
        self.run(Task::Activate(Box::new(swap.clone()))).await?;
        self.run(Task::Move(Box::new(swap.clone()))).await
    }

    /// A release that answers, with `calls` counted.
    async fn serving(&self, version: &str, kind: Kind, calls: u64) -> (Installed, Arc<Counter>) {
        let record = self.verified(version, kind);
        self.switch(&swap(None, Some(&record))).await.unwrap();
        let counter = self.zoo.newest();
        counter.count.store(calls, SeqCst);
        (record, counter)
    }

    fn call(&self, function: &str, timeout: Duration) -> tokio::task::JoinHandle<Answer> {
        let service = Arc::clone(&self.service);
        let (plugin, function) = ("counter".into(), function.into());
        let request = CallRequest { plugin, function, input: Bytes::from_static(b"{}"), timeout };
        tokio::spawn(async move { service.call(request).await })
    }

    async fn count(&self) -> serde_json::Value {
        let answer = self.call("count", Duration::from_secs(5)).await.unwrap();
        serde_json::from_slice(&answer.outcome.unwrap()).unwrap()
    }
}

fn swap(from: Option<&Installed>, to: Option<&Installed>) -> Swap {
    let both = from.zip(to);
    Swap {
        from: from.cloned(),
        to: to.cloned(),
        carry: both.map_or(Carry::Nothing, |(from, to)| Carry::between(from, to)),
        excludes: both.is_some_and(|(from, to)| from.excludes(to)),
    }
}

fn back_to(from: &Installed, to: &Installed) -> Task {
    Task::GoBack { swap: Box::new(swap(Some(from), Some(to))), planned: false }
}

fn stateful(versions: &[u32]) -> Kind {
    Kind { state: versions.to_vec(), ..Kind::default() }
}

#[tokio::test]
async fn state_goes_over_and_comes_back() {
    let scene = Scene::new();
    let (old, first) = scene.serving("1.0.0", stateful(&[1]), 41).await;
    let new = scene.verified("2.0.0", stateful(&[1, 2]));
    let there = swap(Some(&old), Some(&new));
    assert!(matches!(scene.switch(&there).await, Ok(Outcome::Switched { .. })));
    assert_eq!(scene.count().await, json!({"version": "2.0.0", "count": 42}));
    assert!(!first.is_active());
    let outcome = scene.run(back_to(&new, &old)).await;
    assert_eq!(outcome, Ok(Outcome::WentBack { answers: true, lost: String::new() }));
    assert_eq!(scene.count().await, json!({"version": "1.0.0", "count": 43}));
    assert_eq!(scene.zoo.most_active.load(SeqCst), 1, "never two active at once");
}

#[tokio::test]
async fn a_crash_on_probation_goes_back_to_the_state_before_and_says_so() {
    let scene = Scene::new();
    let (old, _) = scene.serving("1.0.0", stateful(&[1]), 41).await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    scene.switch(&swap(Some(&old), Some(&new))).await.unwrap();
    scene.count().await;
    scene.zoo.newest().crash();
    let parked = scene.call("count", Duration::from_secs(5));
    let Ok(Outcome::WentBack { answers, lost }) = scene.run(back_to(&new, &old)).await else {
        panic!("not back")
    };
    assert!(answers && lost.starts_with("changes since the switch"), "{lost}");
    assert!(parked.await.unwrap().outcome.is_ok(), "a call that waited is answered by the old release");
    assert_eq!(scene.count().await["count"], 43);
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_would_cost_a_call_is_given_up_and_the_old_release_goes_on() {
    let scene = Scene::new();
    let (old, first) = scene.serving("1.0.0", stateful(&[1]), 7).await;
    let slow = scene.call("slow", Duration::from_secs(60));
    tokio::task::yield_now().await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    let problem = scene.pause(&swap(Some(&old), Some(&new))).await.unwrap_err();
    assert_eq!((&*problem.code, problem.fault), ("SWAP_BUSY", Fault::Host));
    assert_eq!(scene.count().await, json!({"version": "1.0.0", "count": 8}));
    first.let_go.send_replace(true);
    assert!(slow.await.unwrap().outcome.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_near_its_deadline_ends_the_switch() {
    let scene = Scene::new();
    let (old, first) = scene.serving("1.0.0", stateful(&[1]), 0).await;
    let _slow = scene.call("slow", Duration::from_secs(60));
    tokio::task::yield_now().await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    let there = swap(Some(&old), Some(&new));
    let (paused, waited) = tokio::join!(scene.pause(&there), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        scene.call("count", Duration::from_millis(700)).await.unwrap()
    });
    assert!(paused.unwrap_err().got.contains("deadline"));
    assert!(waited.outcome.is_ok(), "the waiting call is answered in time");
    assert!(first.is_active());
}

#[tokio::test]
async fn without_state_callers_never_wait_and_calls_finish_where_they_began() {
    let scene = Scene::new();
    let (old, first) = scene.serving("1.0.0", Kind::default(), 0).await;
    let slow = scene.call("slow", Duration::from_secs(5));
    tokio::task::yield_now().await;
    let new = scene.verified("2.0.0", Kind::default());
    let outcome = scene.switch(&swap(Some(&old), Some(&new))).await;
    assert_eq!(outcome, Ok(Outcome::Switched { pause_us: 0 }));
    assert_eq!(scene.count().await["version"], "2.0.0");
    first.let_go.send_replace(true);
    assert_eq!(slow.await.unwrap().tag.unwrap().version, "1.0.0");
}

#[tokio::test]
async fn a_candidate_that_cannot_take_the_state_leaves_the_old_release_with_it() {
    let scene = Scene::new();
    let (old, _) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    let new = scene.verified("2.0.0", Kind { forgetful: true, ..stateful(&[1]) });
    let there = swap(Some(&old), Some(&new));
    let problem = scene.switch(&there).await.unwrap_err();
    assert_eq!((&*problem.code, problem.fault), ("RESTORE_STATE_FAILED", Fault::Release));
    let waiting = scene.call("count", Duration::from_secs(5));
    let outcome = scene.run(back_to(&new, &old)).await;
    assert_eq!(outcome, Ok(Outcome::WentBack { answers: true, lost: String::new() }));
    assert!(waiting.await.unwrap().outcome.is_ok());
    assert_eq!(scene.count().await, json!({"version": "1.0.0", "count": 7}));
}

#[tokio::test]
async fn a_first_install_that_goes_back_leaves_nothing_to_call() {
    let scene = Scene::new();
    let (only, _) = scene.serving("1.0.0", Kind::default(), 0).await;
    let outcome = scene.run(Task::GoBack { swap: Box::new(swap(Some(&only), None)), planned: false }).await;
    assert_eq!(outcome, Ok(Outcome::WentBack { answers: false, lost: String::new() }));
    let answer = scene.call("count", Duration::from_secs(1)).await.unwrap();
    assert!(matches!(answer.outcome, Err(crate::calls::CallFailure::UnknownPlugin(_))));
}

#[tokio::test]
async fn an_old_release_without_a_worker_does_not_hold_the_switch_up() {
    let scene = Scene::new();
    let (old, first) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    first.crash();
    let new = scene.verified("2.0.0", stateful(&[1]));
    let Ok(Outcome::Saved { lost }) = scene.pause(&swap(Some(&old), Some(&new))).await else {
        panic!("not saved")
    };
    assert!(lost.contains("no worker that could save its state"), "{lost}");
}

#[tokio::test]
async fn without_trusted_metadata_nothing_is_fetched() {
    let scene = Scene::new();
    let record = scene.verified("1.0.0", Kind::default());
    let problem = scene.run(Task::Fetch { release: record.release, at: Time(0) }).await.unwrap_err();
    assert!(problem.code.starts_with("TRUST_"), "{}", problem.code);
    assert_eq!(scene.tools.standing.borrow().metadata, v1::MetadataVersions::default());
}

#[tokio::test]
async fn an_old_release_that_cannot_save_goes_on_and_the_candidate_is_not_blamed() {
    let scene = Scene::new();
    let (old, first) = scene.serving("1.0.0", Kind { tight_lipped: true, ..stateful(&[1]) }, 5).await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    let problem = scene.pause(&swap(Some(&old), Some(&new))).await.unwrap_err();
    assert_eq!((&*problem.code, problem.fault), ("SAVE_STATE_FAILED", Fault::Host));
    assert!(first.is_active());
    assert_eq!(scene.count().await, json!({"version": "1.0.0", "count": 6}));
}

#[tokio::test(start_paused = true)]
async fn a_candidate_whose_calls_never_end_is_ended_before_the_old_release_wakes() {
    let scene = Scene::new();
    let (old, _) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    scene.switch(&swap(Some(&old), Some(&new))).await.unwrap();
    let stuck = scene.call("slow", Duration::from_secs(60));
    tokio::task::yield_now().await;
    let outcome = scene.run(back_to(&new, &old)).await;
    assert!(matches!(outcome, Ok(Outcome::WentBack { answers: true, .. })));
    assert!(stuck.await.unwrap().outcome.is_err(), "its caller is told");
    assert_eq!(scene.zoo.most_active.load(SeqCst), 1, "never two active at once");
    assert_eq!(scene.count().await, json!({"version": "1.0.0", "count": 6}));
}

#[tokio::test(start_paused = true)]
async fn a_planned_way_back_waits_for_a_better_moment_rather_than_cost_a_call() {
    let scene = Scene::new();
    let (old, _) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    scene.switch(&swap(Some(&old), Some(&new))).await.unwrap();
    let (candidate, slow) = (scene.zoo.newest(), scene.call("slow", Duration::from_secs(60)));
    tokio::task::yield_now().await;
    let back = Task::GoBack { swap: Box::new(swap(Some(&new), Some(&old))), planned: true };
    let (outcome, ()) = tokio::join!(scene.run(back), async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        assert_eq!(scene.count().await["version"], "2.0.0", "the candidate goes on meanwhile");
        candidate.let_go.send_replace(true);
    });
    assert_eq!(outcome, Ok(Outcome::WentBack { answers: true, lost: String::new() }));
    assert!(slow.await.unwrap().outcome.is_ok());
    assert_eq!(scene.count().await, json!({"version": "1.0.0", "count": 8}));
}

#[tokio::test(start_paused = true)]
async fn a_state_that_takes_too_long_to_take_over_gives_way_before_a_call_is_lost() {
    let scene = Scene::new();
    let (old, first) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    let new = scene.verified("2.0.0", Kind { ponderous: true, ..stateful(&[1]) });
    let there = swap(Some(&old), Some(&new));
    scene.pause(&there).await.unwrap();
    let waiting = scene.call("count", Duration::from_secs(2));
    let problem = scene.run(Task::Restore(Box::new(there))).await.unwrap_err();
    assert_eq!((&*problem.code, problem.fault), ("SWAP_BUSY", Fault::Host));
    let back = Task::GoBack { swap: Box::new(swap(Some(&new), Some(&old))), planned: true };
    let outcome = scene.run(back).await;
    assert_eq!(outcome, Ok(Outcome::WentBack { answers: true, lost: String::new() }));
    assert!(waiting.await.unwrap().outcome.is_ok() && first.is_active());
    assert_eq!(scene.count().await, json!({"version": "1.0.0", "count": 7}));
}

#[tokio::test(start_paused = true)]
async fn callers_in_a_hurry_do_not_keep_a_switch_from_happening() {
    let scene = Scene::new();
    let (old, _) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    let there = swap(Some(&old), Some(&new));
    scene.pause(&there).await.unwrap();
    let hasty = scene.call("count", Duration::from_millis(300));
    tokio::time::sleep(Duration::from_millis(100)).await;
    scene.run(Task::Restore(Box::new(there.clone()))).await.unwrap();
    scene.run(Task::Activate(Box::new(there.clone()))).await.unwrap();
    scene.run(Task::Move(Box::new(there))).await.unwrap();
    assert_eq!(hasty.await.unwrap().tag.unwrap().version, "2.0.0");
}

#[tokio::test(start_paused = true)]
async fn an_old_release_that_does_not_wake_is_ended_and_its_callers_wait_for_the_next_worker() {
    let scene = Scene::new();
    let kind = Kind { tight_lipped: true, sleepy: true, ..stateful(&[1]) };
    let (old, first) = scene.serving("1.0.0", kind, 5).await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    assert!(scene.pause(&swap(Some(&old), Some(&new))).await.is_err());
    assert!(first.is_gone());
    let waiting = scene.call("count", Duration::from_secs(5));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "nobody is let in to an instance at rest");
    scene.switch(&swap(None, Some(&new))).await.unwrap();
    assert_eq!(waiting.await.unwrap().tag.unwrap().version, "2.0.0");
}

#[tokio::test(start_paused = true)]
async fn a_planned_way_back_gives_way_to_a_call_while_the_candidate_saves() {
    let scene = Scene::new();
    let (old, _) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    let new = scene.verified("2.0.0", Kind { ponderous: true, ..stateful(&[1]) });
    let there = swap(Some(&old), Some(&new));
    scene.pause(&there).await.unwrap();
    let candidate = scene.zoo.newest();
    candidate.let_go.send_replace(true);
    scene.run(Task::Restore(Box::new(there.clone()))).await.unwrap();
    scene.run(Task::Activate(Box::new(there.clone()))).await.unwrap();
    scene.run(Task::Move(Box::new(there))).await.unwrap();
    candidate.let_go.send_replace(false);
    let back = Task::GoBack { swap: Box::new(swap(Some(&new), Some(&old))), planned: true };
    let (outcome, ()) = tokio::join!(scene.run(back), async {
        let waiting = scene.call("count", Duration::from_secs(2)).await.unwrap();
        assert_eq!(waiting.tag.unwrap().version, "2.0.0");
        assert!(waiting.outcome.is_ok(), "the candidate answers while a better moment is awaited");
        candidate.let_go.send_replace(true);
    });
    assert_eq!(outcome, Ok(Outcome::WentBack { answers: true, lost: String::new() }));
    assert_eq!(scene.count().await, json!({"version": "1.0.0", "count": 7}));
    assert_eq!(scene.zoo.most_active.load(SeqCst), 1, "never two active at once");
}
