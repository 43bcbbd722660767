//! The contract on SQLite, and what only SQLite can suffer: a cut in the middle, a full disk, a group that fails.

use std::path::Path;

use super::*;
use crate::store::contract::{host, rollout, store_contract};

store_contract!(open_sqlite);

fn open_sqlite(path: &Path) -> Sqlite {
    Sqlite::open(path).unwrap()
}

fn hosts(number: u128) -> Change {
    Change { hosts: vec![host(number)], ..Change::default() }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_cut_and_what_was_not_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    open_sqlite(&path).commit(hosts(1)).await.unwrap();

    // A process that dies between write and commit: the files stay as they are at that moment.
    let db = open::open(&path).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    write::change(&db, &hosts(2)).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let store = open_sqlite(&copy.path().join("store.db"));
    assert_eq!(store.snapshot().await.unwrap().hosts, [host(1)]);
    store.commit(hosts(3)).await.unwrap();
}

#[tokio::test]
async fn a_log_that_was_torn_in_a_write_loses_only_that_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let db = open::open(&path).unwrap();
    assert!(writer::commit(&db, &[&hosts(1)])[0].is_ok());
    let log = std::fs::metadata(dir.path().join("store.db-wal")).unwrap().len();
    assert!(writer::commit(&db, &[&hosts(2)])[0].is_ok());

    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(&path, copy.path().join("store.db")).unwrap();
    let bytes = std::fs::read(dir.path().join("store.db-wal")).unwrap();
    let torn = usize::try_from(log).unwrap() + 100;
    std::fs::write(copy.path().join("store.db-wal"), &bytes[..torn]).unwrap();
    let store = open_sqlite(&copy.path().join("store.db"));
    assert_eq!(store.snapshot().await.unwrap().hosts, [host(1)]);
}

#[test]
fn a_full_disk_refuses_the_change_and_keeps_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let db = open::open(&dir.path().join("store.db")).unwrap();
    assert!(writer::commit(&db, &[&hosts(1)])[0].is_ok());
    let pages: i64 = db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    db.execute_batch(&format!("PRAGMA max_page_count = {pages}")).unwrap();
    let mut big = rollout(1);
    big.doc = "x".repeat(1_000_000);
    let big = Change { rollouts: vec![big], ..Change::default() };
    let verdicts = writer::commit(&db, &[&hosts(2), &big]);
    assert!(matches!(verdicts[1], Err(StoreError::DiskFull)), "{verdicts:?}");

    db.execute_batch("PRAGMA max_page_count = 100000").unwrap();
    assert!(writer::commit(&db, &[&hosts(3)])[0].is_ok());
    let known = read::snapshot(&db).unwrap().hosts;
    assert!(known.contains(&host(1)) && known.contains(&host(3)));
    assert_eq!(known.contains(&host(2)), verdicts[0].is_ok(), "an answer and the store disagree");
}

#[test]
fn a_change_that_is_refused_takes_nothing_of_its_group_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = open::open(&dir.path().join("store.db")).unwrap();
    let gap = Change { hosts: vec![host(2)], rollouts: vec![rollout(9)], ..Change::default() };
    let verdicts = writer::commit(&db, &[&hosts(1), &gap, &hosts(3)]);
    assert!(verdicts[0].is_ok() && verdicts[1].is_err() && verdicts[2].is_ok());
    assert_eq!(read::snapshot(&db).unwrap().hosts, [host(1), host(3)]);
}

#[test]
fn answered_requests_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let db = open::open(&dir.path().join("store.db")).unwrap();
    db.execute_batch(
        "WITH RECURSIVE counter (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM counter WHERE i < 10005)
         INSERT INTO requests (request_id, fingerprint, response) SELECT 'r' || i, '', x'' FROM counter;",
    )
    .unwrap();
    let request =
        RequestRow { request_id: "new".to_owned(), fingerprint: String::new(), response: Vec::new() };
    let change = Change { request: Some(request), ..Change::default() };
    assert!(writer::commit(&db, &[&change])[0].is_ok());
    let kept: i64 = db.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 10_000);
    assert!(read::request(&db, "r1").unwrap().is_none());
    assert!(read::request(&db, "new").unwrap().is_some());
}
