//! What every implementation of [`Store`] must do: `store_contract!(open)` makes a test of each function here, where
//! `open(&Path)` opens the store that is kept at a path.

use std::collections::BTreeMap;

use super::*;
use fleetswap_trust::Versions;
use uuid::Uuid;

/// Makes the tests of the contract for one implementation.
macro_rules! store_contract {
    ($open:path; $($name:ident)*) => {$(
        #[tokio::test]
        async fn $name() {
            let dir = tempfile::tempdir().unwrap();
            let open = || $open(&dir.path().join("store"));
            $crate::store::contract::$name(open).await;
        }
    )*};
    ($open:path) => {
        $crate::store::contract::store_contract!($open;
            a_new_store_is_empty
            all_rows_read_back_after_a_reopen
            a_refused_change_leaves_nothing_of_itself
            a_rollout_changes_only_from_the_version_that_was_read
            an_assignment_changes_only_from_the_version_that_was_read
            an_assignment_remembers_a_bounded_count_of_releases
            a_rollouts_number_is_never_given_twice
            only_a_greater_report_key_changes_the_row
            a_hosts_generation_is_never_lowered
            two_hosts_cannot_share_a_name
            a_request_is_answered_once
            of_ended_rollouts_the_snapshot_has_the_newest_and_the_newest_that_succeeded
            releases_are_found_by_version_and_listed_newest_first
            rollouts_are_listed_newest_first_in_pages
            changes_that_wait_together_are_judged_one_by_one
            time_spent_listening_never_goes_back
            a_number_beyond_the_columns_is_refused
        );
    };
}
pub(crate) use store_contract;

/// A host whose id and name come from `number`.
pub(crate) fn host(number: u128) -> HostRow {
    HostRow {
        host_id: Uuid::from_u128(number),
        name: format!("host-{number}"),
        labels: BTreeMap::from([("rack".to_owned(), "a1".to_owned())]),
        facts: HostFacts { agent_version: "0.1.0".to_owned(), ..HostFacts::default() },
        first_seen_ms: 1_795_500_000_000,
        generation: Generation { epoch: 1, n: 4 },
        session: 1,
        seen: Seen {
            generation: Generation { epoch: 1, n: 3 },
            metadata: Versions { root: 1, timestamp: 9, snapshot: 8, targets: 7 },
        },
    }
}

/// A rollout of `clock` to everyone.
pub(crate) fn rollout(id: u64) -> RolloutRow {
    RolloutRow {
        id,
        plugin: "clock".to_owned(),
        selector: "all".to_owned(),
        from: None,
        to: Some("aa".repeat(32)),
        state: "RUNNING".to_owned(),
        trigger: "push".to_owned(),
        actor: "ci".to_owned(),
        reason: "a better clock".to_owned(),
        created_ms: 1_795_500_000_000,
        ended_ms: None,
        doc: "{}".to_owned(),
        version: 0,
    }
}

fn assignment() -> AssignmentRow {
    AssignmentRow {
        plugin: "clock".to_owned(),
        selector: "all".to_owned(),
        release_id: None,
        history: Vec::new(),
        version: 0,
    }
}

fn reported(sequence: u64, status: &[u8]) -> ReportedRow {
    ReportedRow {
        host_id: host(1).host_id,
        plugin: "clock".to_owned(),
        key: ReportKey { generation: Generation { epoch: 1, n: 4 }, attempt: 1, session: 1, sequence },
        active: None,
        status: status.to_vec(),
    }
}

fn desired() -> DesiredRow {
    DesiredRow {
        host_id: host(1).host_id,
        plugin: "clock".to_owned(),
        release_id: Some("aa".repeat(32)),
        rollout: Some(1),
        attempt: 1,
        rollback: false,
        generation: Generation { epoch: 1, n: 4 },
        min_healthy_ms: 10_000,
        healthy_deadline_ms: 300_000,
    }
}

fn release() -> ReleaseRow {
    let head = ReleaseHead {
        release_id: "aa".repeat(32),
        plugin: "clock".to_owned(),
        version: "1.0.0".to_owned(),
        revision: 1,
        withdrawn: false,
        platforms: vec!["x86_64-linux-gnu".to_owned()],
    };
    ReleaseRow { head, manifest: b"{}".to_vec() }
}

fn request(id: &str) -> RequestRow {
    RequestRow { request_id: id.to_owned(), fingerprint: "bb".repeat(32), response: b"yes".to_vec() }
}

