//! Time, injected (I12): expiry, creation stamps, pacing and waiting all go through a [`Clock`].
//!
//! Invariant: the engine never asks the operating system for the time except through
//! [`SystemClock`], so that a test can stop, advance or turn back the clock.

mod steady;
mod timers;

pub use steady::SteadyClock;
pub use timers::TimerCall;

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the engine takes the time from.
pub trait Clock: Send + Sync + Debug + 'static {
    /// Milliseconds since 1970-01-01 UTC, by the wall clock.
    fn now_millis(&self) -> u64;
    /// Microseconds from an arbitrary start that never run backwards.
    fn monotonic_micros(&self) -> u64;
    /// Lets the calling thread wait.
    fn sleep(&self, duration: Duration);
    /// Lets the calling thread wait until [`Clock::monotonic_micros`] is `deadline_micros`, or another
    /// thread unparks it. It may return early without reason: ask for the time and wait again.
    fn park_until(&self, deadline_micros: u64) {
        let left = deadline_micros.saturating_sub(self.monotonic_micros());
        if left > 0 {
            thread::park_timeout(Duration::from_micros(left));
        }
    }
    /// Calls `call` once `delay` is over, on some thread; it must return soon. By default by the
    /// machine's time, from one thread for the whole process.
    fn call_after(&self, delay: Duration, call: TimerCall) {
        timers::call_after(delay, call);
    }
}

/// The machine's clock. Its wall time never moves backwards within one instance: where the machine
/// turns its clock back, this one stands still until the machine has caught up, so that a key
/// which has expired stays expired.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    latest_millis: AtomicU64,
}

impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            latest_millis: AtomicU64::new(0),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_millis(&self) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        // Most readings are of the same millisecond: they do not write.
        let latest = self.latest_millis.load(Ordering::Relaxed);
        if millis <= latest {
            return latest;
        }
        self.latest_millis
            .fetch_max(millis, Ordering::Relaxed)
            .max(millis)
    }

    fn monotonic_micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

/// A clock that stands still: one reading of another, for what has to be judged at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    wall_millis: u64,
    monotonic_micros: u64,
}

impl Moment {
    /// What `clock` shows now.
    #[must_use]
    pub fn now(clock: &dyn Clock) -> Self {
        Self {
            wall_millis: clock.now_millis(),
            monotonic_micros: clock.monotonic_micros(),
        }
    }
}

impl Clock for Moment {
    fn now_millis(&self) -> u64 {
        self.wall_millis
    }

    fn monotonic_micros(&self) -> u64 {
        self.monotonic_micros
    }

    /// A moment has no duration.
    fn sleep(&self, _duration: Duration) {}
}

/// A clock that a test moves by hand. Sleeping advances it, and advancing it calls the timers that
/// are due, in the advancing thread.
#[derive(Default)]
pub struct ManualClock {
    wall_millis: AtomicU64,
    monotonic_micros: AtomicU64,
    /// Threads that wait for a later time. Each looks at the time again when it has moved.
    parked: Mutex<Vec<Thread>>,
    /// By when they are due on the monotonic clock, and then by their number.
    timers: parking_lot::Mutex<BTreeMap<(u64, u64), TimerCall>>,
    /// How many timers were set so far.
    timers_set: AtomicU64,
}

impl Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock")
            .field("wall_millis", &self.wall_millis)
            .field("monotonic_micros", &self.monotonic_micros)
            .finish_non_exhaustive()
    }
}

impl ManualClock {
    /// A clock that shows `millis` since 1970.
    #[must_use]
    pub fn at_millis(millis: u64) -> Self {
        Self {
            wall_millis: AtomicU64::new(millis),
            ..Self::default()
        }
    }

    /// Moves both times forwards, and wakes who waits for that.
    pub fn advance(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.monotonic_micros.fetch_add(micros, Ordering::Relaxed);
        self.wall_millis.fetch_add(micros / 1000, Ordering::Relaxed);
        // After the time, so that a thread which is not in the list yet sees the new one.
        let parked = std::mem::take(&mut *self.parked());
        parked.iter().for_each(Thread::unpark);
        while let Some(call) = self.next_due() {
            call();
        }
    }

    fn parked(&self) -> std::sync::MutexGuard<'_, Vec<Thread>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_due(&self) -> Option<TimerCall> {
        let mut timers = self.timers.lock();
        let (due, _) = *timers.first_key_value()?.0;
        if due > self.monotonic_micros() {
            return None;
        }
        timers.pop_first().map(|(_, call)| call)
    }

    /// Sets the wall time, backwards too, as an administrator may.
    pub fn set_wall_millis(&self, millis: u64) {
        self.wall_millis.store(millis, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_millis(&self) -> u64 {
        self.wall_millis.load(Ordering::Relaxed)
    }

    fn monotonic_micros(&self) -> u64 {
        self.monotonic_micros.load(Ordering::Relaxed)
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }

    fn park_until(&self, deadline_micros: u64) {
        let this = thread::current();
        {
            let mut parked = self.parked();
            if self.monotonic_micros() >= deadline_micros {
                return;
            }
            // Left over where it was unparked by somebody else.
            if parked.iter().all(|thread| thread.id() != this.id()) {
                parked.push(this);
            }
        }
        thread::park();
    }

    fn call_after(&self, delay: Duration, call: TimerCall) {
        let delay = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        let due = self.monotonic_micros().saturating_add(delay);
        let number = self.timers_set.fetch_add(1, Ordering::Relaxed);
        self.timers.lock().insert((due, number), call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = ManualClock::at_millis(1000);
        clock.sleep(Duration::from_millis(5));
        assert_eq!((clock.now_millis(), clock.monotonic_micros()), (1005, 5000));
        clock.set_wall_millis(10);
        assert_eq!(clock.now_millis(), 10);
    }

    #[test]
    fn a_thread_waits_for_a_time_of_the_manual_clock() {
        let clock = ManualClock::default();
        clock.park_until(0);
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                while clock.monotonic_micros() < 3000 {
                    clock.park_until(3000);
                }
            });
            while !waits.is_finished() {
                clock.advance(Duration::from_millis(1));
                thread::yield_now();
            }
        });
        assert!(clock.monotonic_micros() >= 3000 && clock.parked().is_empty());
    }

    #[test]
    fn advancing_calls_what_is_due_and_what_that_sets_later() {
        let clock = std::sync::Arc::new(ManualClock::default());
        let calls = std::sync::Arc::new(AtomicU64::new(0));
        let (inner, counted) = (clock.clone(), calls.clone());
        let again = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let counted = counted.clone();
            let call = move || {
                counted.fetch_add(10, Ordering::Relaxed);
            };
            inner.call_after(Duration::from_millis(5), Box::new(call));
        };
        clock.call_after(Duration::from_millis(5), Box::new(again));
        clock.advance(Duration::from_millis(4));
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        clock.advance(Duration::from_millis(1));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        clock.advance(Duration::from_millis(5));
        assert_eq!(calls.load(Ordering::Relaxed), 11);
    }

    #[test]
    fn the_system_clock_does_not_run_backwards() {
        let clock = SystemClock::new();
        let first = clock.now_millis();
        clock.latest_millis.store(first + 60_000, Ordering::Relaxed);
        assert!(clock.now_millis() >= first + 60_000);
    }
}
