//! Gate: what callers pass on their way to the release that answers them.
//!
//! Pointer, count of calls in flight and pause flag are one thing, changed under one lock: a caller is either
//! counted on the value that it uses, or waits, or is turned away. So a swap needs no guess: when [`Retired`]
//! or [`Gate::drained`] says drained, nobody is on the value and nobody can get on it.
mod bell;
mod core;

use self::{
    bell::Bell,
    core::{Bounds, Core, Entry, Slot},
};
use std::{fmt, ops::Deref, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// Calls that wait at a gate at most.
pub const QUEUE_CALLS_MAX: usize = 1_024;
/// Bytes of input that wait at a gate at most.
pub const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Time that a waiting call keeps for its work at most; one that came with less than twice as much keeps half of it.
pub const WORK_RESERVE: Duration = Duration::from_millis(500);

/// A gate in front of values of type `T`. Cheap to clone; all clones are the same gate.
pub struct Gate<T>(Arc<Inner<T>>);

struct Inner<T> {
    core: Core<T, Instant>,
    /// Rung when queued callers have to look again.
    admission: Bell,
    /// Rung when a value may be drained.
    drained: Bell,
}

/// Why a caller did not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnterError {
    /// [`QUEUE_CALLS_MAX`] or [`QUEUE_BYTES_MAX`] is reached.
    #[error("too many calls are waiting")]
    QueueFull,
    /// The caller's deadline came before the gate opened.
    #[error("the deadline passed while the call waited")]
    Deadline,
    /// The gate is shut: there is no release to wait for.
    #[error("no release is running")]
    Shut,
}

/// How full the queue is; a swap is given up before it costs a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Calls waiting.
    pub calls: usize,
    /// Bytes of their inputs.
    pub bytes: usize,
    /// When the first of them must be let in, to have [`WORK_RESERVE`] before its deadline.
    pub earliest_due: Option<Instant>,
}

impl Pressure {
    /// Whether either bound is reached to this share, in percent.
    #[must_use]
    pub const fn is_above(&self, percent: usize) -> bool {
        self.calls * 100 > QUEUE_CALLS_MAX * percent || self.bytes * 100 > QUEUE_BYTES_MAX * percent
    }
}

impl<T> Gate<T> {
    /// A paused gate without a value: callers wait.
    #[must_use]
    pub fn paused() -> Self {
        let core = Core::new(Bounds { calls: QUEUE_CALLS_MAX, bytes: QUEUE_BYTES_MAX });
        Self(Arc::new(Inner { core, admission: Bell::new(), drained: Bell::new() }))
    }

    /// An open gate.
    #[must_use]
    pub fn open(value: T) -> Self {
        let gate = Self::paused();
        gate.replace(value);
        gate.resume();
        gate
    }

    /// Comes in, or waits until the gate opens. `bytes` is the size of the input, counted while it waits.
    /// Dropping the future leaves the queue.
    ///
    /// # Errors
    /// A full queue, the deadline, or a shut gate.
    pub async fn enter(&self, bytes: usize, deadline: Instant) -> Result<Guard<T>, EnterError> {
        match self.knock(bytes, deadline)? {
            Knock::Admitted(guard) => Ok(guard),
            Knock::Queued(ticket) => {
                timeout_at(deadline, self.wait(&ticket)).await.unwrap_or(Err(EnterError::Deadline))
            }
        }
    }

