//! Walks over the point records of one table, in both directions.
//!
//! Invariant: holds the table, one block (a second one within a seek) and at most one piece of read-ahead, whatever the size of
//! the table (I9). A failed movement leaves it invalid. Used by `level_iter`, by scans and by
//! compaction.

use std::cmp::Ordering;
use std::sync::Arc;

use arc_swap::Guard;
use esker_base::iterator::{Direction, InternalIterator, RecordView, Step};
use esker_base::{Result, Trailer};

use crate::block::{Block, BlockParts, PinnedValue};
use crate::block_expiries::SkipBlocks;
use crate::block_io;
use crate::block_iter::BlockIter;
use crate::run_seek::RunSeek;
use crate::stored_record::{CachedAt, StoredRecord};
use crate::table::Table;
use crate::table_cache::TableHandle;

mod loading;

use loading::Loading;

/// Whether an iterator leaves the blocks it reads in the block cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillCache {
    /// Yes: a user's scan, which is refused blocks that a memory budget has nothing left for.
    Yes,
    /// Yes, and never refused: a part of a lookup, a write or a job, which gives back what it takes at once.
    Briefly,
    /// No: a compaction, which reads each block once, ahead and in large pieces of its own.
    No,
}

/// How many entries before it leaves a block a walk begins to load the one that comes then.
const BLOCK_AHEAD: usize = 8;
/// The same for the last entries of the block before.
const BLOCK_END_AHEAD: usize = 4;
/// The largest block that an iterator keeps while it rests.
const RESTING_BLOCK_BYTES: usize = 32 << 10;

/// An iterator over the point records of one table.
#[derive(Debug)]
pub struct TableIter {
    table: Arc<Table>,
    fill: FillCache,
    /// The current block: partition of the index, and block in it.
    leaf: usize,
    block: usize,
    entries: BlockIter,
    /// Made for the first block that is not cached.
    loading: Option<Box<Loading>>,
    skip: SkipBlocks,
}

impl TableIter {
    /// An iterator over the table of `handle`, which it keeps open. It stands nowhere yet.
    ///
    /// # Errors
    /// Those of opening the table.
    pub fn new(handle: &Arc<TableHandle>, fill: FillCache) -> Result<Self> {
        Ok(Self::over(handle.table_arc()?, fill))
    }

    /// An iterator over an open table. It stands nowhere yet.
    #[must_use]
    pub fn over(table: Arc<Table>, fill: FillCache) -> Self {
        Self {
            table,
            fill,
            leaf: 0,
            block: 0,
            entries: BlockIter::new(),
            loading: None,
            skip: SkipBlocks::None,
        }
    }

    /// Leaves out blocks that the walk need not read.
    #[must_use]
    pub fn skipping(mut self, skip: SkipBlocks) -> Self {
        self.skip = skip;
        self
    }

    /// Whether what it holds is too much for who only may go on: what it has read itself, a large block, and
    /// anything where memory has a bound that blocks count against.
    pub(crate) fn holds_counted_memory(&self) -> bool {
        self.loading.is_some()
            || self.table.cache().is_shared()
            || self.entries.block_bytes() > RESTING_BLOCK_BYTES
    }

    fn skips(&self, leaf: usize, block: usize) -> Result<bool> {
        if matches!(self.skip, SkipBlocks::None) {
            return Ok(false);
        }
        let offset = self.table.leaf(leaf)?.index.handle(block).offset;
        self.table.skips_block(offset, &self.skip)
    }

    /// The value of the current record without copying it.
    ///
    /// # Panics
    /// If the iterator is not valid.
    #[must_use]
    pub fn pinned_value(&self) -> PinnedValue {
        match self.entries.pinned_value() {
            Some(value) => value,
            None => unreachable!("pinned_value is called only while the iterator is valid"),
        }
    }

