//! What a transaction has read, and whether it is still true when it commits.
//!
//! Invariant: checked by the commit leader under the writer lock, after everything ordered before is
//! inserted; a conflict is any record of a read key, or inside a read range, that is newer than the
//! transaction's snapshot. Reads of absent keys and of empty ranges count: that is what makes the
//! isolation serializable (no write skew, no phantoms).

use crate::cursor::{all_range_tombstones, sources};
use crate::keyspace::Keyspace;
use crate::range_spec::KeyRange;
use crate::read;
use crate::super_version::SuperVersion;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::iterator::InternalIterator;
use esker_base::key_bounds::end_is_above;
use esker_base::merging_iterator::MergingIterator;
use esker_base::write_batch::Record;
use esker_base::{Error, ErrorKind, Result, SequenceNumber, Trailer, ValueKind};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Everything a transaction has read of one keyspace.
#[derive(Clone, Debug)]
struct KeyspaceReads {
    keyspace: Keyspace,
    keys: BTreeSet<Vec<u8>>,
    ranges: Vec<KeyRange>,
}

/// Everything a transaction has read.
#[derive(Clone, Debug)]
pub(crate) struct ReadSet {
    sequence: SequenceNumber,
    keyspaces: Vec<KeyspaceReads>,
}

impl ReadSet {
    /// Nothing read yet, at a snapshot's sequence.
    pub(crate) fn new(sequence: SequenceNumber) -> Self {
        Self {
            sequence,
            keyspaces: Vec::new(),
        }
    }

    /// Notes that `key` was read, whether or not it had a value.
    pub(crate) fn add_key(&mut self, keyspace: &Keyspace, key: &[u8]) {
        let reads = self.of(keyspace);
        if !reads.keys.contains(key) {
            reads.keys.insert(key.to_vec());
        }
    }

    /// Notes that all of `range` was read.
    pub(crate) fn add_range(&mut self, keyspace: &Keyspace, range: KeyRange) {
        if !range.is_empty() {
            self.of(keyspace).ranges.push(range);
        }
    }

    fn of(&mut self, keyspace: &Keyspace) -> &mut KeyspaceReads {
        let known = self
            .keyspaces
            .iter()
            .position(|reads| reads.keyspace.is_same(keyspace));
        let index = known.unwrap_or_else(|| {
            let (keys, ranges) = (BTreeSet::new(), Vec::new());
            self.keyspaces.push(KeyspaceReads {
                keyspace: keyspace.clone(),
                keys,
                ranges,
            });
            self.keyspaces.len() - 1
        });
        &mut self.keyspaces[index]
    }

    /// Fails where a committed record, or one of `pending` (ordered before, not yet inserted), makes
    /// a read untrue.
    pub(crate) fn check(&self, pending: &[Record<'_>]) -> Result<()> {
        for reads in &self.keyspaces {
            let view = reads.keyspace.state().load();
            if view.since > self.sequence {
                // A restore replaced everything that was read.
                return Err(conflict(&[]));
            }
            for key in &reads.keys {
                let changed = read::changed_since(&view, key, self.sequence)?;
                if changed || reads.touched(pending, |record| touches_key(record, key)) {
                    return Err(conflict(key));
                }
            }
            for range in &reads.ranges {
                let changed = range_changed_since(&view, range, self.sequence)?;
                if changed || reads.touched(pending, |record| touches_range(record, range)) {
                    return Err(conflict(range.start()));
                }
            }
        }
        Ok(())
    }
}

impl KeyspaceReads {
    fn touched(&self, pending: &[Record<'_>], touches: impl Fn(&Record<'_>) -> bool) -> bool {
        let id = self.keyspace.id();
        pending
            .iter()
            .any(|record| record.keyspace == id && touches(record))
    }
}

fn conflict(key: &[u8]) -> Error {
    let shown = key.get(..64).unwrap_or(key).escape_ascii();
    let sentence = format!("what the transaction read near \"{shown}\" has changed; retry it");
    Error::new(ErrorKind::Conflict, sentence)
}

fn touches_key(record: &Record<'_>, key: &[u8]) -> bool {
    if record.kind == ValueKind::RangeDelete {
        record.key <= key && end_is_above(record.value, key)
    } else {
        record.key == key
    }
}

fn touches_range(record: &Record<'_>, range: &KeyRange) -> bool {
    if record.kind == ValueKind::RangeDelete {
        end_is_above(range.end(), record.key) && end_is_above(record.value, range.start())
    } else {
        range.start() <= record.key && end_is_above(range.end(), record.key)
    }
}

/// Whether any record inside `range` is newer than `sequence`. Only sources that hold such records
/// at all are looked at.
fn range_changed_since(
    view: &Arc<SuperVersion>,
    range: &KeyRange,
    sequence: SequenceNumber,
) -> Result<bool> {
    let tombstones = all_range_tombstones(view)?;
    let newer = tombstones.iter().any(|(start, end, sequences)| {
        sequences.first().is_some_and(|&newest| newest > sequence)
            && end_is_above(range.end(), start)
            && end_is_above(end, range.start())
    });
    if newer {
        return Ok(true);
    }
    let mut merge = MergingIterator::new(sources(view, sequence));
    merge.seek(range.start(), Trailer::seek(MAX_SEQUENCE))?;
    while merge.valid() && end_is_above(range.end(), merge.user_key()) {
        if merge.trailer().sequence() > sequence {
            return Ok(true);
        }
        merge.next()?;
    }
    Ok(false)
}
