//! Chains of roots: rotation, recovery, and what never may follow.

use fleetswap_trust::{Policy, Stored, trusted, update};

use crate::fixture::{DAY, Host, NAME, Repo, Signer, bundle};

async fn updated(repo: &Repo) -> Host {
    let host = Host::new(&repo.root());
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    host
}

/// Root 2 with new keys for everything below the root; returned with the old repository's keys replaced.
fn rotate(mut repo: Repo) -> Repo {
    repo.root += 1;
    repo.timestamp_key = Signer::new();
    repo.snapshot_key = Signer::new();
    repo.targets_key = Signer::new();
    repo
}

#[tokio::test]
async fn a_rotated_root_is_followed_and_revoked_keys_are_refused_from_then_on() {
    let mut repo = Repo::new();
    let host = updated(&repo).await;
    (repo.timestamp, repo.snapshot, repo.targets) = (9, 9, 9);
    let by_revoked_keys = bundle(&repo.files(), &[]);
    (repo.timestamp, repo.snapshot, repo.targets) = (2, 2, 2);
    let repo = rotate(repo);
    host.offer(&bundle(&repo.files(), &[(2, &repo.root())]), repo.now).await.unwrap();
    assert_eq!(host.stored().floors().root, 2);
    // Root 2 is withheld: the stored root counts, not the one that came with the host.
    assert_eq!(host.refusal(&by_revoked_keys, repo.now).await, "TRUST_THRESHOLD");
    assert_eq!(host.stored().floors().root, 2);
}

#[tokio::test]
async fn a_new_root_is_kept_although_the_timestamp_under_it_is_refused() {
    let repo = Repo::new();
    let host = updated(&repo).await;
    let mut repo = rotate(repo);
    repo.bump();
    repo.valid.root = 100 * DAY;
    let saves = host.saves();
    let later = repo.now + 2 * DAY;
    let code = host.refusal(&bundle(&repo.files(), &[(2, &repo.root())]), later).await;
    assert_eq!(code, "TRUST_EXPIRED_TIMESTAMP");
    assert_eq!(host.saves(), saves + 1);
    assert_eq!(host.stored().floors().root, 2);
    assert_eq!(host.stored().root(), repo.root());
    assert_eq!(host.stored().timestamp(), None);
    assert!(trusted(&host).unwrap().release(NAME).is_none());
}

#[tokio::test]
async fn a_snapshot_is_kept_although_the_targets_under_it_are_refused() {
    let mut repo = Repo::new();
    let host = updated(&repo).await;
    repo.bump();
    let mut files = repo.files();
    let middle = files.targets.len() / 2;
    files.targets[middle] ^= 1;
    assert_eq!(host.refusal(&bundle(&files, &[]), repo.now).await, "TRUST_MISMATCH");
    let floors = host.stored().floors();
    assert_eq!((floors.timestamp, floors.snapshot, floors.targets), (2, 2, 1));
    // The next server has the right file; the host needs only that.
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    assert_eq!(host.stored().floors().targets, 2);
}

#[tokio::test]
async fn good_roots_before_a_bad_one_are_kept() {
    let repo = Repo::new();
    let host = updated(&repo).await;
    let repo = rotate(repo);
    let second = repo.root();
    let third = Repo { root: 3, root_keys: vec![Signer::new()], ..repo };
    let offer = bundle(&third.files(), &[(2, &second), (3, &third.root())]);
    let error = host.offer(&offer, third.now).await.unwrap_err();
    assert_eq!(error.to_string(), "root v3 can't follow root v2: it is not signed by 1 keys of v2");
    assert_eq!(host.stored().floors().root, 2);
}

#[tokio::test]
async fn a_root_signed_by_too_few_old_keys_is_refused() {
    let mut repo = Repo::new();
    repo.root_keys = vec![Signer::new(), Signer::new()];
    repo.root_threshold = 2;
    let host = updated(&repo).await;
    let old = repo.root_keys.remove(0);
    repo.root_keys = vec![Signer::new(), Signer::new()];
    repo.root = 2;
    let signers = [&old, &repo.root_keys[0], &repo.root_keys[1]];
    let offer = bundle(&repo.files(), &[(2, &repo.root_signed_by(&signers))]);
    assert_eq!(host.refusal(&offer, repo.now).await, "TRUST_ROOT_CHAIN");
    assert_eq!(host.stored().floors().root, 1);
}

#[tokio::test]
async fn a_gap_or_a_lie_about_the_version_breaks_the_chain() {
    let mut repo = Repo::new();
    let host = updated(&repo).await;
    repo.root = 3;
    let third = repo.root();
    let gap = host.offer(&bundle(&repo.files(), &[(3, &third)]), repo.now).await.unwrap_err();
    assert_eq!(gap.to_string(), "root v3 can't follow root v1: v2 is missing between them");
    let lie = host.offer(&bundle(&repo.files(), &[(2, &third)]), repo.now).await.unwrap_err();
    assert_eq!(lie.to_string(), "root v2 can't follow root v1: the file says that it is v3");
    assert_eq!(host.stored().floors().root, 1);
}

