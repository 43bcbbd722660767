//! The loop over a real store, with agents that are played by hand.

mod played;

use std::collections::BTreeMap;

use fleetswap_proto::v1;

use super::*;
use crate::store::RolloutPage;
use played::{Played, agent_name};

#[tokio::test]
async fn a_push_goes_by_the_canary_to_the_rest_and_moves_the_assignment() {
    let mut stage = Played::with_agents(3).await;
    let rollout = stage.push("1.0.0").await.rollout.unwrap();
    assert_eq!((rollout.rollout_id.as_str(), rollout.state()), ("r-000001", v1::RolloutState::Pending));
    stage.round().await;
    assert_eq!(stage.offered().len(), 1);
    stage.commit_offers().await;
    assert_eq!(stage.offered().len(), 2);
    stage.commit_offers().await;
    let rollout = stage.rollout(1).await;
    assert_eq!(rollout.state(), v1::RolloutState::Succeeded);
    assert!(rollout.ended_ms > 0 && rollout.waves.iter().all(|wave| wave.committed == wave.hosts));
    let status = stage.fleet().status().await.unwrap();
    assert_eq!(
        (status.assignments[0].hosts_on_release, status.hosts_online, status.unfinished.len()),
        (3, 3, 0)
    );
    assert!(stage.push("1.0.0").await.nothing_to_do);
}

#[tokio::test]
async fn what_a_host_is_sent_is_durable_with_its_generation() {
    let mut stage = Played::with_agents(1).await;
    stage.push("1.0.0").await;
    stage.round().await;
    let sent = stage.desired(0).unwrap();
    let snapshot = stage.store.snapshot().await.unwrap();
    let generation = sent.generation.unwrap();
    assert_eq!(
        (snapshot.hosts[0].generation.epoch, snapshot.hosts[0].generation.n),
        (generation.epoch, generation.n)
    );
    assert_eq!(snapshot.desired[0].rollout, Some(1));
    assert_eq!(snapshot.rollout_hosts[0].state, "OFFERED");
    assert_eq!(sent.plugins[0].rollout_id, "r-000001");
}

#[tokio::test]
async fn a_controller_that_starts_again_goes_on_where_it_was() {
    let mut stage = Played::with_agents(2).await;
    stage.push("1.0.0").await;
    stage.round().await;
    let before = stage.rollout(1).await;
    stage.restart().await;
    assert_eq!(stage.rollout(1).await.hosts.len(), before.hosts.len());
    stage.connect_all().await;
    stage.round().await;
    stage.commit_offers().await;
    stage.commit_offers().await;
    assert_eq!(stage.rollout(1).await.state(), v1::RolloutState::Succeeded);
}

#[tokio::test]
async fn a_host_that_finished_while_the_controller_was_away_is_heard_by_its_hello() {
    let mut stage = Played::with_agents(1).await;
    stage.push("1.0.0").await;
    stage.round().await;
    stage.settle_offer(0, v1::HostState::Committed);
    stage.restart().await;
    stage.connect_all().await;
    stage.round().await;
    assert_eq!(stage.rollout(1).await.state(), v1::RolloutState::Succeeded);
}

#[tokio::test]
async fn a_report_is_durable_when_it_is_acknowledged() {
    let mut stage = Played::with_agents(1).await;
    stage.push("1.0.0").await;
    stage.round().await;
    stage.settle_offer(0, v1::HostState::Probing);
    stage.report(0).await;
    stage.restart().await;
    stage.round().await;
    assert_eq!(stage.rollout(1).await.hosts[0].state(), v1::HostState::Probing);
}

#[tokio::test]
async fn an_older_report_and_one_of_a_replaced_stream_change_nothing() {
    let mut stage = Played::with_agents(1).await;
    stage.push("1.0.0").await;
    stage.round().await;
    stage.settle_offer(0, v1::HostState::Probing);
    let early = stage.next_report(0);
    stage.settle_offer(0, v1::HostState::Probation);
    stage.report(0).await;
    let session = stage.agents[0].session.clone().unwrap();
    stage.fleet().agent_report(&session, early.clone()).await.unwrap();
    stage.round().await;
    assert_eq!(stage.rollout(1).await.hosts[0].state(), v1::HostState::Probation);
    stage.connect_all().await;
    let late = v1::Report { sequence: 99, ..early };
    stage.fleet().agent_report(&session, late).await.unwrap();
    stage.round().await;
    assert_eq!(stage.rollout(1).await.hosts[0].state(), v1::HostState::Probation);
    stage.fleet().agent_gone(&session).await;
    assert!(stage.fleet().hosts(None, 10).await.unwrap()[0].online);
}

