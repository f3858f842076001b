//! The concurrent inhabitant: a crossbeam skip list whose keys point into the arena.
//!
//! Invariant: keys are unique and are never replaced nor removed. crossbeam-skiplist 0.1 leaks
//! references to nodes that a range leaves while entries are overwritten or removed; a list that
//! only grows leaks nothing (held by `tests/nothing_leaks.rs`).
//!
//! Callers: `memtable` for inserts and lookups, `entry_iter` for batches.

use crate::arena::{Arena, ArenaPool, RECORD_HEADER_BYTES, Record, RecordRef};
use crate::entry_iter::{BATCH_ENTRIES, Batch, EntrySource};
use crate::probe::{Probe, word_at};
use crossbeam_skiplist::SkipMap;
use esker_base::Trailer;
use std::cmp::Ordering;
use std::ops::Bound;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes of the first chunk of records.
const FIRST_CHUNK_BYTES: usize = 64 << 10;
/// What a node of the list takes beside its key: a word of references and height, and a tower of
/// geometrically distributed height, two links on average.
const NODE_OVERHEAD_BYTES: usize = 24;
/// Records of an iterator's first batch.
const FIRST_BATCH_ENTRIES: usize = 4; // at most BATCH_ENTRIES

/// A key of the list: what most comparisons need, and where the rest is.
#[derive(Clone, Copy)]
struct ListKey {
    /// The first sixteen bytes of the key: they decide most comparisons without a cache miss.
    words: [u64; 2],
    trailer: Trailer,
    key_start: NonNull<u8>,
    key_bytes: usize,
}

// SAFETY: the bytes behind `key_start` are immutable: a stored record in the arena of the list, or
// the borrowed key of a probe, which stays on the thread that made it.
unsafe impl Send for ListKey {}
// SAFETY: as for `Send`.
unsafe impl Sync for ListKey {}

impl ListKey {
    fn of(key: &[u8], trailer: Trailer) -> Self {
        Self {
            words: [word_at(key, 0), word_at(key, 8)],
            trailer,
            key_start: NonNull::from(key).cast(),
            key_bytes: key.len(),
        }
    }

    fn stored(record: RecordRef, key: &[u8], trailer: Trailer) -> Self {
        // SAFETY: the key of a record begins behind its header, inside the same allocation. (The
        // pointer is not taken from a slice, because `record` must find the header from it.)
        let key_start = unsafe { record.address().add(RECORD_HEADER_BYTES) };
        Self {
            key_start,
            ..Self::of(key, trailer)
        }
    }

    /// The record that this key belongs to. Only meaningful for a key of the map.
    fn record(&self) -> RecordRef {
        let address = self.key_start.as_ptr().wrapping_sub(RECORD_HEADER_BYTES);
        // SAFETY: undoes `stored`; all keys of the map were made by it. Not null, because no
        // allocation begins at address zero.
        unsafe { RecordRef::from_address(NonNull::new_unchecked(address)) }
    }

    fn key(&self) -> &[u8] {
        // SAFETY: `key_start` and `key_bytes` came from a slice that outlives this `ListKey`: of a
        // record of the arena that is dropped after the list, or of a probe on the stack below.
        unsafe { std::slice::from_raw_parts(self.key_start.as_ptr(), self.key_bytes) }
    }
}

impl Ord for ListKey {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.words
            .cmp(&other.words)
            .then_with(|| self.key().cmp(other.key()))
            .then_with(|| self.trailer.cmp(&other.trailer))
    }
}

impl PartialOrd for ListKey {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ListKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ListKey {}

/// A concurrent memtable.
pub(crate) struct SkipList {
    /// Declared, and so dropped, before the arena that its keys point into.
    map: SkipMap<ListKey, ()>,
    arena: Arena,
}

impl SkipList {
    pub(crate) fn new(pool: Option<Arc<ArenaPool>>) -> Self {
        Self {
            map: SkipMap::new(),
            arena: Arena::new(FIRST_CHUNK_BYTES, pool),
        }
    }

    pub(crate) fn insert(&self, key: &[u8], trailer: Trailer, value: &[u8]) {
        let record = self.arena.store(key, trailer, value);
        // Keys are unique by contract; `compare_insert` makes sure that none is ever replaced.
        self.map
            .compare_insert(ListKey::stored(record, key, trailer), (), |()| false);
    }

