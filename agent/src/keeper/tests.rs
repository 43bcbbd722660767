//! What a file is worth to the next start, over runs.

use fleetswap_update::ReleaseId;

use super::*;
use crate::durable::StateDir;

struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, run: u64) -> Keeper {
        Keeper::new(StateDir::open(self.0.path()).unwrap().states(), run)
    }
}

fn release() -> Release {
    let version = "1.0.0".parse().unwrap();
    Release { plugin: "counter".into(), version, revision: 1, id: ReleaseId::new([1; 32]) }
}

async fn keep(keeper: &Keeper, state: &'static str, after: After) {
    let handed = keeper.handed(&release(), 1, Bytes::from_static(state.as_bytes()));
    keeper.keep(handed, after).await.unwrap();
}

/// The state, and whether it is whole.
async fn found(keeper: &Keeper) -> Option<(String, bool)> {
    match keeper.find("counter").await.unwrap() {
        Found::State(saved, state) => Some((String::from_utf8(state.to_vec()).unwrap(), saved.whole)),
        Found::Nothing(_) => None,
    }
}

fn is(state: &str, whole: bool) -> Option<(String, bool)> {
    Some((state.to_owned(), whole))
}

#[tokio::test]
async fn what_a_run_ended_with_is_whole_for_the_next_run_only() {
    let disk = Disk::new();
    keep(&disk.run(1), "7", After::End).await;
    let next = disk.run(2);
    assert_eq!(found(&next).await, is("7", true));
    assert_eq!(found(&next).await, is("7", true), "a start that failed changed nothing");
    next.touch("counter");
    assert_eq!(found(&next).await, is("7", false), "its worker died");
    assert_eq!(found(&disk.run(3)).await, is("7", false), "run 2 was killed");
}

#[tokio::test]
async fn a_state_that_no_instance_took_over_is_passed_on_to_the_next_run() {
    let disk = Disk::new();
    keep(&disk.run(1), "7", After::End).await;
    disk.run(2).pass_on("counter").await.unwrap();
    let third = disk.run(3);
    assert_eq!(found(&third).await, is("7", true));
    third.touch("counter");
    third.pass_on("counter").await.unwrap();
    assert_eq!(found(&disk.run(4)).await, is("7", false), "one that was taken over is not");
}

#[tokio::test]
async fn a_checkpoint_is_never_whole_and_a_state_for_the_next_instance_is() {
    let disk = Disk::new();
    let keeper = disk.run(1);
    keeper.touch("counter");
    keep(&keeper, "7", After::More).await;
    assert_eq!(found(&keeper).await, is("7", false));
    keep(&keeper, "7", After::Instance).await;
    assert_eq!(found(&keeper).await, is("7", true), "though nothing had to be written");
}

#[tokio::test]
async fn an_unchanged_checkpoint_is_not_written_again_and_its_time_is_known() {
    let disk = Disk::new();
    let keeper = disk.run(1);
    keep(&keeper, "7", After::More).await;
    let before = keeper.states.load("counter").unwrap().unwrap().0;
    let mut handed = keeper.handed(&release(), 1, Bytes::from_static(b"7"));
    handed.unix_ms += 60_000;
    keeper.keep(handed, After::More).await.unwrap();
    assert_eq!(keeper.states.load("counter").unwrap().unwrap().0, before);
    assert!(keeper.view("counter").unwrap().unix_ms >= before.unix_ms + 60_000);
    keep(&keeper, "8", After::More).await;
    let after = keeper.states.load("counter").unwrap().unwrap().0;
    assert_eq!(after.sequence, before.sequence + 1);
}

#[tokio::test]
async fn a_state_that_was_taken_before_a_later_one_or_before_a_start_does_not_replace_it() {
    let disk = Disk::new();
    let keeper = disk.run(1);
    let late = keeper.handed(&release(), 1, Bytes::from_static(b"old"));
    keep(&keeper, "new", After::More).await;
    keeper.keep(late, After::More).await.unwrap();
    assert_eq!(found(&keeper).await, is("new", false));
    let late = keeper.handed(&release(), 1, Bytes::from_static(b"newer"));
    assert_eq!(found(&keeper).await, is("new", false));
    keeper.keep(late, After::More).await.unwrap();
    assert_eq!(found(&keeper).await, is("new", false), "the next instance goes on from what it found");
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_told() {
    let disk = Disk::new();
    keep(&disk.run(1), "7", After::End).await;
    let file = disk.0.path().join("states/counter");
    std::fs::write(&file, "nonsense").unwrap();
    let next = disk.run(2);
    for _ in 0..2 {
        let Found::Nothing(why) = next.find("counter").await.unwrap() else { panic!("it was taken") };
        assert!(why.contains("is damaged") && why.contains("states/counter.aside"), "{why}");
    }
    assert_eq!(std::fs::read(disk.0.path().join("states/counter.aside")).unwrap(), b"nonsense");
    keep(&next, "8", After::More).await;
    assert_eq!(found(&next).await, is("8", false));
}

#[tokio::test]
async fn a_removed_plugin_leaves_nothing_and_what_was_on_its_way_does_not_come_back() {
    let disk = Disk::new();
    let keeper = disk.run(1);
    keep(&keeper, "7", After::More).await;
    let late = keeper.handed(&release(), 1, Bytes::from_static(b"8"));
    keeper.forget("counter").await.unwrap();
    keeper.keep(late, After::More).await.unwrap();
    assert_eq!((found(&keeper).await, keeper.view("counter")), (None, None));
    assert_eq!(std::fs::read_dir(disk.0.path().join("states")).unwrap().count(), 0);
}
