//! The loop of a plugin, turn by turn.

use fleetswap_update::{Life as Standing, Serving};

use tokio::time::timeout;

use super::*;
use crate::{
    durable::StateDir,
    run::tests::{Host, commit},
    service::testing::Kind,
};

/// Longest wait for a word that has to come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    host: Host,
    life: Life,
    _told: mpsc::Sender<Told>,
    _state: StateDir,
}

impl Scene {
    /// A host that has committed a release; its start is taken in.
    async fn new() -> Self {
        let host = Host::new();
        let plugin = commit(Plugin::new("counter".into()), 1, &host.shelve("1.0.0", Kind::default()));
        let state = StateDir::open(host.dir.path()).unwrap();
        let (told, inbox) = mpsc::channel(1);
        let (world, _) = host.world(&state, true);
        let mut life = Life::new(Arc::new(world), plugin, inbox);
        life.take(Fact::Started { boot_id: "boot-1".into(), clean_stop: true }).await;
        Self { host, life, _told: told, _state: state }
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
