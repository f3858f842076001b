//! A clock whose wall time never runs backwards, whatever the clock below does.
//!
//! Invariant: it shows at least what it was started from, at least what it has shown before, and at
//! least what the clock below shows; and it goes on at the pace of the monotonic clock where that
//! one has been turned back. So what has expired stays expired, and what has not still will. The
//! engine sees time through one of these; the floor that it is started from is persisted.

use super::{Clock, TimerCall};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct SteadyClock {
    inner: Arc<dyn Clock>,
    /// What wall time is ahead of monotonic time by, microseconds. Only grows: wall time that was
    /// turned back is then told from the monotonic one.
    ahead_micros: AtomicU64,
}

impl SteadyClock {
    /// A clock over `inner` that shows `floor_millis` (since 1970) or more.
    #[must_use]
    pub fn new(inner: Arc<dyn Clock>, floor_millis: u64) -> Self {
        let floor_micros = floor_millis.saturating_mul(1000);
        let ahead_micros = floor_micros.saturating_sub(inner.monotonic_micros());
        Self {
            inner,
            ahead_micros: AtomicU64::new(ahead_micros),
        }
    }
}

impl Clock for SteadyClock {
    fn now_millis(&self) -> u64 {
        // In this order: a thread that is held up between the two takes the wall clock for later than
        // it is at most, so that no delay makes this clock run ahead of it for ever.
        let wall = self.inner.now_millis().saturating_mul(1000);
        let monotonic = self.inner.monotonic_micros();
        let ahead = wall.saturating_sub(monotonic);
        let known = self.ahead_micros.load(Ordering::Relaxed);
        let most = if ahead > known {
            self.ahead_micros
                .fetch_max(ahead, Ordering::Relaxed)
                .max(ahead)
        } else {
            known
        };
        monotonic.saturating_add(most) / 1000
    }

    fn monotonic_micros(&self) -> u64 {
        self.inner.monotonic_micros()
    }

    fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration);
    }

    fn park_until(&self, deadline_micros: u64) {
        self.inner.park_until(deadline_micros);
    }

    fn call_after(&self, delay: Duration, call: TimerCall) {
        self.inner.call_after(delay, call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    /// A clock whose wall time is asked for by a thread that is held up for a second right before,
    /// where it is told so.
    #[derive(Debug)]
    struct HeldUp(Arc<ManualClock>, std::sync::atomic::AtomicBool);

    impl Clock for HeldUp {
        fn now_millis(&self) -> u64 {
            if self.1.swap(false, Ordering::Relaxed) {
                self.0.advance(Duration::from_secs(1));
            }
            self.0.now_millis()
        }

        fn monotonic_micros(&self) -> u64 {
            self.0.monotonic_micros()
        }

        fn sleep(&self, duration: Duration) {
            self.0.sleep(duration);
        }

        fn park_until(&self, deadline_micros: u64) {
            self.0.park_until(deadline_micros);
        }

        fn call_after(&self, delay: Duration, call: TimerCall) {
            self.0.call_after(delay, call);
        }
    }

    /// The simulation found keys that expired early: a thread had been interrupted between the looks
    /// at the two clocks, and the time that it lost was added for ever.
    #[test]
    fn a_thread_that_is_held_up_does_not_put_it_ahead() {
        let manual = Arc::new(ManualClock::at_millis(1000));
        let held_up = HeldUp(manual.clone(), true.into());
        let clock = SteadyClock::new(Arc::new(held_up), 0);
        assert_eq!(clock.now_millis(), 2000);
        assert_eq!(clock.now_millis(), 2000);
        manual.advance(Duration::from_millis(5));
        assert_eq!(clock.now_millis(), 2005);
    }

    #[test]
    fn a_clock_that_is_turned_back_goes_on_from_where_it_was() {
        let wall = Arc::new(ManualClock::at_millis(1000));
        let clock = SteadyClock::new(wall.clone(), 0);
        assert_eq!(clock.now_millis(), 1000);
        wall.set_wall_millis(5000);
        assert_eq!(clock.now_millis(), 5000, "forwards at once");
        wall.set_wall_millis(10);
        assert_eq!(clock.now_millis(), 5000);
        wall.advance(Duration::from_millis(7));
        assert_eq!(clock.now_millis(), 5007, "it does not stand still");
        wall.set_wall_millis(9000);
        assert_eq!(clock.now_millis(), 9000);
    }

    #[test]
    fn it_starts_at_its_floor() {
        let wall = Arc::new(ManualClock::at_millis(1000));
        wall.advance(Duration::from_millis(3));
        let clock = SteadyClock::new(wall.clone(), 2000);
        assert_eq!(clock.now_millis(), 2000);
        wall.advance(Duration::from_millis(3));
        assert_eq!(clock.now_millis(), 2003);
        wall.set_wall_millis(u64::MAX);
        assert!(clock.now_millis() > 2003, "no overflow");
    }
}
