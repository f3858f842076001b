//! Indexes inside a transaction: its own writes change what it finds by an index, before anybody else
//! sees them.
//!
//! Invariant: the changes go to the transaction's overlays only. What is committed is derived again by
//! the leader, from what the records are then; if that differs, the transaction read something that
//! is not true any more, and is refused.

use crate::cursor::{Source, sources};
use crate::engine::Engine;
use crate::index::catalog::Index;
use crate::index::definition::{entry_key, entry_value};
use crate::index::stored_record::{self, StoredRecord};
use crate::range_spec::KeyRange;
use crate::super_version::SuperVersion;
use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::write_batch::{KeyspaceId, Record};
use esker_base::{Result, SequenceNumber, Trailer, ValueKind};
use esker_memtable::Memtable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A change of an index, as a record of its hidden keyspace.
struct EntryChange {
    keyspace: KeyspaceId,
    kind: ValueKind,
    entry: Vec<u8>,
    value: Vec<u8>,
}

/// What changes in `indexes` where the record of `key` was `old` and becomes `new`; each entry once.
fn changes(
    indexes: &[Arc<Index>],
    key: &[u8],
    old: Option<&StoredRecord>,
    new: Option<&StoredRecord>,
) -> Result<Vec<EntryChange>> {
    let mut changes = Vec::new();
    for index in indexes {
        let keys = |record: Option<&StoredRecord>| match record {
            Some(record) => index.definition.keys_of(key, &record.value),
            None => Ok(Vec::new()),
        };
        let (old_keys, new_keys) = (keys(old).unwrap_or_default(), keys(new)?);
        let gone = old_keys
            .iter()
            .filter(|old| new_keys.binary_search(old).is_err());
        changes.extend(gone.map(|index_key| EntryChange {
            keyspace: index.entries.id,
            kind: ValueKind::Tombstone,
            entry: entry_key(index_key, key),
            value: Vec::new(),
        }));
        changes.extend(new_keys.iter().map(|index_key| {
            let expiry = new.and_then(|record| record.expiry_millis);
            let head = expiry.map(u64::to_le_bytes);
            let kind = match head {
                Some(_) => ValueKind::ValueWithExpiry,
                None => ValueKind::Value,
            };
            let value = [
                head.as_ref().map_or(&[][..], |head| head),
                &entry_value(index_key),
            ]
            .concat();
            EntryChange {
                keyspace: index.entries.id,
                kind,
                entry: entry_key(index_key, key),
                value,
            }
        }));
    }
    Ok(changes)
}

/// The overlays of a transaction, by keyspace.
pub(crate) type Overlays = BTreeMap<KeyspaceId, Arc<Memtable>>;

/// Brings a write that a transaction is about to make into the overlays of the indexes of its
/// keyspace. `sequence` is the one that the write has in its own overlay.
pub(crate) fn apply(
    engine: &Arc<Engine>,
    overlays: &mut Overlays,
    snapshot: SequenceNumber,
    record: &Record<'_>,
    sequence: SequenceNumber,
) -> Result<()> {
    let state = engine.keyspaces.read().by_id.get(&record.keyspace).cloned();
    let Some(state) = state.filter(|state| state.indexes.any()) else {
        return Ok(());
    };
    let set = state.indexes.set();
    let view = arc_swap::Guard::into_inner(state.load_at(Some(snapshot)));
    let own = overlays.get(&record.keyspace).cloned();
    let old = |key: &[u8]| old_record(own.as_deref(), &view, snapshot, key);
    let mut changed = Vec::new();
    if record.kind == ValueKind::RangeDelete {
        let mut from = sources(&view, 0);
        from.extend(own.iter().map(|own| Source::Memtable(own.iter())));
        let range = KeyRange::half_open(record.key, record.value);
        stored_record::for_each_key_in(from, &range, |key| {
            changed.extend(changes(&set.declared, key, old(key)?.as_ref(), None)?);
            Ok(true)
        })?;
    } else {
        let new = StoredRecord::of(Some(record.kind), record.value)?;
        let old = old(record.key)?;
        changed = changes(&set.declared, record.key, old.as_ref(), new.as_ref())?;
    }
    for change in changed {
        let overlay = overlays.entry(change.keyspace).or_insert_with(|| {
            let arenas = Arc::clone(&engine.arenas);
            Arc::new(Memtable::with_pool(engine.settings.memtable(), arenas))
        });
        overlay.insert(
            &change.entry,
            Trailer::new(sequence, change.kind),
            &change.value,
        );
    }
    Ok(())
}

/// The record of `key` as the transaction sees it.
fn old_record(
    own: Option<&Memtable>,
    view: &SuperVersion,
    snapshot: SequenceNumber,
    key: &[u8],
) -> Result<Option<StoredRecord>> {
    if let Some(own) = own {
        let covering = own.covering_sequence(key, MAX_SEQUENCE).unwrap_or(0);
        match own.get(key, MAX_SEQUENCE) {
            Some((trailer, stored)) if trailer.sequence() > covering => {
                return StoredRecord::of(trailer.kind(), stored);
            }
            _ if covering > 0 => return Ok(None),
            _ => {}
        }
    }
    stored_record::find(view, key, snapshot)
}
