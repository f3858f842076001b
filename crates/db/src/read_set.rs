//! What a transaction has read, and whether it is still true.
//!
//! Invariants: a conflict is any record of a read key, or inside a read range, that is newer than
//! the snapshot it was read at. Reads of absent keys and of empty ranges count: that is what makes
//! the isolation serializable (no write skew, no phantoms). The snapshot stays listed as long as the
//! read set lives, so that compaction keeps what hides a value that was read.
//!
//! Memory is bounded: beyond its limit, neighbouring keys and ranges become one range each, gaps
//! included. That protects more than was read, never less: transactions that read very much may be
//! refused for a write beside what they read.
//!
//! Callers: `transaction` fills it, `validation` checks it.

use crate::cursor::sources;
use crate::key_range_set::KeyRangeSet;
use crate::keyspace::{Keyspace, dropped};
use crate::range_spec::KeyRange;
use crate::read;
use crate::recent_writes::RecentWrite;
use crate::scan_reads::{ScanId, Stretch};
use crate::snapshot::Snapshot;
use crate::super_version::{SortedRun, SuperVersion};
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::iterator::InternalIterator;
use esker_base::key_bounds::end_is_above;
use esker_base::merging_iterator::MergingIterator;
use esker_base::range_tombstone::FragmentedTombstones;
use esker_base::{Error, ErrorKind, Result, SequenceNumber, Trailer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Memory that a transaction may take for what it has read, bytes, where its options do not say.
pub(crate) const READ_SET_BYTES: usize = 16 << 20;
/// Memory of a key beside its bytes, about.
const KEY_BYTES: usize = 48;
/// Neighbouring keys that become one range when memory is short.
const KEYS_OF_A_RANGE: usize = 8;

/// Everything a transaction has read of one keyspace.
#[derive(Debug)]
struct KeyspaceReads {
    keyspace: Keyspace,
    keys: BTreeSet<Vec<u8>>,
    key_bytes: usize,
    ranges: KeyRangeSet,
}

/// Everything a transaction has read at one snapshot.
#[derive(Debug)]
pub(crate) struct ReadSet {
    snapshot: Snapshot,
    limit_bytes: usize,
    keyspaces: Vec<KeyspaceReads>,
    /// What cursors that are still in use have read, each with the index of its keyspace.
    scans: BTreeMap<ScanId, (usize, Stretch)>,
    next_scan: ScanId,
}

impl ReadSet {
    /// Nothing read yet, at `snapshot`; takes about `limit_bytes` of memory at most.
    pub(crate) fn new(snapshot: Snapshot, limit_bytes: usize) -> Self {
        Self {
            snapshot,
            limit_bytes,
            keyspaces: Vec::new(),
            scans: BTreeMap::new(),
            next_scan: 0,
        }
    }

    /// Notes that `key` was read, whether or not it had a value.
    pub(crate) fn add_key(&mut self, keyspace: &Keyspace, key: &[u8]) {
        let index = self.index_of(keyspace);
        let reads = &mut self.keyspaces[index];
        if !reads.keys.contains(key) && !reads.ranges.contains(key) {
            reads.keys.insert(key.to_vec());
            reads.key_bytes += KEY_BYTES + key.len();
            self.stay_within_limit();
        }
    }

    /// Notes that all of `range` was read.
    pub(crate) fn add_range(&mut self, keyspace: &Keyspace, range: &KeyRange) {
        if !range.is_empty() {
            let index = self.index_of(keyspace);
            self.add_stretch(index, range.start(), range.end());
        }
    }

    fn add_stretch(&mut self, index: usize, start: &[u8], end: &[u8]) {
        self.keyspaces[index].ranges.add(start, end);
        self.stay_within_limit();
    }

    /// Notes what a cursor has read by its first movement; the stretch grows by [`ReadSet::scan`].
    pub(crate) fn begin_scan(&mut self, keyspace: &Keyspace, stretch: Stretch) -> ScanId {
        let (id, index) = (self.next_scan, self.index_of(keyspace));
        self.next_scan += 1;
        self.scans.insert(id, (index, stretch));
        id
    }

    /// The stretch of a cursor, unless it was taken.
    pub(crate) fn scan(&mut self, id: ScanId) -> Option<&mut Stretch> {
        self.scans.get_mut(&id).map(|(_, stretch)| stretch)
    }

    /// The cursor leaves its stretch.
    pub(crate) fn end_scan(&mut self, id: ScanId) {
        if let Some((index, stretch)) = self.scans.remove(&id) {
            self.add_stretch(index, &stretch.start, &stretch.end);
        }
    }

    /// Adds what cursors have read so far, so that it is checked with the rest.
    pub(crate) fn absorb_scans(&mut self) {
        for (index, stretch) in self.scans.values() {
            let ranges = &mut self.keyspaces[*index].ranges;
            ranges.add(&stretch.start, &stretch.end);
        }
        self.stay_within_limit();
    }

    /// All of it, leaving nothing: cursors that are still in use go on without effect.
    pub(crate) fn take(&mut self) -> Self {
        self.absorb_scans();
        self.scans.clear();
        Self {
            snapshot: self.snapshot.clone(),
            limit_bytes: self.limit_bytes,
            keyspaces: std::mem::take(&mut self.keyspaces),
            scans: BTreeMap::new(),
            next_scan: self.next_scan,
        }
    }

    /// Adds what `other` holds, which must have been true up to this one's snapshot.
    pub(crate) fn merge(&mut self, other: Self) {
        for reads in other.keyspaces {
            for key in &reads.keys {
                self.add_key(&reads.keyspace, key);
            }
            let index = self.index_of(&reads.keyspace);
            for (start, end) in reads.ranges.iter() {
                self.add_stretch(index, start, end);
            }
        }
    }

    fn index_of(&mut self, keyspace: &Keyspace) -> usize {
        let known = self
            .keyspaces
            .iter()
            .position(|reads| reads.keyspace.is_same(keyspace));
        known.unwrap_or_else(|| {
            self.keyspaces.push(KeyspaceReads {
                keyspace: keyspace.clone(),
                keys: BTreeSet::new(),
                key_bytes: 0,
                ranges: KeyRangeSet::default(),
            });
            self.keyspaces.len() - 1
        })
    }

    /// Memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.keyspaces.iter().map(KeyspaceReads::bytes).sum()
    }

    fn stay_within_limit(&mut self) {
        while self.bytes() > self.limit_bytes {
            let largest = self.keyspaces.iter_mut().max_by_key(|reads| reads.bytes());
            if !largest.is_some_and(KeyspaceReads::shrink) {
                return;
            }
        }
    }

    /// Fails where a keyspace that was read is gone.
    pub(crate) fn check_keyspaces(&self) -> Result<()> {
        let gone = |reads: &&KeyspaceReads| reads.keyspace.state().is_dropped();
        let mut keyspaces = self.keyspaces.iter();
        match keyspaces.find(gone) {
            Some(reads) => Err(dropped(reads.keyspace.name())),
            None => Ok(()),
        }
    }

    /// Searches everything inserted so far for a record that makes a read untrue, at least up to
    /// `until`. What is known to be true up to `checked` (0: nothing) is not looked at again.
    pub(crate) fn check(&self, checked: SequenceNumber, until: SequenceNumber) -> Result<()> {
        self.check_keyspaces()?;
        let read_at = self.snapshot.sequence();
        let since = checked.max(read_at);
        if since >= until {
            return Ok(());
        }
        for reads in &self.keyspaces {
            let view = reads.keyspace.state().load();
            if view.since > read_at {
                // A restore replaced everything that was read.
                return Err(conflict(&[]));
            }
            for key in &reads.keys {
                if read::changed_since(&view, key, since)? {
                    return Err(conflict(key));
                }
            }
            if !reads.ranges.is_empty() {
                check_ranges(&view, &reads.ranges, since)?;
            }
        }
        Ok(())
    }

    /// Fails where `write`, which is ordered after what was checked, makes a read untrue.
    pub(crate) fn check_write(&self, write: &RecentWrite<'_>) -> Result<()> {
        let same = |reads: &&KeyspaceReads| reads.keyspace.id() == write.keyspace;
        let touched = |reads: &KeyspaceReads| reads.touched_by(write);
        match self.keyspaces.iter().find(same) {
            Some(reads) if touched(reads) => Err(conflict(write.key)),
            _ => Ok(()),
        }
    }
}

