//! Walks over one sorted run: disjoint tables in ascending order, of which one is open at a time.
//!
//! Invariant: whatever the size of the run, memory is that of one [`TableIter`] (I9). The bounds of
//! a table may reach further than its records (its range tombstones may), so that a table can turn
//! out to have nothing where it was looked for: the walk goes on in the next one. Used by scans and
//! by compaction.

use std::sync::Arc;

use esker_base::iterator::{Direction, InternalIterator, RecordView};
use esker_base::{Result, Trailer};

use crate::block::PinnedValue;
use crate::block_expiries::SkipBlocks;
use crate::stored_record::StoredRecord;
use crate::table_cache::TableHandle;
use crate::table_iter::{FillCache, TableIter};

/// An iterator over the point records of one sorted run of tables.
#[derive(Debug)]
pub struct LevelIter {
    tables: Arc<[Arc<TableHandle>]>,
    fill: FillCache,
    /// The table of `current`.
    position: usize,
    current: Option<TableIter>,
    skip: SkipBlocks,
}

impl LevelIter {
    /// An iterator over disjoint tables in ascending order. It stands nowhere and opens nothing yet.
    #[must_use]
    pub fn new(tables: Arc<[Arc<TableHandle>]>, fill: FillCache) -> Self {
        Self {
            tables,
            fill,
            position: 0,
            current: None,
            skip: SkipBlocks::None,
        }
    }

    /// Leaves out blocks and tables that the walk need not read.
    #[must_use]
    pub fn skipping(mut self, skip: SkipBlocks) -> Self {
        self.skip = skip;
        self
    }

    /// The value of the current record without copying it.
    ///
    /// # Panics
    /// If the iterator is not valid.
    #[must_use]
    pub fn pinned_value(&self) -> PinnedValue {
        match &self.current {
            Some(current) => current.pinned_value(),
            None => unreachable!("pinned_value is called only while the iterator is valid"),
        }
    }

    /// The current record as its table stores it; see [`TableIter::stored_record`].
    pub fn stored_record(&mut self) -> Option<StoredRecord<'_>> {
        self.current.as_mut()?.stored_record()
    }

    /// Goes over to table `position`.
    fn open(&mut self, position: usize) -> Result<&mut TableIter> {
        if self.position != position {
            self.current = None;
        }
        self.position = position;
        match &mut self.current {
            Some(current) => Ok(current),
            none => {
                let iter = TableIter::new(&self.tables[position], self.fill)?;
                Ok(none.insert(iter.skipping(self.skip.clone())))
            }
        }
    }

    /// Whether the walk meets no point record of table `position`, which its description tells.
    fn has_no_entry(&self, position: usize) -> bool {
        let meta = self.tables[position].meta();
        let is_skipped = match &self.skip {
            SkipBlocks::None => false,
            SkipBlocks::Expired(clock) => {
                meta.expiring_entries == meta.entries
                    && meta.latest_expiry_millis <= clock.now_millis()
            }
            SkipBlocks::NothingExpired { until } => {
                meta.expiring_entries == 0 || meta.earliest_expiry_millis > *until
            }
        };
        meta.entries == 0 || is_skipped
    }

    /// Goes to the first record of the tables from `position` on.
    fn first_from(&mut self, position: usize) -> Result<()> {
        for position in position..self.tables.len() {
            if self.has_no_entry(position) {
                continue;
            }
            let iter = self.open(position)?;
            iter.seek_to_first()?;
            if iter.valid() {
                return Ok(());
            }
        }
        self.current = None;
        Ok(())
    }

    /// Goes to the last record of the tables before `position`.
    fn last_before(&mut self, position: usize) -> Result<()> {
        for position in (0..position).rev() {
            if self.has_no_entry(position) {
                continue;
            }
            let iter = self.open(position)?;
            iter.seek_to_last()?;
            if iter.valid() {
                return Ok(());
            }
        }
        self.current = None;
        Ok(())
    }

    fn try_seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        let position = self
            .tables
            .partition_point(|table| table.meta().bounds.ends_before(key));
        if position == self.tables.len() {
            self.current = None;
            return Ok(());
        }
        if self.has_no_entry(position) {
            return self.first_from(position + 1);
        }
        let iter = self.open(position)?;
        iter.seek(key, trailer)?;
        if iter.valid() {
            Ok(())
        } else {
            self.first_from(position + 1)
        }
    }

    fn try_seek_for_prev(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        let after = |table: &Arc<TableHandle>| table.meta().bounds.smallest.as_slice() <= key;
        let Some(position) = self.tables.partition_point(after).checked_sub(1) else {
            self.current = None;
            return Ok(());
        };
        if self.has_no_entry(position) {
            return self.last_before(position);
        }
        let iter = self.open(position)?;
        iter.seek_for_prev(key, trailer)?;
        if iter.valid() {
            Ok(())
        } else {
            self.last_before(position)
        }
    }

    /// Invalidates the iterator where a movement failed.
    fn settle(&mut self, moved: Result<()>) -> Result<()> {
        if moved.is_err() {
            self.current = None;
        }
        moved
    }

    #[cold]
    fn next_table(&mut self) -> Result<()> {
        let moved = self.first_from(self.position + 1);
        self.settle(moved)
    }

    #[cold]
    fn previous_table(&mut self) -> Result<()> {
        let moved = self.last_before(self.position);
        self.settle(moved)
    }
}

impl InternalIterator for LevelIter {
    #[inline]
    fn valid(&self) -> bool {
        self.current.as_ref().is_some_and(TableIter::valid)
    }

    fn seek_to_first(&mut self) -> Result<()> {
        let moved = self.first_from(0);
        self.settle(moved)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        let moved = self.last_before(self.tables.len());
        self.settle(moved)
    }

    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        let moved = self.try_seek(user_key, trailer);
        self.settle(moved)
    }

    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        let moved = self.try_seek_for_prev(user_key, trailer);
        self.settle(moved)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        match current.next() {
            Ok(()) if current.valid() => Ok(()),
            Ok(()) => self.next_table(),
            Err(error) => self.settle(Err(error)),
        }
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        match current.prev() {
            Ok(()) if current.valid() => Ok(()),
            Ok(()) => self.previous_table(),
            Err(error) => self.settle(Err(error)),
        }
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], TableIter::user_key)
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.current
            .as_ref()
            .map_or(Trailer::OLDEST, TableIter::trailer)
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], TableIter::value)
    }

    #[inline]
    fn record(&self) -> RecordView<'_> {
        let nothing = RecordView {
            user_key: &[],
            trailer: Trailer::OLDEST,
            value: &[],
        };
        self.current.as_ref().map_or(nothing, TableIter::record)
    }

    #[inline]
    fn neighbour_differs(&self, direction: Direction) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| current.neighbour_differs(direction))
    }
}
