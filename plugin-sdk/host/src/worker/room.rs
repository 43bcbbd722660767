//! Room: how many calls are with a worker at a time. The others wait in the host, where they are known not to have begun.
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls per thread of a worker: one that runs and one that is ready to run.
const PER_THREAD: u32 = 2;
/// Calls per thread while the worker finds them quick, so that one read of its socket brings many of them. If it dies,
/// no more of them are in doubt than it answers within a millisecond or so.
const PER_THREAD_QUICK: u32 = 16;
/// Calls at most, however many threads there are; never less than [`PER_THREAD`] comes to.
const QUICK_MAX: u32 = 128;

/// The room for calls of one worker. It follows what the worker says of them.
#[derive(Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    /// What quick calls have beyond the others.
    extra: usize,
    wide: bool,
    /// Places that are to be taken back as soon as they come back.
    owed: usize,
}

impl Room {
    pub(super) fn new(threads: u32) -> Self {
        let usual = threads.saturating_mul(PER_THREAD);
        let quick = threads.saturating_mul(PER_THREAD_QUICK).min(QUICK_MAX);
        let extra = quick.saturating_sub(usual) as usize;
        Self { places: Arc::new(Semaphore::new(usual as usize)), extra, wide: false, owed: 0 }
    }

    pub(super) fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.places)
    }

    /// A call was answered; `quick` is what the worker thinks of its calls now.
    pub(super) fn answered(&mut self, place: OwnedSemaphorePermit, quick: bool) {
        if quick && !self.wide {
            let paid = self.owed.min(self.extra);
            self.owed -= paid;
            self.places.add_permits(self.extra - paid);
        } else if !quick && self.wide {
            self.owed += self.extra - self.places.forget_permits(self.extra);
        }
        self.wide = quick;
        if self.owed > 0 {
            self.owed -= 1;
            place.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(room: &Room, count: usize) -> Vec<OwnedSemaphorePermit> {
        (0..count).map(|_| room.places().try_acquire_owned().unwrap()).collect()
    }

    #[test]
    fn there_is_more_room_for_calls_while_they_are_quick() {
        let mut room = Room::new(4);
        let mut places = taken(&room, 8);
        assert!(room.places().try_acquire_owned().is_err());
        room.answered(places.pop().unwrap(), true);
        assert_eq!(room.places().available_permits(), 57);
        room.answered(places.pop().unwrap(), true);
        assert_eq!(room.places().available_permits(), 58);
        room.answered(places.pop().unwrap(), false);
        assert_eq!(room.places().available_permits(), 3, "five are still taken");
    }

    #[test]
    fn places_beyond_the_usual_are_taken_back_when_they_come_back() {
        let mut room = Room::new(1);
        let mut places = taken(&room, 2);
        room.answered(places.pop().unwrap(), true);
        places.extend(taken(&room, 15));
        for place in places.drain(..) {
            room.answered(place, false);
        }
        assert_eq!(room.places().available_permits(), 2);
        let mut places = taken(&room, 2);
        room.answered(places.pop().unwrap(), true);
        assert_eq!(room.places().available_permits(), 15);
    }
}
