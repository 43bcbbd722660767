//! Fault: who is to blame when a worker can't be had.

/// Who a failure is blamed on. The agent adds the kinds that no worker can cause (link, trust, interrupted).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The release: it would fail on other hosts as well.
    Release,
    /// This host: full, too old, or out of something. The same release may do well elsewhere.
    Host,
}
