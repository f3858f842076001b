//! The memtable: point records in one of two inhabitants, range tombstones beside them.
//!
//! Invariant: every record inserted before a reader acquired its sequence number is found by that
//! reader, whatever is inserted meanwhile; no read takes a lock (I5, I8).
//!
//! Callers: the database's commit path inserts, its read path looks up, its flush iterates.

use crate::arena::{ArenaPool, Record};
use crate::b_tree::BTree;
use crate::entry_iter::EntryIter;
use crate::probe::Probe;
use crate::range_tombstones::RangeTombstones;
use crate::skip_list::SkipList;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::iterator::{Direction, InternalIterator, RecordView, Step};
use esker_base::own_lines::OwnLines;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::write_batch::split_expiry;
use esker_base::{Result, SequenceNumber, Trailer, ValueKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Which structure holds the point records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MemtableKind {
    /// A concurrent skip list: any number of threads insert at once.
    SkipList,
    /// A B+tree: threads insert one after the other, readers take no lock. Measured with a million
    /// records it inserts and finds several times as fast as the skip list.
    #[default]
    BTree,
}

#[derive(Debug)]
enum Points {
    SkipList(Arc<SkipList>),
    BTree(Arc<BTree>),
}

/// The sorted buffer of recent writes.
///
/// ```
/// use esker_base::{Trailer, ValueKind};
/// use esker_memtable::{Memtable, MemtableKind};
///
/// let memtable = Memtable::new(MemtableKind::default());
/// memtable.insert(b"key", Trailer::new(1, ValueKind::Value), b"old");
/// memtable.insert(b"key", Trailer::new(2, ValueKind::Value), b"new");
/// assert_eq!(memtable.get(b"key", 2).map(|(_, value)| value), Some(&b"new"[..]));
/// assert_eq!(memtable.get(b"key", 1).map(|(_, value)| value), Some(&b"old"[..]));
/// assert!(memtable.get(b"key", 0).is_none());
/// ```
#[derive(Debug)]
pub struct Memtable {
    points: Points,
    tombstones: RangeTombstones,
    /// Whether there is a point record. Written once, so that readers need not look at what every
    /// insert writes.
    has_points: AtomicBool,
    counts: OwnLines<Counts>,
}

/// What every insert writes and few readers look at.
#[derive(Debug)]
struct Counts {
    entries: AtomicU64,
    /// The earliest and the latest expiry of any record, milliseconds since 1970: the former larger
    /// than the latter while none expires.
    earliest_expiry: AtomicU64,
    latest_expiry: AtomicU64,
    /// Larger than every sequence number while there is none.
    smallest_sequence: AtomicU64,
    /// One more than the largest sequence number; zero while there is none.
    sequence_end: AtomicU64,
}

impl Memtable {
    /// An empty memtable that takes its memory from the allocator.
    #[must_use]
    pub fn new(kind: MemtableKind) -> Self {
        Self::build(kind, None)
    }

    /// An empty memtable that takes its memory from `pool` where it can, and leaves it there.
    #[must_use]
    pub fn with_pool(kind: MemtableKind, pool: Arc<ArenaPool>) -> Self {
        Self::build(kind, Some(pool))
    }

    fn build(kind: MemtableKind, pool: Option<Arc<ArenaPool>>) -> Self {
        let points = match kind {
            MemtableKind::SkipList => Points::SkipList(Arc::new(SkipList::new(pool))),
            MemtableKind::BTree => Points::BTree(Arc::new(BTree::new(pool))),
        };
        Self {
            points,
            tombstones: RangeTombstones::default(),
            has_points: AtomicBool::new(false),
            counts: OwnLines(Counts {
                entries: AtomicU64::new(0),
                earliest_expiry: AtomicU64::new(u64::MAX),
                latest_expiry: AtomicU64::new(0),
                smallest_sequence: AtomicU64::new(u64::MAX),
                sequence_end: AtomicU64::new(0),
            }),
        }
    }

    /// Adds a record. No record of the same key and sequence number may exist.
    ///
    /// Of a B+tree, threads that insert at once wait for each other.
    #[inline]
    pub fn insert(&self, key: &[u8], trailer: Trailer, value: &[u8]) {
        match &self.points {
            Points::SkipList(list) => list.insert(key, trailer, value),
            Points::BTree(tree) => tree.insert(key, trailer, value),
        }
        self.counts.entries.fetch_add(1, Ordering::Relaxed);
        self.note_sequence(trailer.sequence());
        if !self.has_points.load(Ordering::Relaxed) {
            self.has_points.store(true, Ordering::Release);
        }
        if trailer.kind() == Some(ValueKind::ValueWithExpiry) {
            self.note_expiry(value);
        }
    }

    fn note_expiry(&self, value: &[u8]) {
        if let Some((expiry, _)) = split_expiry(value) {
            let counts = &self.counts;
            counts.earliest_expiry.fetch_min(expiry, Ordering::Relaxed);
            counts.latest_expiry.fetch_max(expiry, Ordering::Relaxed);
        }
    }

    /// The earliest and the latest expiry of any record, milliseconds since 1970, if one expires.
    #[must_use]
    pub fn expiries(&self) -> Option<(u64, u64)> {
        let earliest = self.counts.earliest_expiry.load(Ordering::Relaxed);
        let latest = self.counts.latest_expiry.load(Ordering::Relaxed);
        (earliest <= latest).then_some((earliest, latest))
    }

    /// Begins to load what an insert or a lookup of `key` is going to wait for. Called a few keys
    /// ahead of a batch in random order, it lets their cache misses overlap.
    #[inline]
    pub fn prefetch(&self, key: &[u8]) {
        match &self.points {
            // A search of the list waits for each node before it knows the next.
            Points::SkipList(_) => {}
            Points::BTree(tree) => tree.prefetch(&Probe::new(key, Trailer::seek(MAX_SEQUENCE))),
        }
    }

    /// Whether a point record of a key with this hash
    /// ([`key_hash`](esker_base::checksum::key_hash)) may be here: most keys that are not here are told
    /// by a cache line or two. Every record that [`Memtable::get`] finds passes.
    #[must_use]
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        match &self.points {
            // Threads that insert at once would wait for each other's words.
            Points::SkipList(_) => true,
            Points::BTree(tree) => tree.may_contain(hash),
        }
    }

    /// Begins to load what [`Memtable::may_contain`] looks at.
    #[inline]
    pub fn prefetch_filter(&self, hash: u64) {
        if let Points::BTree(tree) = &self.points {
            tree.prefetch_filter(hash);
        }
    }

    /// Deletes the keys from `start` to `end`, excluded (empty: no end), as of `sequence`.
    pub fn add_range_tombstone(&self, start: &[u8], end: &[u8], sequence: SequenceNumber) {
        self.tombstones.add(start, end, sequence);
        self.note_sequence(sequence);
    }

    #[inline]
    fn note_sequence(&self, sequence: SequenceNumber) {
        let counts = &self.counts;
        if sequence < counts.smallest_sequence.load(Ordering::Relaxed) {
            counts
                .smallest_sequence
                .fetch_min(sequence, Ordering::Relaxed);
        }
        if sequence >= counts.sequence_end.load(Ordering::Relaxed) {
            counts
                .sequence_end
                .fetch_max(sequence + 1, Ordering::Relaxed);
        }
    }

    /// The newest point record of `key` with a sequence number of at most `visible`. Range
    /// tombstones are not considered: see [`Memtable::covering_sequence`].
    #[must_use]
    #[inline]
    pub fn get(&self, key: &[u8], visible: SequenceNumber) -> Option<(Trailer, &[u8])> {
        let probe = Probe::new(key, Trailer::seek(visible));
        let record = match &self.points {
            Points::SkipList(list) => list.get(&probe),
            Points::BTree(tree) => tree.get(&probe),
        };
        record.map(|record| (record.trailer, record.value))
    }

    /// The newest range tombstone of sequence at most `visible` that covers `key`.
    #[must_use]
    #[inline]
    pub fn covering_sequence(&self, key: &[u8], visible: SequenceNumber) -> Option<SequenceNumber> {
        self.tombstones.covering_sequence(key, visible)
    }

    /// Whether any range tombstone was added: one atomic load.
    #[must_use]
    #[inline]
    pub fn has_range_tombstones(&self) -> bool {
        self.tombstones.any()
    }

    /// All range tombstones added so far.
    #[must_use]
    pub fn range_tombstones(&self) -> FragmentedTombstones {
        self.tombstones.merged()
    }

    /// A cursor over the point records, which keeps their memory alive.
    #[must_use]
    pub fn iter(self: &Arc<Self>) -> MemtableIter {
        MemtableIter(match &self.points {
            Points::SkipList(list) => PointsIter::SkipList(EntryIter::new(Arc::clone(list))),
            Points::BTree(tree) => PointsIter::BTree(EntryIter::new(Arc::clone(tree))),
        })
    }

    /// Bytes in use: records, the nodes that order them, and range tombstones.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tombstones.bytes()
            + match &self.points {
                Points::SkipList(list) => list.bytes(),
                Points::BTree(tree) => tree.bytes(),
            }
    }

    /// Bytes taken from the allocator or the pool: [`Memtable::bytes`] and what is still free in
    /// the last chunks.
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.tombstones.bytes()
            + match &self.points {
                Points::SkipList(list) => list.reserved_bytes(),
                Points::BTree(tree) => tree.reserved_bytes(),
            }
    }

    /// How many point records there are, all versions of a key counted.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.counts.entries.load(Ordering::Relaxed)
    }

    /// Whether there is a point record: what [`Memtable::entries`] says, without a look at what every insert
    /// writes.
    #[must_use]
    #[inline]
    pub fn has_points(&self) -> bool {
        self.has_points.load(Ordering::Acquire)
    }

    /// Whether there are neither point records nor range tombstones.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.has_points() && !self.has_range_tombstones()
    }

    /// The oldest sequence number of all records and range tombstones.
    #[must_use]
    pub fn smallest_sequence(&self) -> Option<SequenceNumber> {
        let smallest = self.counts.smallest_sequence.load(Ordering::Relaxed);
        (smallest != u64::MAX).then_some(smallest)
    }

    /// The newest sequence number of all records and range tombstones.
    #[must_use]
    pub fn largest_sequence(&self) -> Option<SequenceNumber> {
        self.counts
            .sequence_end
            .load(Ordering::Relaxed)
            .checked_sub(1)
    }
}

