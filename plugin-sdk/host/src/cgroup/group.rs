//! Group: the leaf of one worker.
use super::put;
use crate::{
    Limits, POOL_MAX,
    limits::{CPU_PERIOD_US, OWN_THREADS},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A folder with one process in it. Dropped when the process has been reaped, it goes.
#[derive(Debug)]
pub(crate) struct Group {
    folder: PathBuf,
    remove: fn(&Path) -> io::Result<()>,
}

impl Group {
    pub(super) const fn new(folder: PathBuf, remove: fn(&Path) -> io::Result<()>) -> Self {
        Self { folder, remove }
    }

    /// Sets the limits. What the watch counts, it counts more strictly: it knows how many threads are the plugin's own.
    pub(super) fn limit(&self, limits: &Limits, has_cpu: bool) -> io::Result<()> {
        self.put("memory.max", limits.memory_bytes)?;
        // A kernel without swap has no such file.
        self.put_where_known("memory.swap.max", 0)?;
        self.put_where_known("memory.oom.group", 1)?;
        self.put("pids.max", limits.threads.saturating_add(OWN_THREADS + POOL_MAX))?;
        if let Some(quota) = limits.cpu_quota_us()
            && has_cpu
        {
            self.put("cpu.max", format!("{quota} {CPU_PERIOD_US}"))?;
        }
        Ok(())
    }

    pub(super) fn admit(&self, pid: u32) -> io::Result<()> {
        self.put("cgroup.procs", pid)
    }

    /// The most memory that it ever held in bytes, if the kernel ended it for want of more.
    pub(crate) fn out_of_memory(&self) -> Option<u64> {
        let events = self.read("memory.events");
        let kills =
            events.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse::<u64>().ok()?;
        // Older kernels do not keep the peak; then the limit is the best that is known.
        let peak = ["memory.peak", "memory.max"].iter().find_map(|file| self.read(file).trim().parse().ok());
        (kills > 0).then_some(peak.unwrap_or(0))
    }

    #[cfg(test)]
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    fn put(&self, file: &str, value: impl ToString) -> io::Result<()> {
        put(&self.folder, file, value)
    }

    fn put_where_known(&self, file: &str, value: impl ToString) -> io::Result<()> {
        // In the kernel's tree a file can't be made, whoever asks.
        match self.put(file, value) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that stays is empty and goes with the next start of this program.
        let _ = (self.remove)(&self.folder);
    }
}
