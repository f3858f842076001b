//! Iteration over a memtable that grows meanwhile: records are taken over in batches.
//!
//! Invariant: a batch holds consecutive records, in order, as of the moment it was filled. Whatever
//! is inserted between two records of a batch later carries a higher sequence number than a reader
//! that began before may see, so that nothing due to it is missed.
//!
//! Callers: `memtable`, which wraps one [`EntryIter`] for each kind of memtable.

use crate::arena::{Record, RecordRef};
use crate::b_tree::SLOTS;
use crate::probe::Probe;
use esker_base::Trailer;
use esker_base::iterator::{Direction, Step};
use std::sync::Arc;

/// Records of one batch; also the entries of a B+tree leaf.
pub(crate) const BATCH_ENTRIES: usize = SLOTS;
/// How many records ahead of the current one are being loaded.
const PREFETCH_DISTANCE: usize = 8;
/// How many records before the last one of a batch that is being loaded the next batch is asked for.
const BATCH_DISTANCE: usize = 6;

/// Consecutive records, and where they came from.
pub(crate) struct Batch<P> {
    records: [Option<RecordRef>; BATCH_ENTRIES],
    start: usize,
    end: usize,
    /// Bit `i` says that `records[i]` has the key of the record before it, of which it is an older one.
    /// Only the bits behind `start` and before `end` count.
    pub(crate) older: u64,
    /// Whether records of the place before these were left out.
    pub(crate) is_cut: bool,
    /// Where the records came from, for the source.
    pub(crate) place: P,
}

impl<P: Default> Default for Batch<P> {
    fn default() -> Self {
        Self {
            records: [None; BATCH_ENTRIES],
            start: 0,
            end: 0,
            older: 0,
            is_cut: false,
            place: P::default(),
        }
    }
}

impl<P> Batch<P> {
    /// Empties the batch; `push_back` comes next.
    pub(crate) fn clear(&mut self) {
        (self.start, self.end, self.older, self.is_cut) = (0, 0, 0, false);
    }

    /// Empties the batch; `push_front` comes next.
    pub(crate) fn clear_for_backwards(&mut self) {
        (self.start, self.end, self.older) = (BATCH_ENTRIES, BATCH_ENTRIES, 0);
        self.is_cut = false;
    }

    /// Appends a record. At most [`BATCH_ENTRIES`] are pushed after `clear`.
    #[inline]
    pub(crate) fn push_back(&mut self, record: RecordRef) {
        self.records[self.end] = Some(record);
        self.end += 1;
    }

    /// Puts a record before the others. At most [`BATCH_ENTRIES`] are pushed after
    /// `clear_for_backwards`.
    #[inline]
    pub(crate) fn push_front(&mut self, record: RecordRef) {
        self.start -= 1;
        self.records[self.start] = Some(record);
    }

    /// Notes that record `index` of the batch, counted from its first, has the key of the one before it.
    pub(crate) fn note_older(&mut self, index: usize) {
        self.older |= 1 << (self.start + index);
    }

    /// The place of the first record behind `position` that has another key than the one before it; `end`
    /// where there is none.
    #[inline]
    fn next_key(&self, position: usize) -> usize {
        let behind = !self.older & u64::MAX.unbounded_shl(position as u32 + 1);
        (behind.trailing_zeros() as usize).min(self.end)
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn first(&self) -> Option<RecordRef> {
        self.records[self.start..self.end]
            .first()
            .copied()
            .flatten()
    }

    pub(crate) fn last(&self) -> Option<RecordRef> {
        self.records[self.start..self.end].last().copied().flatten()
    }
}

/// A memtable that hands out its records in batches. An empty batch means: none that way.
///
/// # Safety
/// Every record pushed into a batch lives as long as the source, and came to the calling thread
/// through a release-acquire pair.
pub(crate) unsafe trait EntrySource: Send + Sync {
    /// Where a batch came from.
    type Place: Default + Send;

