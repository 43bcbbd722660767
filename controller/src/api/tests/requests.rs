//! Requests that are wrong in one field each; pages; rollouts that are watched.

use std::time::Duration;

use fleetswap_proto::v1;
use tonic::Code;

use super::{
    publishing::push_request,
    world::{World, code, manifest, names},
};

#[tokio::test]
async fn each_wrong_field_of_a_push_is_named() {
    type Spoil = fn(&mut v1::PushRequest);
    let cases: [(&str, Spoil); 16] = [
        ("request_id", |push| push.request_id.clear()),
        ("request_id", |push| push.request_id = "x".repeat(129)),
        ("request_id", |push| push.request_id = "a b".to_owned()),
        ("plugin", |push| push.plugin.clear()),
        ("plugin", |push| push.plugin = "../clock".to_owned()),
        ("plugin", |push| push.plugin = "x".repeat(65)),
        ("plugin", |push| push.plugin = "counter".to_owned()),
        ("selector", |push| push.selector = "x".repeat(1025)),
        ("selector", |push| push.selector = "two\nlines".to_owned()),
        ("manifest", |push| push.manifest.clear()),
        ("manifest", |push| push.manifest = vec![b' '; 64 * 1024 + 1]),
        ("actor", |push| push.actor.clear()),
        ("actor", |push| push.actor = "two\nlines".to_owned()),
        ("actor", |push| push.actor = "x".repeat(257)),
        ("reason", |push| push.reason = "x".repeat(1025)),
        ("policy.max_parallel", |push| {
            push.policy = Some(v1::Policy { max_parallel: u32::MAX, ..v1::Policy::default() });
        }),
    ];
    let world = World::start().await;
    let good = push_request(&manifest("1.0.0", 1, b"library").canonical());
    for (field, spoil) in cases {
        let mut push = good.clone();
        spoil(&mut push);
        names(field, &world.operator().push(push).await.unwrap_err());
    }
    let garbage = v1::PushRequest { manifest: b"{}".to_vec(), ..good };
    assert_eq!(code(&world.operator().push(garbage).await.unwrap_err()), "MANIFEST_INVALID");
    assert!(world.fleet.heard().is_empty());
}

#[tokio::test]
async fn each_wrong_field_of_a_rollback_is_named() {
    type Spoil = fn(&mut v1::RollbackRequest);
    let cases: [(&str, Spoil); 17] = [
        ("request_id", |rollback| rollback.request_id.clear()),
        ("request_id", |rollback| rollback.request_id = "x".repeat(129)),
        ("request_id", |rollback| rollback.request_id = "a b".to_owned()),
        ("plugin", |rollback| rollback.plugin.clear()),
        ("plugin", |rollback| rollback.plugin = "Clock".to_owned()),
        ("plugin", |rollback| rollback.plugin = "x".repeat(65)),
        ("selector", |rollback| rollback.selector = "x".repeat(1025)),
        ("selector", |rollback| rollback.selector = "two\nlines".to_owned()),
        ("to_version", |rollback| rollback.to_version = "one".to_owned()),
        ("to_version", |rollback| rollback.to_version = format!("1.0.0-{}", "x".repeat(59))),
        ("reason", |rollback| rollback.reason.clear()),
        ("reason", |rollback| rollback.reason = "two\nlines".to_owned()),
        ("reason", |rollback| rollback.reason = "x".repeat(1025)),
        ("actor", |rollback| rollback.actor.clear()),
        ("actor", |rollback| rollback.actor = "two\nlines".to_owned()),
        ("actor", |rollback| rollback.actor = "x".repeat(257)),
        ("policy.healthy_deadline_ms", |rollback| {
            rollback.policy = Some(v1::Policy { healthy_deadline_ms: u64::MAX, ..v1::Policy::default() });
        }),
    ];
    let world = World::start().await;
    let good = v1::RollbackRequest {
        request_id: "rollback-1".to_owned(),
        plugin: "clock".to_owned(),
        reason: "it is late".to_owned(),
        actor: "ci".to_owned(),
        ..v1::RollbackRequest::default()
    };
    for (field, spoil) in cases {
        let mut rollback = good.clone();
        spoil(&mut rollback);
        names(field, &world.operator().rollback(rollback).await.unwrap_err());
    }
    world.operator().rollback(good.clone()).await.unwrap();
    world.operator().rollback(good).await.unwrap();
    assert_eq!(world.fleet.heard(), ["rollback by ci"]);
}

