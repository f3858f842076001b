//! Counts the memory that iterators hold beside the block cache: the piece of a file that is read ahead, the
//! buffer in which blocks are decompressed, and the current block.
//!
//! A scan stands in every sorted run at once, so that all this may be more than the cache itself.
//!
//! Invariants: the sum is what all iterators that live have noted; a block that also hangs in the cache may be
//! counted twice. Where the bound is shared nothing is left out: the cache may let go of a block that an
//! iterator holds. Where it is not, one that has read nothing itself does not count the small blocks that it
//! finds in the cache: they would cost each of them two additions to a number that all threads share. Noted by
//! `table_iter`; `block_cache` makes room for the sum where the bound is shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::block_cache::BlockCache;

/// A block of this size is counted wherever it was found.
pub(crate) const LARGE_BLOCK_BYTES: usize = 32 << 10;

/// What all iterators of a cache hold together.
#[derive(Debug)]
pub(crate) struct ScanMemory {
    bytes: AtomicUsize,
    /// Above this they read no further ahead.
    share_bytes: AtomicUsize,
}

impl ScanMemory {
    /// Nothing is held, and there is no bound.
    pub(crate) fn new() -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            share_bytes: AtomicUsize::new(usize::MAX),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_share_bytes(&self, share_bytes: usize) {
        self.share_bytes.store(share_bytes, Ordering::Relaxed);
    }

    /// Whether all that iterators hold counts against a bound.
    #[inline]
    pub(crate) fn is_bounded(&self) -> bool {
        self.share_bytes.load(Ordering::Relaxed) != usize::MAX
    }

    fn has_room(&self) -> bool {
        self.bytes() <= self.share_bytes.load(Ordering::Relaxed)
    }
}

/// What one iterator holds; dropped with it.
#[derive(Debug)]
pub(crate) struct HeldMemory {
    cache: Arc<BlockCache>,
    bytes: usize,
}

impl HeldMemory {
    /// Nothing is held yet beside `cache`.
    pub(crate) fn new(cache: Arc<BlockCache>) -> Self {
        Self { cache, bytes: 0 }
    }

    /// Notes that it is `bytes` now. Cached blocks make room for it where the bound is shared.
    pub(crate) fn set(&mut self, bytes: usize) {
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

    /// Whether an iterator may read more than it needs at once.
    pub(crate) fn has_room_ahead(&self) -> bool {
        self.cache.scans().has_room()
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
        assert_eq!((cache.scan_bytes(), first.has_room_ahead()), (1000, true));
        second.set(301);
        assert!(!first.has_room_ahead());
        first.set(20);
        assert_eq!((cache.scan_bytes(), second.has_room_ahead()), (321, true));
        drop(first);
        drop(second);
        assert_eq!(cache.scan_bytes(), 0);
    }
}
