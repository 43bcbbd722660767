//! The loop of a plugin, turn by turn.

use fleetswap_update::{Life as Standing, ServiceStatus, Serving, Step, Switch};

use tokio::time::timeout;

use super::*;
use crate::{
    durable::StateDir,
    run::tests::{Host, commit, offer, stateful},
    service::testing::Kind,
};

/// Longest wait for a word that has to come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    host: Host,
    life: Life,
    /// Lies on the shelf.
    candidate: Installed,
    _told: mpsc::Sender<Told>,
    _state: StateDir,
}

impl Scene {
    /// A host that has committed a release; its start is taken in.
    async fn new() -> Self {
        Self::with(Kind::default()).await
    }

    async fn with(kind: Kind) -> Self {
        let host = Host::new();
        let plugin = commit(Plugin::new("counter".into()), 1, &host.shelve("1.0.0", kind));
        let candidate = host.shelve("2.0.0", stateful());
        let state = StateDir::open(host.dir.path()).unwrap();
        let (told, inbox) = mpsc::channel(1);
        let (world, _) = host.world(&state, true);
        let mut life = Life::new(Arc::new(world), plugin, inbox);
        life.take(Fact::Started { boot_id: "boot-1".into(), clean_stop: true }).await;
        Self { host, life, candidate, _told: told, _state: state }
    }

    /// What the loop's own tasks say next.
    async fn own(&mut self) -> Own {
        timeout(PATIENCE, self.life.own.1.recv()).await.expect("nothing is told").unwrap()
    }

    async fn death(&mut self) {
        let gone = timeout(PATIENCE, self.life.gone.recv()).await.expect("no death is told").unwrap();
        self.life.take_gone(gone).await;
    }

    fn serving(&self) -> &Serving {
        self.life.plugin.service().serving().unwrap()
    }

    fn answers(&self) -> bool {
        let live = self.life.service.live();
        self.serving().life == Standing::Running && live.is_some_and(|live| !live.instance.is_gone())
    }

    fn is_restarting(&self) -> bool {
        matches!(self.serving().life, Standing::Restarting { .. })
    }
}

#[tokio::test]
async fn a_worker_that_dies_before_its_start_is_told_is_started_again() {
    let mut scene = Scene::new().await;
    let started = scene.own().await;
    scene.host.zoo.newest().crash();
    scene.death().await;
    scene.life.take_own(started).await;
    assert!(scene.is_restarting());
    let again = scene.own().await;
    scene.life.take_own(again).await;
    assert_eq!((&scene.serving().life, scene.serving().deaths.len()), (&Standing::Running, 1));
    assert!(!scene.life.service.live().unwrap().instance.is_gone());
}

#[tokio::test]
async fn a_release_that_is_said_to_answer_after_its_worker_died_is_started_again_and_its_death_counts_once() {
    for death_first in [true, false] {
        let mut scene = Scene::new().await;
        let started = scene.own().await;
        scene.life.take_own(started).await;
        let id = scene.serving().active.release.id;
        scene.host.zoo.newest().crash();
        if death_first {
            scene.death().await;
        } else {
            // As if its place had been another's meanwhile.
            scene.life.serving = None;
        }
        scene.life.take(Fact::Ready(id)).await;
        if !death_first {
            let told = scene.own().await;
            scene.life.take_own(told).await;
            assert!(scene.is_restarting());
            scene.death().await;
        }
        assert_eq!(scene.serving().deaths.len(), 1);
        // The first restart waits for nothing: it may be under way already.
        while !scene.answers() {
            let again = scene.own().await;
            scene.life.take_own(again).await;
        }
        assert_eq!(scene.serving().deaths.len(), 1);
    }
}

impl Scene {
    async fn take_trial(&mut self, outcome: Outcome) {
        let serial = self.life.plugin.trial_serial().unwrap();
        self.life.take(Fact::Trial { serial, outcome }).await;
    }

    /// Brings a release up to the switch, as if it had been fetched, verified and probed.
    async fn prepare(&mut self) {
        let candidate = self.candidate.clone();
        let told = Offer { rollback: false, min_healthy_ms: 60_000, ..offer(2, &candidate) };
        self.life.take(Fact::Told(told)).await;
        self.until(|plugin| plugin.trial().is_some()).await;
        // What the tasks of these steps have to say comes too late.
        for outcome in [Outcome::Fetched, Outcome::Verified(candidate), Outcome::Loaded, Outcome::Probed] {
            self.take_trial(outcome).await;
        }
        self.until(|plugin| plugin.trial().unwrap().step == Step::Switching(Switch::Pausing)).await;
    }

