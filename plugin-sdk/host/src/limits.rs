//! Limits: what one worker may use, and how long the host waits for it.
use fleetswap_plugin_abi as abi;
use std::time::Duration;

/// Threads of the pool that runs `call`; a larger declared `concurrency` is cut to it.
pub const POOL_MAX: u32 = abi::POOL_MAX;
/// Threads that the worker itself has beside its pool: control (the main thread), reader, health.
pub(crate) const OWN_THREADS: u32 = 3;
/// Address space that a worker gets beyond twice its memory: stacks, arenas, libraries, the image. In bytes.
const ADDRESS_SPACE_EXTRA: u64 = 2 * 1024 * 1024 * 1024;

/// The time in which a worker may use its share of a processor, in microseconds; the kernel's own default.
pub(crate) const CPU_PERIOD_US: u64 = 100_000;

/// What one worker may use. Beyond memory or threads it is killed by the watch; the rest the kernel refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Resident memory in bytes, checked a few times a second.
    pub memory_bytes: u64,
    /// Threads that the plugin itself may have, beyond those that the host starts for it.
    pub threads: u32,
    /// Processor time in hundredths of one core, kept where a [`crate::Cgroup`] shares it out. None: as much as is free.
    /// Either way a worker yields to the agent.
    pub cpu_percent: Option<u32>,
    /// Open descriptors.
    pub open_files: u32,
    /// Longest time for the host's part of loading (spawn, sandbox), and then for the release's (constructors,
    /// `describe`): each.
    pub load_timeout: Duration,
    /// Longest time for `create`, `activate`, `deactivate` and `destroy`, each.
    pub control_timeout: Duration,
    /// Longest time for `save_state` and `restore_state`, each.
    pub state_timeout: Duration,
    /// How long a worker that was asked to end may take before it is killed.
    pub close_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 * 1024 * 1024,
            threads: 64,
            cpu_percent: None,
            open_files: 64,
            load_timeout: Duration::from_secs(5),
            control_timeout: Duration::from_secs(5),
            state_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// The address space as the kernel bounds it, in bytes: a backstop behind the watch, so that a plugin that
    /// allocates faster than the watch looks still can't take the host's memory.
    pub(crate) const fn address_space(&self) -> u64 {
        self.memory_bytes.saturating_mul(2).saturating_add(ADDRESS_SPACE_EXTRA)
    }

    /// Microseconds of processor time in each [`CPU_PERIOD_US`].
    pub(crate) fn cpu_quota_us(&self) -> Option<u64> {
        self.cpu_percent.map(|percent| u64::from(percent) * CPU_PERIOD_US / 100)
    }
}