    /// The current record as the table stores it, if that is in a block of its own, under the sequence number
    /// that it shows.
    ///
    /// # Errors
    /// I/O; Corruption: the file does not hold it any more as it was read. The record itself is in memory.
    pub fn stored_record(&mut self) -> Result<Option<StoredRecord<'_>>> {
        let trailer = self.entries.trailer();
        let Some(block) = self.entries.lone_block() else {
            return Ok(None);
        };
        if self.table.to_shown(trailer) != trailer {
            return Ok(None);
        }
        let leaf = self.table.leaf(self.leaf)?;
        let at = CachedAt {
            slots: &leaf.slots,
            index: self.block,
        };
        let index = &leaf.index;
        let (handle, file) = (index.handle(self.block), self.table.block_file());
        let (fill, table) = (self.fill, &self.table);
        let loading = self
            .loading
            .get_or_insert_with(|| Loading::new(fill, table));
        let stored = loading
            .read_ahead
            .stored(file, handle, index.end_offset())?;
        let checked = block_io::checked(stored, file.number, handle.offset)
            .map_err(|error| error.with_file(file.path))?;
        let view = RecordView {
            user_key: self.entries.user_key(),
            trailer,
            value: self.entries.value(),
        };
        Ok(Some(StoredRecord {
            view,
            checked,
            block,
            at,
            compression: self.table.properties().compression,
        }))
    }

    /// Leaves the current block for none other; the iterator is invalid then.
    fn leave(&mut self) {
        self.entries.leave();
        // With it goes what it has read ahead: nobody knows where it stands next.
        self.loading = None;
    }

    /// Enters a block unless it is the current one; stands on none of its records afterwards.
    fn enter(&mut self, leaf: usize, block: usize) -> Result<()> {
        if self.entries.has_block() && (self.leaf, self.block) == (leaf, block) {
            return Ok(());
        }
        self.entries.leave();
        let entered = self.load(leaf, block)?;
        self.entries.enter(entered);
        (self.leaf, self.block) = (leaf, block);
        Ok(())
    }

    fn load(&mut self, leaf: usize, index: usize) -> Result<Block> {
        let leaf = self.table.leaf(leaf)?;
        let cached = match self.fill {
            FillCache::Yes | FillCache::Briefly => leaf.slots.get(index),
            FillCache::No => leaf.slots.peek(index),
        };
        if let Some(block) = &*cached {
            // To count one more reader waits for the head: what the search needs comes meanwhile.
            block.touch();
            return Ok(block.clone());
        }
        let (fill, table) = (self.fill, &self.table);
        let loading = self
            .loading
            .get_or_insert_with(|| Loading::new(fill, table));
        let block = loading.read(&self.table, leaf, index)?;
        Ok(match self.fill {
            FillCache::Yes | FillCache::Briefly => leaf.slots.insert(index, block),
            FillCache::No => block,
        })
    }

    /// Begins to load the block that a walk comes to soon, if it is cached: blocks lie anywhere in memory,
    /// so that nothing else foresees it. What cannot be read fails when it is entered.
    fn foresee(&self, direction: Direction) {
        let Ok(leaf) = self.table.leaf(self.leaf) else {
            return;
        };
        let block = match direction {
            Direction::Forward => self.block + 1,
            Direction::Backward => self.block.wrapping_sub(1),
        };
        if block >= leaf.index.len() {
            return;
        }
        if let Some(block) = &*leaf.slots.peek(block) {
            let has_arrived =
                direction == Direction::Backward && self.entries.passed() < BLOCK_END_AHEAD;
            if has_arrived {
                block.touch_end();
            } else {
                block.touch();
            }
        }
    }

    /// Whether the block that way is known to begin, or end, with another user key than the current one.
    #[cold]
    fn next_block_differs(&self, direction: Direction) -> bool {
        let first = match direction {
            Direction::Forward => Some(self.block),
            Direction::Backward => self.block.checked_sub(1),
        };
        let leaf = self.table.leaf(self.leaf);
        leaf.is_ok_and(|leaf| first.is_some_and(|first| leaf.index.parts_keys(first)))
    }

    /// Moves to the neighbour in the block; invalid where there is none.
    #[inline]
    fn move_in_block(&mut self, direction: Direction) {
        match direction {
            Direction::Forward => {
                self.entries.next();
                if self.entries.left() == BLOCK_AHEAD {
                    self.foresee(Direction::Forward);
                }
            }
            Direction::Backward => {
                self.entries.prev();
                // First the head of the block before, and when that has arrived, its end.
                let is_time = matches!(self.entries.passed() + 1, BLOCK_AHEAD | BLOCK_END_AHEAD);
                if is_time && self.entries.valid() {
                    self.foresee(Direction::Backward);
                }
            }
        }
    }

    /// As [`InternalIterator::step`], where the neighbour is in another block.
    #[cold]
    fn step_out_of_block(&mut self, direction: Direction) -> Result<Step> {
        if !self.next_block_differs(direction) {
            return Ok(Step::Stayed);
        }
        let moved = match direction {
            Direction::Forward => self.next_block(),
            Direction::Backward => self.previous_block(),
        };
        self.settle(moved)?;
        Ok(if self.valid() {
            Step::To(self.trailer())
        } else {
            Step::End
        })
    }

    /// Called where a walk forwards may begin.
    fn foresee_next(&self) {
        if self.entries.left() <= BLOCK_AHEAD {
            self.foresee(Direction::Forward);
        }
    }

    /// Goes to the first record of the block after the current one.
    #[cold]
    fn next_block(&mut self) -> Result<()> {
        self.first_from(self.leaf, self.block + 1)
    }

    /// Goes to the first record of the blocks from `block` on.
    fn first_from(&mut self, mut leaf: usize, mut block: usize) -> Result<()> {
        // No block and no partition is empty; an index may be, where there is no record.
        while leaf < self.table.leaves() {
            if block >= self.leaf_blocks(leaf)? {
                (leaf, block) = (leaf + 1, 0);
            } else if self.skips(leaf, block)? {
                block += 1;
            } else {
                self.enter(leaf, block)?;
                self.entries.seek_to_first();
                self.foresee_next();
                return Ok(());
            }
        }
        self.leave();
        Ok(())
    }

    /// Goes to the last record of the block before the current one.
    #[cold]
    fn previous_block(&mut self) -> Result<()> {
        self.last_before(self.leaf, self.block)
    }

    /// Goes to the last record of the blocks before `block`.
    fn last_before(&mut self, mut leaf: usize, mut block: usize) -> Result<()> {
        loop {
            if let Some(previous) = block.checked_sub(1) {
                if self.skips(leaf, previous)? {
                    block = previous;
                    continue;
                }
                self.enter(leaf, previous)?;
                self.entries.seek_to_last();
                if self.entries.passed() < BLOCK_AHEAD {
                    self.foresee(Direction::Backward);
                }
                return Ok(());
            }
            let Some(previous) = leaf.checked_sub(1) else {
                self.leave();
                return Ok(());
            };
            leaf = previous;
            block = self.leaf_blocks(leaf)?;
        }
    }

    fn leaf_blocks(&mut self, leaf: usize) -> Result<usize> {
        Ok(self.table.leaf(leaf)?.index.len())
    }

    /// The first step of a seek that several iterators take together: in which block it ends. Begins to load
    /// where that hangs. `None` where the seek is to be made at once.
    #[inline]
    pub(crate) fn begin_seek(&mut self, key: &[u8], trailer: Trailer) -> Result<Option<RunSeek>> {
        let stored = self.table.to_stored(trailer);
        let Some((leaf, block)) = self.table.locate(key, stored)? else {
            return Ok(None);
        };
        let is_apart = self.fill == FillCache::No || self.skips(leaf, block)?;
        Ok((!is_apart).then(|| RunSeek::to(leaf, block)))
    }

    /// The second step: takes the block, if it is cached, and begins to load its slots.
    #[inline]
    pub(crate) fn take_block(&self, seek: &mut RunSeek) {
        if let Ok(leaf) = self.table.leaf(seek.leaf) {
            let guard = leaf.slots.get(seek.block);
            if let Some(block) = &*guard {
                block.touch();
                seek.held = Some(guard);
            }
        }
    }

    /// The third step: enters the block, searches its slots, and begins to load the entries from there on.
    #[inline]
    pub(crate) fn search_slots(&mut self, seek: &mut RunSeek, key: &[u8]) {
        if let Some(block) = seek.held.take().and_then(Guard::into_inner) {
            self.entries.enter(block);
            (self.leaf, self.block) = (seek.leaf, seek.block);
            seek.slot = Some(self.entries.begin_seek(key));
        }
    }

    /// The last step. Of the steps between the first and this one, any may have been left out.
    ///
    /// # Errors
    /// As [`InternalIterator::seek`].
    #[inline]
    pub(crate) fn finish_seek(
        &mut self,
        seek: &RunSeek,
        key: &[u8],
        trailer: Trailer,
    ) -> Result<()> {
        let moved = self.try_finish_seek(seek, key, self.table.to_stored(trailer));
        self.settle(moved)
    }

    fn try_finish_seek(&mut self, seek: &RunSeek, key: &[u8], stored: Trailer) -> Result<()> {
        match seek.slot {
            Some(slot) => self.entries.finish_seek(slot, key, stored),
            None => {
                self.enter(seek.leaf, seek.block)?;
                self.entries.seek(key, stored);
            }
        }
        if self.entries.valid() {
            self.foresee_next();
            return Ok(());
        }
        self.next_block()
    }

    /// Invalidates the iterator where a movement failed.
    fn settle(&mut self, moved: Result<()>) -> Result<()> {
        if moved.is_err() {
            self.leave();
        }
        moved
    }

    fn try_seek_to_first(&mut self) -> Result<()> {
        self.first_from(0, 0)
    }

    fn try_seek_to_last(&mut self) -> Result<()> {
        let leaf = self.table.leaves() - 1;
        let blocks = self.leaf_blocks(leaf)?;
        self.last_before(leaf, blocks)
    }

    fn try_seek(&mut self, key: &[u8], stored: Trailer) -> Result<()> {
        let Some((leaf, block)) = self.table.locate(key, stored)? else {
            self.leave();
            return Ok(());
        };
        if self.skips(leaf, block)? {
            return self.first_from(leaf, block + 1);
        }
        self.try_finish_seek(&RunSeek::to(leaf, block), key, stored)
    }

    fn try_seek_for_prev(&mut self, key: &[u8], stored: Trailer) -> Result<()> {
        let Some((leaf, block)) = self.table.locate(key, stored)? else {
            return self.try_seek_to_last();
        };
        if self.skips(leaf, block)? {
            return self.last_before(leaf, block);
        }
        self.enter(leaf, block)?;
        self.entries.seek(key, stored);
        if !self.entries.valid() {
            self.entries.seek_to_last();
        } else if self.entries.compare(key, stored) == Ordering::Greater {
            self.entries.prev();
        }
        if self.entries.valid() {
            Ok(())
        } else {
            self.previous_block()
        }
    }
}

