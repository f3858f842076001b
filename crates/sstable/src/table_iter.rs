//! Iterates over one table. Skeleton.

use std::sync::Arc;

use esker_base::iterator::InternalIterator;
use esker_base::{Result, Trailer};

use crate::block::PinnedValue;
use crate::table_cache::TableHandle;

/// Whether an iterator leaves the blocks it reads in the block cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillCache {
    /// Yes: a user's scan.
    Yes,
    /// No: a compaction, which reads ahead in large pieces of its own.
    No,
}

/// Iterates over one table.
#[derive(Debug)]
pub struct TableIter {
    _private: (),
}

impl TableIter {
    /// An iterator that stands nowhere yet.
    ///
    /// # Errors
    /// Those of opening the table.
    pub fn new(_handle: &Arc<TableHandle>, _fill: FillCache) -> Result<Self> {
        todo!()
    }
    /// The value of the record without copying it.
    #[must_use]
    pub fn pinned_value(&self) -> PinnedValue {
        todo!()
    }
}

impl InternalIterator for TableIter {
    fn valid(&self) -> bool {
        todo!()
    }
    fn seek_to_first(&mut self) -> Result<()> {
        todo!()
    }
    fn seek_to_last(&mut self) -> Result<()> {
        todo!()
    }
    fn seek(&mut self, _user_key: &[u8], _trailer: Trailer) -> Result<()> {
        todo!()
    }
    fn seek_for_prev(&mut self, _user_key: &[u8], _trailer: Trailer) -> Result<()> {
        todo!()
    }
    fn next(&mut self) -> Result<()> {
        todo!()
    }
    fn prev(&mut self) -> Result<()> {
        todo!()
    }
    fn user_key(&self) -> &[u8] {
        todo!()
    }
    fn trailer(&self) -> Trailer {
        todo!()
    }
    fn value(&self) -> &[u8] {
        todo!()
    }
}
