//! Loading, probing and watching: what a release has to show.

use super::*;

#[tokio::test]
async fn a_healthy_candidate_is_loaded_and_probed_in_a_throw_away_worker() {
    let scene = Scene::new();
    let record = scene.verified("1.0.0", Kind { probe: Some(json!({"count": 1})), ..Kind::default() });
    scene.run(Task::Load(Box::new(record.clone()))).await.unwrap();
    let outcome = scene.run(Task::Probe(Box::new(record))).await;
    assert_eq!(outcome, Ok(Outcome::Probed));
    assert!(scene.zoo.newest().calls.load(SeqCst) == 1 && !scene.zoo.newest().is_active());
}

#[tokio::test]
async fn a_library_that_cannot_be_loaded_is_the_releases_fault_in_the_loaders_words() {
    let scene = Scene::new();
    let record = scene.verified("1.0.0", Kind { unloadable: true, ..Kind::default() });
    let problem = scene.run(Task::Load(Box::new(record))).await.unwrap_err();
    assert_eq!((&*problem.code, problem.fault), ("LOAD_CANNOT_OPEN", Fault::Release));
    assert!(problem.message.contains("file too short"));
}

#[tokio::test]
async fn a_wrong_answer_to_a_probe_names_what_came_and_what_was_wanted() {
    let scene = Scene::new();
    let record = scene.verified("1.0.0", Kind { probe: Some(json!({"count": 17})), ..Kind::default() });
    let problem = scene.run(Task::Probe(Box::new(record))).await.unwrap_err();
    assert_eq!((&*problem.code, problem.tries), ("PROBE_FAILED", 3));
    assert_eq!((&*problem.got, &*problem.wanted), ("$.count: 3", "$.count: 17"));
    assert_eq!((&*problem.check, &*problem.log_tail), ("count {} => {\"count\":17}", "last words"));
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_never_gets_green_is_given_up() {
    let scene = Scene::new();
    let record = scene.verified("1.0.0", Kind { sick: true, ..Kind::default() });
    let problem = scene.run(Task::Probe(Box::new(record))).await.unwrap_err();
    assert_eq!((&*problem.code, problem.fault), ("HEALTH_FAILED", Fault::Release));
}

#[tokio::test]
async fn probation_ends_with_what_was_seen() {
    let scene = Scene::new();
    let kind = Kind { probe: Some(json!({"version": "1.0.0"})), ..Kind::default() };
    let (record, _) = scene.serving("1.0.0", kind, 0).await;
    let watch = |until| Task::Watch { release: Box::new(record.clone()), until };
    assert_eq!(scene.run(watch(Time(0))).await, Ok(Outcome::Proven(Proof::Probes)));
    scene.count().await;
    assert_eq!(scene.run(watch(Time(0))).await, Ok(Outcome::Proven(Proof::Calls)));
    let panicking = scene.call("panic", Duration::from_secs(1));
    let problem = scene.run(watch(clock::now().after(60_000))).await.unwrap_err();
    assert_eq!((&*problem.code, problem.fault), ("PLUGIN_PANICKED", Fault::Release));
    assert!(panicking.await.unwrap().outcome.is_err());
}

#[tokio::test]
async fn a_release_without_probes_and_calls_is_proven_by_its_health() {
    let scene = Scene::new();
    let (record, _) = scene.serving("1.0.0", Kind::default(), 0).await;
    let watched = scene.run(Task::Watch { release: Box::new(record), until: Time(0) }).await;
    assert_eq!(watched, Ok(Outcome::Proven(Proof::Health)));
}

#[tokio::test(start_paused = true)]
async fn health_that_gives_no_answer_is_waited_for_within_a_bound() {
    let scene = Scene::new();
    let record = scene.verified("1.0.0", Kind { mute: true, ..Kind::default() });
    let started = tokio::time::Instant::now();
    let problem = scene.run(Task::Probe(Box::new(record))).await.unwrap_err();
    assert_eq!((&*problem.code, problem.fault, problem.tries), ("HEALTH_FAILED", Fault::Release, 3));
    assert!(started.elapsed() <= Duration::from_secs(4), "{:?}", started.elapsed());
}