impl KeyspaceReads {
    fn bytes(&self) -> usize {
        self.key_bytes + self.ranges.bytes()
    }

    fn touched_by(&self, write: &RecentWrite<'_>) -> bool {
        let Some(end) = write.end else {
            return self.keys.contains(write.key) || self.ranges.contains(write.key);
        };
        let from = (Bound::Included(write.key), Bound::Unbounded);
        let mut keys = self.keys.range::<[u8], _>(from);
        keys.next().is_some_and(|key| end_is_above(end, key))
            || (end_is_above(end, write.key) && self.ranges.overlaps(write.key, end))
    }

    /// Takes less memory by protecting more. Says whether that was possible.
    fn shrink(&mut self) -> bool {
        if self.keys.len() < 2 && self.ranges.len() < 2 {
            return false;
        }
        if self.keys.len() >= 2 {
            let keys: Vec<_> = std::mem::take(&mut self.keys).into_iter().collect();
            self.key_bytes = 0;
            for run in keys.chunks(KEYS_OF_A_RANGE) {
                if let [first, .., last] | [first @ last] = run {
                    let end = [last.as_slice(), &[0]].concat();
                    self.ranges.add(first, &end);
                }
            }
        } else {
            self.ranges.halve();
        }
        true
    }
}

fn conflict(key: &[u8]) -> Error {
    let shown = key.get(..64).unwrap_or(key).escape_ascii();
    let sentence = format!("what the transaction read near \"{shown}\" has changed; retry it");
    Error::new(ErrorKind::Conflict, sentence)
}