#[tokio::test]
async fn each_wrong_field_of_a_publish_is_named() {
    type Spoil = fn(&mut v1::PublishRequest);
    let cases: [(&str, Spoil); 7] = [
        ("request_id", |publish| publish.request_id.clear()),
        ("expected", |publish| publish.expected = None),
        ("targets", |publish| publish.targets.clear()),
        ("targets", |publish| publish.targets = vec![b' '; 1024 * 1024 + 1]),
        ("snapshot", |publish| publish.snapshot.clear()),
        ("manifests", |publish| publish.manifests = vec![vec![1]; 257]),
        ("manifests", |publish| publish.manifests = vec![vec![1; 64 * 1024 + 1]]),
    ];
    let world = World::start().await;
    let good = world.publish_request("p1", &manifest("1.0.0", 1, b"library")).await;
    for (field, spoil) in cases {
        let mut publish = good.clone();
        spoil(&mut publish);
        names(field, &world.operator().publish(publish).await.unwrap_err());
    }
}

#[tokio::test]
async fn a_missing_or_malformed_id_is_named_by_every_other_call() {
    let world = World::start().await;
    let (mut operator, mut bytes) = (world.operator(), world.bytes());
    for id in [String::new(), "xyz".to_owned(), "x".repeat(1100)] {
        let stat = v1::StatBlobRequest { sha256: id.clone() };
        names("sha256", &operator.stat_blob(stat).await.unwrap_err());
        let blob = v1::GetBlobRequest { sha256: id.clone(), offset: 0 };
        names("sha256", &bytes.get_blob(blob).await.unwrap_err());
        let rollout = v1::GetRolloutRequest { rollout_id: id.clone() };
        names("rollout_id", &operator.get_rollout(rollout).await.unwrap_err());
        let watch = v1::WatchRolloutRequest { rollout_id: id.clone() };
        names("rollout_id", &operator.watch_rollout(watch).await.unwrap_err());
        let release = v1::GetReleaseRequest { plugin: "clock".to_owned(), version: id };
        names("version", &operator.get_release(release).await.unwrap_err());
    }
    let known = Some(v1::MetadataVersions { targets: u64::MAX, ..v1::MetadataVersions::default() });
    names("known", &bytes.get_metadata(v1::GetMetadataRequest { known }).await.unwrap_err());
}

#[tokio::test]
async fn a_plugin_or_selector_that_is_none_is_named_by_what_looks_them_up() {
    let world = World::start().await;
    let mut operator = world.operator();
    for plugin in [String::new(), "Clock".to_owned(), "x".repeat(65), "x".repeat(1100)] {
        let assignment = v1::GetAssignmentRequest { plugin: plugin.clone(), selector: String::new() };
        names("plugin", &operator.get_assignment(assignment).await.unwrap_err());
        let release = v1::GetReleaseRequest { plugin: plugin.clone(), version: "1.0.0".to_owned() };
        names("plugin", &operator.get_release(release).await.unwrap_err());
        // Here an empty name stands for all.
        if !plugin.is_empty() {
            let page = v1::ListRolloutsRequest { plugin, ..v1::ListRolloutsRequest::default() };
            names("plugin", &operator.list_rollouts(page).await.unwrap_err());
        }
    }
    for selector in ["two\nlines".to_owned(), "x".repeat(1025)] {
        let assignment = v1::GetAssignmentRequest { plugin: "clock".to_owned(), selector };
        names("selector", &operator.get_assignment(assignment).await.unwrap_err());
    }
}

#[tokio::test]
async fn a_page_that_is_none_is_named() {
    let world = World::start().await;
    let mut operator = world.operator();
    let page = v1::ListHostsRequest { page_size: 1001, ..v1::ListHostsRequest::default() };
    names("page_size", &operator.list_hosts(page).await.unwrap_err());
    let page = v1::ListHostsRequest { page_token: "x".repeat(129), ..v1::ListHostsRequest::default() };
    names("page_token", &operator.list_hosts(page).await.unwrap_err());
    let page = v1::ListRolloutsRequest { page_size: 1001, ..v1::ListRolloutsRequest::default() };
    names("page_size", &operator.list_rollouts(page).await.unwrap_err());
    for page_token in ["7".to_owned(), "r-1".repeat(100)] {
        let page = v1::ListRolloutsRequest { page_token, ..v1::ListRolloutsRequest::default() };
        names("page_token", &operator.list_rollouts(page).await.unwrap_err());
    }
}

