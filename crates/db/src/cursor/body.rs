//! What a cursor is made of, and how it moves.
//!
//! Invariant: as [`Cursor`](super::Cursor) says, whose movements these are. At rest a body holds a super-version,
//! what merges its sources, and empty buffers, but nothing that keeps a database open or a snapshot listed: `idle`
//! keeps it for the next cursor.

use super::covers::Covers;
use super::{Source, View};
use crate::keyspace::Keyspace;
use crate::range_spec::KeyRange;
use crate::scan_reads::{CursorReads, Direction};
use crate::snapshot::Snapshot;
use esker_base::internal_key::{MAX_SEQUENCE, Trailer};
use esker_base::iterator::{Direction as Way, InternalIterator, Step};
use esker_base::key_bounds::end_is_above;
use esker_base::merging_iterator::MergingIterator;
use esker_base::{Result, SequenceNumber};
use esker_sstable::HeldMemory;

/// Buffers of more bytes are given back where a body comes to rest.
const KEPT_BYTES: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// On no entry.
    Nowhere,
    /// On the record the merge stands on, having come forwards; the user's value begins `skip` bytes
    /// in.
    Forwards { skip: usize },
    /// The same, having come backwards: the record is the only one of its key.
    Backwards { skip: usize },
    /// On the entry in the buffers; the merge stands before all of its versions.
    Buffered,
    /// On the record the merge stands on, whose value is kept apart; it is in the buffer, unless only
    /// keys are wanted.
    Apart,
    /// On an entry that operands made, in the buffers; the merge stands behind the records it is
    /// made of.
    Merged,
}

/// All that a cursor consists of.
pub(crate) struct Body {
    pub(super) view: View,
    pub(super) range: KeyRange,
    pub(super) merge: MergingIterator<Source>,
    pub(super) covers: Option<Covers>,
    /// A plain value with a smaller sequence number is an entry, whatever else there is; 0 while that is
    /// not known.
    pub(super) plain_end: SequenceNumber,
    pub(super) position: Position,
    pub(super) reads: Option<Box<CursorReads>>,
    /// Whether nobody asks for values, so that those that are kept apart are not read.
    pub(super) keys_only: bool,
    /// The key of the entry stood on (backwards), or the key whose older versions are skipped.
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// What the cursor itself counts for, where memory has a bound.
    pub(super) held: Option<HeldMemory>,
}

impl Body {
    /// A body over a view, on no entry.
    pub(super) fn over(view: View, range: KeyRange) -> Box<Self> {
        let merge = view.merge();
        let reads = view.reads.as_ref().map(|reads| Box::new(reads.cursor()));
        Box::new(Self {
            view,
            range,
            merge,
            reads,
            keys_only: false,
            covers: None,
            plain_end: 0,
            position: Position::Nowhere,
            key: Vec::new(),
            value: Vec::new(),
            held: None,
        })
    }

    /// From rest to a cursor over all that is seen now, or in the snapshot, whose state is the same.
    #[inline]
    pub(super) fn wake(
        &mut self,
        keyspace: &Keyspace,
        range: KeyRange,
        snapshot: Option<Snapshot>,
    ) {
        self.view.wake(keyspace, snapshot);
        // A memtable is a source from its first record on.
        if !self.view.is_merged_by(&self.merge) {
            self.merge = self.view.merge();
        }
        self.range = range;
    }

    /// Comes to rest, and gives back the keyspace; `None`, and not at rest, where it was a transaction's.
    #[inline]
    pub(super) fn rest(&mut self) -> Option<Keyspace> {
        let keyspace = self.view.rest()?;
        self.merge.rest(Source::rest);
        (self.covers, self.plain_end) = (None, 0);
        self.held = None;
        (self.position, self.keys_only) = (Position::Nowhere, false);
        for buffer in [&mut self.key, &mut self.value] {
            if buffer.capacity() > KEPT_BYTES {
                *buffer = Vec::new();
            }
        }
        Some(keyspace)
    }