fn event() -> EventRow {
    EventRow {
        at_ms: 1,
        kind: "host_joined".to_owned(),
        subject: "host-1".to_owned(),
        text: "host-1 joined".to_owned(),
    }
}

fn member() -> RolloutHostRow {
    RolloutHostRow { rollout: 1, host_id: host(1).host_id, state: "OFFERED".to_owned(), doc: "{}".to_owned() }
}

/// One row of everything.
fn everything() -> Change {
    Change {
        elapsed_ms: Some(5_000),
        hosts: vec![host(1)],
        desired: vec![desired()],
        undesired: Vec::new(),
        reported: vec![reported(1, b"first")],
        assignments: vec![assignment()],
        rollouts: vec![rollout(1)],
        rollout_hosts: vec![member()],
        releases: vec![release()],
        request: Some(request("one")),
        events: vec![event()],
    }
}

fn conflict(result: Result<(), StoreError>) -> String {
    match result {
        Err(StoreError::Conflict { row }) => row,
        other => panic!("not a conflict: {other:?}"),
    }
}

pub(crate) async fn a_new_store_is_empty<S: Store>(open: impl Fn() -> S) {
    let snapshot = open().snapshot().await.unwrap();
    assert_eq!(snapshot, Snapshot { epoch: 1, next_rollout: 1, ..Snapshot::default() });
}

pub(crate) async fn all_rows_read_back_after_a_reopen<S: Store>(open: impl Fn() -> S) {
    let change = everything();
    open().commit(change.clone()).await.unwrap();
    let store = open();
    let expected = Snapshot {
        epoch: 1,
        next_rollout: 2,
        elapsed_ms: 5_000,
        hosts: change.hosts,
        desired: change.desired,
        reported: change.reported,
        assignments: vec![AssignmentRow { version: 1, ..assignment() }],
        rollouts: vec![RolloutRow { version: 1, ..rollout(1) }],
        rollout_hosts: change.rollout_hosts,
        releases: vec![release().head],
    };
    assert_eq!(store.snapshot().await.unwrap(), expected);
    assert_eq!(store.release(&release().head.release_id).await.unwrap(), Some(release()));
    assert_eq!(store.request("one").await.unwrap(), Some(request("one")));
    assert_eq!(store.events(10).await.unwrap(), [event()]);
    let withdrawn = Change { undesired: vec![(host(1).host_id, "clock".to_owned())], ..Change::default() };
    store.commit(withdrawn).await.unwrap();
    assert!(store.snapshot().await.unwrap().desired.is_empty());
}

pub(crate) async fn a_refused_change_leaves_nothing_of_itself<S: Store>(open: impl Fn() -> S) {
    let store = open();
    let stale = RolloutRow { version: 7, ..rollout(1) };
    let change = Change { rollouts: vec![stale], ..everything() };
    assert_eq!(conflict(store.commit(change).await), "rollout r-000001");
    let empty = Snapshot { epoch: 1, next_rollout: 1, ..Snapshot::default() };
    assert_eq!(store.snapshot().await.unwrap(), empty);
    assert_eq!(store.request("one").await.unwrap(), None);
    assert!(store.events(10).await.unwrap().is_empty());
}

pub(crate) async fn a_rollout_changes_only_from_the_version_that_was_read<S: Store>(open: impl Fn() -> S) {
    let store = open();
    let write = |version, state: &str| {
        let row = RolloutRow { version, state: state.to_owned(), ..rollout(1) };
        Change { rollouts: vec![row], ..Change::default() }
    };
    store.commit(write(0, "PENDING")).await.unwrap();
    store.commit(write(1, "RUNNING")).await.unwrap();
    assert_eq!(conflict(store.commit(write(1, "FAILED")).await), "rollout r-000001");
    let (row, _) = store.rollout(1).await.unwrap().unwrap();
    assert_eq!((row.state.as_str(), row.version), ("RUNNING", 2));
}

pub(crate) async fn an_assignment_changes_only_from_the_version_that_was_read<S: Store>(
    open: impl Fn() -> S,
) {
    let store = open();
    let write = |version, release: &str| {
        let history = vec![release.to_owned()];
        let row = AssignmentRow { version, release_id: Some(release.to_owned()), history, ..assignment() };
        Change { assignments: vec![row], ..Change::default() }
    };
    store.commit(write(0, "a")).await.unwrap();
    assert_eq!(conflict(store.commit(write(0, "b")).await), "assignment clock on all");
    store.commit(write(1, "b")).await.unwrap();
    assert_eq!(conflict(store.commit(write(1, "c")).await), "assignment clock on all");
    let stored = store.snapshot().await.unwrap().assignments;
    assert_eq!(stored[0].history, ["b"]);
}

