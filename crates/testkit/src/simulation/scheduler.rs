//! Threads of which one runs at a time, as the seed decides.
//!
//! Invariant: exactly one task holds the baton, and only it runs. It gives the baton on at file
//! operations, at locks, at looks at the clock and where it must wait, to a task that is drawn from
//! the seed; so the run is a function of the seed. Tasks are real threads, so that the engine's code
//! runs as it is. A thread that ends is joined by the next one to run, so that what it still lets go
//! of has happened by then.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};

use esker_base::sync::{Turns, enter};

use crate::seed::Random;

/// Waits in a row, with nobody getting anything done between them, after which nobody ever will.
const STUCK_WAITS: u32 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Ready,
    /// Cannot go on before somebody else does; drawn less often.
    Waiting,
    /// Until then, microseconds.
    Sleeping(u64),
    Ended,
}

struct Task {
    name: String,
    condition: Condition,
    is_job: bool,
    thread: Option<Thread>,
    handle: Option<JoinHandle<()>>,
}

struct State {
    random: Random,
    switch_one_in: u64,
    tasks: Vec<Task>,
    ended: Option<JoinHandle<()>>,
    micros: u64,
    events: u64,
    waits_in_a_row: u32,
    switches: u64,
    digest: u64,
    trace: Option<Vec<String>>,
    failure: Option<String>,
}

/// Decides who runs. The thread that made it is task 0.
pub(crate) struct Scheduler {
    current: AtomicUsize,
    state: Mutex<State>,
}

/// A task's place: what its thread finds itself by.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) scheduler: Arc<Scheduler>,
    number: usize,
}

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

/// The seat of the calling thread, if a simulation runs it.
pub(crate) fn seat() -> Option<Seat> {
    SEAT.try_with(|seat| seat.borrow().clone()).ok().flatten()
}

impl Turns for Seat {
    fn point(&self) {
        self.scheduler.point(self.number);
    }

    fn wait(&self) {
        self.scheduler.wait(self.number, Condition::Waiting);
    }
}

impl State {
    fn mix(&mut self, bytes: &[u8]) {
        // FNV-1a, by words of what is there.
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn note(&mut self, task: usize, line: &str) {
        self.mix(&[task as u8]);
        self.mix(line.as_bytes());
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{}: {line}", self.tasks[task].name));
        }
    }

    /// Who goes on, `except` one if that one cannot.
    fn draw(&mut self, except: Option<usize>) -> Option<usize> {
        let mut wakes = u64::MAX;
        for task in &mut self.tasks {
            if let Condition::Sleeping(until) = task.condition {
                if until <= self.micros {
                    task.condition = Condition::Ready;
                } else {
                    wakes = wakes.min(until);
                }
            }
        }
        let mut of = |condition: Condition| {
            let able = |(number, task): &(usize, &Task)| {
                task.condition == condition && Some(*number) != except
            };
            let count = self.tasks.iter().enumerate().filter(able).count();
            let place = self.random.below(count.max(1) as u64) as usize;
            let mut able = self.tasks.iter().enumerate().filter(able);
            able.nth(place).map(|(number, _)| number)
        };
        let (ready, waiting) = (of(Condition::Ready), of(Condition::Waiting));
        let drawn = match (ready, waiting) {
            (Some(ready), Some(_)) if !self.random.chance(8) => Some(ready),
            (ready, waiting) => waiting.or(ready),
        };
        if drawn.is_none() && wakes < u64::MAX {
            self.micros = wakes;
            return self.draw(except);
        }
        drawn
    }
}

