//! What an operator on the host orders, with played workers.

use std::fs;

use fleetswap_update::Order;

use super::*;
use crate::run::{Refused, Verb, orders::Answer};

fn order() -> Order {
    Order { reason: "it is slow".into(), by: "alice".into(), at_ms: 7 }
}

impl Agent {
    async fn order(&self, verb: Verb) -> Answer {
        self.lives.world().orders.give("counter", verb, order()).await
    }

    /// What is reported is on disk.
    fn kind(&self) -> Option<v1::LocalOverrideKind> {
        Some(self.standing.borrow().plugins["counter"].local_override.as_ref()?.kind())
    }
}

#[tokio::test]
async fn a_rollback_by_hand_carries_the_state_and_does_not_wait_for_another_plugins_trial() {
    let host = Host::new();
    let releases = [host.shelve("1.0.0", stateful()), host.shelve("2.0.0", stateful())];
    host.committed(&releases);
    let mut agent = host.start(false).await;
    agent.reports(serves("2.0.0")).await;
    assert_eq!(agent.count().await, ("2.0.0".to_owned(), 1));
    let taken = Arc::clone(&agent.lives.world().slot).acquire_owned().await.unwrap();
    let done = agent.order(Verb::RollBack).await.unwrap();
    assert_eq!((done.changed, done.status.active.unwrap().version.as_str()), (true, "1.0.0"));
    assert_eq!(agent.count().await, ("1.0.0".to_owned(), 2));
    assert_eq!(agent.kind(), Some(v1::LocalOverrideKind::RolledBack));
    assert_eq!(host.zoo.most_active.load(SeqCst), 1, "never two active at once");
    drop(taken);
    agent.lives.tell("counter", offer(9, &releases[1])).await;
    let waits = |status: &v1::PluginStatus| {
        status.trial.as_ref().is_some_and(|trial| trial.state() == v1::HostState::Offered)
    };
    agent.reports(waits).await;
    assert_eq!(agent.lives.world().slot.available_permits(), 1, "nobody waits for the slot");
    agent.stop().await;
}

#[tokio::test]
async fn a_rollback_that_fails_says_why_and_holds_what_runs() {
    let host = Host::new();
    let releases = [
        host.shelve("1.0.0", Kind { unloadable: true, ..Kind::default() }),
        host.shelve("2.0.0", Kind::default()),
    ];
    host.committed(&releases);
    let mut agent = host.start(false).await;
    agent.reports(serves("2.0.0")).await;
    let refused = *agent.order(Verb::RollBack).await.unwrap_err();
    let Refused::GivenUp { failure: Some((code, _)) } = refused else { panic!("{refused:?}") };
    assert!(code.starts_with("LOAD_"), "{code}");
    assert_eq!(agent.kind(), Some(v1::LocalOverrideKind::Hold));
    assert_eq!(agent.count().await.0, "2.0.0");
    agent.stop().await;
}

#[tokio::test]
async fn an_order_that_cannot_be_written_is_not_done() {
    let host = Host::new();
    host.committed(&[host.shelve("1.0.0", Kind::default())]);
    let mut agent = host.start(false).await;
    agent.reports(serves("1.0.0")).await;
    // A folder stands where the record is staged.
    let in_the_way = host.dir.path().join("records/counter.a.new");
    fs::create_dir(&in_the_way).unwrap();
    let refused = *agent.order(Verb::Hold).await.unwrap_err();
    assert!(matches!(refused, Refused::NotKept(_)), "{refused:?}");
    assert_eq!(agent.kind(), None);
    fs::remove_dir(&in_the_way).unwrap();
    assert!(agent.order(Verb::Hold).await.unwrap().changed);
    assert_eq!(agent.kind(), Some(v1::LocalOverrideKind::Hold));
    assert!(!agent.order(Verb::Hold).await.unwrap().changed, "the same again");
    assert!(agent.order(Verb::Release).await.unwrap().changed);
    assert_eq!(agent.order(Verb::Release).await, Err(Box::new(Refused::NotHeld)));
    agent.order(Verb::Hold).await.unwrap();
    agent.stop().await;
    assert_eq!(host.on_disk().local_override().map(|it| &it.order), Some(&order()));
    let state = StateDir::open(host.dir.path()).unwrap();
    let saved: Saved = state.records().of("counter").load().unwrap().unwrap();
    assert_eq!(saved.format, RECORD_FORMAT, "an agent that would not heed it leaves it alone");
}

#[tokio::test]
async fn a_plugin_that_is_not_here_is_named_and_one_without_a_release_before_has_no_way_back() {
    let host = Host::new();
    let release = host.shelve("1.0.0", Kind::default());
    host.committed(std::slice::from_ref(&release));
    let agent = host.start(false).await;
    let unknown = agent.lives.world().orders.give("colck", Verb::Hold, order()).await;
    assert_eq!(unknown, Err(Box::new(Refused::UnknownPlugin)));
    let active = Some(release.release);
    assert_eq!(agent.order(Verb::RollBack).await, Err(Box::new(Refused::NothingBefore { active })));
    assert_eq!(agent.kind(), None);
    agent.stop().await;
}
