//! The bound that cached blocks share with what cannot make room for others: lent blocks, open tables, scans.
//!
//! Invariants: where a bound is set, `used_bytes` stays below what the others leave of it, as far as blocks can be
//! evicted; once nothing is left scans get no more memory, and lookups only what they give back at once. A block
//! counts once, however many hold it. Set by db, which asks for each cursor ([`BlockCache::admit_scan`]) as
//! `table_iter` does for each block.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use esker_base::{Error, ErrorKind, Result};

use super::BlockCache;
use crate::block_memory::BlockMemory;
use crate::held_memory::ScanMemory;

/// Scans that have begun may go beyond the bound by this part of it: their blocks differ in size.
const PART_BEYOND: usize = 4;

impl BlockCache {
    /// Keeps blocks, whoever holds them, the indexes and filters of open tables and what iterators hold below `bytes`
    /// together: cached blocks make room, and when they are gone scans get no more ([`BlockCache::admit_scan`]).
    /// Where scans and lent blocks together hold more than `scan_bytes` scans read no further ahead. Set before the first
    /// block is made: where there is no bound none counts, so that lookups that miss share no more numbers than they must.
    pub fn share(&self, bytes: usize, scan_bytes: usize) {
        self.scan_share_bytes.store(scan_bytes, Ordering::Relaxed);
        self.shared_bytes.store(bytes, Ordering::Relaxed);
        self.shrink();
    }

    /// The memory that scans hold: their buffers, and, where a bound is set, the blocks that are lent to them and
    /// others.
    #[must_use]
    pub fn scan_bytes(&self) -> usize {
        self.scans.bytes() + self.lent_bytes()
    }

    /// Blocks that somebody holds and that hang in no slot.
    fn lent_bytes(&self) -> usize {
        // A block that is being read has its room before it is there.
        self.memory.bytes().saturating_sub(self.used_bytes())
    }

    /// Where new blocks count, if a bound is set.
    #[inline]
    pub(crate) fn block_memory(&self) -> Option<&Arc<BlockMemory>> {
        self.is_shared().then_some(&self.memory)
    }

    pub(crate) fn scans(&self) -> &ScanMemory {
        &self.scans
    }

    /// Whether what is lent and what scans hold counts against a bound.
    #[must_use]
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.shared_bytes.load(Ordering::Relaxed) != usize::MAX
    }

    /// Whether scans may read more than they need at once, and values be lent that readers could have a copy of.
    #[must_use]
    pub fn has_room_ahead(&self) -> bool {
        self.scan_bytes() <= self.scan_share_bytes.load(Ordering::Relaxed)
    }

    /// Fails where one scan more may not begin: what cannot make room has all of the bound.
    ///
    /// # Errors
    /// [`LimitExceeded`](ErrorKind::LimitExceeded).
    pub fn admit_scan(&self) -> Result<()> {
        self.admit_below(self.shared_bytes.load(Ordering::Relaxed))
    }

    /// Fails where a scan may not have a block that is not cached. One that gives back as much as it takes
    /// always may, since others do not begin before.
    ///
    /// # Errors
    /// As [`BlockCache::admit_scan`].
    pub(crate) fn admit_block(&self) -> Result<()> {
        let shared = self.shared_bytes.load(Ordering::Relaxed);
        self.admit_below(shared.saturating_add(shared / PART_BEYOND))
    }

    fn admit_below(&self, most_bytes: usize) -> Result<()> {
        if self.table_bytes() + self.scan_bytes() < most_bytes {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::LimitExceeded,
            "open scans and values that are still held leave nothing of memory_budget_bytes for one more: drop some \
             of them, or raise the budget",
        ))
    }

    /// The memory that open tables take beside their cached blocks: indexes, filters, range tombstones.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.table_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_table_bytes(&self, bytes: usize) {
        self.table_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shrink();
    }

    pub(crate) fn remove_table_bytes(&self, bytes: usize) {
        self.table_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What blocks may take now.
    pub(crate) fn room_bytes(&self) -> usize {
        self.room_bytes_with(0)
    }

    /// The same, where `spare_bytes` of what is lent are about to be given back or cached.
    pub(super) fn room_bytes_with(&self, spare_bytes: usize) -> usize {
        let held = self.table_bytes() + self.scan_bytes();
        let others = held.saturating_sub(spare_bytes);
        let shared = self.shared_bytes.load(Ordering::Relaxed);
        self.capacity_bytes().min(shared.saturating_sub(others))
    }
}

#[cfg(test)]
mod tests;
