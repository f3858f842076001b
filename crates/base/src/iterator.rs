//! The one shape in which sorted records travel: memtables, tables, levels and merges are all
//! internal iterators.
//!
//! Invariant: records come in internal-key order; `user_key`, `trailer` and `value` may be called
//! only while `valid`; a failed movement leaves the iterator invalid. Entries are point records
//! only: range tombstones travel beside them (see [`range_tombstone`](crate::range_tombstone)).

use crate::error::Result;
use crate::internal_key::Trailer;

/// So many records of a key are passed one by one before the end of the key is searched for: a search costs
/// about as much.
const PASSED_BEFORE_SEEK: usize = 16;

/// A cursor over point records in internal-key order.
pub trait InternalIterator: Send {
    /// Whether the iterator stands on a record.
    fn valid(&self) -> bool;
    /// Moves to the first record.
    ///
    /// # Errors
    /// I/O errors and damage of what lies beneath; likewise for all movements below.
    fn seek_to_first(&mut self) -> Result<()>;
    /// Moves to the last record.
    ///
    /// # Errors
    /// As [`InternalIterator::seek_to_first`].
    fn seek_to_last(&mut self) -> Result<()>;
    /// Moves to the first record at or after (`user_key`, `trailer`).
    ///
    /// # Errors
    /// As [`InternalIterator::seek_to_first`].
    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()>;
    /// Moves to the last record at or before (`user_key`, `trailer`).
    ///
    /// # Errors
    /// As [`InternalIterator::seek_to_first`].
    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()>;
    /// Moves to the next record. Call only while valid.
    ///
    /// # Errors
    /// As [`InternalIterator::seek_to_first`].
    fn next(&mut self) -> Result<()>;
    /// Moves to the previous record. Call only while valid.
    ///
    /// # Errors
    /// As [`InternalIterator::seek_to_first`].
    fn prev(&mut self) -> Result<()>;
    /// The user key of the record.
    fn user_key(&self) -> &[u8];
    /// Sequence number and kind of the record.
    fn trailer(&self) -> Trailer;
    /// The value of the record as stored (a value with expiry begins with its expiry).
    fn value(&self) -> &[u8];
    /// The record: as the three calls above, at once.
    #[inline]
    fn record(&self) -> RecordView<'_> {
        RecordView {
            user_key: self.user_key(),
            trailer: self.trailer(),
            value: self.value(),
        }
    }
    /// Whether the next record that way is known to have another user key, or not to exist, so that
    /// whoever has seen the current one has seen all of its key that way. `false` where that is not
    /// known without moving. Call only while valid.
    #[inline]
    fn neighbour_differs(&self, direction: Direction) -> bool {
        let _ = direction;
        false
    }
    /// Goes on to the next record of another user key that way where it is known which one that is, past
    /// what is known to have the same key, and stays where it is not known. Where there is nothing to pass, it does
    /// what `neighbour_differs`, a movement, `valid` and `trailer` do, at once. Call only while valid.
    ///
    /// # Errors
    /// As [`InternalIterator::seek_to_first`].
    #[inline]
    fn step(&mut self, direction: Direction) -> Result<Step> {
        if !self.neighbour_differs(direction) {
            return Ok(Step::Stayed);
        }
        match direction {
            Direction::Forward => self.next()?,
            Direction::Backward => self.prev()?,
        }
        Ok(if self.valid() {
            Step::To(self.trailer())
        } else {
            Step::End
        })
    }
    /// Moves from a record of `user_key` to the first record of a larger key. Says whether that one had to be
    /// searched for, since there were so many to pass. Call only while the iterator stands on a record of that key.
    ///
    /// # Errors
    /// As [`InternalIterator::seek_to_first`].
    fn pass_key(&mut self, user_key: &[u8]) -> Result<bool> {
        for _ in 0..PASSED_BEFORE_SEEK {
            if self.step(Direction::Forward)? != Step::Stayed {
                return Ok(false);
            }
            self.next()?;
            if !self.valid() || self.user_key() != user_key {
                return Ok(false);
            }
        }
        self.seek(user_key, Trailer::OLDEST)?;
        // Damaged input may have records of the key in the last place that there is.
        while self.valid() && self.user_key() == user_key {
            self.next()?;
        }
        Ok(true)
    }
    /// Moves each of `iterators` to the first record at or after (`user_key`, `trailer`). For kinds of
    /// iterators that wait for memory together.
    ///
    /// # Errors
    /// As [`InternalIterator::seek_to_first`]; then it is not said where any of them stands.
    #[inline]
    fn seek_all(iterators: &mut [Self], user_key: &[u8], trailer: Trailer) -> Result<()>
    where
        Self: Sized,
    {
        iterators
            .iter_mut()
            .try_for_each(|iterator| iterator.seek(user_key, trailer))
    }
}

/// Where [`InternalIterator::step`] has led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To a record of another user key, which has this trailer.
    To(Trailer),
    /// Behind the last record that way: the iterator is invalid now.
    End,
    /// Nowhere: the next record may have the same user key.
    Stayed,
}

/// A way to go through sorted records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To larger keys; of one key, from the newest record to the oldest.
    Forward,
    /// The other way.
    Backward,
}

/// A record where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The user key.
    pub user_key: &'a [u8],
    /// Sequence number and kind.
    pub trailer: Trailer,
    /// The value as stored.
    pub value: &'a [u8],
}

impl<I: InternalIterator + ?Sized> InternalIterator for Box<I> {
    #[inline]
    fn valid(&self) -> bool {
        (**self).valid()
    }
    fn seek_to_first(&mut self) -> Result<()> {
        (**self).seek_to_first()
    }
    fn seek_to_last(&mut self) -> Result<()> {
        (**self).seek_to_last()
    }
    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        (**self).seek(user_key, trailer)
    }
    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        (**self).seek_for_prev(user_key, trailer)
    }
    #[inline]
    fn next(&mut self) -> Result<()> {
        (**self).next()
    }
    #[inline]
    fn prev(&mut self) -> Result<()> {
        (**self).prev()
    }
    #[inline]
    fn user_key(&self) -> &[u8] {
        (**self).user_key()
    }
    #[inline]
    fn trailer(&self) -> Trailer {
        (**self).trailer()
    }
    #[inline]
    fn value(&self) -> &[u8] {
        (**self).value()
    }
    #[inline]
    fn record(&self) -> RecordView<'_> {
        (**self).record()
    }
    #[inline]
    fn neighbour_differs(&self, direction: Direction) -> bool {
        (**self).neighbour_differs(direction)
    }
    #[inline]
    fn step(&mut self, direction: Direction) -> Result<Step> {
        (**self).step(direction)
    }
    fn pass_key(&mut self, user_key: &[u8]) -> Result<bool> {
        (**self).pass_key(user_key)
    }
}