/// Fails if any record inside `ranges` is newer than `sequence`. Only sources that hold such records
/// at all are looked at.
fn check_ranges(view: &SuperVersion, ranges: &KeyRangeSet, sequence: SequenceNumber) -> Result<()> {
    for memtable in view.memtables().filter(|m| m.has_range_tombstones()) {
        check_tombstones(&memtable.range_tombstones(), ranges, sequence)?;
    }
    let newer = |run: &&SortedRun| run.largest_sequence > sequence && run.has_range_tombstones;
    for run in view.runs.iter().filter(newer) {
        let tables = run.tables.iter();
        for handle in tables.filter(|handle| handle.meta().range_tombstones > 0) {
            check_tombstones(handle.table()?.range_tombstones(), ranges, sequence)?;
        }
    }
    let mut merge = MergingIterator::new(sources(view, sequence + 1));
    for (start, end) in ranges.iter() {
        merge.seek(start, Trailer::seek(MAX_SEQUENCE))?;
        while merge.valid() && end_is_above(end, merge.user_key()) {
            if merge.trailer().sequence() > sequence {
                return Err(conflict(merge.user_key()));
            }
            merge.next()?;
        }
    }
    Ok(())
}

/// Fails if a range tombstone newer than `sequence` covers any of `ranges`.
fn check_tombstones(
    tombstones: &FragmentedTombstones,
    ranges: &KeyRangeSet,
    sequence: SequenceNumber,
) -> Result<()> {
    for (start, end, sequences) in tombstones.iter() {
        let newer = sequences.first().is_some_and(|&newest| newest > sequence);
        if newer && ranges.overlaps(start, end) {
            return Err(conflict(start));
        }
    }
    Ok(())
}