#[tokio::test]
async fn a_store_behind_its_hosts_sends_nothing_and_says_so() {
    let mut stage = Played::with_agents(2).await;
    stage.push("1.0.0").await;
    stage.agents[0].highest = v1::Generation { epoch: 1, n: 40 };
    stage.connect_all().await;
    stage.round().await;
    assert_eq!((stage.desired(0), stage.desired(1)), (None, None));
    let status = stage.fleet().status().await.unwrap();
    assert_eq!(status.store_behind, "host host-0 was told generation 1.40; this store knows of 0.0");
    assert!(status.unfinished[0].waiting[0].starts_with("the store is behind its hosts"));
    assert_eq!(stage.try_push("1.1.0").await.unwrap_err().code, "STORE_BEHIND");
}

#[tokio::test]
async fn a_controller_that_starts_again_over_a_store_that_is_behind_still_knows_it() {
    let mut stage = Played::with_agents(2).await;
    stage.push("1.0.0").await;
    stage.agents[0].highest = v1::Generation { epoch: 1, n: 40 };
    stage.connect(0).await;
    stage.restart().await;
    stage.connect(1).await;
    stage.round().await;
    assert_eq!(stage.desired(1), None, "the host that is ahead has not said hello again");
    stage.agents[0].highest = v1::Generation::default();
    stage.connect(0).await;
    stage.restart().await;
    let status = stage.fleet().status().await.unwrap();
    assert_eq!(status.store_behind, "", "the host lost its memory, so nothing is ahead of the store");
}

#[tokio::test]
async fn newer_metadata_on_a_host_shows_that_the_store_is_behind() {
    let mut stage = Played::with_agents(1).await;
    stage.agents[0].metadata.targets = 9;
    stage.connect_all().await;
    let status = stage.fleet().status().await.unwrap();
    assert_eq!(status.store_behind, "host host-0 has seen targets 9; this controller has 3");
}

#[tokio::test]
async fn a_push_commits_its_answer_with_the_rollout() {
    let mut stage = Played::with_agents(1).await;
    let answer = stage.push("1.0.0").await;
    let row = stage.store.request("request-1").await.unwrap().unwrap();
    assert_eq!(<v1::PushResponse as prost::Message>::decode(row.response.as_slice()).unwrap(), answer);
}