    /// Brings it on probation.
    async fn try_out(&mut self) {
        self.prepare().await;
        self.until(|plugin| matches!(plugin.trial().unwrap().step, Step::Probation { .. })).await;
    }

    async fn until(&mut self, is: impl Fn(&Plugin) -> bool) {
        while !is(&self.life.plugin) {
            let own = self.own().await;
            self.life.take_own(own).await;
        }
    }

    /// The agent ends as asked, and starts again.
    async fn again(self) -> (Host, Life, StateDir) {
        let Self { host, life, _state: state, .. } = self;
        life.end().await;
        let on_disk = life_on_disk(&state);
        let (world, _) = host.world(&state, true);
        let mut life = Life::new(Arc::new(world), on_disk, mpsc::channel(1).1);
        life.take(Fact::Started { boot_id: "boot-1".into(), clean_stop: true }).await;
        (host, life, state)
    }
}

fn life_on_disk(state: &StateDir) -> Plugin {
    state.records().of("counter").load::<super::super::written::Saved>().unwrap().unwrap().plugin
}

fn counted(host: &Host) -> u64 {
    host.zoo.newest().count.load(std::sync::atomic::Ordering::SeqCst)
}

#[tokio::test]
async fn an_end_on_probation_gives_the_candidates_state_to_the_old_release() {
    let mut scene = Scene::with(stateful()).await;
    let started = scene.own().await;
    scene.life.take_own(started).await;
    scene.host.zoo.newest().count.store(3, std::sync::atomic::Ordering::SeqCst);
    scene.try_out().await;
    assert_eq!(counted(&scene.host), 3, "the state came along");
    scene.host.zoo.newest().count.store(7, std::sync::atomic::Ordering::SeqCst);
    let (host, mut life, _state) = Box::pin(scene.again()).await;
    loop {
        // The trial begins anew as well, and has nobody to fetch from.
        let own = timeout(PATIENCE, life.own.1.recv()).await.expect("not started").unwrap();
        let Own::Started(live, lost) = own else { continue };
        assert_eq!((live.tag.version.as_str(), lost.as_str(), counted(&host)), ("1.0.0", "", 7));
        break;
    }
}

#[tokio::test]
async fn a_switch_waits_for_a_checkpoint_that_is_under_way_and_no_checkpoint_is_taken_during_it() {
    let mut scene = Scene::with(Kind { ponderous: true, ..stateful() }).await;
    let started = scene.own().await;
    scene.life.take_own(started).await;
    let first = scene.host.zoo.newest();
    assert!(scene.life.checkpoints.due().is_some());
    scene.life.checkpoint();
    scene.prepare().await;
    assert!(scene.life.doing.is_none() && first.is_active(), "the switch is prepared, and does not begin");
    first.let_go.send_replace(true);
    scene.until(|plugin| matches!(plugin.trial().unwrap().step, Step::Probation { .. })).await;
    assert_eq!(scene.life.checkpoints.due(), None);
    assert!(!scene.life.checkpoints.is_running());
}

#[tokio::test]
async fn what_a_task_says_that_was_given_up_is_not_taken_for_the_outcome_of_the_next() {
    let mut scene = Scene::with(stateful()).await;
    let started = scene.own().await;
    scene.life.take_own(started).await;
    scene.try_out().await;
    let (watch, serial) = (scene.life.task, scene.life.plugin.trial_serial().unwrap());
    let bad = Problem::new(Fault::Release, "HEALTH_FAILED", "it went red");
    scene.life.take(Fact::Died(scene.candidate.release.id, bad.clone())).await;
    // The watch over it had said the same a moment before.
    scene.life.take_own(Own::Outcome(watch, serial, Box::new(Outcome::Failed(bad)))).await;
    assert!(matches!(scene.life.plugin.trial().unwrap().step, Step::RollingBack { .. }));
    let back = scene.own().await;
    scene.life.take_own(back).await;
    let status = scene.life.plugin.status();
    assert_eq!((status.service, status.trial.unwrap().lost.as_str()), (ServiceStatus::Serving, ""));
}