#[tokio::test]
async fn old_roots_in_the_offer_are_passed_over() {
    let mut repo = Repo::new();
    let first = repo.root();
    let host = updated(&repo).await;
    repo.root = 2;
    repo.bump();
    let second = repo.root();
    let offer = bundle(&repo.files(), &[(1, &first), (2, &second)]);
    host.offer(&offer, repo.now).await.unwrap();
    host.offer(&offer, repo.now).await.unwrap();
    assert_eq!(host.stored().floors().root, 2);
}

#[tokio::test]
async fn a_fast_forward_by_a_thief_is_undone_by_new_keys() {
    let mut repo = Repo::new();
    let host = updated(&repo).await;
    (repo.timestamp, repo.snapshot) = (1 << 62, 1 << 62);
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    (repo.timestamp, repo.snapshot) = (3, 3);
    assert_eq!(host.refusal(&bundle(&repo.files(), &[]), repo.now).await, "TRUST_ROLLBACK");
    let repo = rotate(repo);
    let trusted = host.offer(&bundle(&repo.files(), &[(2, &repo.root())]), repo.now).await.unwrap();
    assert_eq!((trusted.versions().timestamp, host.stored().floors().timestamp), (3, 3));
}

#[tokio::test]
async fn a_root_with_the_same_keys_keeps_the_floors() {
    let mut repo = Repo::new();
    let old = repo.files();
    let host = updated(&repo).await;
    repo.bump();
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    repo.root = 2;
    assert_eq!(host.refusal(&bundle(&old, &[(2, &repo.root())]), repo.now).await, "TRUST_ROLLBACK");
    let floors = host.stored().floors();
    assert_eq!((floors.root, floors.timestamp), (2, 2));
}

#[tokio::test]
async fn new_snapshot_keys_alone_let_no_old_targets_in() {
    let mut repo = Repo::new();
    let old = repo.files();
    let host = updated(&repo).await;
    repo.bump();
    host.offer(&bundle(&repo.files(), &[]), repo.now).await.unwrap();
    repo.snapshot_key = Signer::new();
    repo.root = 2;
    repo.targets = 1;
    repo.snapshot = 9;
    let offer = bundle(&repo.files_with(old.targets), &[(2, &repo.root())]);
    assert_eq!(host.refusal(&offer, repo.now).await, "TRUST_ROLLBACK");
    assert_eq!(host.stored().floors().targets, 2);
}

#[tokio::test]
async fn a_raised_threshold_drops_what_is_signed_too_weakly_and_damages_nothing() {
    let mut repo = Repo::new();
    let host = updated(&repo).await;
    repo.root = 2;
    repo.targets_threshold = 2;
    repo.bump();
    let code = host.refusal(&bundle(&repo.files(), &[(2, &repo.root())]), repo.now).await;
    assert_eq!(code, "TRUST_THRESHOLD");
    let stored = host.stored();
    assert_eq!((stored.floors().root, stored.floors().targets, stored.targets()), (2, 1, None));
    assert_eq!(host.refusal(&bundle(&repo.files(), &[]), repo.now).await, "TRUST_THRESHOLD");
}

#[tokio::test]
async fn a_root_for_development_is_refused_unless_allowed() {
    let mut repo = Repo::new();
    repo.environment = Some("dev");
    let host = Host::new(&repo.root());
    let offer = bundle(&repo.files(), &[]);
    assert_eq!(host.refusal(&offer, repo.now).await, "TRUST_DEV_ROOT");
    assert_eq!(host.saves(), 0);
    let trusted = update(&host, &offer, repo.now, Policy { allow_dev: true }).await.unwrap();
    assert!(trusted.is_dev());
    assert_eq!(host.refusal(&offer, repo.now).await, "TRUST_DEV_ROOT");
}

#[tokio::test]
async fn development_and_real_work_never_follow_each_other() {
    let mut repo = Repo::new();
    let host = updated(&repo).await;
    (repo.root, repo.environment) = (2, Some("dev"));
    let offer = bundle(&repo.files(), &[(2, &repo.root())]);
    assert_eq!(host.refusal(&offer, repo.now).await, "TRUST_DEV_ROOT");
    let allowed = update(&host, &offer, repo.now, Policy { allow_dev: true }).await.unwrap_err();
    assert_eq!(allowed.code(), "TRUST_ROOT_CHAIN");
    assert_eq!(host.stored().floors().root, 1);
}

#[test]
fn a_root_that_its_own_keys_did_not_sign_is_no_start() {
    let repo = Repo::new();
    let stranger = Signer::new();
    let error = Stored::from_root(&repo.root_signed_by(&[&stranger])).unwrap_err();
    assert_eq!(error.code(), "TRUST_STORE_DAMAGED");
}
