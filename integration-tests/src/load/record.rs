//! What became of every call of a load, and the sums over them.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::{Oracle, Target};
use crate::harness::{CallError, Reply};

/// One call that was sent.
#[derive(Debug)]
pub struct Record {
    /// Name of the host.
    pub host: String,
    /// What was called.
    pub target: Target,
    /// The input.
    pub input: Value,
    /// The reply, or why there was none.
    pub reply: Result<Reply, CallError>,
    /// From sending to the whole reply.
    pub took: Duration,
}

/// The sums over a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls sent.
    pub sent: u64,
    /// Calls answered as the release in the reply's header must answer.
    pub correct: u64,
    /// Everything else: no reply, an error status, a wrong body.
    pub lost: u64,
    /// The first few lost calls in words.
    pub losses: Vec<String>,
    /// Hosts by version of `clock` that answered there.
    pub clock_versions: BTreeMap<String, Vec<String>>,
    /// Increments of `counter` that were acknowledged, by host.
    pub increments: BTreeMap<String, u64>,
    /// Greatest value that `counter` answered, by host.
    pub counter_values: BTreeMap<String, u64>,
    /// Values of `counter` that were answered twice on one host.
    pub doubles: u64,
}

/// How many lost calls are kept in words.
const LOSSES_KEPT: usize = 10;

impl Tally {
    /// Checks every reply against what its release must answer.
    #[must_use]
    pub fn of(records: &[Record], oracle: &Oracle) -> Self {
        let mut tally = Self::default();
        let mut values: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        for record in records {
            tally.sent += 1;
            match verdict(record, oracle) {
                Ok(reply) => {
                    tally.correct += 1;
                    tally.count(record, reply, &mut values);
                }
                Err(words) => {
                    tally.lost += 1;
                    if tally.losses.len() < LOSSES_KEPT {
                        tally.losses.push(format!("{} {:?}: {words}", record.host, record.target));
                    }
                }
            }
        }
        tally.doubles = values.values().filter(|times| **times > 1).count() as u64;
        tally
    }

    fn count<'a>(&mut self, record: &'a Record, reply: &Reply, values: &mut BTreeMap<(&'a str, u64), u64>) {
        match record.target {
            Target::ClockTime => {
                let hosts = self.clock_versions.entry(reply.version.clone()).or_default();
                if !hosts.contains(&record.host) {
                    hosts.push(record.host.clone());
                }
            }
            Target::CounterIncrement => {
                let value = reply.body["value"].as_u64().unwrap_or_default();
                *values.entry((&record.host, value)).or_default() += 1;
                *self.increments.entry(record.host.clone()).or_default() += 1;
                let greatest = self.counter_values.entry(record.host.clone()).or_default();
                *greatest = value.max(*greatest);
            }
        }
    }
}

fn verdict<'a>(record: &'a Record, oracle: &Oracle) -> Result<&'a Reply, String> {
    let reply = record.reply.as_ref().map_err(|error| error.to_string())?;
    if reply.status != 200 {
        return Err(format!("status {} {}", reply.status, reply.body));
    }
    oracle.check(record.target, &record.input, reply)?;
    Ok(reply)
}
