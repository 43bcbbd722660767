//! Desk: where calls come in, and where the threads of the pool get them.
//!
//! One thread at a time is on duty: it reads the socket. A pool thread on duty runs quick calls itself, one after the
//! other, and wakes nobody for them. Before a call that may take longer it leaves the duty to another one. The reader
//! thread has the duty while no pool thread is free, and takes it from one that runs a call for longer than
//! [`TICK`]: so somebody always reads, and the calls behind a slow one don't wait for it.
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A call up to this long is quick.
const QUICK_MAX: Duration = Duration::from_micros(50);
/// How long a pool thread keeps the duty while it runs a call, at least; twice as long at most.
const TICK: Duration = Duration::from_millis(1);
/// What a call that was not quick adds to the suspicion that the next one isn't; a quick one takes 1 away. On a machine
/// with much to do, one in five quick calls may well be held up.
const SLOW_COUNTS: u32 = 2;
/// What a call adds that lost its thread the duty.
const STUCK_COUNTS: u32 = 8;
/// Most suspicion, with which a worker begins.
const SUSPICION_MAX: u32 = 64;
/// Beyond this, calls are not thought quick. More than one stray call that the machine held up comes to.
const SUSPICION_QUICK: u32 = 16;
/// Work that a thread on duty leaves to wait behind a quick call; with more of it, another thread helps.
const BACKLOG_MAX: Duration = Duration::from_micros(100);
/// Weight of the last call in the time that a call is thought to take: one in so many.
const PACE_WEIGHT: u32 = 8;

/// Hands out calls of type `J`. The host bounds how many it sends before it has replies.
#[derive(Debug)]
pub(super) struct Desk<J> {
    state: Mutex<State<J>>,
    /// Pool threads that wait.
    pool: Condvar,
    /// The reader thread.
    reader: Condvar,
}

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<J>,
    /// Pool threads that wait for work, those included that were just woken.
    idle: usize,
    /// Pool threads that were woken and have not got the lock yet.
    woken: usize,
    /// Somebody is on duty, for this term.
    held: bool,
    term: u64,
    /// Whoever is on duty runs a call.
    runs: bool,
    /// Calls that were run by threads on duty: stands still while one of them takes long.
    turns: u64,
    reader_sleeps: bool,
    suspicion: u32,
    /// What a call takes, from the last ones that were quick.
    pace: Duration,
}

/// Whom to wake, once the lock is free: whoever wakes wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wake {
    pool: usize,
    reader: bool,
}

/// A pool thread's claim to the duty; it may have been taken from it.
#[derive(Debug, Default)]
pub(super) struct Seat(Option<u64>);

/// What a pool thread has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task<J> {
    /// Run this call. `quick`: it is thought to be, and this thread keeps the duty. `more`: others wait behind it.
    Run { job: J, quick: bool, more: bool },
    /// Read the socket, and [`Desk::bring`] what came.
    Read,
    /// [`Desk::rest`].
    Rest,
}

impl<J> Desk<J> {
    pub(super) const fn new() -> Self {
        let state = State {
            jobs: VecDeque::new(),
            idle: 0,
            woken: 0,
            held: false,
            term: 0,
            runs: false,
            turns: 0,
            reader_sleeps: false,
            suspicion: SUSPICION_MAX,
            pace: Duration::ZERO,
        };
        Self { state: Mutex::new(state), pool: Condvar::new(), reader: Condvar::new() }
    }

    /// The next task of a pool thread, whose last call took so long.
    pub(super) fn next(&self, seat: &mut Seat, took: Option<Duration>) -> Task<J> {
        let mut state = self.lock();
        let on_duty = state.is_on_duty(seat);
        if let Some(took) = took {
            state.learn(took);
            state.turns += u64::from(on_duty);
        }
        if let Some(job) = state.jobs.pop_front() {
            let quick = on_duty && state.suspicion <= SUSPICION_QUICK;
            let wake = if quick {
                state.runs = true;
                state.helper()
            } else {
                state.held &= !on_duty;
                *seat = Seat(None);
                state.hands()
            };
            let more = quick && !state.jobs.is_empty();
            drop(state);
            self.wake(wake);
            return Task::Run { job, quick, more };
        }
        if on_duty || !state.held {
            *seat = state.take_duty();
            return Task::Read;
        }
        Task::Rest
    }

    /// Waits until there may be something to do for a pool thread.
    pub(super) fn rest(&self) {
        let mut state = self.lock();
        while state.jobs.is_empty() && state.held {
            state.idle += 1;
            state = self.pool.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            state.woken = state.woken.saturating_sub(1);
        }
    }

    /// Takes in what a thread on duty has read.
    pub(super) fn bring(&self, jobs: impl IntoIterator<Item = J>) {
        self.lock().jobs.extend(jobs);
    }

