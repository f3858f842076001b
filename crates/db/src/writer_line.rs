//! The writer lock and the line of those who wait for it.
//!
//! Invariant: whoever queues is finished by a leader or leads. A thread that finds the lock free leads at
//! once, with whoever waits. One that finds it taken queues, and is either finished by the leader or told to
//! lead. No wake-up is lost: the thread tries the lock again after it has queued, and whoever held the lock
//! looks at the queue again after having unlocked, so that one of the two sees the other.
//! `tests/interleavings` tries every order.

use crate::interleaved::{
    AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, SPINS, Thread, fence, park, spin_loop,
    this_thread,
};
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// What a thread that found the writer lock taken wants done.
pub(crate) struct Waiter<B> {
    pub(crate) body: Mutex<B>,
    finished: AtomicBool,
    thread: Thread,
}

impl<B> Waiter<B> {
    /// Lets the thread go on: its body says how it went.
    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// The lock around what only the leader touches, and who waits for it.
pub(crate) struct WriterLine<W, B> {
    writer: Mutex<W>,
    waiting: Mutex<VecDeque<Arc<Waiter<B>>>>,
    waiting_count: AtomicUsize,
}

/// The held writer lock. Giving it up wakes the first queued thread, whoever held it: a thread that found
/// the lock taken sleeps until somebody does.
pub(crate) struct WriterGuard<'a, W, B> {
    // Fields are dropped in their order: first the lock, then the look at the queue.
    writer: MutexGuard<'a, W>,
    _wake: WakeNext<'a, W, B>,
}

struct WakeNext<'a, W, B>(&'a WriterLine<W, B>);

impl<W, B> Drop for WakeNext<'_, W, B> {
    #[inline]
    fn drop(&mut self) {
        self.0.wake_next();
    }
}

impl<W, B> Deref for WriterGuard<'_, W, B> {
    type Target = W;

    #[inline]
    fn deref(&self) -> &W {
        &self.writer
    }
}

impl<W, B> DerefMut for WriterGuard<'_, W, B> {
    #[inline]
    fn deref_mut(&mut self) -> &mut W {
        &mut self.writer
    }
}

impl<W, B> WriterLine<W, B> {
    pub(crate) fn new(writer: W) -> Self {
        Self {
            writer: Mutex::new(writer),
            waiting: Mutex::new(VecDeque::new()),
            waiting_count: AtomicUsize::new(0),
        }
    }

    /// Waits for the lock, without a place in the line.
    pub(crate) fn lock(&self) -> WriterGuard<'_, W, B> {
        WriterGuard {
            writer: self.writer.lock(),
            _wake: WakeNext(self),
        }
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<WriterGuard<'_, W, B>> {
        let writer = self.writer.try_lock()?;
        Some(WriterGuard {
            writer,
            _wake: WakeNext(self),
        })
    }

    /// How many wait.
    #[inline]
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting_count.load(Ordering::Acquire)
    }

    /// Takes the first of those who wait out of the line, as many as `group` says. For the leader, who
    /// finishes each of them.
    pub(crate) fn take(
        &self,
        group: impl FnOnce(&VecDeque<Arc<Waiter<B>>>) -> usize,
    ) -> Vec<Arc<Waiter<B>>> {
        if self.waiting_count() == 0 {
            return Vec::new();
        }
        let mut waiting = self.waiting.lock();
        let count = group(&waiting);
        let taken: Vec<_> = waiting.drain(..count).collect();
        self.waiting_count.store(waiting.len(), Ordering::Release);
        taken
    }

    /// Queues and returns when it was finished, by the leader or by `lead`, which takes a group and
    /// finishes it.
    pub(crate) fn wait(&self, body: B, mut lead: impl FnMut(&mut W)) -> Arc<Waiter<B>> {
        let waiter = Arc::new(Waiter {
            body: Mutex::new(body),
            finished: AtomicBool::new(false),
            thread: this_thread(),
        });
        self.queue(&waiter);
        let mut looks = 0;
        while !waiter.finished.load(Ordering::Acquire) {
            if let Some(mut writer) = self.try_lock() {
                lead(&mut writer);
                drop(writer);
                continue;
            }
            looks += 1;
            if looks < SPINS {
                spin_loop();
            } else {
                // A leader that finishes this one, or finds it at the head of the queue after it
                // has unlocked, unparks this thread; an unpark that came earlier is remembered.
                park();
            }
        }
        waiter
    }

    fn queue(&self, waiter: &Arc<Waiter<B>>) {
        let mut waiting = self.waiting.lock();
        waiting.push_back(Arc::clone(waiter));
        self.waiting_count.store(waiting.len(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Tells the first waiting thread to lead, after the lock was given up.
    fn wake_next(&self) {
        // Orders the unlocking before the look: the other half of the queueing thread's store.
        fence(Ordering::SeqCst);
        if self.waiting_count.load(Ordering::SeqCst) > 0 {
            let first = self.waiting.lock().front().map(|it| it.thread.clone());
            if let Some(thread) = first {
                thread.unpark();
            }
        }
    }
}
