//! States over the agent's end, a kill, and a worker's death.

use super::*;

/// A host that has committed counter 1.0.0 and 2.0.0, each with state.
fn two_releases() -> (Host, [Installed; 2]) {
    let host = Host::new();
    let releases = [host.shelve("1.0.0", stateful()), host.shelve("2.0.0", stateful())];
    host.committed(&releases);
    (host, releases)
}

impl Agent {
    async fn count_to(&self, count: u64) {
        while self.count().await.1 < count {}
    }

    /// Waits until what is on disk is this count.
    async fn is_kept(&self, count: u64) {
        let held = async {
            let held = || self.state.states().load("counter").unwrap().map(|(_, state)| state);
            while held().is_none_or(|state| *state != *count.to_string().as_bytes()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), held).await.expect("no checkpoint holds it");
    }
}

fn loses(words: &'static str) -> impl Fn(&v1::PluginStatus) -> bool {
    move |status| status.state_lost.contains(words) && status.service() == v1::ServiceState::Serving
}

#[tokio::test]
async fn a_planned_end_and_a_start_keep_the_state_whole() {
    let (host, _) = two_releases();
    for run in 1..=3 {
        let mut agent = host.start(true).await;
        let told = agent.reports(serves("2.0.0")).await.state_lost;
        // Told at the first start, and nothing beside it at later ones.
        assert!(told.ends_with("none was ever saved"), "{told}");
        for count in [2 * run - 1, 2 * run] {
            assert_eq!(agent.count().await, ("2.0.0".to_owned(), count));
        }
        agent.stop().await;
    }
}

#[tokio::test]
async fn after_a_kill_the_last_checkpoint_counts_and_what_came_after_it_is_told() {
    let (host, _) = two_releases();
    let mut agent = host.start(true).await;
    agent.reports(serves("2.0.0")).await;
    agent.count_to(3).await;
    agent.stop().await;
    let mut agent = host.start(true).await;
    agent.reports(serves("2.0.0")).await;
    assert_eq!(agent.count().await.1, 4);
    // Nothing of it is ended in order.
    agent.lives.abort();
    drop(agent);
    let mut again = host.start(false).await;
    again.reports(loses("its state is that of a checkpoint")).await;
    assert_eq!(again.count().await.1, 4, "the fourth was not kept");
    again.stop().await;
}

#[tokio::test]
async fn a_state_that_its_release_refuses_is_kept_aside_and_callers_are_served_without() {
    let host = Host::new();
    let release = host.shelve("1.0.0", Kind { forgetful: true, ..stateful() });
    host.committed(&[release]);
    let mut agent = host.start(true).await;
    agent.reports(serves("1.0.0")).await;
    agent.count_to(3).await;
    agent.stop().await;
    let mut again = host.start(true).await;
    let told = again.reports(loses("refused it")).await.state_lost;
    assert_eq!(again.count().await.1, 1);
    let aside = host.dir.path().join("states/counter.aside");
    assert!(std::fs::read(&aside).unwrap().ends_with(b"3"), "{told}");
    again.stop().await;
}

#[tokio::test]
async fn a_removed_plugin_takes_its_state_with_it() {
    let (host, releases) = two_releases();
    let mut agent = host.start(true).await;
    agent.reports(serves("2.0.0")).await;
    agent.is_kept(0).await;
    let nothing = Offer { target: Target::Nothing, ..offer(9, &releases[1]) };
    agent.lives.tell("counter", nothing).await;
    agent.reports(|status| status.service() == v1::ServiceState::Empty).await;
    agent.stop().await;
    assert_eq!(std::fs::read_dir(host.dir.path().join("states")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_worker_that_dies_goes_on_from_its_checkpoint_and_what_came_after_it_is_told() {
    let (host, _) = two_releases();
    let mut agent = host.start(true).await;
    agent.reports(serves("2.0.0")).await;
    // The first is taken at once, as there is none.
    agent.is_kept(0).await;
    agent.count_to(5).await;
    host.zoo.newest().crash();
    assert_eq!(agent.count().await.1, 1);
    let status = agent.reports(loses("its state is that of a checkpoint")).await;
    assert!(status.state_lost.ends_with("s before its end"), "{status:?}");
    let lines = agent.logs.last("counter", 10).unwrap();
    assert!(lines.iter().any(|line| line.text.contains("that of a checkpoint")), "{lines:?}");
    agent.stop().await;
}
