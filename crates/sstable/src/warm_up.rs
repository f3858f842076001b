//! Warms a table up for reads that have shown that they want much of it, in two stages.
//!
//! A read of a block that neither this process nor the system has cached waits for the device, which fetches
//! a whole piece of the file in hardly more time than one block. So a table that reads have missed some
//! blocks of is fetched into the system's cache, front to back; that takes no memory of this process. Blocks
//! that are missed then cost their decompression. Where reads have missed so many that they want most of the
//! table, the rest is loaded into the block cache, by somebody whom nobody waits for.
//!
//! Invariants: open tables have at most twice as much fetched as the block cache may hold; what is loaded takes free
//! room only, so that nothing that is read goes for it, and is checked like every block; each stage once for each
//! open table. One piece at a time is asked of the device, so that a read which needs it meanwhile waits for
//! no more than that. Called by db's background.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use esker_base::Result;

use crate::read_ahead::ReadAhead;
use crate::table::Table;

/// The part of a table's blocks that reads have missed before the file is fetched. The device takes about as long
/// for all of it as for a 32nd of the blocks one by one; what has begun goes on often enough to be early.
const FETCHED_PART: u64 = 128;
/// The part that they have missed before the rest is loaded, which takes the memory of all its blocks.
const LOADED_PART: u64 = 4;
/// Tables of fewer blocks than this are left to their readers.
const LEAST_MISSED: u64 = 64;

/// What is fetched at once: enough for the device to be busy, little for a read that waits behind it.
const PIECE_BYTES: u64 = 128 << 10;

/// Nothing has been done yet.
const UNTOUCHED: u8 = 0;
/// The file was fetched, or would have been.
const FETCHED: u8 = 1;
/// The blocks were loaded, or would have been: no more misses are counted.
const LOADED: u8 = 2;

/// How often a table's blocks were missed, and what has come of that.
#[derive(Debug, Default)]
pub(crate) struct Warmth {
    misses: AtomicU32,
    stage: AtomicU8,
    fetched_bytes: AtomicUsize,
}

impl Warmth {
    /// Counts a block that a read has loaded.
    #[inline]
    pub(crate) fn note_miss(&self) {
        if self.stage.load(Ordering::Relaxed) < LOADED {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How much of the file was fetched, bytes.
    pub(crate) fn fetched_bytes(&self) -> usize {
        self.fetched_bytes.load(Ordering::Relaxed)
    }
}

impl Table {
    /// Whether so many blocks were missed that [`Table::warm_up`] is due.
    #[must_use]
    #[inline]
    pub fn wants_warming(&self) -> bool {
        let misses = u64::from(self.warmth.misses.load(Ordering::Relaxed));
        misses >= LEAST_MISSED && self.stage_due(misses).is_some()
    }

    /// The stage that so many misses are enough for, unless it was reached before.
    fn stage_due(&self, misses: u64) -> Option<u8> {
        let blocks = self.properties().data_blocks;
        let due = |part| misses >= LEAST_MISSED.max(blocks / part);
        match self.warmth.stage.load(Ordering::Relaxed) {
            UNTOUCHED if due(FETCHED_PART) => Some(FETCHED),
            FETCHED if due(LOADED_PART) => Some(LOADED),
            _ => None,
        }
    }

    /// Takes the table to the stage that is due, while `goes_on`. Does nothing where none is.
    ///
    /// # Errors
    /// I/O errors and damage of what is read.
    pub fn warm_up(&self, goes_on: impl Fn() -> bool) -> Result<()> {
        let misses = u64::from(self.warmth.misses.load(Ordering::Relaxed));
        let Some(stage) = self.stage_due(misses) else {
            return Ok(());
        };
        self.warmth.stage.store(stage, Ordering::Relaxed);
        match stage {
            FETCHED => self.fetch(goes_on),
            _ => self.load_rest(goes_on),
        }
    }

    /// Has the system fetch the data blocks into its cache.
    fn fetch(&self, goes_on: impl Fn() -> bool) -> Result<()> {
        let file = self.block_file();
        let end = self.properties().data_bytes;
        let mut start = 0;
        while start < end && goes_on() {
            let bytes = PIECE_BYTES.min(end - start);
            if !self.cache().reserve_fetched(bytes as usize) {
                break;
            }
            let fetched = &self.warmth.fetched_bytes;
            fetched.fetch_add(bytes as usize, Ordering::Relaxed);
            file.file.will_read(start, bytes);
            start += bytes;
            // The last byte is there when the piece is.
            file.read_exact(&mut [0], start - 1)?;
        }
        Ok(())
    }

    /// Loads the blocks that are not in the cache, as far as it has free room.
    fn load_rest(&self, goes_on: impl Fn() -> bool) -> Result<()> {
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