#[tokio::test]
async fn a_request_beyond_the_bound_is_refused_in_our_words() {
    let world = World::start().await;
    let huge = v1::PublishRequest { targets: vec![b' '; 9 * 1024 * 1024], ..v1::PublishRequest::default() };
    assert_eq!(code(&world.operator().publish(huge).await.unwrap_err()), "REQUEST_TOO_LARGE");
    let huge = v1::GetBlobRequest { sha256: "a".repeat(100_000), offset: 0 };
    assert_eq!(code(&world.bytes().get_blob(huge).await.unwrap_err()), "REQUEST_TOO_LARGE");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let world = World::start().await;
    let rollout = v1::GetRolloutRequest { rollout_id: "r-000009".to_owned() };
    assert_eq!(code(&world.operator().get_rollout(rollout).await.unwrap_err()), "ROLLOUT_NOT_FOUND");
    let watch = v1::WatchRolloutRequest { rollout_id: "r-000009".to_owned() };
    assert_eq!(code(&world.operator().watch_rollout(watch).await.unwrap_err()), "ROLLOUT_NOT_FOUND");
    let release = v1::GetReleaseRequest { plugin: "clock".to_owned(), version: "1.0.0".to_owned() };
    assert_eq!(code(&world.operator().get_release(release).await.unwrap_err()), "RELEASE_NOT_FOUND");
    let blob = v1::GetBlobRequest { sha256: "ab".repeat(32), offset: 0 };
    assert_eq!(code(&world.bytes().get_blob(blob).await.unwrap_err()), "BLOB_NOT_FOUND");
}

#[tokio::test]
async fn lists_come_in_pages_that_follow_each_other() {
    let world = World::start().await;
    let mut page = v1::ListHostsRequest { page_size: 2, page_token: String::new() };
    let first = world.operator().list_hosts(page.clone()).await.unwrap().into_inner();
    page.page_token = first.next_page_token;
    let second = world.operator().list_hosts(page).await.unwrap().into_inner();
    let names = |hosts: Vec<v1::Host>| hosts.into_iter().map(|host| host.name).collect::<Vec<_>>();
    assert_eq!(
        (names(first.hosts), names(second.hosts)),
        (vec!["host-1".to_owned(), "host-2".to_owned()], vec!["host-3".to_owned()],)
    );
    assert!(second.next_page_token.is_empty());
}

#[tokio::test]
async fn a_watch_shows_each_state_and_ends_with_the_rollout() {
    let world = World::start().await;
    world.fleet.set_rollout(1, v1::RolloutState::Running);
    let ask = v1::WatchRolloutRequest { rollout_id: "r-000001".to_owned() };
    let mut states = world.operator().watch_rollout(ask).await.unwrap().into_inner();
    let first = states.message().await.unwrap().unwrap().rollout.unwrap();
    assert_eq!(first.state(), v1::RolloutState::Running);
    world.fleet.set_rollout(2, v1::RolloutState::Running);
    world.fleet.set_rollout(1, v1::RolloutState::Succeeded);
    let last = states.message().await.unwrap().unwrap().rollout.unwrap();
    assert_eq!(last.state(), v1::RolloutState::Succeeded);
    assert_eq!(states.message().await.unwrap(), None);
}

#[tokio::test]
async fn the_server_ends_although_streams_are_open() {
    let world = World::start().await;
    world.fleet.set_rollout(1, v1::RolloutState::Running);
    let ask = v1::WatchRolloutRequest { rollout_id: "r-000001".to_owned() };
    let mut states = world.operator().watch_rollout(ask).await.unwrap().into_inner();
    states.message().await.unwrap().unwrap();
    let mut agent = world.agent("host-1").await;
    world.shared.stop.cancel();
    assert_eq!(states.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(agent.end().await, "CONTROLLER_STOPPING");
    drop((states, agent));
    tokio::time::timeout(Duration::from_secs(20), world.server).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn health_and_both_reflections_answer() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let world = World::start().await;
    let ask = HealthCheckRequest { service: "fleetswap.v1.OperatorService".to_owned() };
    let health = HealthClient::new(world.channel.clone()).check(ask).await.unwrap().into_inner();
    assert_eq!(health.status, 1);

    use tonic_reflection::pb::{v1, v1alpha};
    let ask = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..v1::ServerReflectionRequest::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(world.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap().unwrap());
    assert!(answer.contains("fleetswap.v1.AgentService"), "{answer}");
    let ask = v1alpha::ServerReflectionRequest {
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
        ..v1alpha::ServerReflectionRequest::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(world.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
}
