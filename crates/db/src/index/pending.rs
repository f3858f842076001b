//! What batches of a commit group change that is not inserted yet: how a leader sees a record, or an
//! index entry, after everything ordered before.
//!
//! Invariant: a layer holds the outcome of its batches, in their order; layers are asked newest
//! first, and then the keyspace itself. A batch that is refused takes its layer with it.

use crate::index::stored_record::{self, StoredRecord};
use crate::keyspace::KeyspaceState;
use crate::range_spec::KeyRange;
use esker_base::key_bounds::end_is_above;
use esker_base::write_batch::KeyspaceId;
use esker_base::{Result, SequenceNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// The changes of one keyspace, with records or with entries.
#[derive(Debug, Default)]
struct Changes {
    /// What is deleted but for `records`, as starts and exclusive ends.
    deleted: Vec<(Vec<u8>, Vec<u8>)>,
    records: BTreeMap<Vec<u8>, Option<StoredRecord>>,
}

impl Changes {
    fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        let from = (Bound::Included(start), Bound::Unbounded);
        let inside = self
            .records
            .range_mut::<[u8], _>(from)
            .take_while(|(key, _)| end_is_above(end, key));
        for (_, record) in inside {
            *record = None;
        }
        self.deleted.push((start.to_vec(), end.to_vec()));
    }

    /// What these changes say of `key`, if anything.
    fn get(&self, key: &[u8]) -> Option<Option<&StoredRecord>> {
        if let Some(record) = self.records.get(key) {
            return Some(record.as_ref());
        }
        let mut deleted = self.deleted.iter();
        let is_deleted =
            deleted.any(|(start, end)| start.as_slice() <= key && end_is_above(end, key));
        is_deleted.then_some(None)
    }
}

/// The changes of one batch, or of all before it in its group.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    changes: BTreeMap<KeyspaceId, Changes>,
}

impl Layer {
    pub(crate) fn set(&mut self, keyspace: KeyspaceId, key: &[u8], record: Option<StoredRecord>) {
        let changes = self.changes.entry(keyspace).or_default();
        changes.records.insert(key.to_vec(), record);
    }

    pub(crate) fn delete_range(&mut self, keyspace: KeyspaceId, start: &[u8], end: &[u8]) {
        let changes = self.changes.entry(keyspace).or_default();
        changes.delete_range(start, end);
    }

    /// Adds the changes of a batch that is ordered after these.
    pub(crate) fn absorb(&mut self, later: Layer) {
        for (keyspace, later) in later.changes {
            let changes = self.changes.entry(keyspace).or_default();
            for (start, end) in &later.deleted {
                changes.delete_range(start, end);
            }
            changes.records.extend(later.records);
        }
    }
}

/// The newest state of keyspaces: layers over what is inserted.
#[derive(Clone, Copy)]
pub(crate) struct Newest<'a> {
    /// Newest first.
    pub(crate) layers: [&'a Layer; 2],
    pub(crate) visible: SequenceNumber,
}

impl Newest<'_> {
    /// The record of `key`.
    pub(crate) fn get(&self, state: &KeyspaceState, key: &[u8]) -> Result<Option<StoredRecord>> {
        for layer in self.layers {
            let changes = layer.changes.get(&state.id);
            if let Some(known) = changes.and_then(|changes| changes.get(key)) {
                return Ok(known.cloned());
            }
        }
        stored_record::find(&state.load(), key, self.visible)
    }

    /// Hands out the keys of `range` that may have a record, until `each` answers `false`: ascending
    /// those that are inserted, and before them those that are not.
    pub(crate) fn for_each_key(
        &self,
        state: &KeyspaceState,
        range: &KeyRange,
        mut each: impl FnMut(&[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut seen = BTreeSet::new();
        for layer in self.layers {
            let Some(changes) = layer.changes.get(&state.id) else {
                continue;
            };
            let from = (Bound::Included(range.start()), Bound::Unbounded);
            let inside = changes.records.range::<[u8], _>(from);
            for (key, _) in inside.take_while(|(key, _)| end_is_above(range.end(), key)) {
                if seen.insert(key.as_slice()) && !each(key)? {
                    return Ok(());
                }
            }
        }
        stored_record::for_each_key(&state.load(), range, |key| {
            if seen.contains(key) {
                Ok(true)
            } else {
                each(key)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str) -> Option<StoredRecord> {
        Some(StoredRecord {
            value: value.into(),
            expiry_millis: None,
        })
    }

    #[test]
    fn later_changes_win_and_deletions_hide_what_was_before_them() {
        let mut layer = Layer::default();
        layer.set(1, b"a", record("1"));
        layer.set(1, b"c", record("2"));
        let mut later = Layer::default();
        later.delete_range(1, b"b", b"");
        later.set(1, b"d", record("3"));
        layer.absorb(later);
        let get = |key: &[u8]| layer.changes[&1].get(key).map(|known| known.cloned());
        assert_eq!(get(b"a"), Some(record("1")));
        assert_eq!(get(b"c"), Some(None));
        assert_eq!(get(b"d"), Some(record("3")));
        assert_eq!(get(b"e"), Some(None));
        assert_eq!(get(b"Z"), None);
    }
}
