//! Waiting for the next write, without a look at it from time to time.
//!
//! Invariant: no wake-up is lost. A watcher counts itself and then looks; whoever has published
//! something looks at the count after it (a fence stands between the two on both sides), and takes the
//! lock that a watcher holds from its look to its sleep. Where nobody watches, a commit pays one load.

use esker_base::sync::{Condvar, Mutex};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

/// Those who wait for something to be published.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    count: AtomicUsize,
    lock: Mutex<()>,
    published: Condvar,
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
        drop(self.lock.lock());
        self.published.notify_all();
    }

    /// Waits until `is_there`, but no longer than `timeout`; says whether it is.
    pub(crate) fn wait(&self, timeout: Duration, is_there: impl Fn() -> bool) -> bool {
        if is_there() {
            return true;
        }
        // Too far away to be represented: without an end.
        let deadline = Instant::now().checked_add(timeout);
        self.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let mut guard = self.lock.lock();
        let found = loop {
            if is_there() {
                break true;
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            match left {
                Some(Duration::ZERO) => break false,
                Some(left) => self.published.wait_for(&mut guard, left),
                None => self.published.wait(&mut guard),
            }
        };
        drop(guard);
        self.count.fetch_sub(1, Ordering::SeqCst);
        found
    }
}
