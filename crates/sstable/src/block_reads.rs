//! Counts the data blocks that reads of one thread took out of the cache, and from the file.
//!
//! Invariant: the counts belong to the thread, so that counting shares nothing and costs an addition;
//! whoever wants to know what a piece of work has read takes the difference of two readings on the
//! thread that does it. What compactions, verification and walks past the cache read does not count.
//! Counted by `block_cache` and `value_tables`; read by db's queries.

use std::cell::Cell;
use std::ops::{AddAssign, Sub};

/// Data blocks of tables that were read: in the cache already, or from the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockReads {
    /// Found in the cache.
    pub cached: u64,
    /// Read from the file. Blocks that came along in one larger read count one by one, when they are used.
    pub loaded: u64,
}

thread_local! {
    static CACHED: Cell<u64> = const { Cell::new(0) };
    static LOADED: Cell<u64> = const { Cell::new(0) };
}

impl BlockReads {
    /// What this thread has read since it began.
    #[must_use]
    pub fn of_this_thread() -> Self {
        Self {
            cached: CACHED.get(),
            loaded: LOADED.get(),
        }
    }
}

impl Sub for BlockReads {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cached: self.cached.wrapping_sub(earlier.cached),
            loaded: self.loaded.wrapping_sub(earlier.loaded),
        }
    }
}

impl AddAssign for BlockReads {
    fn add_assign(&mut self, other: Self) {
        self.cached += other.cached;
        self.loaded += other.loaded;
    }
}

/// Notes a block that was found in the cache.
#[inline]
pub(crate) fn note_cached() {
    CACHED.set(CACHED.get().wrapping_add(1));
}

/// Notes a block that was read from its file.
pub(crate) fn note_loaded() {
    LOADED.set(LOADED.get().wrapping_add(1));
}
