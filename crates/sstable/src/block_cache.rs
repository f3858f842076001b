//! The bound on the bytes of cached blocks. Skeleton.

use std::sync::Arc;

/// The bound on the bytes of cached blocks.
#[derive(Debug)]
pub struct BlockCache {
    _private: (),
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`.
    #[must_use]
    pub fn new(_capacity_bytes: usize) -> Arc<Self> {
        todo!()
    }
    /// Bytes of all blocks held.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        todo!()
    }
    /// The bound on [`BlockCache::used_bytes`].
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        todo!()
    }
    /// Changes the bound; a smaller one evicts at once.
    pub fn set_capacity_bytes(&self, _capacity_bytes: usize) {
        todo!()
    }
    /// Blocks that had to be read.
    #[must_use]
    pub fn misses(&self) -> u64 {
        todo!()
    }
    /// Blocks that were dropped for others.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        todo!()
    }
}
