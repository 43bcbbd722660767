//! Calls against a played worker.

use std::time::Duration;

use fleetswap_update::ReleaseId;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    testing::{Counter, Kind, Zoo, installed},
    *,
};

const SECOND: Duration = Duration::from_secs(1);

struct World {
    zoo: Zoo,
    service: Arc<Service>,
    gone: UnboundedReceiver<WorkerGone>,
}

impl World {
    fn new() -> Self {
        let (sender, gone) = mpsc::unbounded_channel();
        Self { zoo: Zoo::default(), service: Service::new("counter".into(), false, sender), gone }
    }

    async fn launch(&self, version: &str) -> (Arc<Counter>, Arc<Live>) {
        let package = self.zoo.package(version, Kind::default());
        let instance = self.zoo.launch(&package).await.unwrap();
        instance.create(Bytes::new()).await.unwrap();
        instance.activate().await.unwrap();
        let record = installed(&package);
        (self.zoo.newest(), Arc::new(Live::new(instance, package, record)))
    }

    async fn place(&self, version: &str) -> (Arc<Counter>, ReleaseId) {
        let (counter, live) = self.launch(version).await;
        let id = live.installed.release.id;
        drop(self.service.place(live));
        (counter, id)
    }

    fn call(&self, function: &str, timeout: Duration) -> tokio::task::JoinHandle<Answer> {
        let service = Arc::clone(&self.service);
        let request = CallRequest {
            plugin: "counter".into(),
            function: function.into(),
            input: Bytes::from_static(b"{}"),
            timeout,
        };
        tokio::spawn(async move { service.call(request).await })
    }
}

fn version(answer: &Answer) -> &str {
    answer.tag.as_ref().map_or("", |tag| tag.version.as_str())
}

/// Lets every other task run until it waits.
async fn settle() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_in_flight_is_answered_by_the_release_that_took_it() {
    let world = World::new();
    let (old, _) = world.place("1.0.0").await;
    let call = world.call("slow", SECOND);
    settle().await;
    world.place("2.0.0").await;
    let next = world.call("count", SECOND).await.unwrap();
    assert_eq!(version(&next), "2.0.0");
    old.let_go.send_replace(true);
    let answer = call.await.unwrap();
    assert_eq!(version(&answer), "1.0.0");
    assert!(answer.outcome.is_ok());
}

#[tokio::test]
async fn a_call_that_was_written_when_its_worker_died_is_told_so() {
    let mut world = World::new();
    let (_, id) = world.place("1.0.0").await;
    let answer = world.call("die", SECOND).await.unwrap();
    assert_eq!(answer.outcome, Err(CallFailure::WorkerDied { executed: "unknown" }));
    assert_eq!(world.gone.recv().await.unwrap().release, id);
}

#[tokio::test]
async fn an_idempotent_call_is_repeated_once_on_the_worker_that_comes_next() {
    let world = World::new();
    let (first, _) = world.place("1.0.0").await;
    let call = world.call("again", SECOND);
    settle().await;
    assert!(first.is_gone() && !call.is_finished(), "it waits for the next worker");
    world.place("2.0.0").await;
    let answer = call.await.unwrap();
    assert_eq!((version(&answer), answer.outcome.is_ok()), ("2.0.0", true));
}

