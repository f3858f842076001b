//! Iterates over one sorted run of tables. Skeleton.

use std::sync::Arc;

use esker_base::iterator::InternalIterator;
use esker_base::{Result, Trailer};

use crate::block::PinnedValue;
use crate::table_cache::TableHandle;
use crate::table_iter::FillCache;

/// Iterates over one sorted run of tables.
#[derive(Debug)]
pub struct LevelIter {
    _private: (),
}

impl LevelIter {
    /// An iterator over disjoint, ascending tables that stands nowhere yet.
    #[must_use]
    pub fn new(_tables: Arc<[Arc<TableHandle>]>, _fill: FillCache) -> Self {
        todo!()
    }
    /// The value of the record without copying it.
    #[must_use]
    pub fn pinned_value(&self) -> PinnedValue {
        todo!()
    }
}

impl InternalIterator for LevelIter {
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