pub(crate) async fn an_assignment_remembers_a_bounded_count_of_releases<S: Store>(open: impl Fn() -> S) {
    let store = open();
    let history: Vec<String> = (0..AssignmentRow::HISTORY_MAX + 5).rev().map(|n| n.to_string()).collect();
    let row = AssignmentRow { history: history.clone(), ..assignment() };
    store.commit(Change { assignments: vec![row], ..Change::default() }).await.unwrap();
    let stored = store.snapshot().await.unwrap().assignments;
    assert_eq!(stored[0].history, history[..AssignmentRow::HISTORY_MAX]);
}

pub(crate) async fn a_rollouts_number_is_never_given_twice<S: Store>(open: impl Fn() -> S) {
    let store = open();
    let start = |id| Change { rollouts: vec![rollout(id)], ..Change::default() };
    store.commit(start(1)).await.unwrap();
    assert_eq!(conflict(store.commit(start(1)).await), "rollout r-000001");
    assert_eq!(conflict(store.commit(start(3)).await), "rollout r-000003");
    store.commit(start(2)).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().next_rollout, 3);
}

pub(crate) async fn only_a_greater_report_key_changes_the_row<S: Store>(open: impl Fn() -> S) {
    let store = open();
    let report = |row| Change { reported: vec![row], ..Change::default() };
    store.commit(Change { hosts: vec![host(1)], ..report(reported(5, b"five")) }).await.unwrap();
    store.commit(report(reported(4, b"older"))).await.unwrap();
    store.commit(report(reported(5, b"again"))).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().reported, [reported(5, b"five")]);
    let mut next = reported(1, b"new session");
    next.key.session = 2;
    // A host that has lost its memory answers lower generations.
    next.key.generation.n = 1;
    store.commit(report(next.clone())).await.unwrap();
    store.commit(report(reported(6, b"old session"))).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().reported, [next]);
}

pub(crate) async fn a_hosts_generation_is_never_lowered<S: Store>(open: impl Fn() -> S) {
    let store = open();
    let write = |generation, session| Change {
        hosts: vec![HostRow { generation, session, ..host(1) }],
        ..Change::default()
    };
    store.commit(write(Generation { epoch: 2, n: 3 }, 2)).await.unwrap();
    let old_epoch = Generation { epoch: 1, n: 9 };
    assert_eq!(conflict(store.commit(write(old_epoch, 2)).await), "host host-1");
    assert_eq!(conflict(store.commit(write(Generation { epoch: 2, n: 3 }, 1)).await), "host host-1");
    store.commit(write(Generation { epoch: 3, n: 1 }, 2)).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().hosts[0].generation, Generation { epoch: 3, n: 1 });
}

pub(crate) async fn two_hosts_cannot_share_a_name<S: Store>(open: impl Fn() -> S) {
    let store = open();
    store.commit(Change { hosts: vec![host(1)], ..Change::default() }).await.unwrap();
    let twin = HostRow { name: "host-1".to_owned(), ..host(2) };
    let refused = store.commit(Change { hosts: vec![twin], ..Change::default() }).await;
    assert_eq!(conflict(refused), "host host-1");
    assert_eq!(store.snapshot().await.unwrap().hosts, [host(1)]);
}

pub(crate) async fn a_request_is_answered_once<S: Store>(open: impl Fn() -> S) {
    let store = open();
    let answer =
        |id| Change { request: Some(request("one")), rollouts: vec![rollout(id)], ..Change::default() };
    store.commit(answer(1)).await.unwrap();
    assert_eq!(conflict(store.commit(answer(2)).await), "request one");
    assert_eq!(store.snapshot().await.unwrap().next_rollout, 2);
    assert_eq!(store.request("two").await.unwrap(), None);
}

