//! Counts the memory of all data blocks that exist, whoever holds them: the cache, iterators, values that readers
//! have been given, merges, a table that is being written.
//!
//! Invariant: the sum is what the blocks take that have not been dropped. A block is counted where it is made, and
//! takes that back where it is dropped, so that nobody who passes it on has anything to note, and one that many hold counts
//! once. Owned by `block_cache`, which takes from the sum what hangs in its slots: the rest is lent.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What all blocks of a cache take, bytes.
#[derive(Debug, Default)]
pub(crate) struct BlockMemory {
    bytes: AtomicUsize,
}

impl BlockMemory {
    /// What the blocks that exist take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A block of `bytes` was made.
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A block of `bytes` is dropped.
    pub(crate) fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