    #[inline]
    pub(super) fn valid(&self) -> bool {
        self.position != Position::Nowhere
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        match self.position {
            Position::Forwards { .. } | Position::Backwards { .. } | Position::Apart => {
                self.merge.user_key()
            }
            Position::Buffered | Position::Merged => &self.key,
            Position::Nowhere => panic!("Cursor::key on a cursor that is not valid"),
        }
    }

    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        match self.position {
            Position::Forwards { skip } | Position::Backwards { skip } => {
                &self.merge.value()[skip..]
            }
            Position::Buffered | Position::Merged | Position::Apart => &self.value,
            Position::Nowhere => panic!("Cursor::value on a cursor that is not valid"),
        }
    }

    pub(super) fn seek_to_first(&mut self) -> Result<()> {
        self.begin()?;
        if self.range.is_empty() {
            return Ok(());
        }
        if self.range.start().is_empty() {
            self.merge.seek_to_first()?;
        } else {
            self.merge
                .seek(self.range.start(), Trailer::seek(MAX_SEQUENCE))?;
        }
        self.settle_forwards(false)?;
        self.note_sought(Direction::Forwards, None);
        Ok(())
    }

    pub(super) fn seek_to_last(&mut self) -> Result<()> {
        self.begin()?;
        if self.range.is_empty() {
            return Ok(());
        }
        if self.range.end().is_empty() {
            self.merge.seek_to_last()?;
        } else {
            self.seek_merge_before_end()?;
        }
        self.settle_backwards()?;
        self.note_sought(Direction::Backwards, None);
        Ok(())
    }

    pub(super) fn seek(&mut self, key: &[u8]) -> Result<()> {
        // Most ranges begin with the first key, and to compare with nothing is not free (`slot_block`).
        if !self.range.start().is_empty() && key <= self.range.start() {
            return self.seek_to_first();
        }
        self.begin()?;
        if self.range.is_empty() {
            return Ok(());
        }
        self.merge.seek(key, Trailer::seek(MAX_SEQUENCE))?;
        self.settle_forwards(false)?;
        self.note_sought(Direction::Forwards, Some(key));
        Ok(())
    }

    pub(super) fn seek_for_prev(&mut self, key: &[u8]) -> Result<()> {
        if !end_is_above(self.range.end(), key) {
            return self.seek_to_last();
        }
        self.begin()?;
        if self.range.is_empty() {
            return Ok(());
        }
        self.merge.seek_for_prev(key, Trailer::OLDEST)?;
        self.settle_backwards()?;
        self.note_sought(Direction::Backwards, Some(key));
        Ok(())
    }

    #[inline]
    pub(super) fn next(&mut self) -> Result<()> {
        match self.position {
            Position::Nowhere => return Ok(()),
            Position::Forwards { .. } | Position::Backwards { .. } | Position::Apart => {
                self.position = Position::Nowhere;
                match self.merge.step(Way::Forward)? {
                    Step::To(trailer) if self.is_shown_as_is(trailer) => {
                        self.position = Position::Forwards { skip: 0 };
                    }
                    Step::To(_) | Step::End => self.settle_forwards(false)?,
                    Step::Stayed => self.next_of_another_key()?,
                }
                if self.reads.is_some() {
                    self.note_stepped(Direction::Forwards);
                }
                return Ok(());
            }
            Position::Buffered => {
                // The merge stands before the key: go past all of its versions.
                self.position = Position::Nowhere;
                self.merge.seek(&self.key, Trailer::OLDEST)?;
            }
            Position::Merged => self.position = Position::Nowhere,
        }
        self.settle_forwards(true)?;
        if self.reads.is_some() {
            self.note_stepped(Direction::Forwards);
        }
        Ok(())
    }

    /// From the record that the merge stands on to the next entry, where more records of its key may come.
    #[inline(never)]
    fn next_of_another_key(&mut self) -> Result<()> {
        self.buffer_key();
        if self.merge.pass_key(&self.key)? {
            self.view.note_search();
        }
        self.settle_forwards(false)
    }

    #[inline]
    pub(super) fn prev(&mut self) -> Result<()> {
        match self.position {
            Position::Nowhere => return Ok(()),
            Position::Buffered => {}
            Position::Backwards { .. } => {
                self.position = Position::Nowhere;
                self.merge.prev()?;
            }
            Position::Merged => {
                self.position = Position::Nowhere;
                let before = Trailer::seek(MAX_SEQUENCE);
                self.merge.seek_for_prev(&self.key, before)?;
            }
            Position::Forwards { .. } | Position::Apart => {
                // Newer versions that the cursor may not see can stand before the current one.
                self.buffer_key();
                self.position = Position::Nowhere;
                let before = Trailer::seek(MAX_SEQUENCE);
                self.merge.seek_for_prev(&self.key, before)?;
            }
        }
        self.settle_backwards()?;
        if self.reads.is_some() {
            self.note_stepped(Direction::Backwards);
        }
        Ok(())
    }

    /// Counts the entries of the cursor's range without copying one.
    pub(super) fn count_rest(&mut self) -> Result<u64> {
        let mut count = 0;
        self.keys_only = true;
        self.seek_to_first()?;
        while self.valid() {
            count += 1;
            self.next()?;
        }
        Ok(count)
    }

    /// Tells the transaction what a placing has read: from `from`, or the range's bound, to where the
    /// cursor stands now.
    fn note_sought(&mut self, direction: Direction, from: Option<&[u8]>) {
        if let Some(mut reads) = self.reads.take() {
            let landed = self.valid().then(|| self.key());
            reads.sought(direction, from, landed, &self.range);
            self.reads = Some(reads);
        }
    }

    /// As [`Cursor::note_sought`], of a movement from an entry to its neighbour.
    #[cold]
    fn note_stepped(&mut self, direction: Direction) {
        if let Some(mut reads) = self.reads.take() {
            let landed = self.valid().then(|| self.key());
            reads.stepped(direction, landed, &self.range);
            self.reads = Some(reads);
        }
    }

    fn begin(&mut self) -> Result<()> {
        self.position = Position::Nowhere;
        self.view.check()?;
        self.hold()?;
        self.view.keyspace().note_seek(self.view.super_version());
        if self.covers.is_none() {
            let covers = self.view.covers()?;
            if covers.is_empty() {
                self.plain_end = self.view.sequence + 1;
            }
            self.covers = Some(covers);
        }
        Ok(())
    }

    /// Stands the merge on the last record of a key below the exclusive end of the range.
    fn seek_merge_before_end(&mut self) -> Result<()> {
        self.merge
            .seek(self.range.end(), Trailer::seek(MAX_SEQUENCE))?;
        if self.merge.valid() {
            self.merge.prev()
        } else {
            self.merge.seek_to_last()
        }
    }

    /// Remembers the key that the merge stands on.
    #[inline]
    pub(super) fn buffer_key(&mut self) {
        self.key.clear();
        self.key.extend_from_slice(self.merge.user_key());
    }
}

#[cfg(test)]
mod tests;