pub(crate) async fn of_ended_rollouts_the_snapshot_has_the_newest_and_the_newest_that_succeeded<S: Store>(
    open: impl Fn() -> S,
) {
    let store = open();
    store.commit(Change { hosts: vec![host(1)], ..Change::default() }).await.unwrap();
    for (id, state) in [(1, "SUCCEEDED"), (2, "SUCCEEDED"), (3, "FAILED"), (4, "ABORTED")] {
        let ended = RolloutRow { ended_ms: Some(id), state: state.to_owned(), ..rollout(id) };
        let hosts = vec![RolloutHostRow { rollout: id, ..member() }];
        store
            .commit(Change { rollouts: vec![ended], rollout_hosts: hosts, ..Change::default() })
            .await
            .unwrap();
    }
    let snapshot = store.snapshot().await.unwrap();
    let ids = |rows: &[RolloutRow]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(&snapshot.rollouts), [2, 4]);
    let members: Vec<_> = snapshot.rollout_hosts.iter().map(|row| row.rollout).collect();
    assert_eq!(members, [2, 4]);
    let (first, hosts) = store.rollout(1).await.unwrap().unwrap();
    assert_eq!((first.state.as_str(), hosts.len()), ("SUCCEEDED", 1));
    assert_eq!(store.rollout(5).await.unwrap(), None);
    assert_eq!(store.rollout(u64::MAX).await.unwrap(), None);
}

pub(crate) async fn releases_are_found_by_version_and_listed_newest_first<S: Store>(open: impl Fn() -> S) {
    let store = open();
    let published = |id: &str, revision, withdrawn| {
        let mut row = release();
        row.head = ReleaseHead { release_id: id.to_owned(), revision, withdrawn, ..row.head };
        Change { releases: vec![row], ..Change::default() }
    };
    for change in [published("a", 1, false), published("b", 2, false), published("a", 1, true)] {
        store.commit(change).await.unwrap();
    }
    let found = store.releases_of("clock", "1.0.0", 10).await.unwrap();
    let revisions: Vec<_> = found.iter().map(|row| (row.head.revision, row.head.withdrawn)).collect();
    assert_eq!(revisions, [(2, false), (1, true)]);
    assert!(store.releases_of("clock", "1.0.1", 10).await.unwrap().is_empty());
    let listed: Vec<_> = store.releases(1).await.unwrap().into_iter().map(|head| head.release_id).collect();
    assert_eq!(listed, ["b"]);
}

pub(crate) async fn rollouts_are_listed_newest_first_in_pages<S: Store>(open: impl Fn() -> S) {
    let store = open();
    for id in 1..=5 {
        let plugin = if id == 2 { "counter" } else { "clock" };
        let row = RolloutRow { plugin: plugin.to_owned(), ..rollout(id) };
        store.commit(Change { rollouts: vec![row], ..Change::default() }).await.unwrap();
    }
    let list = async |plugin: Option<&str>, before, limit| {
        let page = RolloutPage { plugin: plugin.map(str::to_owned), before, limit };
        let rows = store.rollouts(page).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, 2).await, [5, 4]);
    assert_eq!(list(None, Some(4), 2).await, [3, 2]);
    assert_eq!(list(Some("clock"), Some(4), 2).await, [3, 1]);
    assert!(list(Some("unknown"), None, 2).await.is_empty());
}

pub(crate) async fn changes_that_wait_together_are_judged_one_by_one<S: Store>(open: impl Fn() -> S) {
    let store = open();
    let write = |number| store.commit(Change { hosts: vec![host(number)], ..Change::default() });
    let twin = HostRow { name: "host-1".to_owned(), ..host(9) };
    let refused = store.commit(Change { hosts: vec![twin], ..Change::default() });
    let (one, two, twin, three) = tokio::join!(write(1), write(2), refused, write(3));
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(conflict(twin), "host host-1");
    assert_eq!(open().snapshot().await.unwrap().hosts, [host(1), host(2), host(3)]);
}

pub(crate) async fn time_spent_listening_never_goes_back<S: Store>(open: impl Fn() -> S) {
    let store = open();
    for ms in [7_000, 3_000] {
        store.commit(Change { elapsed_ms: Some(ms), ..Change::default() }).await.unwrap();
    }
    assert_eq!(store.snapshot().await.unwrap().elapsed_ms, 7_000);
}

pub(crate) async fn a_number_beyond_the_columns_is_refused<S: Store>(open: impl Fn() -> S) {
    let store = open();
    let absurd = HostRow { session: u64::MAX, ..host(1) };
    let refused = store.commit(Change { hosts: vec![absurd], ..Change::default() }).await;
    assert!(matches!(refused, Err(StoreError::Unfit(_))), "{refused:?}");
}