#[tokio::test]
async fn a_dry_run_shows_waves_and_bytes_and_stores_nothing() {
    let mut stage = Played::with_agents(3).await;
    stage.disconnect(2).await;
    let request = v1::PushRequest { dry_run: true, ..stage.request("1.0.0") };
    let answer = stage.fleet().push(request, None).await.unwrap();
    let plan = answer.plan.unwrap();
    let sizes: Vec<_> = plan.waves.iter().map(|wave| (wave.name.as_str(), wave.hosts.len())).collect();
    assert_eq!(sizes, [("canary", 1), ("rest", 1)]);
    assert_eq!((plan.bytes, plan.offline, answer.rollout), (3 * 1_200, vec![agent_name(2)], None));
    let page = RolloutPage { limit: 10, ..RolloutPage::default() };
    assert!(stage.store.rollouts(page).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_refusal_has_a_code_and_a_way_out() {
    let mut stage = Played::with_agents(1).await;
    let request = v1::PushRequest { selector: String::new(), ..stage.request("1.0.0") };
    let error = stage.fleet().push(request, None).await.unwrap_err();
    assert_eq!(
        (error.code.as_ref(), error.fix.as_str()),
        ("ASSIGNMENT_MISSING", "add --hosts all, or --hosts SELECTOR")
    );
    let request = v1::PushRequest { selector: "zone".to_owned(), ..stage.request("1.0.0") };
    assert_eq!(stage.fleet().push(request, None).await.unwrap_err().code, "SELECTOR_INVALID");
    stage.push("1.0.0").await;
    assert_eq!(stage.try_push("1.1.0").await.unwrap_err().code, "ROLLOUT_IN_PROGRESS");
}

#[tokio::test]
async fn two_hosts_cannot_have_one_name() {
    let stage = Played::with_agents(1).await;
    let error = stage.connect_as(77, &agent_name(0)).await.unwrap_err();
    assert_eq!(error.code, "HOST_NAME_TAKEN");
}

#[tokio::test]
async fn a_rollback_goes_to_the_release_before() {
    let mut stage = Played::running("1.0.0", 2).await;
    stage.push("1.1.0").await;
    stage.finish().await;
    let answer = stage.rollback().await.unwrap();
    assert_eq!(answer.plan.unwrap().bytes, 0);
    stage.round().await;
    assert!(stage.desired(0).unwrap().plugins[0].rollback);
    stage.finish().await;
    assert_eq!(stage.active(), BTreeMap::from([("1.0.0".to_owned(), 2)]));
    assert_eq!(stage.rollback().await.unwrap_err().code, "ROLLBACK_NO_TARGET");
    let history = stage.fleet().rollouts(None, None, 10).await.unwrap();
    let triggers: Vec<_> = history.iter().map(|rollout| rollout.trigger.as_str()).collect();
    assert_eq!(triggers, ["rollback", "push", "push"]);
}

#[tokio::test]
async fn a_bad_release_is_taken_back_from_hosts_on_trial() {
    let mut stage = Played::running("1.0.0", 3).await;
    stage.push("1.1.0").await;
    stage.round().await;
    let canary = stage.offered()[0];
    stage.settle_offer(canary, v1::HostState::Rejected);
    stage.report(canary).await;
    stage.round().await;
    let rollout = stage.rollout(2).await;
    assert_eq!((rollout.state(), rollout.failed_host), (v1::RolloutState::Failed, agent_name(canary)));
    assert_eq!(rollout.failure.unwrap().code, "PROBE_MISMATCH");
    let told = stage.desired(canary).unwrap().plugins[0].clone();
    assert_eq!((told.rollout_id.as_str(), played::version_of(&told)), ("", Some("1.0.0".to_owned())));
    assert!(stage.try_push("1.2.0").await.is_ok());
}

#[tokio::test]
async fn a_host_that_never_answers_is_lost_at_its_deadline() {
    let mut stage = Played::with_agents(1).await;
    let policy = Some(v1::Policy { max_parallel: 1, min_healthy_ms: 1, healthy_deadline_ms: 20 });
    let request = v1::PushRequest { policy, ..stage.request("1.0.0") };
    stage.fleet().push(request, None).await.unwrap();
    stage.round().await;
    stage.disconnect(0).await;
    let lost = async {
        while stage.rollout(1).await.state() != v1::RolloutState::Failed {
            stage.round().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), lost).await.unwrap();
    let rollout = stage.rollout(1).await;
    assert_eq!(rollout.hosts[0].state(), v1::HostState::Lost);
    let failure = rollout.failure.unwrap();
    assert_eq!((failure.code.as_str(), failure.fault()), ("HOST_LOST", v1::Fault::Link));
}

#[tokio::test]
async fn a_plugin_that_a_hello_no_longer_names_is_gone() {
    let mut stage = Played::running("1.0.0", 1).await;
    stage.agents[0].status = v1::PluginStatus::default();
    stage.connect_all().await;
    assert_eq!(stage.fleet().hosts_by_release().await.unwrap().len(), 0);
    assert_eq!(stage.fleet().hosts(None, 1).await.unwrap()[0].plugins[0].service(), v1::ServiceState::Empty);
}

#[tokio::test]
async fn new_metadata_is_sent_with_the_same_generation() {
    let stage = Played::running("1.0.0", 1).await;
    let before = stage.desired(0).unwrap();
    stage.versions.send_modify(|versions| versions.timestamp += 1);
    stage.round().await;
    let after = stage.desired(0).unwrap();
    assert_eq!(after.generation, before.generation);
    assert_eq!(after.metadata.unwrap().timestamp, before.metadata.unwrap().timestamp + 1);
}

#[tokio::test]
async fn the_loop_plans_when_something_has_changed() {
    let stage = Played::with_agents(1).await;
    let stop = CancellationToken::new();
    let looping = tokio::spawn(Arc::clone(&stage.reconciler).run(stop.clone()));
    let mut desired = stage.agents[0].desired.clone().unwrap();
    stage.fleet().push(stage.request("1.0.0"), None).await.unwrap();
    let sent = desired.wait_for(Option::is_some);
    tokio::time::timeout(Duration::from_secs(10), sent).await.unwrap().unwrap();
    stop.cancel();
    looping.await.unwrap();
}

#[tokio::test]
async fn a_rollout_waits_a_moment_for_hosts_to_return_after_a_start() {
    let mut stage = Played::with_agents(2).await;
    stage.push("1.0.0").await;
    stage.round().await;
    let canary = stage.offered()[0];
    stage.settle_offer(canary, v1::HostState::Committed);
    stage.restart().await;
    stage.connect(canary).await;
    stage.round().await;
    let rollout = stage.rollout(1).await;
    assert_eq!(rollout.state(), v1::RolloutState::Running);
    assert_eq!(rollout.waiting[0], "the controller has just started; 1 host has not connected again yet");
    stage.connect(1 - canary).await;
    stage.round().await;
    assert_eq!(stage.offered(), [1 - canary]);
}

#[tokio::test]
async fn deadlines_stand_still_until_hosts_on_trial_had_time_to_return() {
    let mut stage = Played::with_agents(1).await;
    stage.push("1.0.0").await;
    stage.round().await;
    assert!(stage.reconciler.note_return().is_listening);
    stage.restart().await;
    assert!(!stage.reconciler.note_return().is_listening);
    stage.connect_all().await;
    assert!(stage.reconciler.note_return().is_listening);
}

/// What status says of the one assignment: who deviates, by which code.
async fn deviations(stage: &Played) -> Vec<(String, String)> {
    let status = stage.fleet().status().await.unwrap();
    let deviations = &status.assignments[0].deviations;
    assert_eq!(deviations.len(), status.assignments[0].deviating as usize);
    deviations.iter().map(|it| (it.host.clone(), it.code.clone())).collect()
}

#[tokio::test]
async fn a_plugin_that_is_down_does_not_count_as_running_and_is_named() {
    let mut stage = Played::running("1.0.0", 2).await;
    assert_eq!(deviations(&stage).await, []);
    stage.agents[1].status.service = v1::ServiceState::Down.into();
    stage.report(1).await;
    assert_eq!(deviations(&stage).await, [(agent_name(1), "PLUGIN_DOWN".to_owned())]);
    assert_eq!(stage.fleet().status().await.unwrap().assignments[0].hosts_on_release, 1);
}

#[tokio::test]
async fn hosts_that_came_late_and_do_not_run_the_release_are_named_with_the_cause() {
    let mut stage = Played::running("1.0.0", 3).await;
    stage.disconnect(2).await;
    stage.push("1.1.0").await;
    stage.finish().await;
    stage.connect(2).await;
    stage.round().await;
    assert_eq!(deviations(&stage).await, [], "it is on its way");
    stage.settle_offer(2, v1::HostState::Rejected);
    stage.report(2).await;
    stage.round().await;
    assert_eq!(deviations(&stage).await, [(agent_name(2), "PROBE_MISMATCH".to_owned())]);
}

#[tokio::test]
async fn a_host_that_a_failed_rollout_has_left_elsewhere_is_named_with_the_way_back() {
    let mut stage = Played::running("1.0.0", 2).await;
    stage.push("1.1.0").await;
    stage.round().await;
    stage.commit_offers().await;
    let bad = stage.offered()[0];
    stage.settle_offer(bad, v1::HostState::Rejected);
    stage.report(bad).await;
    stage.round().await;
    let status = stage.fleet().status().await.unwrap();
    let there = &status.assignments[0].deviations[0];
    assert_eq!(there.code, "NOT_ON_RELEASE");
    assert_eq!(there.what, "it runs clock 1.1.0, which r-000002 has left there");
    assert_eq!(there.fix, "settle it: controller rollback clock --reason TEXT");
}

#[tokio::test]
async fn a_host_that_has_gone_back_by_itself_is_named_and_a_push_of_the_same_release_mends_it() {
    let mut stage = Played::running("1.0.0", 2).await;
    stage.push("1.1.0").await;
    stage.finish().await;
    let status = &mut stage.agents[0].status;
    status.active = status.previous.take();
    let failure = v1::Failure { code: "RELEASE_FILES_MISSING".to_owned(), ..v1::Failure::default() };
    status.trial.as_mut().unwrap().failure = Some(failure);
    status.trial.as_mut().unwrap().state = v1::HostState::RolledBack.into();
    stage.report(0).await;
    stage.round().await;
    assert_eq!(deviations(&stage).await, [(agent_name(0), "RELEASE_FILES_MISSING".to_owned())]);
    stage.push("1.1.0").await;
    stage.finish().await;
    assert_eq!(deviations(&stage).await, []);
    assert_eq!(stage.active(), BTreeMap::from([("1.1.0".to_owned(), 2)]));
}

#[tokio::test]
async fn hosts_that_come_late_and_wait_for_their_turn_are_no_deviation() {
    let mut stage = Played::running("1.0.0", 4).await;
    stage.disconnect(2).await;
    stage.disconnect(3).await;
    let mut request = stage.request("1.1.0");
    request.policy = Some(v1::Policy { max_parallel: 1, ..v1::Policy::default() });
    stage.fleet().push(request, None).await.unwrap();
    stage.finish().await;
    stage.connect(2).await;
    stage.connect(3).await;
    stage.round().await;
    assert_eq!(stage.offered().len(), 1, "the other one waits");
    assert_eq!(deviations(&stage).await, []);
}

#[tokio::test]
async fn after_a_first_push_that_failed_each_host_is_told_the_cause() {
    let mut stage = Played::with_agents(2).await;
    stage.push("1.0.0").await;
    stage.round().await;
    let canary = stage.offered()[0];
    stage.settle_offer(canary, v1::HostState::Rejected);
    stage.report(canary).await;
    stage.round().await;
    let status = stage.fleet().status().await.unwrap();
    let other = agent_name(1 - canary);
    let said = status.assignments[0].deviations.iter().find(|it| it.host == other).unwrap();
    let what = format!(
        "clock 1.0.0 is not offered there, since it failed with PROBE_MISMATCH on {}",
        agent_name(canary)
    );
    assert_eq!((said.code.as_str(), &said.what), ("PROBE_MISMATCH", &what));
}
