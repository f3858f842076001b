//! The blocks of a table that is being written, on their way into the cache.
//!
//! Whoever reads a key that was just flushed or merged would read, check and decompress a block that was in
//! memory a moment ago. So a writer keeps what the cache has room for, and the table takes it over when it
//! is opened to be checked. A block that the cache has as another table's is left there, where it may still have to go,
//! and shared when the table is opened. Where nothing is read nothing is kept, and no more than reads have had use for.
//!
//! Invariant: what is kept here was reserved in the cache before it was made, out of free room only, and what is noted as
//! kept elsewhere takes none: no block that somebody reads has to go for it. What no table takes over is released. Filled by
//! `table_writer`, carried by compaction, emptied by `table`.

use std::sync::{Arc, Weak};

use crate::block::{self, Block, BlockParts};
use crate::block_cache::{BlockCache, BlockSlots};
use crate::stored_record::CachedAt;

/// Blocks of one new table, in their order, as far as there was room for them.
#[derive(Debug)]
pub struct NewBlocks {
    cache: Arc<BlockCache>,
    /// One entry for each data block of the table.
    blocks: Vec<Option<Block>>,
    /// Which blocks hung in other tables' slots when they were handed on, and in which, in their order.
    elsewhere: Vec<Elsewhere>,
}

#[derive(Debug)]
struct Elsewhere {
    block: usize,
    slots: Weak<BlockSlots>,
    index: usize,
}

impl NewBlocks {
    pub(crate) fn new(cache: &Arc<BlockCache>) -> Self {
        Self {
            cache: Arc::clone(cache),
            blocks: Vec::new(),
            elsewhere: Vec::new(),
        }
    }

    /// Keeps the next data block, whose contents are `payload`, if the cache has room for it that reads want.
    pub(crate) fn push(&mut self, payload: &[u8]) {
        // A builder's block is well formed; one that were not is found where it is read.
        let cache = Arc::clone(&self.cache);
        let make = || block::parse(payload, cache.block_memory()).ok();
        self.keep(payload.len(), make);
    }

    /// The same for a data block that is in memory already, and may be cached as another table's.
    pub(crate) fn push_block(&mut self, block: &Block, at: CachedAt<'_>) {
        if at.slots.peek(at.index).is_some() {
            self.elsewhere.push(Elsewhere {
                block: self.blocks.len(),
                slots: Arc::downgrade(at.slots),
                index: at.index,
            });
            self.blocks.push(None);
            return;
        }
        self.keep(block.room().len(), || Some(block.clone()));
    }

    fn keep(&mut self, content_bytes: usize, make: impl FnOnce() -> Option<Block>) {
        let bytes = block::memory_bytes_of(content_bytes);
        let mut kept = None;
        if self.cache.reserve_new(bytes) {
            kept = make();
            if kept.is_none() {
                self.cache.release(bytes);
            }
        }
        self.blocks
            .push(kept.filter(|block| self.cache.keep(block)));
    }

    /// The number of data blocks, whether they are kept or not.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether any of the blocks from `start` on is kept, here or elsewhere.
    pub(crate) fn keeps_some(&self, start: usize) -> bool {
        let is_elsewhere = self
            .elsewhere
            .last()
            .is_some_and(|last| last.block >= start);
        is_elsewhere || self.blocks.iter().skip(start).any(Option::is_some)
    }

    /// Hangs the blocks from `start` on into `slots`, one for each slot.
    pub(crate) fn fill(&mut self, start: usize, slots: &Arc<BlockSlots>) {
        for (index, block) in self.blocks.iter_mut().skip(start).enumerate() {
            if index == slots.len() {
                break;
            }
            if let Some(block) = block.take() {
                slots.adopt(index, block);
            }
        }
        let from = self.elsewhere.partition_point(|at| at.block < start);
        let mine = self.elsewhere[from..]
            .iter()
            .take_while(|at| at.block - start < slots.len());
        for at in mine {
            // A table that is gone took its blocks along.
            if let Some(other) = at.slots.upgrade() {
                slots.adopt_from(at.block - start, &other, at.index);
            }
        }
    }
}

impl Drop for NewBlocks {
    fn drop(&mut self) {
        for block in self.blocks.iter().flatten() {
            self.cache.let_go(block);
        }
    }
}
