//! Waiting for the next write, without a look at it from time to time.
//!
//! Invariant: no wake-up is lost. A watcher puts itself on the list and then looks; whoever has published
//! something looks at the list after it (a fence stands between the two on both sides), and a thread that
//! is woken before it sleeps does not sleep. Where nobody watches, a commit pays one load. Called by the
//! commit queue and by feeds of changes.

use esker_base::clock::Clock;
use esker_base::sync::{self, Mutex};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Duration;

/// Those who wait for something to be published.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    count: AtomicUsize,
    threads: Mutex<Vec<Thread>>,
}

impl Watchers {
    /// Has those who wait look again. The caller has a sequentially consistent fence between what it
    /// published and this.
    #[inline]
    pub(crate) fn wake(&self) {
        if self.count.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
    }

    #[cold]
    fn wake_all(&self) {
        self.threads.lock().iter().for_each(Thread::unpark);
    }

    /// Waits until `is_there`, but no longer than `timeout` on the monotonic clock; says whether it is.
    pub(crate) fn wait(
        &self,
        clock: &dyn Clock,
        timeout: Duration,
        is_there: impl Fn() -> bool,
    ) -> bool {
        if is_there() || timeout.is_zero() {
            return is_there();
        }
        let micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let deadline = clock.monotonic_micros().saturating_add(micros);
        self.threads.lock().push(thread::current());
        self.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let found = loop {
            if is_there() {
                break true;
            }
            if clock.monotonic_micros() >= deadline {
                break false;
            }
            sync::park_by(|| clock.park_until(deadline));
        };
        let me = thread::current().id();
        let mut threads = self.threads.lock();
        if let Some(at) = threads.iter().position(|thread| thread.id() == me) {
            threads.swap_remove(at);
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
        found
    }
}