impl InternalIterator for TableIter {
    #[inline]
    fn valid(&self) -> bool {
        self.entries.valid()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        let moved = self.try_seek_to_first();
        self.settle(moved)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        let moved = self.try_seek_to_last();
        self.settle(moved)
    }

    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        let moved = self.try_seek(user_key, self.table.to_stored(trailer));
        self.settle(moved)
    }

    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        let moved = self.try_seek_for_prev(user_key, self.table.to_stored(trailer));
        self.settle(moved)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.move_in_block(Direction::Forward);
        if self.entries.valid() {
            return Ok(());
        }
        let moved = self.next_block();
        self.settle(moved)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        self.move_in_block(Direction::Backward);
        if self.entries.valid() {
            return Ok(());
        }
        let moved = self.previous_block();
        self.settle(moved)
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        self.entries.user_key()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.table.to_shown(self.entries.trailer())
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.entries.value()
    }

    #[inline]
    fn neighbour_differs(&self, direction: Direction) -> bool {
        let differs = self.entries.neighbour_differs(direction);
        differs.unwrap_or_else(|| self.next_block_differs(direction))
    }

    #[inline]
    fn step(&mut self, direction: Direction) -> Result<Step> {
        match self.entries.neighbour_differs(direction) {
            Some(true) => {
                self.move_in_block(direction);
                Ok(Step::To(self.trailer()))
            }
            Some(false) => Ok(Step::Stayed),
            None => self.step_out_of_block(direction),
        }
    }
}