    /// Fills `batch` with records around `probe`; where among them the first at or after `probe` is.
    fn batch_from(&self, probe: &Probe<'_>, batch: &mut Batch<Self::Place>) -> usize;
    /// As [`EntrySource::batch_from`], for a walk forwards: the batch may be cut.
    fn rest_from(&self, probe: &Probe<'_>, batch: &mut Batch<Self::Place>) -> usize {
        self.batch_from(probe, batch)
    }
    /// Begins to load what a search for `probe` waits for.
    fn foresee(&self, probe: &Probe<'_>) {
        let _ = probe;
    }
    /// Begins to load what [`EntrySource::next_batch`] is going to look at.
    fn foresee_batch(&self, batch: &Batch<Self::Place>) {
        let _ = batch;
    }
    /// Begins to load a record that [`EntrySource::next_batch`] is going to put into its place `first` or
    /// behind that; the place behind that record. A hint: others may come.
    fn foresee_next(&self, batch: &Batch<Self::Place>, first: usize) -> usize {
        let _ = batch;
        first
    }
    /// Begins to load what [`EntrySource::previous_batch`] is going to look at.
    fn foresee_batch_before(&self, batch: &Batch<Self::Place>) {
        let _ = batch;
    }
    /// Begins to load the record that stands `back` before the last one that [`EntrySource::previous_batch`]
    /// is going to find. A hint, likewise.
    fn foresee_previous(&self, batch: &Batch<Self::Place>, back: usize) {
        let _ = (batch, back);
    }
    /// Fills `batch` with the first records.
    fn first_batch(&self, batch: &mut Batch<Self::Place>);
    /// Fills `batch` with the last records.
    fn last_batch(&self, batch: &mut Batch<Self::Place>);
    /// Fills `batch`, which is not empty, with the records behind it.
    fn next_batch(&self, batch: &mut Batch<Self::Place>);
    /// Fills `batch`, which is neither empty nor cut, with the records before it.
    fn previous_batch(&self, batch: &mut Batch<Self::Place>);
}

/// A cursor over an [`EntrySource`], which it keeps alive.
pub(crate) struct EntryIter<S: EntrySource> {
    /// In a box, since iterators are moved where they are made.
    batch: Box<Batch<S::Place>>,
    position: usize,
    /// Of the newest records of their keys up to here the loading has begun; from the end of the batch on
    /// it counts records of the next one.
    ahead: usize,
    source: Arc<S>,
}

impl<S: EntrySource> EntryIter<S> {
    pub(crate) fn new(source: Arc<S>) -> Self {
        Self {
            batch: Box::default(),
            position: 0,
            ahead: 0,
            source,
        }
    }

    #[inline]
    pub(crate) fn valid(&self) -> bool {
        self.position >= self.batch.start && self.position < self.batch.end
    }

    /// The record that the iterator stands on; an empty one where it stands on none.
    #[inline]
    pub(crate) fn record(&self) -> Record<'_> {
        self.record_at(self.position).unwrap_or(Record {
            key: &[],
            trailer: Trailer::OLDEST,
            value: &[],
        })
    }

    /// The record in place `position` of the batch.
    #[inline]
    fn record_at(&self, position: usize) -> Option<Record<'_>> {
        if position < self.batch.start || position >= self.batch.end {
            return None;
        }
        // SAFETY: `records` holds only what the source pushed, which lives as long as
        // `self.source` (the contract of `EntrySource`).
        self.batch.records[position].map(|record| unsafe { record.view() })
    }

    /// Whether the neighbour that way is in the batch and has another key. What is inserted between
    /// the two later is newer than what any reader of the batch may see.
    #[inline]
    pub(crate) fn neighbour_differs(&self, direction: Direction) -> bool {
        let position = match direction {
            Direction::Forward => self.position + 1,
            Direction::Backward => self.position,
        };
        position > self.batch.start
            && position < self.batch.end
            && self.batch.older >> position & 1 == 0
    }

    pub(crate) fn seek_to_first(&mut self) {
        self.source.first_batch(&mut self.batch);
        self.enter_front();
    }

    pub(crate) fn seek_to_last(&mut self) {
        self.source.last_batch(&mut self.batch);
        self.enter_back();
    }

    pub(crate) fn seek(&mut self, probe: &Probe<'_>) {
        let position = self.source.rest_from(probe, &mut self.batch);
        self.enter(self.batch.start + position);
    }

    /// Begins to load what a seek to `probe` waits for.
    #[inline]
    pub(crate) fn foresee(&self, probe: &Probe<'_>) {
        self.source.foresee(probe);
    }

    /// Goes on from the record in place `position` of the batch, which is cut there, with a batch that is not.
    #[cold]
    fn make_whole(&mut self, position: usize) {
        let Some(record) = self.batch.records[position] else {
            return;
        };
        // SAFETY: as in `record_at`; the source outlives this call.
        let record = unsafe { record.view() };
        let probe = Probe::new(record.key, record.trailer);
        let position = self.source.batch_from(&probe, &mut self.batch);
        self.enter(self.batch.start + position);
    }

