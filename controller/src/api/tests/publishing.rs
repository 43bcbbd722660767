//! Publishing: what is taken in, what is refused, and that a second try changes nothing.

use fleetswap_proto::v1;
use fleetswap_trust::{MemoryStore, Policy, Stored, update};
use tonic::Status;

use super::world::{World, code, manifest};

fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    code(&result.unwrap_err())
}

#[tokio::test]
async fn a_published_release_is_what_a_host_verifies() {
    let world = World::start().await;
    world.upload_blobs(b"library");
    let clock = manifest("1.0.0", 1, b"library");
    let request = world.publish_request("p1", &clock).await;
    let versions = world.operator().publish(request).await.unwrap().into_inner().metadata.unwrap();
    assert_eq!((versions.root, versions.snapshot, versions.targets), (1, 2, 2));

    let root = std::fs::read(world.dir.path().join("publisher/root.json")).unwrap();
    let host = MemoryStore::new(Stored::from_root(&root).unwrap());
    let now = std::time::SystemTime::now();
    let trusted = update(&host, &world.bundle().await, now, Policy { allow_dev: true }).await.unwrap();
    assert_eq!(trusted.release("clock-1.0.0-r1.json").unwrap().sha256, clock.release_id());
    assert!(world.shared.blobs.stat(clock.release_id()).unwrap().complete, "the manifest is a blob too");

    let listed = world.operator().list_plugins(v1::ListPluginsRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.releases[0].platforms, ["x86_64-linux-gnu"]);
    let ask = v1::GetReleaseRequest { plugin: "clock".to_owned(), version: "1.0.0".to_owned() };
    let found = world.operator().get_release(ask).await.unwrap().into_inner();
    assert_eq!(found.manifest, clock.canonical());
    assert_eq!(found.descriptors["x86_64-linux-gnu"], br#"{"format":1}"#);
}

#[tokio::test]
async fn publishing_twice_under_one_id_or_with_the_same_content_changes_nothing() {
    let world = World::start().await;
    world.upload_blobs(b"library");
    let request = world.publish_request("p1", &manifest("1.0.0", 1, b"library")).await;
    let first = world.operator().publish(request.clone()).await.unwrap().into_inner();
    assert_eq!(world.operator().publish(request.clone()).await.unwrap().into_inner(), first);
    let other_id = v1::PublishRequest { request_id: "p2".to_owned(), ..request.clone() };
    assert_eq!(world.operator().publish(other_id).await.unwrap().into_inner(), first);
    let reused = v1::PublishRequest { manifests: Vec::new(), ..request };
    assert_eq!(refusal(world.operator().publish(reused).await), "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn who_signed_on_top_of_something_older_is_refused() {
    let world = World::start().await;
    world.upload_blobs(b"library");
    world.upload_blobs(b"other");
    let (one, two) = (manifest("1.0.0", 1, b"library"), manifest("1.1.0", 1, b"other"));
    let late = world.publish_request("p2", &two).await;
    let first = world.publish_request("p1", &one).await;
    world.operator().publish(first).await.unwrap();
    assert_eq!(refusal(world.operator().publish(late).await), "METADATA_CONFLICT");
}

#[tokio::test]
async fn a_renewed_timestamp_is_no_conflict() {
    let world = World::start().await;
    world.upload_blobs(b"library");
    let request = world.publish_request("p1", &manifest("1.0.0", 1, b"library")).await;
    let before = world.shared.published.wire_versions();
    world.shared.published.renew(std::time::SystemTime::now()).await.unwrap();
    assert!(world.shared.published.wire_versions().timestamp > before.timestamp);
    world.operator().publish(request).await.unwrap();
}

#[tokio::test]
async fn a_release_without_all_its_bytes_is_refused_and_leaves_nothing() {
    let world = World::start().await;
    let clock = manifest("1.0.0", 1, b"library");
    let request = world.publish_request("p1", &clock).await;
    let before = world.shared.published.wire_versions();
    assert_eq!(refusal(world.operator().publish(request.clone()).await), "RELEASE_INCOMPLETE");
    world.upload_blobs(b"library");
    let bare = v1::PublishRequest { manifests: Vec::new(), ..request.clone() };
    assert_eq!(refusal(world.operator().publish(bare).await), "RELEASE_INCOMPLETE");
    assert_eq!(world.shared.published.wire_versions(), before);
    world.operator().publish(request).await.unwrap();
}

#[tokio::test]
async fn metadata_that_nobody_signed_is_refused() {
    let world = World::start().await;
    world.upload_blobs(b"library");
    let clock = manifest("1.0.0", 1, b"library");
    let good = world.publish_request("p1", &clock).await;
    let text = String::from_utf8(good.targets.clone()).unwrap();
    let forged = text.replace("\"version\":2", "\"version\":3").into_bytes();
    let request = v1::PublishRequest { targets: forged, ..good.clone() };
    assert!(refusal(world.operator().publish(request).await).starts_with("TRUST_"));
    let request = v1::PublishRequest { snapshot: b"{}".to_vec(), ..good.clone() };
    assert!(refusal(world.operator().publish(request).await).starts_with("TRUST_"));
    world.operator().publish(good).await.unwrap();
}

#[tokio::test]
async fn a_publisher_with_other_keys_is_refused() {
    let (world, foreign) = (World::start().await, World::start().await);
    world.upload_blobs(b"library");
    let clock = manifest("1.0.0", 1, b"library");
    let request = foreign.publish_request("p1", &clock).await;
    assert_eq!(refusal(world.operator().publish(request).await), "TRUST_THRESHOLD");
}

#[tokio::test]
async fn other_bytes_under_a_published_version_are_refused_even_if_they_are_signed() {
    let world = World::start().await;
    world.upload_blobs(b"library");
    world.upload_blobs(b"other");
    let first = world.publish_request("p1", &manifest("1.0.0", 1, b"library")).await;
    world.operator().publish(first).await.unwrap();
    let other = manifest("1.0.0", 2, b"other");
    let dry = v1::PushRequest { dry_run: true, ..push_request(&other.canonical()) };
    assert_eq!(refusal(world.operator().push(dry).await), "VERSION_PUBLISHED");
    assert!(world.fleet.heard().is_empty());
}

#[tokio::test]
async fn a_push_is_carried_out_once_and_only_for_what_is_published() {
    let world = World::start().await;
    world.upload_blobs(b"library");
    let clock = manifest("1.0.0", 1, b"library");
    let push = push_request(&clock.canonical());
    assert_eq!(refusal(world.operator().push(push.clone()).await), "RELEASE_NOT_PUBLISHED");
    let publish = world.publish_request("p1", &clock).await;
    world.operator().publish(publish).await.unwrap();
    let first = world.operator().push(push.clone()).await.unwrap().into_inner();
    assert_eq!(world.operator().push(push.clone()).await.unwrap().into_inner(), first);
    assert_eq!(world.fleet.heard(), ["push by ci"]);
    let reused = v1::PushRequest { reason: "another".to_owned(), ..push };
    assert_eq!(refusal(world.operator().push(reused).await), "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn metadata_survives_a_restart_and_damage_is_refused() {
    let world = World::start().await;
    world.upload_blobs(b"library");
    let request = world.publish_request("p1", &manifest("1.0.0", 1, b"library")).await;
    let shown = world.operator().publish(request).await.unwrap().into_inner().metadata.unwrap();
    let (data, now) = (world.dir.path().join("data"), std::time::SystemTime::now());
    let reopened = crate::published::Published::open(&data, now).await.unwrap();
    assert_eq!(reopened.wire_versions(), shown);
    assert!(reopened.is_dev());

    let state = data.join("metadata/state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, text.replacen("\"version", "\"versoin", 1)).unwrap();
    let refused = crate::published::Published::open(&data, now).await.map(drop).unwrap_err();
    assert_eq!(refused.code, "TRUST_STORE_DAMAGED");
}

/// A push that passes every check of its fields.
pub(super) fn push_request(manifest: &[u8]) -> v1::PushRequest {
    v1::PushRequest {
        request_id: "push-1".to_owned(),
        plugin: "clock".to_owned(),
        selector: "all".to_owned(),
        manifest: manifest.to_vec(),
        actor: "ci".to_owned(),
        ..v1::PushRequest::default()
    }
}
