//! What the host as a whole remembers: the highest generation, and whether the agent's last end was asked for.

use fleetswap_update::Generation;
use serde::{Deserialize, Serialize};

use crate::durable::{DurableError, Record};

/// The host's own record.
#[derive(Clone, Debug)]
pub(super) struct HostRecord {
    record: Record,
    kept: Kept,
}

/// What is on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    highest: Generation,
    clean_stop: bool,
    /// Count of the agent's runs.
    #[serde(default)]
    runs: u64,
}

impl HostRecord {
    /// Reads the record; a host that has none starts cleanly.
    pub(super) fn open(record: Record) -> Result<Self, DurableError> {
        let new = Kept { clean_stop: true, ..Kept::default() };
        let kept = record.load()?.unwrap_or(new);
        Ok(Self { record, kept })
    }

    /// The highest generation that was accepted.
    pub(super) const fn highest(&self) -> Generation {
        self.kept.highest
    }

    /// Whether the last run ended as asked.
    pub(super) const fn clean_stop(&self) -> bool {
        self.kept.clean_stop
    }

    /// Keeps a generation durably.
    pub(super) fn set_highest(&mut self, highest: Generation) -> Result<(), DurableError> {
        self.save(Kept { highest, ..self.kept.clone() })
    }

    /// Counts this run of the agent, and returns its number: no earlier run had it.
    pub(super) fn begin_run(&mut self) -> Result<u64, DurableError> {
        let runs = self.kept.runs + 1;
        self.save(Kept { runs, ..self.kept.clone() })?;
        Ok(runs)
    }

    /// Keeps how the agent ended, beside what another copy of this value may have written since.
    pub(super) fn set_clean_stop(&mut self, clean_stop: bool) -> Result<(), DurableError> {
        let kept = self.record.load()?.unwrap_or_else(|| self.kept.clone());
        self.save(Kept { clean_stop, ..kept })
    }

    fn save(&mut self, kept: Kept) -> Result<(), DurableError> {
        self.record.save(&kept)?;
        self.kept = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::StateDir;

    #[test]
    fn a_new_host_starts_cleanly_and_each_part_is_kept_beside_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut host = HostRecord::open(state.host_record()).unwrap();
        assert_eq!((host.clean_stop(), host.highest()), (true, Generation::default()));
        assert_eq!(host.begin_run().unwrap(), 1);
        host.set_clean_stop(false).unwrap();
        let highest = Generation { epoch: 1, n: 7 };
        host.clone().set_highest(highest).unwrap();
        host.set_clean_stop(true).unwrap();
        let mut again = HostRecord::open(state.host_record()).unwrap();
        assert_eq!(again.begin_run().unwrap(), 2);
        assert_eq!((again.clean_stop(), again.highest()), (true, highest));
    }
}
