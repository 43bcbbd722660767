//! What the host offers to a plugin: for now, its log.

use std::sync::{Arc, PoisonError, RwLock};

use fleetswap_plugin_abi as abi;

/// The host that runs the plugin. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Host {
    /// None once the instance is destroyed: a clone may live on in a thread that the plugin forgot.
    live: Arc<RwLock<Option<Live>>>,
}

/// How much a line in the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd, and goes on.
    Warn,
    /// Something happened.
    Info,
    /// Detail for the plugin's developer.
    Debug,
}

/// The parts of [`abi::Host`] in use.
#[derive(Clone, Copy, Debug)]
struct Live {
    context: *mut core::ffi::c_void,
    log: unsafe extern "C" fn(*mut core::ffi::c_void, u32, abi::Bytes),
}

// SAFETY: the contract of `abi::Host` allows use from any thread.
unsafe impl Send for Live {}
// SAFETY: as above; nothing in here is ever written to.
unsafe impl Sync for Live {}

impl Host {
    /// # Safety
    /// `host` is null, or valid until [`Host::end`] has returned.
    pub(crate) unsafe fn new(host: *const abi::Host) -> Self {
        // SAFETY: null or valid, says the caller.
        let host = unsafe { host.as_ref() };
        let whole = host.filter(|host| host.size as usize >= size_of::<abi::Host>());
        let live = whole.map(|host| Live { context: host.context, log: host.log });
        Self { live: Arc::new(RwLock::new(live)) }
    }

    /// Writes one line to the plugin's log, which `agent logs` shows. Lines are cut at 4 KiB.
    pub fn log(&self, level: Level, line: &str) {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = *live {
            let bytes = abi::Bytes { data: line.as_ptr(), len: line.len() };
            // SAFETY: the read lock is held, so `end` has not returned; `bytes` outlives the call.
            unsafe { (live.log)(live.context, level.number(), bytes) };
        }
    }

    /// Cuts every clone off from the host. When this returns, no thread is inside a function of the host.
    pub(crate) fn end(&self) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Level {
    const fn number(self) -> u32 {
        match self {
            Self::Error => abi::LOG_ERROR,
            Self::Warn => abi::LOG_WARN,
            Self::Info => abi::LOG_INFO,
            Self::Debug => abi::LOG_DEBUG,
        }
    }

    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        match number {
            abi::LOG_ERROR => Some(Self::Error),
            abi::LOG_WARN => Some(Self::Warn),
            abi::LOG_INFO => Some(Self::Info),
            abi::LOG_DEBUG => Some(Self::Debug),
            _ => None,
        }
    }
}
