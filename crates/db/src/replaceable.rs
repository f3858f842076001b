//! A value that readers take without a lock while it is replaced by what comes next.
//!
//! Invariant: each change is made of the value that it replaces, one after the other, so that of two that
//! come together neither is lost. A reader keeps what it took. `tests/interleavings` tries every order.

use crate::interleaved::{ArcSwap, Loaded, Mutex};
use std::sync::Arc;

/// The current value.
#[derive(Debug)]
pub(crate) struct Replaceable<T> {
    current: ArcSwap<T>,
    changing: Mutex<()>,
}

impl<T> Replaceable<T> {
    pub(crate) fn new(first: T) -> Self {
        Self {
            current: ArcSwap::from_pointee(first),
            changing: Mutex::new(()),
        }
    }

    #[inline]
    pub(crate) fn load(&self) -> Loaded<T> {
        self.current.load()
    }

    #[inline]
    pub(crate) fn load_full(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Replaces the value by what `change` makes of it; the old one, for whoever called to decide where it
    /// is freed.
    pub(crate) fn replace(&self, change: impl FnOnce(&Arc<T>) -> T) -> Arc<T> {
        let _one_at_a_time = self.changing.lock();
        let next = change(&self.current.load_full());
        self.current.swap(Arc::new(next))
    }
}
