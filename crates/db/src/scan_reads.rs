//! What the cursors and iterators of a transaction read: the stretches of keys they have moved over.
//!
//! Invariant: after every movement the read set holds every key that the movement's result depends
//! on: those between where it began and where it ended, whether or not they have a value. Nothing
//! beyond is held, so that a scan which stops early conflicts only with what it has seen. A stretch
//! lives in the read set, not in the cursor: a transaction may commit while its cursors live on.
//!
//! Callers: `cursor` tells of every movement; `transaction::reads` makes one for each view.

use crate::keyspace::Keyspace;
use crate::range_spec::KeyRange;
use crate::read_set::ReadSet;
use parking_lot::Mutex;
use std::sync::Arc;

/// Where the cursors of a view note what they read.
#[derive(Clone)]
pub(crate) struct ScanReads {
    reads: Arc<Mutex<ReadSet>>,
    keyspace: Keyspace,
}

/// Names a stretch in its read set.
pub(crate) type ScanId = u64;

/// Which way a cursor moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forwards,
    Backwards,
}

/// A contiguous stretch of keys that one cursor has moved over, half-open; an empty end means "to the
/// last key".
#[derive(Clone, Debug, Default)]
pub(crate) struct Stretch {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Stretch {
    /// Grows to what a movement ended on: a key, or the bound of the range.
    pub(crate) fn grow(&mut self, direction: Direction, landed: Option<&[u8]>, range: &KeyRange) {
        match (direction, landed) {
            (Direction::Forwards, Some(key)) => {
                if !self.end.is_empty() && key >= self.end.as_slice() {
                    self.end.clear();
                    self.end.extend_from_slice(key);
                    self.end.push(0);
                }
            }
            (Direction::Forwards, None) => {
                self.end.clear();
                self.end.extend_from_slice(range.end());
            }
            (Direction::Backwards, landed) => {
                let reached = landed.unwrap_or(range.start());
                if reached < self.start.as_slice() {
                    self.start.clear();
                    self.start.extend_from_slice(reached);
                }
            }
        }
    }
}

impl ScanReads {
    pub(crate) fn new(reads: &Arc<Mutex<ReadSet>>, keyspace: &Keyspace) -> Self {
        Self {
            reads: Arc::clone(reads),
            keyspace: keyspace.clone(),
        }
    }

    /// The notes of one cursor.
    pub(crate) fn cursor(&self) -> CursorReads {
        CursorReads {
            scan: self.clone(),
            id: None,
        }
    }
}

/// What one cursor notes.
pub(crate) struct CursorReads {
    scan: ScanReads,
    /// The stretch that the cursor stands in.
    id: Option<ScanId>,
}

impl CursorReads {
    /// The cursor was placed anew: it looked from the key `from` on, or from the bound of its range,
    /// to where it landed.
    pub(crate) fn sought(
        &mut self,
        direction: Direction,
        from: Option<&[u8]>,
        landed: Option<&[u8]>,
        range: &KeyRange,
    ) {
        let after = |key: &[u8]| [key, &[0]].concat();
        let mut stretch = match direction {
            Direction::Forwards => {
                let start = from.unwrap_or(range.start());
                Stretch {
                    start: start.to_vec(),
                    end: after(start),
                }
            }
            Direction::Backwards => Stretch {
                start: landed.unwrap_or(range.start()).to_vec(),
                end: from.map_or_else(|| range.end().to_vec(), after),
            },
        };
        stretch.grow(direction, landed, range);
        let mut reads = self.scan.reads.lock();
        if let Some(id) = self.id.take() {
            reads.end_scan(id);
        }
        self.id = Some(reads.begin_scan(&self.scan.keyspace, stretch));
    }

    /// The cursor moved from an entry to a neighbour.
    #[inline]
    pub(crate) fn stepped(
        &mut self,
        direction: Direction,
        landed: Option<&[u8]>,
        range: &KeyRange,
    ) {
        let mut reads = self.scan.reads.lock();
        let stretch = self.id.and_then(|id| reads.scan(id));
        if let Some(stretch) = stretch {
            stretch.grow(direction, landed, range);
        }
    }
}

impl Drop for CursorReads {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.scan.reads.lock().end_scan(id);
        }
    }
}
