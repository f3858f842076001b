//! Walks over one sorted run: disjoint tables in ascending order, of which one is open at a time.
//!
//! Invariant: whatever the size of the run, memory is that of one [`TableIter`] (I9). The bounds of
//! a table may reach further than its records (its range tombstones may), so that a table can turn
//! out to have nothing where it was looked for: the walk goes on in the next one. Used by scans and
//! by compaction.

use std::sync::Arc;

use esker_base::iterator::{Direction, InternalIterator, RecordView, Step};
use esker_base::{Result, Trailer};

use crate::block::PinnedValue;
use crate::block_expiries::SkipBlocks;
use crate::run_seek::RunSeek;
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

    /// For who stands nowhere from now on and may seek again, or not, some time: keeps the table open and the
    /// last block at hand, unless they count against a bound on memory.
    pub fn rest(&mut self) {
        self.current
            .take_if(|current| current.holds_counted_memory());
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
    ///
    /// # Errors
    /// I/O; Corruption.
    pub fn stored_record(&mut self) -> Result<Option<StoredRecord<'_>>> {
        match &mut self.current {
            Some(current) => current.stored_record(),
            None => Ok(None),
        }
    }

    /// Goes over to table `position`.
    fn open(&mut self, position: usize) -> Result<&mut TableIter> {
        if self.position != position {
            self.current = None;
        }
        self.position = position;
        match &mut self.current {
            Some(current) => {
                self.tables[position].mark_referenced();
                Ok(current)
            }
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

    /// The table in which the first record at or after `key` lies, or right behind it.
    #[inline]
    fn position_of(&self, key: &[u8]) -> usize {
        // Where a run's only table ends its index says as well, which is looked at anyway; its description lies
        // three pointers away. That is no reason to open the table.
        if self.tables.len() == 1 && self.current.is_some() {
            return 0;
        }
        self.tables
            .partition_point(|table| table.meta().bounds.ends_before(key))
    }

    /// The first of the steps of a seek. Whoever seeks several runs takes each step of all of them before the
    /// next, so that they wait for memory once and not once each. `None` where the run is to be sought
    /// at once.
    ///
    /// # Errors
    /// As [`InternalIterator::seek`].
    pub fn begin_seek(&mut self, key: &[u8], trailer: Trailer) -> Result<Option<RunSeek>> {
        let position = self.position_of(key);
        if position == self.tables.len() || self.has_no_entry(position) {
            return Ok(None);
        }
        let begun = self
            .open(position)
            .and_then(|iter| iter.begin_seek(key, trailer));
        if begun.is_err() {
            self.current = None;
        }
        begun
    }

    /// The second step: takes the block, if it is cached.
    #[inline]
    pub fn take_block(&self, seek: &mut RunSeek) {
        if let Some(current) = &self.current {
            current.take_block(seek);
        }
    }

    /// The third step: searches what the block says of its records.
    #[inline]
    pub fn search_slots(&mut self, seek: &mut RunSeek, key: &[u8]) {
        if let Some(current) = &mut self.current {
            current.search_slots(seek, key);
        }
    }

    /// The last step, of a seek to the same place as the first: the run stands where
    /// [`InternalIterator::seek`] would have brought it.
    ///
    /// # Errors
    /// As [`InternalIterator::seek`].
    pub fn finish_seek(&mut self, seek: &RunSeek, key: &[u8], trailer: Trailer) -> Result<()> {
        let Some(current) = &mut self.current else {
            return self.seek(key, trailer);
        };
        let moved = current.finish_seek(seek, key, trailer);
        match moved {
            Ok(()) if current.valid() => Ok(()),
            Ok(()) => self.next_table(),
            Err(error) => self.settle(Err(error)),
        }
    }

    fn try_seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        let position = self.position_of(key);
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

    /// Goes on with [`InternalIterator::step`] where the table has ended, or failed.
    #[cold]
    fn step_out_of_table(&mut self, step: Result<Step>, direction: Direction) -> Result<Step> {
        if let Err(error) = step {
            return self.settle(Err(error)).map(|()| Step::End);
        }
        match direction {
            Direction::Forward => self.next_table()?,
            Direction::Backward => self.previous_table()?,
        }
        Ok(if self.valid() {
            Step::To(self.trailer())
        } else {
            Step::End
        })
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

    #[inline]
    fn step(&mut self, direction: Direction) -> Result<Step> {
        let Some(current) = &mut self.current else {
            return Ok(Step::End);
        };
        match current.step(direction) {
            step @ Ok(Step::To(_) | Step::Stayed) => step,
            step => self.step_out_of_table(step, direction),
        }
    }
}
