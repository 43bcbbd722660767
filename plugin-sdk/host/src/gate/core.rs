//! Core of the gate: pointer, counts of calls in flight, admission and queue under one lock. Knows no waiting:
//! every method returns at once, and the shell around it wakes who has to look again.
#[cfg(all(test, feature = "loom"))]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, feature = "loom")))]
use std::sync::{Mutex, MutexGuard};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

/// A value that callers use, with the number it got when it was put in place.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    pub(crate) value: T,
    generation: u64,
}

/// Whether callers come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Open,
    Paused,
    Shut,
}

/// What a caller gets.
pub(crate) enum Entry<T> {
    /// It is in, and counted until [`Core::leave`].
    Admitted(Arc<Slot<T>>),
    /// It waits under this ticket, until [`Core::retry`] admits it or [`Core::give_up`].
    Queued(u64),
    /// The queue is full.
    Full,
    /// Nobody comes in, and there is nothing to wait for.
    Shut,
}

/// What the queue may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) calls: usize,
    pub(crate) bytes: usize,
}

/// The queue as it is.
pub(crate) struct Queue<D> {
    pub(crate) calls: usize,
    pub(crate) bytes: usize,
    pub(crate) earliest: Option<D>,
}

struct State<T, D> {
    admission: Admission,
    current: Option<Arc<Slot<T>>>,
    /// Calls in flight by generation; a generation with none has no entry.
    in_flight: BTreeMap<u64, usize>,
    queued: BTreeMap<u64, (usize, D)>,
    queued_bytes: usize,
    last_generation: u64,
    last_ticket: u64,
}

/// One gate. `D` is a point in time, which the core only compares.
pub(crate) struct Core<T, D> {
    state: Mutex<State<T, D>>,
    pub(crate) bounds: Bounds,
}

impl<T, D: Copy + Ord> Core<T, D> {
    /// A paused gate without a value.
    pub(crate) fn new(bounds: Bounds) -> Self {
        let state = State {
            admission: Admission::Paused,
            current: None,
            in_flight: BTreeMap::new(),
            queued: BTreeMap::new(),
            queued_bytes: 0,
            last_generation: 0,
            last_ticket: 0,
        };
        Self { state: Mutex::new(state), bounds }
    }

    /// Lets a caller in, or puts it into the queue; `due` is when it must be let in.
    pub(crate) fn enter(&self, bytes: usize, due: D) -> Entry<T> {
        let mut state = self.lock();
        if state.admission == Admission::Shut {
            return Entry::Shut;
        }
        if let Some(slot) = state.admit() {
            return Entry::Admitted(slot);
        }
        let room = self.bounds.bytes.saturating_sub(state.queued_bytes);
        if state.queued.len() >= self.bounds.calls || bytes > room {
            return Entry::Full;
        }
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        state.queued.insert(ticket, (bytes, due));
        state.queued_bytes += bytes;
        Entry::Queued(ticket)
    }

    /// Looks again for a queued caller.
    pub(crate) fn retry(&self, ticket: u64) -> Entry<T> {
        let mut state = self.lock();
        if state.admission == Admission::Shut {
            return Entry::Shut;
        }
        match state.admit() {
            None => Entry::Queued(ticket),
            Some(slot) => {
                state.dequeue(ticket);
                Entry::Admitted(slot)
            }
        }
    }

    /// A queued caller goes away; harmless if it was admitted.
    pub(crate) fn give_up(&self, ticket: u64) {
        self.lock().dequeue(ticket);
    }

    /// A call is over. True if it was the last in flight of its value.
    pub(crate) fn leave(&self, slot: &Slot<T>) -> bool {
        let mut state = self.lock();
        let Some(count) = state.in_flight.get_mut(&slot.generation) else { return true };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        state.in_flight.remove(&slot.generation);
        true
    }

    /// Callers wait from now on. A shut gate stays shut.
    pub(crate) fn pause(&self) {
        self.lock().turn(Admission::Paused);
    }

    /// Callers come in from now on, if there is a value; otherwise once there is one. A shut gate stays shut.
    pub(crate) fn resume(&self) {
        self.lock().turn(Admission::Open);
    }

    /// Callers, queued ones too, are turned away from now on. Returns the value that was in place.
    pub(crate) fn shut(&self) -> Option<Arc<Slot<T>>> {
        let mut state = self.lock();
        state.admission = Admission::Shut;
        state.current.take()
    }

    /// Puts a value in place of the present one, which it returns. Admission stays as it is, except that a shut
    /// gate is only paused from now on.
    pub(crate) fn replace(&self, value: T) -> Option<Arc<Slot<T>>> {
        let mut state = self.lock();
        if state.admission == Admission::Shut {
            state.admission = Admission::Paused;
        }
        state.last_generation += 1;
        let generation = state.last_generation;
        state.current.replace(Arc::new(Slot { value, generation }))
    }

    /// The value in place.
    pub(crate) fn current(&self) -> Option<Arc<Slot<T>>> {
        self.lock().current.clone()
    }

    /// Calls in flight on a value.
    pub(crate) fn in_flight(&self, slot: &Slot<T>) -> usize {
        self.lock().in_flight.get(&slot.generation).copied().unwrap_or(0)
    }

    /// Closed and zero: nobody is on the value, and nobody can get on it any more unless the gate changes.
    pub(crate) fn is_drained(&self, slot: &Slot<T>) -> bool {
        let state = self.lock();
        let in_place = state.current.as_ref().is_some_and(|now| now.generation == slot.generation);
        let closed = !in_place || state.admission != Admission::Open;
        closed && !state.in_flight.contains_key(&slot.generation)
    }

    /// The queue as it is.
    pub(crate) fn queue(&self) -> Queue<D> {
        let state = self.lock();
        Queue {
            calls: state.queued.len(),
            bytes: state.queued_bytes,
            earliest: state.queued.values().map(|(_, due)| *due).min(),
        }
    }

    /// A panic while the lock was held is impossible short of a bug in the standard maps; the state is whole
    /// between any two statements here, so it is used on.
    fn lock(&self) -> MutexGuard<'_, State<T, D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, D> State<T, D> {
    fn admit(&mut self) -> Option<Arc<Slot<T>>> {
        if self.admission != Admission::Open {
            return None;
        }
        let slot = self.current.clone()?;
        *self.in_flight.entry(slot.generation).or_insert(0) += 1;
        Some(slot)
    }

    fn turn(&mut self, admission: Admission) {
        if self.admission != Admission::Shut {
            self.admission = admission;
        }
    }

    fn dequeue(&mut self, ticket: u64) {
        if let Some((bytes, _)) = self.queued.remove(&ticket) {
            self.queued_bytes -= bytes;
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests;