    /// Moves to the last record at or before `probe`.
    pub(crate) fn seek_for_prev(&mut self, probe: &Probe<'_>) {
        let position = self.source.batch_from(probe, &mut self.batch);
        self.enter(self.batch.start + position);
        if !self.valid() {
            self.seek_to_last();
        }
        // More than one step back where records were inserted meanwhile.
        while self.valid() && self.is_behind(probe) {
            self.previous();
        }
    }

    fn is_behind(&self, probe: &Probe<'_>) -> bool {
        let record = self.record();
        probe.order_of(record.key, record.trailer).is_gt()
    }

    #[inline]
    pub(crate) fn next(&mut self) {
        self.position += 1;
        if self.position < self.batch.end {
            self.prefetch(self.position + PREFETCH_DISTANCE);
        } else {
            self.enter_next();
        }
    }

    /// As [`step`](esker_base::iterator::InternalIterator::step).
    #[inline]
    pub(crate) fn step(&mut self, direction: Direction) -> Step {
        match direction {
            Direction::Forward => {
                let next = self.batch.next_key(self.position);
                if next == self.batch.end {
                    return Step::Stayed;
                }
                self.position = next;
                self.look_ahead();
            }
            Direction::Backward => {
                if !self.neighbour_differs(direction) {
                    return Step::Stayed;
                }
                self.previous();
            }
        }
        Step::To(self.record().trailer)
    }

    /// As [`pass_key`](esker_base::iterator::InternalIterator::pass_key).
    pub(crate) fn pass_key(&mut self, key: &[u8]) -> bool {
        if self.step(Direction::Forward) != Step::Stayed {
            return false;
        }
        // All that is left of the batch has this key.
        self.position = self.batch.end;
        self.enter_next();
        if !self.valid() || self.record().key != key {
            return false;
        }
        if self.step(Direction::Forward) != Step::Stayed {
            return false;
        }
        self.seek(&Probe::new(key, Trailer::OLDEST));
        true
    }

    #[inline]
    pub(crate) fn previous(&mut self) {
        if self.position == self.batch.start && self.batch.is_cut {
            self.make_whole(self.position);
        }
        if self.position > self.batch.start {
            self.position -= 1;
            self.look_back();
        } else {
            self.source.previous_batch(&mut self.batch);
            self.enter_back();
        }
    }

    fn enter_front(&mut self) {
        self.enter(self.batch.start);
    }

    fn enter(&mut self, position: usize) {
        (self.position, self.ahead) = (position, position);
        self.prefetch(position);
        for _ in 0..PREFETCH_DISTANCE {
            self.look_ahead();
        }
    }

    /// Goes on with the batch behind this one, of which the first records may be on their way already.
    fn enter_next(&mut self) {
        let foreseen = self.ahead.saturating_sub(self.batch.end);
        self.source.next_batch(&mut self.batch);
        if foreseen == 0 {
            return self.enter_front();
        }
        self.position = self.batch.start;
        self.ahead = (self.batch.start + foreseen).min(self.batch.end);
        self.look_ahead();
    }

    /// Begins to load the next record ahead that is the newest of its key: of this batch, or of the one behind
    /// it, which is asked for where it begins to matter.
    #[inline]
    fn look_ahead(&mut self) {
        let end = self.batch.end;
        if self.ahead >= end {
            let first = self.ahead - end;
            self.ahead = end + self.source.foresee_next(&self.batch, first);
            return;
        }
        let next = self.batch.next_key(self.ahead.max(self.position));
        self.prefetch(next);
        if self.ahead + BATCH_DISTANCE < end && next + BATCH_DISTANCE >= end {
            self.source.foresee_batch(&self.batch);
        }
        self.ahead = next;
    }

    /// Begins to load the record so many behind the current one on a walk backwards, of this batch or of the
    /// one before it.
    #[inline]
    fn look_back(&self) {
        let behind = self.position - self.batch.start;
        if behind >= PREFETCH_DISTANCE {
            self.prefetch(self.position - PREFETCH_DISTANCE);
            if behind == PREFETCH_DISTANCE + BATCH_DISTANCE {
                self.source.foresee_batch_before(&self.batch);
            }
        } else if !self.batch.is_cut {
            let back = PREFETCH_DISTANCE - 1 - behind;
            self.source.foresee_previous(&self.batch, back);
        }
    }

    fn enter_back(&mut self) {
        self.position = self.batch.end.wrapping_sub(1);
        for ahead in 0..PREFETCH_DISTANCE {
            self.prefetch(self.position.wrapping_sub(ahead));
        }
    }

    #[inline]
    fn prefetch(&self, position: usize) {
        if let Some(Some(record)) = self.batch.records.get(position) {
            record.prefetch();
        }
    }
}