#[tokio::test]
async fn an_idempotent_call_that_kills_every_worker_kills_two_at_most() {
    let world = World::new();
    world.place("1.0.0").await;
    let call = world.call("again", SECOND);
    settle().await;
    let (second, _) = world.place("1.1.0").await;
    let answer = call.await.unwrap();
    assert_eq!(answer.outcome, Err(CallFailure::WorkerDied { executed: "unknown" }));
    assert_eq!(second.calls.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_call_that_was_not_written_waits_for_the_restart() {
    let world = World::new();
    let (first, _) = world.place("1.0.0").await;
    first.crash();
    let call = world.call("count", SECOND);
    settle().await;
    assert!(!call.is_finished());
    world.place("1.0.0").await;
    assert!(call.await.unwrap().outcome.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_meets_its_deadline() {
    let world = World::new();
    let (first, _) = world.place("1.0.0").await;
    first.crash();
    let answer = world.call("count", SECOND).await.unwrap();
    assert_eq!(answer.outcome, Err(CallFailure::Deadline));
}

#[tokio::test]
async fn callers_are_turned_away_with_the_reason() {
    let world = World::new();
    let failure = async |world: &World| world.call("count", SECOND).await.unwrap().outcome.unwrap_err();
    assert_eq!(failure(&world).await, CallFailure::UnknownPlugin("counter".into()));
    world.place("1.0.0").await;
    let unknown = world.call("nothing", SECOND).await.unwrap().outcome;
    assert_eq!(unknown, Err(CallFailure::UnknownFunction("nothing".into())));
    world.service.down(Instant::now() + 30 * SECOND);
    assert!(matches!(failure(&world).await, CallFailure::Down { retry_after } if retry_after > 20 * SECOND));
    world.place("1.0.0").await;
    assert!(world.call("count", SECOND).await.unwrap().outcome.is_ok());
    drop(world.service.stop());
    assert_eq!(failure(&world).await, CallFailure::Stopping);
}

#[tokio::test]
async fn a_worker_that_dies_while_callers_are_held_does_not_get_them_back() {
    let world = World::new();
    let (first, _) = world.place("1.0.0").await;
    world.service.hold();
    first.crash();
    settle().await;
    world.service.reopen();
    let call = world.call("count", SECOND);
    settle().await;
    assert!(!call.is_finished());
    world.place("2.0.0").await;
    assert_eq!(version(&call.await.unwrap()), "2.0.0");
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_health_stays_red_is_ended() {
    let mut world = World::new();
    let (first, _) = world.place("1.0.0").await;
    first.fall_sick();
    let gone = world.gone.recv().await.unwrap();
    assert_eq!(&*gone.problem.code, "HEALTH_FAILED");
    assert!(first.is_gone());
}

/// Health may not be asked of a release at rest, so what it would say counts for nothing.
#[tokio::test(start_paused = true)]
async fn a_worker_at_rest_for_a_swap_is_not_ended_for_its_health() {
    let mut world = World::new();
    let (old, _) = world.place("1.0.0").await;
    world.service.hold();
    old.fall_sick();
    // Health is due every 10 ms here.
    tokio::time::sleep(SECOND).await;
    assert!(!old.is_gone() && world.gone.try_recv().is_err());
    world.service.reopen();
    tokio::time::sleep(SECOND).await;
    assert!(old.is_gone(), "callers are let in again, and it is still sick");
}

/// Its calls would be lost with it; the trial takes it back in order.
#[tokio::test(start_paused = true)]
async fn a_worker_on_trial_whose_health_stays_red_is_left_to_the_trial() {
    let world = World::new();
    let (counter, live) = world.launch("1.0.0").await;
    live.signs.set_on_trial(true);
    drop(world.service.place(Arc::clone(&live)));
    counter.fall_sick();
    tokio::time::sleep(SECOND).await;
    assert!(!counter.is_gone());
    assert_eq!(&*live.signs.bad().await.code, "HEALTH_FAILED", "the trial hears of it");
    live.signs.set_on_trial(false);
    tokio::time::sleep(SECOND).await;
    assert!(counter.is_gone());
}

#[tokio::test]
async fn an_adopted_release_answers_under_its_new_id_with_the_same_worker() {
    let world = World::new();
    let (worker, live) = world.launch("1.0.0").await;
    let mut record = live.installed.clone();
    drop(world.service.place(live));
    record.release.id = ReleaseId::new([7; 32]);
    world.service.adopt(&record);
    let answer = world.call("count", SECOND).await.unwrap();
    assert_eq!(answer.tag.unwrap().release_id, "07".repeat(32));
    assert!(worker.is_active() && world.zoo.launched.lock().unwrap().len() == 1);
}
