//! Why a rollout does not go on at this moment.

use std::fmt;

use crate::{HostId, HostState, RolloutId};

/// One reason. Every unfinished rollout has at least one after a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No known host matches the selector.
    NoHostMatches,
    /// Hosts match; all of them are offline.
    NobodyOnline {
        /// How many match.
        hosts: usize,
    },
    /// The controller has just started; hosts may be on their way.
    HostsReturning {
        /// How many have not connected yet.
        hosts: usize,
    },
    /// The canary has not answered.
    Canary {
        /// Which host.
        host: HostId,
        /// Its name.
        name: String,
        /// How far it is.
        state: HostState,
        /// Whether it has a stream.
        online: bool,
    },
    /// As many hosts are on trial as may be.
    MaxParallel {
        /// On trial.
        open: usize,
        /// The limit.
        limit: usize,
        /// Hosts whose turn comes.
        pending: usize,
    },
    /// All have been offered the release; some have not answered.
    Trials {
        /// On trial.
        open: usize,
    },
    /// A host is on trial for another rollout.
    HostBusy {
        /// Which host.
        host: HostId,
        /// Its name.
        name: String,
        /// The other rollout.
        other: RolloutId,
        /// Hosts that wait so.
        hosts: usize,
    },
    /// The verdict has fallen; hosts on trial go back.
    TrialsEnding {
        /// How many have not answered.
        open: usize,
    },
    /// Offline hosts get the release when they return; nothing waits for them.
    HostsOffline {
        /// How many.
        hosts: usize,
    },
    /// The release failed on a host that came late, so no further one gets it.
    CatchUpStopped {
        /// The host that failed.
        host: HostId,
        /// Its name.
        name: String,
        /// Hosts that are left as they are.
        hosts: usize,
    },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHostMatches => {
                f.write_str("no known host matches the selector; it begins when one joins")
            }
            Self::NobodyOnline { hosts } => {
                write!(
                    f,
                    "{}, none online; it begins when one connects",
                    counted(*hosts, "host matches", "hosts match")
                )
            }
            Self::HostsReturning { hosts } => {
                let hosts = counted(*hosts, "host has", "hosts have");
                write!(f, "the controller has just started; {hosts} not connected again yet")
            }
            Self::Canary { name, state, online: false, .. } => {
                write!(
                    f,
                    "the canary {name} is {state} and offline; it is LOST if it does not return in time"
                )
            }
            Self::Canary { name, state, .. } => {
                write!(f, "the canary {name} is {state}; the others follow when it has committed")
            }
            Self::MaxParallel { open, limit, pending } => {
                write!(f, "{open} on trial, max_parallel is {limit}; {pending} more to go")
            }
            Self::Trials { open } => {
                write!(f, "{} on trial, none to follow", counted(*open, "host", "hosts"))
            }
            Self::HostBusy { name, other, hosts, .. } => {
                let others = if *hosts > 1 { format!(" (and {} more)", hosts - 1) } else { String::new() };
                write!(f, "{name}{others} is on trial for {other}; one trial a host at a time")
            }
            Self::TrialsEnding { open } => {
                write!(f, "it has failed; {} still to go back", counted(*open, "host has", "hosts have"))
            }
            Self::HostsOffline { hosts } => {
                let (hosts, get) =
                    (counted(*hosts, "host is", "hosts are"), if *hosts == 1 { "gets" } else { "get" });
                write!(f, "{hosts} offline and {get} it on return; nothing waits for that")
            }
            Self::CatchUpStopped { name, hosts, .. } => {
                write!(
                    f,
                    "it failed on {name}, which came late; {} not offered it",
                    counted(*hosts, "host is", "hosts are")
                )
            }
        }
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_as_a_sentence_for_one_and_for_many() {
        assert_eq!(
            Waiting::NobodyOnline { hosts: 1 }.to_string(),
            "1 host matches, none online; it begins when one connects"
        );
        assert_eq!(
            Waiting::HostsOffline { hosts: 2 }.to_string(),
            "2 hosts are offline and get it on return; nothing waits for that"
        );
        assert_eq!(
            Waiting::TrialsEnding { open: 3 }.to_string(),
            "it has failed; 3 hosts have still to go back"
        );
    }
}
