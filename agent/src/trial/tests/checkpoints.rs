//! Checkpoints of a release that answers callers.

use super::*;
use crate::trial::checkpoint;

impl Scene {
    async fn checkpoint(&self, of: &Installed) -> Result<bool, Problem> {
        checkpoint(&self.tools, &self.service, (of.release.id, 1)).await
    }

    /// Bytes of the checkpoint on disk.
    fn kept(&self) -> Option<usize> {
        self.tools.keeper.view("counter").map(|view| view.bytes)
    }
}

#[tokio::test]
async fn a_checkpoint_is_taken_of_an_active_release_which_goes_on() {
    let scene = Scene::new();
    let (release, worker) = scene.serving("1.0.0", stateful(&[1]), 123).await;
    assert_eq!(scene.checkpoint(&release).await, Ok(true));
    assert_eq!(scene.kept(), Some(3));
    assert!(worker.is_active());
    assert_eq!(scene.count().await["count"], 124);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_gives_way_to_a_call_that_is_in_flight_for_long() {
    let scene = Scene::new();
    let (release, worker) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    let slow = scene.call("slow", Duration::from_secs(60));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let problem = scene.checkpoint(&release).await.unwrap_err();
    assert_eq!((&*problem.code, scene.kept()), ("SWAP_BUSY", None));
    assert_eq!(scene.count().await["count"], 6, "callers are let in again");
    worker.let_go.send_replace(true);
    assert!(slow.await.unwrap().outcome.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_gives_way_to_a_waiting_call_while_the_release_saves() {
    let scene = Scene::new();
    let (release, worker) = scene.serving("1.0.0", Kind { ponderous: true, ..stateful(&[1]) }, 5).await;
    let (problem, ()) = tokio::join!(scene.checkpoint(&release), async {
        let waiting = scene.call("count", Duration::from_secs(2)).await.unwrap();
        assert!(waiting.outcome.is_ok(), "it is not lost: {:?}", waiting.outcome);
    });
    assert_eq!(&*problem.unwrap_err().code, "SWAP_BUSY");
    worker.let_go.send_replace(true);
    assert_eq!(scene.checkpoint(&release).await, Ok(true));
}

#[tokio::test]
async fn a_checkpoint_that_fails_or_is_given_up_lets_callers_in_again() {
    let scene = Scene::new();
    let (release, _) = scene.serving("1.0.0", Kind { tight_lipped: true, ..stateful(&[1]) }, 5).await;
    assert_eq!(&*scene.checkpoint(&release).await.unwrap_err().code, "SAVE_STATE_FAILED");
    assert_eq!(scene.count().await["count"], 6);
    let other = scene.verified("2.0.0", stateful(&[1]));
    assert_eq!(scene.checkpoint(&other).await, Ok(false), "it is not in place");
    let scene = Scene::new();
    let (release, _) = scene.serving("1.0.0", Kind { ponderous: true, ..stateful(&[1]) }, 5).await;
    let given_up = tokio::time::timeout(Duration::from_millis(20), scene.checkpoint(&release)).await;
    assert!(given_up.is_err());
    assert_eq!(scene.count().await["count"], 6);
}
