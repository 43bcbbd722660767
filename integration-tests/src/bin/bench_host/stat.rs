//! Numbers: of samples, and of processes as /proc tells them.
use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Kernel ticks in a second, as `/proc/PID/stat` counts them.
const TICKS_PER_SECOND: f64 = 100.0;

/// Calls of one run.
#[derive(Debug)]
pub(crate) struct Sample {
    /// In ascending order.
    took: Vec<Duration>,
    elapsed: Duration,
}

impl Sample {
    pub(crate) fn new(mut took: Vec<Duration>, elapsed: Duration) -> Self {
        took.sort_unstable();
        Self { took, elapsed }
    }

    pub(crate) const fn calls(&self) -> usize {
        self.took.len()
    }

    /// Calls per second.
    pub(crate) fn rate(&self) -> f64 {
        self.calls() as f64 / self.elapsed.as_secs_f64()
    }

    /// In microseconds; `percent` from 0 to 100.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        percentile(&self.took, percent).as_secs_f64() * 1e6
    }
}

/// Of ascending times; zero without any.
pub(crate) fn percentile(ascending: &[Duration], percent: f64) -> Duration {
    let last = ascending.len().saturating_sub(1);
    let index = (last as f64 * percent / 100.0).round() as usize;
    ascending.get(index.min(last)).copied().unwrap_or_default()
}

/// The middle one, the mean of the two middle ones, or NaN without any.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

/// Seconds of CPU that a process and its children have used so far.
///
/// # Errors
/// The process is gone.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut ticks = own_ticks(pid)?;
    for child in children(pid) {
        // A worker may end between the two looks.
        ticks += own_ticks(child).unwrap_or(0.0);
    }
    Ok(ticks / TICKS_PER_SECOND)
}

fn own_ticks(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process runs")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    // utime and stime are fields 14 and 15 of the whole line, 11 and 12 after the name and the state.
    ticks(11).zip(ticks(12)).map(|(user, system)| user + system).context("utime and stime")
}

/// Children of all threads of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|it| fs::read_to_string(it.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Proportional share of memory in MiB.
///
/// # Errors
/// The process is gone.
pub(crate) fn pss_mib(pid: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the process runs")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("a line Pss")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().context("a number of kB")?;
    Ok(kib / 1024.0)
}

/// Processes that ran or waited for a core, over the last minute.
pub(crate) fn machine_load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_those_of_the_sorted_values() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0]), 2.5);
        assert!(median([]).is_nan());
        let times: Vec<Duration> = (0..=100).map(Duration::from_micros).collect();
        assert_eq!(percentile(&times, 99.0), Duration::from_micros(99));
        assert_eq!(percentile(&[], 50.0), Duration::ZERO);
    }

    #[test]
    fn a_process_has_used_cpu_and_memory() {
        let own = std::process::id();
        assert!(cpu_seconds(own).unwrap() >= 0.0);
        assert!(pss_mib(own).unwrap() > 0.0);
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