enum PointsIter {
    SkipList(EntryIter<SkipList>),
    BTree(EntryIter<BTree>),
}

/// A cursor over the point records of a memtable.
///
/// Records that are inserted meanwhile may or may not be met; all that were there before are.
pub struct MemtableIter(PointsIter);

/// Calls the same method of whichever iterator there is.
macro_rules! dispatch {
    ($self:expr, $iter:ident => $call:expr) => {
        match $self {
            PointsIter::SkipList($iter) => $call,
            PointsIter::BTree($iter) => $call,
        }
    };
}

impl MemtableIter {
    /// Begins to load what a seek to (`user_key`, `trailer`) waits for.
    #[inline]
    pub fn foresee(&self, user_key: &[u8], trailer: Trailer) {
        dispatch!(&self.0, iter => iter.foresee(&Probe::new(user_key, trailer)));
    }

    #[inline]
    fn record(&self) -> Record<'_> {
        dispatch!(&self.0, iter => iter.record())
    }
}

impl InternalIterator for MemtableIter {
    #[inline]
    fn valid(&self) -> bool {
        dispatch!(&self.0, iter => iter.valid())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        dispatch!(&mut self.0, iter => iter.seek_to_first());
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        dispatch!(&mut self.0, iter => iter.seek_to_last());
        Ok(())
    }

    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        dispatch!(&mut self.0, iter => iter.seek(&Probe::new(user_key, trailer)));
        Ok(())
    }

    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        dispatch!(&mut self.0, iter => iter.seek_for_prev(&Probe::new(user_key, trailer)));
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        dispatch!(&mut self.0, iter => iter.next());
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        dispatch!(&mut self.0, iter => iter.previous());
        Ok(())
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        MemtableIter::record(self).key
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        MemtableIter::record(self).trailer
    }

    #[inline]
    fn value(&self) -> &[u8] {
        MemtableIter::record(self).value
    }

    #[inline]
    fn record(&self) -> RecordView<'_> {
        let record = MemtableIter::record(self);
        RecordView {
            user_key: record.key,
            trailer: record.trailer,
            value: record.value,
        }
    }

    #[inline]
    fn neighbour_differs(&self, direction: Direction) -> bool {
        dispatch!(&self.0, iter => iter.neighbour_differs(direction))
    }

    #[inline]
    fn step(&mut self, direction: Direction) -> Result<Step> {
        Ok(dispatch!(&mut self.0, iter => iter.step(direction)))
    }

    fn pass_key(&mut self, user_key: &[u8]) -> Result<bool> {
        Ok(dispatch!(&mut self.0, iter => iter.pass_key(user_key)))
    }
}