impl Scheduler {
    /// The calling thread becomes task 0 and holds the baton for as long as `body` runs.
    pub(crate) fn run<T>(
        seed: u64,
        traced: bool,
        body: impl FnOnce(&Arc<Self>) -> T,
    ) -> (T, Record) {
        let mut random = Random::of_part(seed, 1);
        let switch_one_in = [1, 2, 3, 5, 10, 30, 100][random.index(7)];
        let main = Task {
            name: "main".into(),
            condition: Condition::Ready,
            is_job: false,
            thread: Some(thread::current()),
            handle: None,
        };
        let scheduler = Arc::new(Self {
            current: AtomicUsize::new(0),
            state: Mutex::new(State {
                random,
                switch_one_in,
                tasks: vec![main],
                ended: None,
                micros: 0,
                events: 0,
                waits_in_a_row: 0,
                switches: 0,
                digest: 0xcbf2_9ce4_8422_2325,
                trace: traced.then(Vec::new),
                failure: None,
            }),
        });
        let seat = Seat {
            scheduler: Arc::clone(&scheduler),
            number: 0,
        };
        let result = seat.taken(|| body(&scheduler));
        let mut state = scheduler.lock();
        let record = Record {
            digest: state.digest,
            switches: state.switches,
            trace: state.trace.take().unwrap_or_default(),
        };
        drop(state);
        (result, record)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a task. It runs once it is drawn.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: &str,
        is_job: bool,
        body: Box<dyn FnOnce() + Send>,
    ) -> usize {
        let mut state = self.lock();
        let number = state.tasks.len();
        state.tasks.push(Task {
            name: format!("{name} {number}"),
            condition: Condition::Ready,
            is_job,
            thread: None,
            handle: None,
        });
        state.waits_in_a_row = 0;
        let seat = Seat {
            scheduler: Arc::clone(self),
            number,
        };
        let handle = thread::Builder::new().spawn(move || seat.live(body));
        match handle {
            Ok(handle) => {
                state.tasks[number].thread = Some(handle.thread().clone());
                state.tasks[number].handle = Some(handle);
            }
            Err(error) => {
                state.tasks[number].condition = Condition::Ended;
                state.failure = Some(format!("the machine has no thread left: {error}"));
            }
        }
        number
    }

    /// Whether every task of `numbers` has ended.
    pub(crate) fn have_ended(&self, numbers: &[usize]) -> bool {
        let state = self.lock();
        let ended = |number: &usize| state.tasks[*number].condition == Condition::Ended;
        numbers.iter().all(ended)
    }

    /// Whether jobs are left, the calling task not counted.
    pub(crate) fn has_jobs(&self) -> bool {
        let own = seat().map(|seat| seat.number);
        let state = self.lock();
        let left = |(number, task): (usize, &Task)| {
            task.is_job && task.condition != Condition::Ended && Some(number) != own
        };
        state.tasks.iter().enumerate().any(left)
    }

    /// A number for what happens now: larger than every one before.
    pub(crate) fn event(&self) -> u64 {
        let mut state = self.lock();
        state.events += 1;
        state.events
    }

    /// Something was done: part of the run's digest, and of its trace.
    pub(crate) fn note(&self, line: &str) {
        let task = seat().map_or(0, |seat| seat.number);
        let mut state = self.lock();
        state.waits_in_a_row = 0;
        state.note(task, line);
    }

