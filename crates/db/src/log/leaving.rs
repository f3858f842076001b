//! Going on in a new segment together with a new memtable, so that a flush lets go of all that was logged for
//! what it flushed.
//!
//! Invariant: nobody waits for it. The next segment is asked for while the last half of a memtable is
//! filled; where it does not stand ready when the memtable is sealed, the log stays where it is. Else up to a whole
//! segment of records that are in tables already would be written to the device, and stay on it, for the sake of
//! the few that come behind them. Called by `backpressure`, for memtables of several segments, and by the log itself.

use super::Log;
use crate::engine::Engine;
use esker_wal::SegmentWriter;

/// The part of a memtable that is left when the next segment is asked for.
const LAST_PART: usize = 2;
/// A segment with records of less than this part of its length goes on: little would be gained.
const WORTH_PART: u64 = 8;
/// A memtable takes the records of at least so many segments.
const LEAST_SEGMENTS: u64 = 2;

/// What the log is to do at the end of a memtable.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// A memtable is nearly full: the next segment is wanted as soon as there can be one.
    hurries: bool,
    /// The next record belongs into a new segment, if one is ready.
    leaves: bool,
}

impl Log {
    /// Notes that a memtable that is sealed at `limit` has `bytes`.
    #[inline]
    pub(crate) fn note_filling(&mut self, engine: &Engine, bytes: usize, limit: usize) {
        if !self.leaving.hurries && bytes >= limit - limit / LAST_PART {
            self.hurry(engine, limit);
        }
    }

    #[cold]
    fn hurry(&mut self, engine: &Engine, limit: usize) {
        if limit as u64 >= LEAST_SEGMENTS * engine.settings.wal_segment_bytes() {
            self.leaving.hurries = true;
            // What has been asked for already need not be asked for again.
            if self.tend_at != u64::MAX {
                self.tend_at = 0;
            }
        }
    }

    /// The memtable that all records of the current segment are in was sealed. Not where the log is archived, which
    /// counts segments, and keeps them whole.
    pub(crate) fn leave_segment(&mut self, engine: &Engine) {
        let hurried = std::mem::take(&mut self.leaving.hurries);
        let worth = engine.settings.wal_segment_bytes() / WORTH_PART;
        let current = self.current.as_ref();
        let is_worth_it = current.is_some_and(|it| it.record_bytes_so_far() >= worth);
        self.leaving.leaves =
            hurried && is_worth_it && !self.for_deletes && !engine.archive.is_on();
    }

    /// Whether a group of `bytes` begins the next segment though it may have room in this one.
    #[inline]
    pub(super) fn leaves(&mut self, engine: &Engine, bytes: u64) -> bool {
        self.leaving.leaves && self.leaves_now(engine, bytes)
    }

    #[cold]
    fn leaves_now(&mut self, engine: &Engine, bytes: u64) -> bool {
        self.leaving.leaves = false;
        let current = self.current.as_ref().map(SegmentWriter::number);
        current.is_some_and(|number| engine.next_segment.is_ready_for(number, bytes))
    }

    /// How many bytes of the current segment are written before the next one is asked for.
    pub(super) fn prepares_at(&self, engine: &Engine) -> u64 {
        match self.leaving.hurries {
            true => 0,
            false => engine.settings.wal_segment_bytes() / 2,
        }
    }
}

#[cfg(test)]
mod tests;
