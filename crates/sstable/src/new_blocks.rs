//! The blocks of a table that is being written, on their way into the cache.
//!
//! Whoever reads a key that was just flushed or merged would read, check and decompress a block that was in
//! memory a moment ago. So a writer keeps what the cache has room for, and the table takes it over when it
//! is opened to be checked. Where nothing is read nothing is kept, and no more than reads have had use for.
//!
//! Invariant: what is kept here was reserved in the cache before it was made, out of free room only: no
//! block that somebody reads has to go for it. What no table takes over is released. Filled by
//! `table_writer`, carried by compaction, emptied by `table`.

use std::sync::Arc;

use crate::block::{self, Block, BlockParts};
use crate::block_cache::{BlockCache, BlockSlots};

/// Blocks of one new table, in their order, as far as there was room for them.
#[derive(Debug)]
pub struct NewBlocks {
    cache: Arc<BlockCache>,
    /// One entry for each data block of the table.
    blocks: Vec<Option<Block>>,
    reserved_bytes: usize,
}

impl NewBlocks {
    pub(crate) fn new(cache: &Arc<BlockCache>) -> Self {
        Self {
            cache: Arc::clone(cache),
            blocks: Vec::new(),
            reserved_bytes: 0,
        }
    }

    /// Keeps the next data block, whose contents are `payload`, if the cache has room for it that reads want.
    pub(crate) fn push(&mut self, payload: &[u8]) {
        // A builder's block is well formed; one that were not is found where it is read.
        let cache = Arc::clone(&self.cache);
        let make = || block::parse(payload, cache.block_memory()).ok();
        self.keep(payload.len(), make);
    }

    /// The same for a data block that is in memory already.
    pub(crate) fn push_block(&mut self, block: &Block) {
        self.keep(block.room().len(), || Some(block.clone()));
    }

    fn keep(&mut self, content_bytes: usize, make: impl FnOnce() -> Option<Block>) {
        let bytes = block::memory_bytes_of(content_bytes);
        let mut kept = None;
        if self.cache.reserve_new(bytes) {
            self.reserved_bytes += bytes;
            kept = make();
        }
        self.blocks.push(kept);
    }

    /// The number of data blocks, whether they are kept or not.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether any of the blocks from `start` on is kept.
    pub(crate) fn keeps_some(&self, start: usize) -> bool {
        self.blocks.iter().skip(start).any(Option::is_some)
    }

    /// Hangs the blocks from `start` on into `slots`, one for each slot.
    pub(crate) fn fill(&mut self, start: usize, slots: &Arc<BlockSlots>) {
        for (index, block) in self.blocks.iter_mut().skip(start).enumerate() {
            if index == slots.len() {
                break;
            }
            if let Some(block) = block.take() {
                self.reserved_bytes -= block.memory_bytes();
                slots.adopt(index, block);
            }
        }
    }
}

impl Drop for NewBlocks {
    fn drop(&mut self) {
        self.cache.release(self.reserved_bytes);
    }
}