    /// Ends the run; the first failure counts.
    pub(crate) fn fail(&self, failure: String) {
        self.lock().failure.get_or_insert(failure);
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Lets the calling task sleep by the simulated clock.
    pub(crate) fn sleep(&self, micros: u64) {
        if let Some(seat) = seat() {
            let until = self.lock().micros + micros;
            self.wait(seat.number, Condition::Sleeping(until));
        }
    }

    /// The calling task could be interrupted here.
    fn point(&self, own: usize) {
        let mut state = self.lock();
        state.micros += 1;
        if state.failure.is_some() {
            drop(state);
            return self.abandon(own);
        }
        let one_in = state.switch_one_in;
        if one_in > 1 && !state.random.chance(one_in) {
            return;
        }
        let next = state.draw(None).unwrap_or(own);
        self.pass(state, own, next);
    }

    /// The calling task cannot go on, or not before some time.
    fn wait(&self, own: usize, condition: Condition) {
        let mut state = self.lock();
        state.micros += 20;
        state.waits_in_a_row += 1;
        let stuck = state.waits_in_a_row > STUCK_WAITS;
        let next = if stuck {
            None
        } else {
            self.next_after(&mut state, own, condition)
        };
        let Some(next) = next.filter(|_| state.failure.is_none()) else {
            let waiting: Vec<_> = (state.tasks.iter())
                .filter(|task| task.condition != Condition::Ended)
                .map(|task| format!("{} ({:?})", task.name, task.condition))
                .collect();
            let failure = format!("nobody can go on: {}", waiting.join(", "));
            state.failure.get_or_insert(failure);
            drop(state);
            return self.abandon(own);
        };
        self.pass(state, own, next);
        self.lock().tasks[own].condition = Condition::Ready;
    }

    fn next_after(&self, state: &mut State, own: usize, condition: Condition) -> Option<usize> {
        state.tasks[own].condition = condition;
        match condition {
            Condition::Sleeping(_) => state.draw(None),
            _ => state.draw(Some(own)),
        }
    }

    /// The run has failed: task 0 says so, everybody else stops for ever.
    fn abandon(&self, own: usize) {
        if own == 0 {
            // Ends in the catch of the run. Unwinding comes through here again.
            if !thread::panicking() {
                std::panic::panic_any(Abandoned);
            }
            return;
        }
        let main = self.lock().tasks[0].thread.clone();
        self.current.store(0, Ordering::Release);
        if let Some(main) = main {
            main.unpark();
        }
        loop {
            thread::park();
        }
    }

    fn pass(&self, mut state: MutexGuard<'_, State>, own: usize, next: usize) {
        if next == own {
            return;
        }
        state.switches += 1;
        state.mix(&[next as u8, 0xff]);
        let thread = state.tasks[next].thread.clone();
        drop(state);
        self.current.store(next, Ordering::Release);
        if let Some(thread) = thread {
            thread.unpark();
        }
        self.wait_for_baton(own);
    }

    fn wait_for_baton(&self, own: usize) {
        while self.current.load(Ordering::Acquire) != own {
            thread::park();
        }
        let ended = self.lock().ended.take();
        if let Some(Err(_)) = ended.map(JoinHandle::join) {
            self.fail("a thread of the simulation panicked".into());
        }
    }

    fn end(&self, own: usize) {
        let mut state = self.lock();
        state.waits_in_a_row = 0;
        state.tasks[own].condition = Condition::Ended;
        state.ended = state.tasks[own].handle.take();
        let next = match state.failure {
            Some(_) => 0,
            None => state.draw(None).unwrap_or(0),
        };
        state.switches += 1;
        state.mix(&[next as u8, 0xfe]);
        let thread = state.tasks[next].thread.clone();
        drop(state);
        self.current.store(next, Ordering::Release);
        if let Some(thread) = thread {
            thread.unpark();
        }
    }
}

/// Why task 0 unwinds out of an engine that hangs.
struct Abandoned;

impl Seat {
    /// The life of a task's thread.
    fn live(self, body: Box<dyn FnOnce() + Send>) {
        self.scheduler.wait_for_baton(self.number);
        let result = self.taken(|| catch_unwind(AssertUnwindSafe(body)));
        if let Err(panic) = result {
            let text = message(panic.as_ref());
            self.scheduler.fail(format!("a thread panicked: {text}"));
        }
        self.scheduler.end(self.number);
    }

    fn taken<T>(&self, body: impl FnOnce() -> T) -> T {
        SEAT.with(|seat| *seat.borrow_mut() = Some(self.clone()));
        let entered = enter(Arc::new(self.clone()));
        let result = body();
        drop(entered);
        SEAT.with(|seat| *seat.borrow_mut() = None);
        result
    }
}

/// What a panic says.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

/// What a run was.
pub(crate) struct Record {
    /// Of every file operation, result and change of threads.
    pub(crate) digest: u64,
    pub(crate) switches: u64,
    pub(crate) trace: Vec<String>,
}
