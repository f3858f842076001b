//! A cursor over the visible entries of a keyspace: the merge of all its sources, seen at one
//! sequence number.
//!
//! Invariants: a cursor never moves in time (it holds its super-version and its sequence); forwards
//! and backwards visit the same entries; key and value are slices of what the sources hold, or, going
//! backwards over a key that may have several records, of two reused buffers (the newest visible one is
//! the last one met).

use crate::keyspace::Keyspace;
use crate::range_spec::KeyRange;
use crate::scan_reads::{CursorReads, Direction};
use crate::snapshot::Snapshot;
use esker_base::internal_key::{MAX_SEQUENCE, Trailer};
use esker_base::iterator::{Direction as Way, InternalIterator, Step};
use esker_base::key_bounds::end_is_above;
use esker_base::merging_iterator::MergingIterator;
use esker_base::{Result, SequenceNumber};
use std::fmt;

mod apart;
mod covers;
mod settle;
mod sources;
mod view;

#[cfg(test)]
mod tests;

use covers::Covers;
pub(crate) use sources::{Source, sources};
pub(crate) use view::{Overlay, View};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
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

/// A zero-copy cursor over the entries of a keyspace, in key order and both directions.
///
/// Movements from nowhere (before the first seek, or past either end) stay nowhere.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// db.put("a", "1")?;
/// db.put("b", "2")?;
/// let mut cursor = db.cursor();
/// cursor.seek_to_first()?;
/// while cursor.valid() {
///     println!("{:?} {:?}", cursor.key(), cursor.value());
///     cursor.next()?;
/// }
/// # Ok(()) }
/// ```
pub struct Cursor {
    view: View,
    range: KeyRange,
    merge: MergingIterator<Source>,
    covers: Option<Covers>,
    /// A plain value with a smaller sequence number is an entry, whatever else there is; 0 while that is
    /// not known.
    plain_end: SequenceNumber,
    position: Position,
    reads: Option<Box<CursorReads>>,
    /// Whether nobody asks for values, so that those that are kept apart are not read.
    keys_only: bool,
    /// The key of the entry stood on (backwards), or the key whose older versions are skipped.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Cursor {
    pub(crate) fn new(keyspace: &Keyspace, range: KeyRange, snapshot: Option<Snapshot>) -> Self {
        Self::over(View::new(keyspace, snapshot), range)
    }

    pub(crate) fn over(view: View, range: KeyRange) -> Self {
        let merge = view.merge();
        let position = Position::Nowhere;
        let reads = view.reads.as_ref().map(|reads| Box::new(reads.cursor()));
        Self {
            view,
            range,
            merge,
            reads,
            keys_only: false,
            covers: None,
            plain_end: 0,
            position,
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Whether the cursor stands on an entry.
    #[must_use]
    #[inline]
    pub fn valid(&self) -> bool {
        self.position != Position::Nowhere
    }

    /// The key of the entry.
    ///
    /// # Panics
    /// If the cursor is not [`valid`](Cursor::valid).
    #[must_use]
    #[inline]
    pub fn key(&self) -> &[u8] {
        match self.position {
            Position::Forwards { .. } | Position::Backwards { .. } | Position::Apart => {
                self.merge.user_key()
            }
            Position::Buffered | Position::Merged => &self.key,
            Position::Nowhere => panic!("Cursor::key on a cursor that is not valid"),
        }
    }

    /// The value of the entry.
    ///
    /// # Panics
    /// If the cursor is not [`valid`](Cursor::valid).
    #[must_use]
    #[inline]
    pub fn value(&self) -> &[u8] {
        match self.position {
            Position::Forwards { skip } | Position::Backwards { skip } => {
                &self.merge.value()[skip..]
            }
            Position::Buffered | Position::Merged | Position::Apart => &self.value,
            Position::Nowhere => panic!("Cursor::value on a cursor that is not valid"),
        }
    }

    /// Moves to the first entry.
    ///
    /// # Errors
    /// `Corruption` and `Io` from the tables, `Closed` after the database was closed; the cursor then
    /// stands nowhere. Likewise for all movements below.
    pub fn seek_to_first(&mut self) -> Result<()> {
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

    /// Moves to the last entry.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    pub fn seek_to_last(&mut self) -> Result<()> {
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

    /// Moves to the first entry whose key is `key` or larger.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        if key <= self.range.start() {
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

    /// Moves to the last entry whose key is `key` or smaller.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
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

    /// Moves to the next entry.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    #[inline]
    #[allow(clippy::should_implement_trait)] // The name that every cursor of the field has.
    pub fn next(&mut self) -> Result<()> {
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

    /// Moves to the previous entry.
    ///
    /// # Errors
    /// As [`Cursor::seek_to_first`].
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
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
    pub(crate) fn count_rest(&mut self) -> Result<u64> {
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
        self.view.keyspace.note_seek(&self.view.super_version);
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
    fn buffer_key(&mut self) {
        self.key.clear();
        self.key.extend_from_slice(self.merge.user_key());
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("sequence", &self.view.sequence)
            .field("position", &self.position)
            .finish()
    }
}
