//! Hostile, stale and damaged metadata, one rule a test.

use std::time::{Duration, Instant, SystemTime};

use fleetswap_trust::{
    Bundle, Digest, Policy, StoreError, Stored, TrustError, TrustedStore, Versions, trusted, update,
    update_for_signing,
};
use serde_json::json;

use crate::fixture::{DAY, Files, HOUR, Host, NAME, Repo, Signer, bundle, listed};

/// A host that has accepted the repository's first files.
async fn updated(repo: &Repo) -> Host {
    let host = Host::new(&repo.root());
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    host
}

/// What is stored, with one field replaced in the file.
fn with_field(stored: &Stored, field: &str, value: serde_json::Value) -> Stored {
    let mut fields: serde_json::Value = serde_json::from_slice(&stored.encode()).unwrap();
    fields[field] = value;
    Stored::decode(fields.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn a_good_set_is_accepted_and_lists_its_manifest() {
    let repo = Repo::new();
    let host = Host::new(&repo.root());
    let trusted = host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    assert_eq!(trusted.versions(), Versions { root: 1, timestamp: 1, snapshot: 1, targets: 1 });
    let target = trusted.release(NAME).unwrap();
    assert_eq!((target.sha256, target.length, target.withdrawn), (Digest::of(b"manifest"), 8, false));
    assert_eq!(trusted.latest_revision("clock", &"1.0.0".parse().unwrap()), Some((1, target)));
    assert_eq!(trusted.release("clock-1.0.0-r2.json"), None);
}

#[tokio::test]
async fn what_was_accepted_reads_back_from_a_file() {
    let repo = Repo::new();
    let stored = updated(&repo).await.stored();
    assert_eq!(Stored::decode(&stored.encode()).unwrap(), stored);
    let files = repo.files();
    let kept = Stored::from_files(stored.root(), &files.timestamp, &files.snapshot, &files.targets).unwrap();
    assert_eq!(kept.floors(), stored.floors());
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_refused() {
    let repo = Repo::new();
    let files = repo.files();
    let tamper = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    for at in (0..files.targets.len()).step_by(7) {
        let bad = Files { targets: tamper(&files.targets, at), ..files.clone() };
        assert_refused_whole(&repo, &bad, at).await;
    }
    for at in (0..files.snapshot.len()).step_by(7) {
        let bad = Files { snapshot: tamper(&files.snapshot, at), ..files.clone() };
        assert_refused_whole(&repo, &bad, at).await;
    }
    for at in (0..files.timestamp.len()).step_by(7) {
        let bad = Files { timestamp: tamper(&files.timestamp, at), ..files.clone() };
        assert_refused_whole(&repo, &bad, at).await;
    }
}

async fn assert_refused_whole(repo: &Repo, files: &Files, at: usize) {
    let host = Host::new(&repo.root());
    let code = host.refusal(&bundle(files, &[]), repo.now).await;
    let known = ["TRUST_MISMATCH", "TRUST_THRESHOLD", "TRUST_MALFORMED"];
    assert!(known.contains(&code), "byte {at}: {code}");
    assert_eq!(host.stored().targets(), None, "byte {at}");
}

#[tokio::test]
async fn missing_and_foreign_signatures_are_counted() {
    let mut repo = Repo::new();
    let root = repo.root();
    repo.targets_key = Signer::new();
    let error = Host::new(&root).offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap_err();
    assert_eq!(error.to_string(), "targets v1 has 0 of 1 valid signatures");
    repo.snapshot_key = Signer::new();
    let error = Host::new(&root).offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap_err();
    assert_eq!(error.to_string(), "snapshot v1 has 0 of 1 valid signatures");
    repo.timestamp_key = Signer::new();
    let error = Host::new(&root).offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap_err();
    assert_eq!(error.to_string(), "timestamp v1 has 0 of 1 valid signatures");
    let mut unsigned: serde_json::Value = serde_json::from_slice(&repo.files().timestamp).unwrap();
    unsigned["signatures"] = json!([]);
    let files = Files { timestamp: unsigned.to_string().into_bytes(), ..repo.files() };
    assert_eq!(Host::new(&root).refusal(&bundle(&files, &[]), repo.now).await, "TRUST_THRESHOLD");
}

#[tokio::test]
async fn one_public_key_under_two_ids_counts_once() {
    let mut repo = Repo::new();
    repo.targets_key = Signer::new().listed_twice();
    repo.targets_threshold = 2;
    let error = Stored::from_root(&repo.root()).unwrap_err();
    assert_eq!(error.code(), "TRUST_THRESHOLD");

    let honest = Repo { targets_key: Signer::new(), targets_threshold: 1, ..repo };
    let host = updated(&honest).await;
    let mut bad = Repo { targets_key: Signer::new().listed_twice(), targets_threshold: 2, root: 2, ..honest };
    bad.bump();
    let offer = bundle(&bad.files(), &[(2, &bad.root())]);
    assert_eq!(host.refusal(&offer, bad.now).await, "TRUST_THRESHOLD");
    assert_eq!(host.stored().floors().root, 1);
}

#[tokio::test]
async fn each_role_expires_by_the_given_time_under_its_own_code() {
    let repo = Repo::new();
    let offer = bundle(&repo.files(), &[]);
    for (later, code) in [(25 * HOUR, "TRUST_EXPIRED_TIMESTAMP"), (400 * DAY, "TRUST_EXPIRED_ROOT")] {
        assert_eq!(Host::new(&repo.root()).refusal(&offer, repo.now + later).await, code);
    }
    let mut repo = Repo::new();
    repo.valid.timestamp = 300 * DAY;
    let offer = bundle(&repo.files(), &[]);
    assert_eq!(Host::new(&repo.root()).refusal(&offer, repo.now + 31 * DAY).await, "TRUST_EXPIRED_SNAPSHOT");
    repo.valid.snapshot = 300 * DAY;
    let offer = bundle(&repo.files(), &[]);
    assert_eq!(Host::new(&repo.root()).refusal(&offer, repo.now + 91 * DAY).await, "TRUST_EXPIRED_TARGETS");
}

#[tokio::test]
async fn expiry_tells_for_how_long_and_blocks_nothing_that_was_accepted() {
    let mut repo = Repo::new();
    let host = updated(&repo).await;
    // Expired by the machine's own clock too, which `tough` reads.
    repo.now = SystemTime::now() - 3 * DAY;
    repo.timestamp += 1;
    let error = host.offer(&bundle(&repo.files(), &[]), SystemTime::now()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the repository's freshness proof ended 2 d ago; nothing new is installed, running plugins are unaffected"
    );
    assert!(trusted(&host).unwrap().release(NAME).is_some());
}

#[tokio::test]
async fn older_metadata_is_a_rollback_and_changes_nothing() {
    let mut repo = Repo::new();
    let old = bundle(&repo.files(), &[]);
    let host = updated(&repo).await;
    repo.bump();
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    let before = host.stored();
    let error = host.offer(&old, repo.now).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server offered timestamp v1; v2 was seen before: a mirror may be behind, or someone replays"
    );
    assert_eq!(host.stored(), before);
}

#[tokio::test]
async fn a_newer_timestamp_over_older_snapshot_or_targets_is_a_rollback() {
    let mut repo = Repo::new();
    let first = repo.files();
    let host = updated(&repo).await;
    repo.bump();
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    let (snapshot, targets) = (repo.snapshot, repo.targets);
    repo.timestamp += 1;
    repo.snapshot = 1;
    let old_snapshot = Files { timestamp: repo.timestamp_for(&first.snapshot), ..first.clone() };
    assert_eq!(host.refusal(&bundle(&old_snapshot, &[]), repo.now).await, "TRUST_ROLLBACK");
    repo.timestamp += 1;
    repo.snapshot = snapshot + 1;
    repo.targets = 1;
    let old_targets = repo.files_with(first.targets);
    assert_eq!(host.refusal(&bundle(&old_targets, &[]), repo.now).await, "TRUST_ROLLBACK");
    assert_eq!(host.stored().floors().targets, targets);
}

#[tokio::test]
async fn truncated_stored_files_stop_the_update_instead_of_being_forgotten() {
    let mut repo = Repo::new();
    let old = bundle(&repo.files(), &[]);
    let host = updated(&repo).await;
    repo.bump();
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    for field in ["root", "timestamp", "snapshot", "targets"] {
        for damage in ["", "{", "{\"signed\":{}}"] {
            let damaged = Host::with(with_field(&host.stored(), field, json!(damage)));
            assert_eq!(damaged.refusal(&old, repo.now).await, "TRUST_STORE_DAMAGED", "{field} {damage}");
            assert_eq!(trusted(&damaged).unwrap_err().code(), "TRUST_STORE_DAMAGED");
        }
    }
}

#[tokio::test]
async fn removed_stored_files_leave_the_floors() {
    let mut repo = Repo::new();
    let old = bundle(&repo.files(), &[]);
    let host = updated(&repo).await;
    repo.bump();
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    let mut stored = host.stored();
    for field in ["timestamp", "snapshot", "targets"] {
        stored = with_field(&stored, field, json!(null));
    }
    assert_eq!(Host::with(stored).refusal(&old, repo.now).await, "TRUST_ROLLBACK");
}

#[tokio::test]
async fn an_older_file_put_into_the_store_is_found() {
    let mut repo = Repo::new();
    let old = repo.files();
    let host = updated(&repo).await;
    repo.bump();
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    let text = String::from_utf8(old.timestamp.clone()).unwrap();
    let swapped = Host::with(with_field(&host.stored(), "timestamp", json!(text)));
    assert_eq!(swapped.refusal(&bundle(&old, &[]), repo.now).await, "TRUST_STORE_DAMAGED");
}

#[tokio::test]
async fn a_stored_timestamp_version_with_other_content_is_ignored_without_an_error() {
    let mut repo = Repo::new();
    let host = updated(&repo).await;
    let before = host.stored();
    repo.listed = json!({ "evil-1.0.0-r1.json": listed(b"evil") });
    let trusted = host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    assert!(trusted.release(NAME).is_some() && trusted.release("evil-1.0.0-r1.json").is_none());
    assert_eq!(host.stored().timestamp(), before.timestamp());
    assert_eq!(host.stored().targets(), before.targets());
}

#[tokio::test]
async fn files_that_the_host_has_need_not_be_offered_again() {
    let mut repo = Repo::new();
    let first = repo.files();
    let host = updated(&repo).await;
    repo.timestamp += 1;
    let mut only_timestamp = Bundle::new();
    only_timestamp.append("timestamp.json", &repo.timestamp_for(&first.snapshot)).unwrap();
    let trusted = host.offer(&only_timestamp, repo.now).await.unwrap();
    assert_eq!(trusted.versions().timestamp, 2);
    assert!(trusted.release(NAME).is_some());
}

#[tokio::test]
async fn a_file_that_nobody_has_is_missing() {
    let repo = Repo::new();
    let host = Host::new(&repo.root());
    let mut offer = Bundle::new();
    assert_eq!(host.refusal(&offer, repo.now).await, "TRUST_MISSING");
    offer.append("timestamp.json", &repo.files().timestamp).unwrap();
    let error = host.offer(&offer, repo.now).await.unwrap_err();
    assert_eq!(error.to_string(), "the server didn't offer snapshot");
}

#[tokio::test]
async fn a_signed_length_lifts_no_bound() {
    let repo = Repo::new();
    let mut files = repo.files();
    files.targets.resize(5 * 1024 * 1024, b' ');
    let named = repo.files_with(files.targets.clone());
    let mut offer = Bundle::new();
    offer.append("snapshot.json", &named.snapshot).unwrap();
    assert_eq!(offer.append("targets.json", &files.targets).unwrap_err().code(), "TRUST_TOO_LARGE");
}

#[tokio::test]
async fn hostile_json_is_malformed() {
    let repo = Repo::new();
    let deep = "[".repeat(10_000);
    let huge_number = r#"{"signed":{"version":1e400}}"#;
    let trailing = String::from_utf8(repo.files().timestamp).unwrap() + "{}";
    for text in ["", "null", "\u{feff}{}", &deep, huge_number, &trailing] {
        let files = Files { timestamp: text.as_bytes().to_vec(), ..repo.files() };
        let host = Host::new(&repo.root());
        assert_eq!(host.refusal(&bundle(&files, &[]), repo.now).await, "TRUST_MALFORMED");
        assert_eq!(host.saves(), 0);
    }
}

/// Honest targets of the same size are the measure, and the best of some tries: a try is disturbed by whatever else the
/// machine does.
#[tokio::test]
async fn hostile_json_takes_no_longer_than_honest_metadata_of_its_size() {
    const TRIES: usize = 3;
    let mut repo = Repo::new();
    for number in 0..2_000 {
        repo.listed[format!("clock-1.0.{number}-r1.json")] = listed(b"manifest");
    }
    let honest = repo.files();
    let size = honest.targets.len();
    let keys = (0..size).map(|key| format!("\"{key}\":0")).collect::<Vec<_>>().join(",");
    let shapes = [
        format!("{{\"signatures\":[],\"signed\":{{{}}}}}", &keys[..keys[..size].rfind(',').unwrap()]),
        format!("{{\"signatures\":[],\"signed\":{{\"x\":{}", "[".repeat(size)),
        format!("{{\"signatures\":[],\"signed\":{{\"x\":{}", "{\"x\":".repeat(size / 5)),
        format!("{{\"signatures\":[],\"signed\":{{\"version\":{}", "9".repeat(size)),
    ];
    let mut honest_time = Duration::MAX;
    for _ in 0..TRIES {
        let (host, started) = (Host::new(&repo.root()), Instant::now());
        host.offer(&bundle(&honest, &[]), repo.now).await.unwrap();
        honest_time = honest_time.min(started.elapsed());
    }
    for bomb in shapes {
        let files = Files { timestamp: bomb.as_bytes().to_vec(), ..repo.files() };
        let (host, mut time) = (Host::new(&repo.root()), Duration::MAX);
        for _ in 0..TRIES {
            let started = Instant::now();
            assert_eq!(host.refusal(&bundle(&files, &[]), repo.now).await, "TRUST_MALFORMED");
            time = time.min(started.elapsed());
        }
        assert!(time <= honest_time, "{:.60}: {time:?}, honest metadata takes {honest_time:?}", bomb);
    }
}

#[tokio::test]
async fn names_that_no_release_has_are_not_listed() {
    let mut repo = Repo::new();
    let long = format!("{}.json", "a".repeat(4096));
    let names = ["a/b.json", "a%2f..%2fb.json", "clock.so", "-x.json", &long];
    for name in names {
        repo.listed[name] = listed(b"manifest");
    }
    let host = Host::new(&repo.root());
    let trusted = host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    assert_eq!(trusted.targets().map(|(name, _)| name).collect::<Vec<_>>(), [NAME]);
    assert_eq!(trusted.ignored(), names.len());
    repo.listed["../x.json"] = listed(b"manifest");
    repo.bump();
    let trusted = host.offer(&bundle(&repo.files(), &[]), repo.now).await;
    assert!(trusted.is_err() || trusted.unwrap().targets().count() == 1);
}

#[tokio::test]
async fn what_is_delegated_counts_for_nothing() {
    let repo = Repo::new();
    let mut targets: serde_json::Value = serde_json::from_slice(&repo.files().targets).unwrap();
    let role =
        json!({ "name": "x.targets", "keyids": [], "threshold": 1, "paths": ["*"], "terminating": false });
    targets["signed"]["delegations"] = json!({ "keys": {}, "roles": [role] });
    let files = repo.files_with(repo.resign_targets(targets));
    let trusted = Host::new(&repo.root()).offer(&bundle(&files, &[]), repo.now).await.unwrap();
    assert_eq!(trusted.targets().count(), 1);
}

#[tokio::test]
async fn metadata_of_another_role_is_malformed() {
    let repo = Repo::new();
    let mut files = repo.files();
    let mut timestamp: serde_json::Value = serde_json::from_slice(&files.timestamp).unwrap();
    timestamp["signed"]["_type"] = json!("snapshot");
    files.timestamp = timestamp.to_string().into_bytes();
    assert_eq!(Host::new(&repo.root()).refusal(&bundle(&files, &[]), repo.now).await, "TRUST_MALFORMED");
}

#[tokio::test]
async fn a_withdrawn_release_is_marked() {
    let mut repo = Repo::new();
    repo.listed[NAME]["custom"]["withdrawn"] = json!(true);
    let host = updated(&repo).await;
    assert!(trusted(&host).unwrap().release(NAME).unwrap().withdrawn);
}

#[tokio::test]
async fn a_clock_that_went_back_is_named() {
    let repo = Repo::new();
    let host = updated(&repo).await;
    let offer = bundle(&repo.files(), &[]);
    host.offer(&offer, repo.now - HOUR / 12).await.unwrap();
    let error = host.offer(&offer, repo.now - 2 * HOUR).await.unwrap_err();
    assert_eq!(error.code(), "TRUST_CLOCK");
    assert_eq!(error.to_string(), "the clock is 2 h behind the time of the last accepted update");
}

#[tokio::test]
async fn a_refused_update_under_a_wild_clock_leaves_no_trace() {
    let repo = Repo::new();
    let host = updated(&repo).await;
    let offer = bundle(&repo.files(), &[]);
    assert_eq!(host.refusal(&offer, repo.now + 3650 * DAY).await, "TRUST_EXPIRED_ROOT");
    host.offer(&offer, repo.now).await.unwrap();
}

/// A timestamp lasts a day: that bounds how far ahead a clock can be believed, and so how long its mistake lasts.
#[tokio::test]
async fn a_clock_that_was_ahead_once_is_believed_for_a_day_at_most_and_forgiven_after_it() {
    let repo = Repo::new();
    let offer = bundle(&repo.files(), &[]);
    let host = updated(&repo).await;
    for ahead in [25 * HOUR, 3650 * DAY] {
        assert!(host.offer(&offer, repo.now + ahead).await.is_err());
        host.offer(&offer, repo.now).await.unwrap();
    }
    host.offer(&offer, repo.now + 23 * HOUR).await.unwrap();
    let error = host.offer(&offer, repo.now).await.unwrap_err();
    assert_eq!((error.code(), error.is_host_fault()), ("TRUST_CLOCK", true));
    assert!(error.fix().contains("wait, a day at most"), "{}", error.fix());
    assert!(trusted(&host).unwrap().release(NAME).is_some(), "what was accepted still counts for what runs");
    let mut later = Repo { now: repo.now + 23 * HOUR, ..repo };
    later.bump();
    host.offer(&bundle(&later.files(), &[]), later.now - HOUR / 12).await.unwrap();
}

#[tokio::test]
async fn a_publisher_may_look_at_expired_targets_but_not_at_an_expired_timestamp() {
    let mut repo = Repo::new();
    repo.valid.snapshot = HOUR;
    repo.valid.targets = HOUR;
    let host = Host::new(&repo.root());
    let offer = bundle(&repo.files(), &[]);
    let later = repo.now + 2 * HOUR;
    assert_eq!(host.refusal(&offer, later).await, "TRUST_EXPIRED_SNAPSHOT");
    update_for_signing(&host, &offer, later, Policy::default()).await.unwrap();
    let error = update_for_signing(&host, &offer, repo.now + 2 * DAY, Policy::default()).await.unwrap_err();
    assert_eq!(error.code(), "TRUST_EXPIRED_TIMESTAMP");
}

#[tokio::test]
async fn a_store_that_cannot_be_written_fails_the_update() {
    struct Full(Host);
    impl TrustedStore for Full {
        fn load(&self) -> Result<Stored, StoreError> {
            self.0.load()
        }
        fn save(&self, _: &Stored) -> Result<(), StoreError> {
            Err(StoreError::Io(std::io::ErrorKind::StorageFull.into()))
        }
    }
    let repo = Repo::new();
    let store = Full(Host::new(&repo.root()));
    let error = update(&store, &bundle(&repo.files(), &[]), repo.now, Policy::default()).await.unwrap_err();
    assert_eq!(error.code(), "TRUST_IO");
    assert!(error.is_host_fault() && matches!(error, TrustError::Store(_)));
}
