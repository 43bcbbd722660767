//! What is kept, of whom, and what followers get.

use semver::Version;

use super::{
    follow::FOLLOWERS_MAX,
    rings::{BYTES_MAX, PLUGINS_MAX, TOTAL_MAX},
    *,
};

fn release(plugin: &str, n: u8) -> Release {
    Release {
        plugin: plugin.to_owned(),
        version: Version::new(1, n.into(), 0),
        revision: 1,
        id: ReleaseId::new([n; 32]),
    }
}

fn line(text: &str) -> LogLine {
    LogLine { source: LogSource::Plugin { level: 2 }, text: text.to_owned() }
}

impl Logs {
    fn say(&self, plugin: &str, text: &str) {
        self.keep(&Arc::new(Origin::of(&release(plugin, 1), "")), line(text));
    }

    fn texts(&self, plugin: &str) -> Vec<String> {
        self.last(plugin, usize::MAX).unwrap().into_iter().map(|line| line.text).collect()
    }
}

async fn next(follower: &mut Follower) -> String {
    match follower.next().await.unwrap() {
        Followed::Line(line) => line.text,
        Followed::Lost(count) => format!("lost {count}"),
    }
}

#[test]
fn lines_are_kept_by_plugin_with_their_source() {
    let logs = Logs::default();
    logs.say("clock", "tick");
    let other = Arc::new(Origin::of(&release("counter", 2), "r-7"));
    logs.keep(&other, LogLine { source: LogSource::Output, text: "one".to_owned() });
    let kept = logs.last("clock", 9).unwrap();
    assert_eq!((kept[0].text.as_str(), kept[0].level.as_str()), ("tick", "warn"));
    assert_eq!((kept[0].source.as_str(), kept[0].version.as_str()), ("plugin", "1.1.0"));
    let kept = &logs.last("counter", 9).unwrap()[0];
    assert_eq!((kept.source.as_str(), kept.rollout.as_str()), ("output", "r-7"));
    assert_eq!(kept.release, "02".repeat(32));
    assert_eq!(logs.last("other", 9), None);
}

#[test]
fn a_rollout_is_remembered_by_release_also_when_the_release_is_steady() {
    let logs = Logs::default();
    let told = |n, rollout| logs.lock().learn(&release("clock", n), rollout);
    let id = |n| ReleaseId::new([n; 32]);
    told(1, "r-1");
    told(1, "");
    told(2, "r-2");
    logs.note("clock", id(1), "first".to_owned());
    logs.note("clock", id(2), "second".to_owned());
    logs.note("clock", id(3), "third".to_owned());
    let kept = logs.last("clock", 9).unwrap();
    let known: Vec<_> = kept.iter().map(|line| (line.version.as_str(), line.rollout.as_str())).collect();
    assert_eq!(known, [("1.1.0", "r-1"), ("1.2.0", "r-2"), ("", "")]);
    for n in 3..99 {
        told(n, "r-9");
    }
    assert_eq!(logs.lock().origins["clock"].len(), ORIGINS_MAX);
}

#[test]
fn a_talkative_plugin_keeps_only_its_last_lines_and_bytes() {
    let logs = Logs::default();
    for n in 0..LINES_MAX + 5 {
        logs.say("clock", &n.to_string());
    }
    let kept = logs.texts("clock");
    assert_eq!((kept.len(), kept[0].as_str()), (LINES_MAX, "5"));
    assert_eq!(logs.last("clock", 2).unwrap()[0].text, (LINES_MAX + 3).to_string());
    assert_eq!(logs.last("clock", 0), Some(Vec::new()));
    logs.say("clock", &"x".repeat(BYTES_MAX - 200));
    assert_eq!(logs.texts("clock").len(), 1);
}

#[test]
fn endless_plugins_are_bounded_in_number_and_together() {
    let logs = Logs::default();
    for n in 0..PLUGINS_MAX + 9 {
        logs.say(&format!("p{n}"), "x");
    }
    assert_eq!(logs.lock().rings.size().0, PLUGINS_MAX);
    assert!(logs.last(&format!("p{}", PLUGINS_MAX + 8), 1).is_some());
    let text = "x".repeat(4_000);
    for n in 0..100 {
        for _ in 0..70 {
            logs.say(&format!("p{}", PLUGINS_MAX - n), &text);
        }
    }
    let (plugins, bytes) = logs.lock().rings.size();
    assert!(plugins == PLUGINS_MAX && bytes <= TOTAL_MAX && bytes > TOTAL_MAX / 2, "{plugins} {bytes}");
    assert!(logs.last("p500", 1).is_some_and(|last| last.len() == 1), "the quiet ones keep theirs");
}

#[tokio::test]
async fn a_follower_gets_the_last_lines_and_then_each_new_one_of_its_plugin() {
    let logs = Logs::default();
    logs.say("clock", "one");
    logs.say("clock", "two");
    let mut follower = logs.follow("clock", 1).unwrap();
    let mut early = logs.follow("later", 9).unwrap();
    logs.say("counter", "not for it");
    logs.say("clock", "three");
    logs.say("later", "at last");
    assert_eq!((next(&mut follower).await, next(&mut follower).await), ("two".into(), "three".into()));
    assert_eq!(next(&mut early).await, "at last");
}

#[tokio::test]
async fn a_follower_that_is_too_slow_loses_lines_and_is_told_how_many() {
    let logs = Logs::default();
    let (mut slow, mut quick) = (logs.follow("clock", 0).unwrap(), logs.follow("clock", 0).unwrap());
    for n in 0..1_000 {
        logs.say("clock", &n.to_string());
        assert_eq!(next(&mut quick).await, n.to_string());
    }
    assert_eq!((next(&mut slow).await, next(&mut slow).await), ("lost 744".into(), "744".into()));
}

#[tokio::test]
async fn followers_are_bounded_and_leave_nothing_behind() {
    let logs = Logs::default();
    let all: Vec<_> = (0..FOLLOWERS_MAX).map(|n| logs.follow(&format!("p{n}"), 0).unwrap()).collect();
    assert_eq!(logs.follow("clock", 0).unwrap_err(), TooMany);
    drop(all);
    let one = logs.follow("clock", 0).unwrap();
    assert_eq!(logs.lock().followers.channels(), 1);
    drop(one);
}