    fn knock(&self, bytes: usize, deadline: Instant) -> Result<Knock<'_, T>, EnterError> {
        match self.0.core.enter(bytes, due(deadline)) {
            Entry::Admitted(slot) => Ok(Knock::Admitted(self.guard(slot))),
            Entry::Queued(id) => Ok(Knock::Queued(Ticket { gate: &self.0, id })),
            Entry::Full => Err(EnterError::QueueFull),
            Entry::Shut => Err(EnterError::Shut),
        }
    }

    async fn wait(&self, ticket: &Ticket<'_, T>) -> Result<Guard<T>, EnterError> {
        let look = || match self.0.core.retry(ticket.id) {
            Entry::Admitted(slot) => Some(Ok(self.guard(slot))),
            Entry::Shut => Some(Err(EnterError::Shut)),
            Entry::Queued(_) | Entry::Full => None,
        };
        self.0.admission.until(look).await
    }

    fn guard(&self, slot: Arc<Slot<T>>) -> Guard<T> {
        Guard { gate: Arc::clone(&self.0), slot }
    }

    /// Callers wait from now on; calls in flight go on. Does nothing to a shut gate.
    pub fn pause(&self) {
        self.0.core.pause();
        self.0.drained.ring();
    }

    /// Lets callers in, the queued ones first told. Does nothing to a shut gate.
    pub fn resume(&self) {
        self.0.core.resume();
        self.0.admission.ring();
    }

    /// Turns callers away from now on, the queued ones too, until the next [`Gate::replace`]. Returns the value
    /// that was in place.
    pub fn shut(&self) -> Option<Retired<T>> {
        let old = self.0.core.shut();
        self.0.admission.ring();
        self.0.drained.ring();
        self.retired(old)
    }

    /// Puts a value in place and returns the one before it, whose calls in flight finish on it. An open gate
    /// stays open, a paused one stays paused, a shut one is paused.
    #[must_use = "the old value may still be in use"]
    pub fn swap(&self, value: T) -> Option<Retired<T>> {
        let old = self.0.core.replace(value);
        self.0.admission.ring();
        self.0.drained.ring();
        self.retired(old)
    }

    /// [`Gate::swap`] for those who don't need the old value.
    pub fn replace(&self, value: T) {
        drop(self.swap(value));
    }

    fn retired(&self, old: Option<Arc<Slot<T>>>) -> Option<Retired<T>> {
        old.map(|slot| Retired { gate: Arc::clone(&self.0), slot })
    }

    /// Waits until the gate is paused or shut and nothing is in flight on the value in place. Returns at once
    /// where there is no value.
    pub async fn drained(&self) {
        if let Some(slot) = self.0.core.current() {
            self.0.wait_drained(&slot).await;
        }
    }

    /// How full the queue is.
    #[must_use]
    pub fn queue_pressure(&self) -> Pressure {
        let queue = self.0.core.queue();
        Pressure { calls: queue.calls, bytes: queue.bytes, earliest_due: queue.earliest }
    }

    /// Calls in flight on the value in place.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.core.current().map_or(0, |slot| self.0.core.in_flight(&slot))
    }

    /// The value in place, without coming in: for looking, not for calling.
    #[must_use]
    pub fn peek(&self) -> Option<T>
    where
        T: Clone,
    {
        self.0.core.current().map(|slot| slot.value.clone())
    }
}

/// When a call that waits from now on must be let in.
fn due(deadline: Instant) -> Instant {
    let half = deadline.saturating_duration_since(Instant::now()) / 2;
    deadline.checked_sub(half.min(WORK_RESERVE)).unwrap_or(deadline)
}

impl<T> Inner<T> {
    async fn wait_drained(&self, slot: &Slot<T>) {
        self.drained.until(|| self.core.is_drained(slot).then_some(())).await;
    }
}

impl<T> Clone for Gate<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Gate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

/// What a caller gets at once.
enum Knock<'a, T> {
    Admitted(Guard<T>),
    Queued(Ticket<'a, T>),
}

/// A caller's place in the queue.
struct Ticket<'a, T> {
    gate: &'a Inner<T>,
    id: u64,
}

impl<T> Drop for Ticket<'_, T> {
    fn drop(&mut self) {
        self.gate.core.give_up(self.id);
    }
}

/// A call in flight: it is counted on its value until this is dropped.
pub struct Guard<T> {
    gate: Arc<Inner<T>>,
    slot: Arc<Slot<T>>,
}

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.slot.value
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if self.gate.core.leave(&self.slot) {
            self.gate.drained.ring();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Guard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.slot.value).finish()
    }
}

/// A value that was in place; calls may still be in flight on it.
pub struct Retired<T> {
    gate: Arc<Inner<T>>,
    slot: Arc<Slot<T>>,
}

impl<T> Retired<T> {
    /// Waits until nothing is in flight on the value. It is not in place any more, so nothing new comes.
    pub async fn drained(&self) {
        self.gate.wait_drained(&self.slot).await;
    }

    /// Calls in flight on the value.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.gate.core.in_flight(&self.slot)
    }
}

impl<T> Deref for Retired<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.slot.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Retired<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Retired").field(&self.slot.value).finish()
    }
}

#[cfg(test)]
#[cfg(feature = "loom")]
mod model;
#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests;
