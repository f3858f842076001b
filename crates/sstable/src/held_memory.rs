//! Counts the memory that scans hold beside blocks: themselves, the piece of a file that each reads ahead, and copies
//! of keys and values.
//!
//! A scan stands in every sorted run at once, so that all this may be more than the cache itself.
//!
//! Invariant: the sum is what all scans that live have noted. Noted by `table_iter` and by db's cursors; `block_cache`
//! makes room for the sum where the bound is shared. Blocks are counted where they are made (`block_memory`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::block_cache::BlockCache;

/// What all scans of a cache hold together, bytes.
#[derive(Debug, Default)]
pub(crate) struct ScanMemory {
    bytes: AtomicUsize,
}

impl ScanMemory {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What one scan, or a part of it, holds; dropped with it.
#[derive(Debug)]
pub struct HeldMemory {
    cache: Arc<BlockCache>,
    bytes: usize,
}

impl HeldMemory {
    /// Nothing is held yet beside `cache`.
    #[must_use]
    pub fn new(cache: Arc<BlockCache>) -> Self {
        Self { cache, bytes: 0 }
    }

    /// Notes that it is `bytes` now. Cached blocks make room for it where the bound is shared.
    pub fn set(&mut self, bytes: usize) {
        let sum = &self.cache.scans().bytes;
        let grows = bytes > self.bytes;
        if grows {
            sum.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            sum.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        if grows {
            self.cache.shrink();
        }
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The story: scans took their room out of a small cache although the budget had plenty left beside it.
    #[test]
    fn a_small_cache_gives_way_only_where_the_shared_bound_asks_for_it() {
        let cache = BlockCache::new(1000);
        cache.share(10_000, usize::MAX);
        let mut scan = HeldMemory::new(Arc::clone(&cache));
        for (held, room) in [
            (0, 1000),
            (9000, 1000),
            (9600, 400),
            (20_000, 0),
            (50, 1000),
        ] {
            scan.set(held);
            assert_eq!(cache.room_bytes(), room, "{held}");
        }
    }

    #[test]
    fn the_sum_is_what_the_living_hold_and_bounds_what_is_read_ahead() {
        let cache = BlockCache::new(1 << 20);
        cache.share(1 << 20, 1000);
        let mut first = HeldMemory::new(Arc::clone(&cache));
        let mut second = HeldMemory::new(Arc::clone(&cache));
        first.set(700);
        second.set(300);
        assert_eq!((cache.scan_bytes(), cache.has_room_ahead()), (1000, true));
        second.set(301);
        assert!(!cache.has_room_ahead());
        first.set(20);
        assert_eq!((cache.scan_bytes(), cache.has_room_ahead()), (321, true));
        drop(first);
        drop(second);
        assert_eq!(cache.scan_bytes(), 0);
    }
}