    /// The reader thread's wait: returns when it is to read once, on duty. `relieved` is called when it has taken the
    /// duty from somebody.
    pub(super) fn stand_in(&self, relieved: impl Fn()) {
        let mut state = self.lock();
        loop {
            if !state.held && state.idle == 0 {
                state.take_duty();
                return;
            }
            if state.held && state.runs {
                state = self.watch(state, &relieved);
                continue;
            }
            state.reader_sleeps = true;
            state = self.reader.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.reader_sleeps = false;
        }
    }

    /// Looks once a tick, without being woken for each call, until there are none or one has lost its thread the duty.
    fn watch<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<J>>,
        relieved: &impl Fn(),
    ) -> MutexGuard<'a, State<J>> {
        loop {
            let before = (state.term, state.turns);
            let waited = self.reader.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            let same = before == (state.term, state.turns);
            if same && state.held && state.runs && waited.1.timed_out() {
                state.relieve();
                let wake = state.hands();
                drop(state);
                relieved();
                self.wake(wake);
                return self.lock();
            }
            if !state.held || (same && waited.1.timed_out()) {
                return state;
            }
        }
    }

    /// The reader thread has read once; a free pool thread goes on.
    pub(super) fn bring_and_leave(&self, jobs: impl IntoIterator<Item = J>) {
        let mut state = self.lock();
        state.jobs.extend(jobs);
        state.held = false;
        let wake = state.hands();
        drop(state);
        self.wake(wake);
    }

    fn wake(&self, whom: Wake) {
        for _ in 0..whom.pool {
            self.pool.notify_one();
        }
        if whom.reader {
            self.reader.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> State<J> {
    fn is_on_duty(&self, seat: &Seat) -> bool {
        self.held && seat.0 == Some(self.term)
    }

    fn take_duty(&mut self) -> Seat {
        (self.held, self.runs) = (true, false);
        self.term += 1;
        Seat(Some(self.term))
    }

    fn relieve(&mut self) {
        (self.held, self.runs) = (false, false);
        self.suspect(STUCK_COUNTS);
    }

    fn learn(&mut self, took: Duration) {
        if took > QUICK_MAX {
            return self.suspect(SLOW_COUNTS);
        }
        self.suspicion = self.suspicion.saturating_sub(1);
        self.pace = (self.pace * (PACE_WEIGHT - 1) + took) / PACE_WEIGHT;
    }

    fn suspect(&mut self, counts: u32) {
        self.suspicion = (self.suspicion + counts).min(SUSPICION_MAX);
    }

    /// Those who take the calls that wait, and the duty. All at once: on a machine with much to do, each that had to wake
    /// the next one would first wait for its own turn.
    fn hands(&mut self) -> Wake {
        let pool = self.free_of_pool(self.jobs.len() + usize::from(!self.held));
        Wake { pool, reader: !self.held && self.idle == 0 }
    }

    /// Who is needed beside a thread on duty that runs a quick call.
    fn helper(&mut self) -> Wake {
        let waits = u32::try_from(self.jobs.len()).unwrap_or(u32::MAX);
        let much = self.pace.saturating_mul(waits) > BACKLOG_MAX;
        let pool = if much { self.free_of_pool(1) } else { 0 };
        // Without its eye on the call, nobody would read on if it never returned.
        Wake { pool, reader: self.reader_sleeps }
    }

    /// How many to wake, so that so many come.
    fn free_of_pool(&mut self, wanted: usize) -> usize {
        let free = self.idle.saturating_sub(self.woken);
        let pool = wanted.saturating_sub(self.woken).min(free);
        self.woken += pool;
        pool
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{Barrier, mpsc},
        thread,
    };

    const QUICK: Option<Duration> = Some(Duration::from_micros(1));

    /// A desk that has seen quick calls only, and the seat of the thread that is on duty.
    fn quick_desk() -> (Desk<u32>, Seat) {
        let (desk, mut seat) = (Desk::new(), Seat::default());
        assert_eq!(desk.next(&mut seat, None), Task::Read);
        for _ in 0..SUSPICION_MAX {
            assert_eq!(desk.next(&mut seat, QUICK), Task::Read);
        }
        (desk, seat)
    }

    #[test]
    fn quick_calls_are_run_one_after_the_other_by_the_thread_that_read_them() {
        let (desk, mut seat) = quick_desk();
        desk.bring([1, 2]);
        assert_eq!(desk.next(&mut seat, None), Task::Run { job: 1, quick: true, more: true });
        assert_eq!(
            desk.next(&mut Seat::default(), None),
            Task::Run { job: 2, quick: false, more: false },
            "also by others"
        );
        assert_eq!(desk.next(&mut Seat::default(), None), Task::Rest);
        assert_eq!(desk.next(&mut seat, QUICK), Task::Read);
    }

    #[test]
    fn before_a_call_that_may_be_slow_the_duty_is_free_for_another_thread() {
        let (desk, mut seat) = (Desk::new(), Seat::default());
        assert_eq!(desk.next(&mut seat, None), Task::Read);
        desk.bring([1]);
        assert_eq!(desk.next(&mut seat, None), Task::Run { job: 1, quick: false, more: false });
        assert_eq!(desk.next(&mut Seat::default(), None), Task::Read);
        assert_eq!(desk.next(&mut seat, QUICK), Task::Rest, "somebody else is on duty");
    }

    #[test]
    fn calls_that_are_held_up_now_and_then_change_nothing_and_a_slow_plugin_is_soon_known() {
        let (desk, mut seat) = quick_desk();
        for call in 0..1_000 {
            let took = if call % 5 == 0 { Some(QUICK_MAX * 2) } else { QUICK };
            assert_eq!(desk.next(&mut seat, took), Task::Read);
            assert!(desk.lock().suspicion <= SUSPICION_QUICK);
        }
        for _ in 0..10 {
            assert_eq!(desk.next(&mut seat, Some(QUICK_MAX * 2)), Task::Read);
        }
        assert!(desk.lock().suspicion > SUSPICION_QUICK);
    }

    #[test]
    fn many_calls_that_are_not_that_quick_get_a_helper() {
        let (desk, mut seat) = quick_desk();
        for _ in 0..100 {
            assert_eq!(desk.next(&mut seat, Some(QUICK_MAX)), Task::Read);
        }
        let mut state = desk.lock();
        state.idle = 4;
        state.jobs.extend([1, 2]);
        assert_eq!(state.helper(), Wake::default());
        (state.reader_sleeps, state.idle) = (true, 4);
        state.jobs.push_back(3);
        assert_eq!(state.helper(), Wake { pool: 1, reader: true });
        assert_eq!(state.helper().pool, 0, "one is on its way");
    }

    #[test]
    fn for_calls_that_may_be_slow_all_who_are_needed_are_woken_at_once() {
        let desk = Desk::new();
        let mut state = desk.lock();
        state.idle = 4;
        state.jobs.extend([1, 2]);
        assert_eq!(state.hands(), Wake { pool: 3, reader: false }, "two for the calls, one for the duty");
        state.jobs.extend([3, 4]);
        assert_eq!(state.hands().pool, 1, "three are on their way, and there are no more");
        assert_eq!(state.hands(), Wake::default());
        state.idle = 0;
        assert!(state.hands().reader);
    }

    #[test]
    fn a_call_that_does_not_return_loses_its_thread_the_duty() {
        let (desk, mut seat) = quick_desk();
        let (told, relieved) = mpsc::channel();
        desk.bring([1, 2]);
        assert_eq!(desk.next(&mut seat, None), Task::Run { job: 1, quick: true, more: true });
        // No pool thread is free, so it is the reader thread that goes on.
        desk.stand_in(|| told.send(()).unwrap());
        relieved.recv().unwrap();
        assert_eq!(desk.next(&mut Seat::default(), None), Task::Run { job: 2, quick: false, more: false });
        assert_eq!(desk.next(&mut seat, QUICK), Task::Rest);
    }

    #[test]
    fn with_every_thread_in_a_slow_call_the_reader_thread_reads() {
        let (desk, mut seat) = (Desk::new(), Seat::default());
        assert_eq!(desk.next(&mut seat, None), Task::Read);
        desk.bring([1]);
        assert!(matches!(desk.next(&mut seat, None), Task::Run { job: 1, .. }));
        desk.stand_in(|| ());
        assert_eq!(desk.next(&mut Seat::default(), None), Task::Rest);
        desk.bring_and_leave([2]);
        assert!(matches!(desk.next(&mut seat, None), Task::Run { job: 2, .. }));
    }

    #[test]
    fn slow_calls_that_come_together_run_beside_each_other() {
        const THREADS: usize = 4;
        let desk: Desk<usize> = Desk::new();
        // Each call ends only when all run: with one that waits for another to end, this hangs.
        let (all, ended) = (Barrier::new(THREADS), mpsc::channel());
        thread::scope(|scope| {
            let mut seat = Seat::default();
            assert_eq!(desk.next(&mut seat, None), Task::Read);
            for _ in 0..THREADS {
                let (desk, all, ended) = (&desk, &all, ended.0.clone());
                scope.spawn(move || {
                    let mut seat = Seat::default();
                    loop {
                        match desk.next(&mut seat, None) {
                            Task::Run { job, .. } => {
                                all.wait();
                                return ended.send(job).unwrap();
                            }
                            Task::Read => desk.bring([]),
                            Task::Rest => desk.rest(),
                        }
                    }
                });
            }
            desk.bring_and_leave(0..THREADS);
        });
        let mut jobs: Vec<usize> = ended.1.try_iter().collect();
        jobs.sort_unstable();
        assert_eq!(jobs, [0, 1, 2, 3]);
    }
}
