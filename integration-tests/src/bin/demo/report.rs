//! What the demo measured, and whether all of it is as it must be.

use serde_json::{Value, json};

use fleetswap_integration_tests::load::Tally;

/// Calls that have to be sent for the demo to count.
const SENT_MIN: u64 = 5_000;

/// The figures of one run.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// Switches to another release over all hosts, seen in the rollouts.
    pub(crate) swaps: u64,
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
                "bad clock  tried on {} of 5 hosts, answered callers on {}",
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
