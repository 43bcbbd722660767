//! Releases on their way out: what they may still do, and what has to wait for their end.

use tokio::time::{Instant, sleep};

use super::*;

fn planned(from: &Installed, to: &Installed) -> Task {
    Task::GoBack { swap: Box::new(swap(Some(from), Some(to))), planned: true }
}

#[tokio::test(start_paused = true)]
async fn an_install_that_was_undone_has_ended_before_the_next_release_is_active() {
    let scene = Scene::new();
    let (only, first) = scene.serving("1.0.0", stateful(&[1]), 0).await;
    let slow = scene.call("slow", Duration::from_secs(60));
    tokio::task::yield_now().await;
    scene.run(Task::GoBack { swap: Box::new(swap(Some(&only), None)), planned: false }).await.unwrap();
    let next = scene.verified("2.0.0", stateful(&[1]));
    let there = swap(None, Some(&next));
    let (switched, ()) = tokio::join!(scene.switch(&there), async {
        sleep(Duration::from_secs(5)).await;
        first.let_go.send_replace(true);
    });
    assert!(switched.is_ok() && slow.await.unwrap().outcome.is_ok());
    assert!(first.is_gone());
    assert_eq!(scene.zoo.most_active.load(SeqCst), 1, "never two active at once");
}

#[tokio::test(start_paused = true)]
async fn a_release_without_state_does_not_wait_for_calls_of_another_one() {
    let scene = Scene::new();
    let (only, _) = scene.serving("1.0.0", Kind::default(), 0).await;
    let _slow = scene.call("slow", Duration::from_secs(60));
    tokio::task::yield_now().await;
    scene.run(Task::GoBack { swap: Box::new(swap(Some(&only), None)), planned: false }).await.unwrap();
    let next = scene.verified("2.0.0", Kind::default());
    let begun = Instant::now();
    scene.switch(&swap(None, Some(&next))).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_planned_way_back_outwaits_the_longest_call() {
    let scene = Scene::new();
    let (old, _) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    scene.switch(&swap(Some(&old), Some(&new))).await.unwrap();
    let (candidate, slow) = (scene.zoo.newest(), scene.call("slow", Duration::from_secs(60)));
    tokio::task::yield_now().await;
    let (outcome, ()) = tokio::join!(scene.run(planned(&new, &old)), async {
        sleep(Duration::from_secs(58)).await;
        candidate.let_go.send_replace(true);
    });
    assert_eq!(outcome, Ok(Outcome::WentBack { answers: true, lost: String::new() }));
    assert!(slow.await.unwrap().outcome.is_ok());
    assert_eq!(scene.count().await, json!({"version": "1.0.0", "count": 7}));
}

#[tokio::test(start_paused = true)]
async fn a_planned_way_back_does_not_wait_for_ever() {
    let scene = Scene::new();
    let (old, _) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    scene.switch(&swap(Some(&old), Some(&new))).await.unwrap();
    drop(scene.call("slow", Duration::from_secs(60)));
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let overlapping = async {
        loop {
            drop(scene.call("slow", Duration::from_secs(60)));
            sleep(Duration::from_secs(20)).await;
        }
    };
    let outcome = tokio::select! {
        biased;
        () = overlapping => unreachable!(),
        outcome = scene.run(planned(&new, &old)) => outcome,
    };
    let Ok(Outcome::WentBack { answers: true, lost }) = outcome else { panic!("not back") };
    assert_eq!(lost, "changes since the switch: calls never ended");
    assert!(begun.elapsed() < Duration::from_secs(190), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_candidate_that_is_ended_in_order_did_not_die() {
    let scene = Scene::new();
    let (old, _) = scene.serving("1.0.0", stateful(&[1]), 5).await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    scene.switch(&swap(Some(&old), Some(&new))).await.unwrap();
    let candidate = scene.service.live().unwrap();
    scene.run(back_to(&new, &old)).await.unwrap();
    assert!(candidate.instance.is_gone() && !candidate.signs.take_end(), "its end is taken in already");
    assert!(scene.service.live().unwrap().signs.take_end(), "that of the release in place is not");
}

#[tokio::test]
async fn an_old_release_that_is_ended_as_it_does_not_wake_did_not_die() {
    let scene = Scene::new();
    let kind = Kind { tight_lipped: true, sleepy: true, ..stateful(&[1]) };
    let (old, _) = scene.serving("1.0.0", kind, 5).await;
    let new = scene.verified("2.0.0", stateful(&[1]));
    let live = scene.service.live().unwrap();
    assert!(scene.pause(&swap(Some(&old), Some(&new))).await.is_err());
    assert!(live.instance.is_gone() && !live.signs.take_end());
}
