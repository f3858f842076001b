//! Loads the rest of a table into the cache once reads have shown that they want most of it.
//!
//! What was written while nobody read is not in the cache, and every read that comes to another block of it
//! waits for that block alone. A table that reads have missed so many blocks of is loaded front to back, in
//! large pieces, by somebody whom nobody waits for.
//!
//! Invariants: out of free room only, so that nothing that is read goes for it; once for each open table;
//! what is loaded is checked like every block. Called by db's background.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use esker_base::Result;

use crate::read_ahead::ReadAhead;
use crate::table::Table;

/// The part of a table's blocks that reads have missed before the rest is loaded.
const MISSED_PART: u64 = 32;
/// Tables of fewer blocks than this are left to their readers.
const LEAST_MISSED: u64 = 64;

/// How often a table's blocks were missed, and whether that has had consequences.
#[derive(Debug, Default)]
pub(crate) struct Misses {
    count: AtomicU32,
    is_settled: AtomicBool,
}

impl Misses {
    /// Counts a block that a read has loaded.
    #[inline]
    pub(crate) fn note(&self) {
        if !self.is_settled.load(Ordering::Relaxed) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Table {
    /// Whether so many blocks were missed that [`Table::warm_up`] is due.
    #[must_use]
    #[inline]
    pub fn wants_warming(&self) -> bool {
        let missed = u64::from(self.misses.count.load(Ordering::Relaxed));
        missed >= LEAST_MISSED.max(self.properties().data_blocks / MISSED_PART)
            && !self.misses.is_settled.load(Ordering::Relaxed)
    }

    /// Loads the blocks that are not in the cache, as far as it has free room, while `goes_on`. Does nothing
    /// the second time.
    ///
    /// # Errors
    /// I/O errors and damage of what is read.
    pub fn warm_up(&self, goes_on: impl Fn() -> bool) -> Result<()> {
        if self.misses.is_settled.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let file = self.block_file();
        let mut ahead = ReadAhead::new(true);
        let mut scratch = Vec::new();
        for partition in 0..self.leaves() {
            let leaf = self.leaf(partition)?;
            for index in 0..leaf.index.len() {
                if leaf.slots.peek(index).is_some() {
                    continue;
                }
                let handle = leaf.index.handle(index);
                let limit = leaf.index.end_offset();
                let block = ahead
                    .stored(file, handle, limit)
                    .and_then(|stored| file.unpack(stored, handle.offset, &mut scratch))
                    .and_then(|contents| self.parse_block(contents, handle))
                    .map_err(|error| self.with_keys(error))?;
                if !goes_on() || !leaf.slots.insert_if_free(index, block) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