    pub(crate) fn get(&self, probe: &Probe<'_>) -> Option<Record<'_>> {
        let bound = ListKey::of(probe.key, probe.trailer);
        let entry = self.map.lower_bound(Bound::Included(&bound))?;
        let found = entry.key();
        // SAFETY: a key of the map is a stored record of `self.arena`.
        (found.key() == probe.key).then(|| unsafe { found.record().view() })
    }

    /// Bytes of records and of the list's nodes. A node's tower is counted at its average height.
    pub(crate) fn bytes(&self) -> usize {
        self.arena.bytes() + self.map.len() * (size_of::<ListKey>() + NODE_OVERHEAD_BYTES)
    }

    pub(crate) fn reserved_bytes(&self) -> usize {
        self.bytes() - self.arena.bytes() + self.arena.reserved_bytes()
    }
}

impl std::fmt::Debug for SkipList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SkipList")
            .field("arena", &self.arena)
            .finish_non_exhaustive()
    }
}

/// How many records the next batch of an iterator takes. Walking the list costs a cache miss a
/// record: a short scan should not pay for a long one.
pub(crate) struct BatchLimit(usize);

impl Default for BatchLimit {
    fn default() -> Self {
        Self(FIRST_BATCH_ENTRIES)
    }
}

// SAFETY: every record pushed below is a key of the map, that is, a stored record of `self.arena`,
// which lives as long as `self`; the list published it with a release store of a link.
unsafe impl EntrySource for SkipList {
    type Place = BatchLimit;

    fn batch_from(&self, probe: &Probe<'_>, batch: &mut Batch<BatchLimit>) -> usize {
        batch.place = BatchLimit::default();
        let bound = ListKey::of(probe.key, probe.trailer);
        self.fill_forwards(Bound::Included(&bound), batch);
        0
    }

    fn first_batch(&self, batch: &mut Batch<BatchLimit>) {
        batch.place = BatchLimit::default();
        self.fill_forwards(Bound::Unbounded, batch);
    }

    fn last_batch(&self, batch: &mut Batch<BatchLimit>) {
        batch.place = BatchLimit::default();
        self.fill_backwards(Bound::Unbounded, batch);
    }

    fn next_batch(&self, batch: &mut Batch<BatchLimit>) {
        let Some(last) = batch.last() else { return };
        // SAFETY: the batch was filled from this list.
        let last = unsafe { last.view() };
        self.fill_forwards(Bound::Excluded(&ListKey::of(last.key, last.trailer)), batch);
    }

    fn previous_batch(&self, batch: &mut Batch<BatchLimit>) {
        let Some(first) = batch.first() else { return };
        // SAFETY: the batch was filled from this list.
        let first = unsafe { first.view() };
        self.fill_backwards(
            Bound::Excluded(&ListKey::of(first.key, first.trailer)),
            batch,
        );
    }
}

impl SkipList {
    fn fill_forwards(&self, bound: Bound<&ListKey>, batch: &mut Batch<BatchLimit>) {
        batch.clear();
        let Some(mut entry) = self.map.lower_bound(bound) else {
            return;
        };
        for _ in 0..batch.place.take_and_double() {
            let (last, record) = (batch.last(), entry.key().record());
            batch.push_back(record);
            if last.is_some_and(|last| have_same_key(last, record)) {
                batch.note_older(batch.len() - 1);
            }
            if !entry.move_next() {
                return;
            }
        }
    }

    fn fill_backwards(&self, bound: Bound<&ListKey>, batch: &mut Batch<BatchLimit>) {
        batch.clear_for_backwards();
        let Some(mut entry) = self.map.upper_bound(bound) else {
            return;
        };
        for _ in 0..batch.place.take_and_double() {
            let (first, record) = (batch.first(), entry.key().record());
            batch.push_front(record);
            if first.is_some_and(|first| have_same_key(record, first)) {
                batch.note_older(1);
            }
            if !entry.move_prev() {
                return;
            }
        }
    }
}

/// Whether two records of one list have the same key.
fn have_same_key(a: RecordRef, b: RecordRef) -> bool {
    // SAFETY: both are stored records of the list's arena, which the caller borrows.
    let (a, b) = unsafe { (a.view(), b.view()) };
    a.key == b.key
}

impl BatchLimit {
    fn take_and_double(&mut self) -> usize {
        let limit = self.0;
        self.0 = (2 * limit).min(BATCH_ENTRIES);
        limit
    }
}
