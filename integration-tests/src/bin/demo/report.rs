//! What the demo measured, and whether all of it is as it must be.

use serde_json::{Value, json};

use fleetswap_integration_tests::load::Tally;

use crate::story::HOSTS;

/// Calls that have to be sent for the demo to count.
const SENT_MIN: u64 = 5_000;
/// How often the story takes all hosts to another release: clock to 1.2.0, counter to 2.0.0, clock back to 1.0.0.
const TURNS: u64 = 3;
/// One a turn and host.
const SWAPS: u64 = TURNS * HOSTS as u64;

/// The figures of one run.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// Switches to another release over all hosts, seen in the rollouts.
    pub(crate) swaps: u64,
    /// Hosts that a rollout which succeeded did not reach, in words.
    pub(crate) stragglers: Vec<String>,
    /// Hosts that tried 1.1.0.
    pub(crate) bad_version_tried: usize,
    /// Sum over the hosts of what `counter` says at the end.
    pub(crate) counter_got: u64,
    /// From the start of `controller rollback` to its end.
    pub(crate) rollback_ms: u64,
    /// Longest time that a gate was closed.
    pub(crate) swap_pause_max_us: u64,
}

impl Report {
    /// Hosts on which 1.1.0 ever answered a caller.
    fn bad_version_hosts(&self) -> usize {
        self.tally.clock_versions.get("1.1.0").map_or(0, Vec::len)
    }

    fn counter_expected(&self) -> u64 {
        self.tally.increments.values().sum()
    }

    /// Whether everything went as told and nothing was lost.
    pub(crate) fn all_well(&self) -> bool {
        self.problems().is_empty()
    }

    fn problems(&self) -> Vec<String> {
        let checks = [
            (self.tally.sent >= SENT_MIN, format!("only {} calls were sent", self.tally.sent)),
            (self.tally.lost == 0, format!("{} calls were lost", self.tally.lost)),
            (self.tally.correct == self.tally.sent, "not every call was answered correctly".to_owned()),
            (self.tally.doubles == 0, format!("counter answered {} values twice", self.tally.doubles)),
            (self.swaps == SWAPS, format!("{} swaps were made, expected {SWAPS}", self.swaps)),
            (
                self.stragglers.is_empty(),
                format!("rollouts succeeded without all hosts: {}", self.stragglers.join("; ")),
            ),
            (self.bad_version_hosts() == 0, "the bad clock answered a caller".to_owned()),
            (self.bad_version_tried == 1, format!("{} hosts tried the bad clock", self.bad_version_tried)),
            (
                self.counter_expected() == self.counter_got,
                format!("counter is {}, expected {}", self.counter_got, self.counter_expected()),
            ),
        ];
        checks.into_iter().filter(|(well, _)| !well).map(|(_, words)| words).collect()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![
            String::new(),
            format!(
                "calls      {} sent · {} answered correctly · {} lost",
                self.tally.sent, self.tally.correct, self.tally.lost
            ),
            format!(
                "counter    {} increments acknowledged, and it says {} · {} values given twice",
                self.counter_expected(),
                self.counter_got,
                self.tally.doubles
            ),
            format!(
                "bad clock  tried on {} of {HOSTS} hosts, answered callers on {}",
                self.bad_version_tried,
                self.bad_version_hosts()
            ),
            format!(
                "swaps      {} · longest pause {} µs · rollback of all hosts {} ms (this run, this machine)",
                self.swaps, self.swap_pause_max_us, self.rollback_ms
            ),
        ];
        lines.extend(self.tally.losses.iter().map(|loss| format!("  lost: {loss}")));
        lines.extend(self.problems().iter().map(|problem| format!("  NOT AS TOLD: {problem}")));
        if self.all_well() {
            lines.push("everything went as told".to_owned());
        }
        lines.join("\n")
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "schema": 1,
            "ok": self.all_well(),
            "sent": self.tally.sent,
            "correct": self.tally.correct,
            "lost": self.tally.lost,
            "swaps": self.swaps,
            "bad_version_hosts": self.bad_version_hosts(),
            "bad_version_tried": self.bad_version_tried,
            "counter_expected": self.counter_expected(),
            "counter_got": self.counter_got,
            "rollback_ms": self.rollback_ms,
            "swap_pause_max_us": self.swap_pause_max_us,
        })
    }
}

/// For programs: the story came to no good end, so there are no figures.
pub(crate) fn failed(why: &str) -> Value {
    json!({ "schema": 1, "ok": false, "failed": why })
}

/// For programs: a signal ended the demo.
pub(crate) fn interrupted(signal: &str) -> Value {
    json!({ "schema": 1, "ok": false, "interrupted": signal })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Spoil = fn(&mut Report);

    fn as_told() -> Report {
        let hosts = vec!["host-1".to_owned()];
        let tally = Tally {
            sent: 9_000,
            correct: 9_000,
            clock_versions: BTreeMap::from([("1.0.0".to_owned(), hosts)]),
            increments: BTreeMap::from([("host-1".to_owned(), 4_500)]),
            ..Tally::default()
        };
        Report {
            tally,
            swaps: 15,
            stragglers: Vec::new(),
            bad_version_tried: 1,
            counter_got: 4_500,
            rollback_ms: 200,
            swap_pause_max_us: 3_000,
        }
    }

    #[test]
    fn a_run_as_told_has_no_problem() {
        assert_eq!(as_told().problems(), Vec::<String>::new());
        assert_eq!(as_told().json()["ok"], true);
        assert!(as_told().text().ends_with("everything went as told"));
    }

    #[test]
    fn each_figure_that_is_not_as_told_is_a_problem() {
        let wrongs: [(Spoil, &str); 10] = [
            (|it| (it.tally.sent, it.tally.correct) = (4_999, 4_999), "only 4999 calls were sent"),
            (|it| it.tally.lost = 1, "1 calls were lost"),
            (|it| it.tally.correct -= 1, "not every call was answered correctly"),
            (|it| it.tally.doubles = 2, "counter answered 2 values twice"),
            (|it| it.swaps = 14, "14 swaps were made, expected 15"),
            (
                |it| it.stragglers.push("r-000004: host-3 is PENDING".to_owned()),
                "rollouts succeeded without all hosts: r-000004: host-3 is PENDING",
            ),
            (
                |it| drop(it.tally.clock_versions.insert("1.1.0".to_owned(), vec!["host-1".to_owned()])),
                "the bad clock answered a caller",
            ),
            (|it| it.bad_version_tried = 0, "0 hosts tried the bad clock"),
            (|it| it.bad_version_tried = 2, "2 hosts tried the bad clock"),
            (|it| it.counter_got += 1, "counter is 4501, expected 4500"),
        ];
        for (spoil, words) in wrongs {
            let mut report = as_told();
            spoil(&mut report);
            assert_eq!(report.problems(), [words]);
            assert_eq!(report.json()["ok"], false, "{words}");
            assert!(report.text().ends_with(&format!("NOT AS TOLD: {words}")));
        }
    }
}
