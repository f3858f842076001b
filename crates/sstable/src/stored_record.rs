//! A record as its table stores it, for merges that hand it on as it is.
//!
//! A value that fills a block of its own has been compressed once. Where a merge changes nothing of its record,
//! the new table takes the stored block over and only seals it anew, since a seal is bound to its place:
//! that costs a tenth of compressing it again.
//!
//! Invariant: the checksum of the stored block matched, and the block holds this record alone, under the trailer that
//! it shows. Made by `table_iter`, consumed by `table_writer`.

use std::sync::Arc;

use esker_base::iterator::RecordView;

use crate::block::Block;
use crate::block_cache::BlockSlots;
use crate::options::Compression;

/// A record that has a block of its own, as its table stores it.
#[derive(Clone, Copy, Debug)]
pub struct StoredRecord<'a> {
    /// The record.
    pub view: RecordView<'a>,
    /// The stored block up to its checksum.
    pub(crate) checked: &'a [u8],
    /// The block in memory.
    pub(crate) block: &'a Block,
    /// Where its table keeps it, if it is cached.
    pub(crate) at: CachedAt<'a>,
    /// What its table was asked to compress with: what does not shrink is stored as it is.
    pub(crate) compression: Compression,
}

/// The slot of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CachedAt<'a> {
    /// Its table's slots.
    pub(crate) slots: &'a Arc<BlockSlots>,
    /// Which of them.
    pub(crate) index: usize,
}
