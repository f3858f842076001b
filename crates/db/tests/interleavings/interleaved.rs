//! What the protocols take from `crate::interleaved`, of loom's making.

use std::ops::Deref;
use std::sync;

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::MutexGuard;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use loom::thread::{Thread, current as this_thread, park};

/// A queued thread parks at once: looking again is one more order that says nothing new.
pub(crate) const SPINS: usize = 1;

/// The engine's lock, whose guards come without a result.
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

pub(crate) type Loaded<T> = sync::Arc<T>;

/// In place of arc-swap, which is not what is tried: each call one step.
#[derive(Debug)]
pub(crate) struct ArcSwap<T>(Mutex<sync::Arc<T>>);

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self(Mutex::new(sync::Arc::new(value)))
    }

    pub(crate) fn load(&self) -> Loaded<T> {
        self.load_full()
    }

    pub(crate) fn load_full(&self) -> sync::Arc<T> {
        sync::Arc::clone(&self.0.lock())
    }

    pub(crate) fn swap(&self, next: sync::Arc<T>) -> sync::Arc<T> {
        std::mem::replace(&mut *self.0.lock(), next)
    }
}

/// The standard counts, with an atomic of loom's beside them for what they order: whoever drops the last
/// reference has seen whatever the others did before they dropped theirs.
#[derive(Debug)]
pub(crate) struct Arc<T> {
    value: sync::Arc<T>,
    order: sync::Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(crate) struct Weak<T> {
    value: sync::Weak<T>,
    order: sync::Arc<AtomicUsize>,
}

impl<T> Arc<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: sync::Arc::new(value),
            order: sync::Arc::new(AtomicUsize::new(1)),
        }
    }

    pub(crate) fn downgrade(this: &Self) -> Weak<T> {
        Weak {
            value: sync::Arc::downgrade(&this.value),
            order: sync::Arc::clone(&this.order),
        }
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        self.order.fetch_add(1, Ordering::Relaxed);
        Self {
            value: sync::Arc::clone(&self.value),
            order: sync::Arc::clone(&self.order),
        }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        self.order.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<T> Weak<T> {
    pub(crate) fn upgrade(&self) -> Option<Arc<T>> {
        let value = self.value.upgrade()?;
        self.order.fetch_add(1, Ordering::Acquire);
        Some(Arc {
            value,
            order: sync::Arc::clone(&self.order),
        })
    }

    pub(crate) fn strong_count(&self) -> usize {
        self.value.strong_count()
    }
}
