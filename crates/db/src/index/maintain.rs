//! The leader's part: what a batch changes in the indexes of the keyspaces it writes to.
//!
//! Invariants: called with the writer lock held, before a group is numbered; each batch is seen after
//! all earlier ones of its group, and takes its index changes with it, or is refused with all of
//! them. A write to a keyspace with indexes is always logged: an index and its records are in
//! different memtables, which only the log keeps together.

use crate::commit::{Member, Writer, check_entry};
use crate::engine::Engine;
use crate::index::catalog::{Index, IndexSet, push_record};
use crate::index::definition::{entry_key, entry_value, split_entry, violation};
use crate::index::index_record::{IndexRecord, IndexState};
use crate::index::pending::{Layer, Newest};
use crate::index::stored_record::{self, StoredRecord};
use crate::keyspace::KeyspaceState;
use crate::range_spec::KeyRange;
use esker_base::limits::MAX_INDEX_CHANGES_BYTES;
use esker_base::write_batch::{BatchEncoder, Record};
use esker_base::{Error, ErrorKind, Result, ValueKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a batch changes in indexes.
pub(crate) struct IndexChanges {
    pub(crate) records: BatchEncoder,
    /// The hidden keyspaces that they are in.
    pub(crate) keyspaces: Vec<Arc<KeyspaceState>>,
}

impl Engine {
    /// Makes room for what the batches change in indexes. Where the disk `is_full`, the batches that
    /// are left only delete.
    #[cold]
    pub(crate) fn make_room_for_entries(
        self: &Arc<Self>,
        writer: &mut Writer,
        members: &[Member<'_>],
        is_full: bool,
    ) -> Result<()> {
        for state in members.iter().flat_map(Member::keyspaces) {
            for index in &state.indexes.set().declared {
                let room = self.make_room_in(writer, &index.entries, members);
                // What deletes goes on where there is no space: it is what makes some.
                if !is_full {
                    room?;
                }
            }
        }
        Ok(())
    }

    /// Appends to a batch what it changes in indexes, or refuses it. `before` is what the batches
    /// before it in its group have changed.
    #[inline]
    pub(crate) fn maintain_indexes(self: &Arc<Self>, before: &mut Layer, member: &mut Member<'_>) {
        if !member.is_indexed() || member.is_refused() {
            return;
        }
        match self.derive_changes(before, member) {
            Ok((changes, layer)) => {
                before.absorb(layer);
                member.add_index_changes(changes);
            }
            Err(error) => member.refuse(&error),
        }
    }

    fn derive_changes(
        self: &Arc<Self>,
        group: &Layer,
        member: &Member<'_>,
    ) -> Result<(IndexChanges, Layer)> {
        let mut derivation = Derivation::new(self, group);
        for record in member.batch().records() {
            let record = record?;
            let mut keyspaces = member.keyspaces().iter();
            let state = keyspaces.find(|state| state.id == record.keyspace);
            if let Some(state) = state.filter(|state| state.indexes.any()) {
                derivation.record(state, &record)?;
            }
        }
        derivation.check_uniqueness()?;
        derivation.changes.keyspaces.sort_by_key(|state| state.id);
        derivation.changes.keyspaces.dedup_by_key(|state| state.id);
        Ok((derivation.changes, derivation.local))
    }
}

/// One batch's changes on their way.
pub(crate) struct Derivation<'a> {
    engine: &'a Arc<Engine>,
    group: &'a Layer,
    local: Layer,
    changes: IndexChanges,
    /// Entries of unique indexes: the index, the index key and the record's key.
    added: Vec<(Arc<Index>, Vec<u8>, Vec<u8>)>,
}

impl<'a> Derivation<'a> {
    pub(crate) fn new(engine: &'a Arc<Engine>, group: &'a Layer) -> Self {
        Self {
            engine,
            group,
            local: Layer::default(),
            changes: IndexChanges {
                records: BatchEncoder::new(),
                keyspaces: Vec::new(),
            },
            added: Vec::new(),
        }
    }

    fn newest(&self) -> Newest<'_> {
        Newest {
            layers: [&self.local, self.group],
            visible: self.engine.visible_sequence(),
        }
    }

    fn record(&mut self, state: &KeyspaceState, record: &Record<'_>) -> Result<()> {
        let set = state.indexes.set();
        self.mark_undeclared(state, &set)?;
        if set.declared.is_empty() {
            return Ok(());
        }
        if record.kind == ValueKind::RangeDelete {
            return self.delete_range(state, &set, record.key, record.value);
        }
        let new = StoredRecord::of(Some(record.kind), record.value)?;
        self.replace(state, &set, record.key, new)
    }

    /// Marks the indexes stale that this write leaves behind.
    fn mark_undeclared(&mut self, state: &KeyspaceState, set: &IndexSet) -> Result<()> {
        if set.undeclared.is_empty() || set.all_marked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let catalog = self.engine.catalog()?;
        let (view, visible) = (catalog.load_full(), self.engine.visible_sequence());
        let mut all_marked = true;
        for (name, record) in &set.undeclared {
            let key = crate::tuple::encode(&(state.name.as_str(), name.as_str()));
            let stored = self.newest().get(&catalog, &key)?;
            let stored = stored.map(|stored| IndexRecord::decode(&stored.value));
            let stored = stored.transpose()?;
            // The marks of this group may still fail to be logged: only what is inserted counts.
            let inserted = stored_record::find(&view, &key, visible)?;
            let inserted = inserted.map(|stored| IndexRecord::decode(&stored.value));
            let is_marked = |record: &IndexRecord| record.state == IndexState::Stale;
            all_marked &= inserted.transpose()?.as_ref().is_none_or(is_marked);
            if stored.is_some_and(|stored| stored.state != IndexState::Stale) {
                let stale = IndexRecord {
                    state: IndexState::Stale,
                    ..record.clone()
                };
                push_record(
                    &mut self.changes.records,
                    &catalog,
                    &state.name,
                    name,
                    Some(&stale),
                );
                let value = StoredRecord {
                    value: stale.encode(),
                    expiry_millis: None,
                };
                self.local.set(catalog.id, &key, Some(value));
                self.changes.keyspaces.push(Arc::clone(&catalog));
            }
        }
        set.all_marked.store(all_marked, Ordering::Relaxed);
        Ok(())
    }

    /// The record of `key` becomes `new`.
    fn replace(
        &mut self,
        state: &KeyspaceState,
        set: &IndexSet,
        key: &[u8],
        new: Option<StoredRecord>,
    ) -> Result<()> {
        let old = self.newest().get(state, key)?;
        let expiry = |record: &Option<StoredRecord>| record.as_ref()?.expiry_millis;
        let keeps_expiry = expiry(&old) == expiry(&new);
        for index in &set.declared {
            let new_keys = keys_of(index, key, new.as_ref())?;
            let old_keys = match keys_of(index, key, old.as_ref()) {
                // Not every record need have been accepted by an index that is not ready.
                Err(_) if !index.is_ready() => Vec::new(),
                old_keys => old_keys?,
            };
            let gone = old_keys
                .iter()
                .filter(|old| new_keys.binary_search(old).is_err());
            for index_key in gone {
                self.remove_entry(index, index_key, key)?;
            }
            for index_key in &new_keys {
                let stays =
                    index.is_ready() && keeps_expiry && old_keys.binary_search(index_key).is_ok();
                if !stays {
                    self.add_entry(index, index_key, key, expiry(&new))?;
                }
            }
        }
        self.local.set(state.id, key, new);
        Ok(())
    }

    fn remove_entry(&mut self, index: &Index, index_key: &[u8], key: &[u8]) -> Result<()> {
        let entry = entry_key(index_key, key);
        let (id, records) = (index.entries.id, &mut self.changes.records);
        records.push(id, ValueKind::Tombstone, &entry, &[]);
        self.local.set(id, &entry, None);
        self.note(index)
    }

    /// Adds the entry under which a record is found.
    pub(crate) fn add_entry(
        &mut self,
        index: &Arc<Index>,
        index_key: &[u8],
        key: &[u8],
        expiry_millis: Option<u64>,
    ) -> Result<()> {
        let (entry, value) = (entry_key(index_key, key), entry_value(index_key));
        check_entry(&self.engine.settings, &entry, &value)?;
        let (id, records) = (index.entries.id, &mut self.changes.records);
        match expiry_millis {
            None => records.push(id, ValueKind::Value, &entry, &value),
            Some(expiry) => records.push_expiring(id, &entry, &value, expiry),
        }
        let stored = StoredRecord {
            value,
            expiry_millis,
        };
        self.local.set(id, &entry, Some(stored));
        if index.definition.is_unique() {
            let added = (Arc::clone(index), index_key.to_vec(), key.to_vec());
            self.added.push(added);
        }
        self.note(index)
    }

    /// Keeps memory bounded.
    fn note(&mut self, index: &Index) -> Result<()> {
        let keyspaces = &mut self.changes.keyspaces;
        if !keyspaces.iter().any(|known| known.id == index.entries.id) {
            keyspaces.push(Arc::clone(&index.entries));
        }
        within_limit(self.changes.records.encoded_bytes())
    }

    fn delete_range(
        &mut self,
        state: &KeyspaceState,
        set: &IndexSet,
        start: &[u8],
        end: &[u8],
    ) -> Result<()> {
        if start.is_empty() && end.is_empty() {
            for index in &set.declared {
                let (id, records) = (index.entries.id, &mut self.changes.records);
                records.push(id, ValueKind::RangeDelete, &[], &[]);
                self.local.delete_range(id, &[], &[]);
                self.note(index)?;
            }
        } else {
            let (mut keys, mut bytes) = (Vec::new(), 0);
            self.newest()
                .for_each_key(state, &KeyRange::half_open(start, end), |key| {
                    bytes += key.len() + size_of::<Vec<u8>>();
                    within_limit(bytes)?;
                    keys.push(key.to_vec());
                    Ok(true)
                })?;
            for key in keys {
                self.replace(state, set, &key, None)?;
            }
        }
        self.local.delete_range(state.id, start, end);
        Ok(())
    }

    /// Fails where a unique index would have a key twice once the whole batch is written.
    pub(crate) fn check_uniqueness(&self) -> Result<()> {
        let (newest, now_millis) = (self.newest(), self.engine.clock().now_millis());
        for (index, index_key, key) in &self.added {
            let own = entry_key(index_key, key);
            let stands = |entry: &[u8]| -> Result<Option<StoredRecord>> {
                let found = newest.get(&index.entries, entry)?;
                Ok(found.filter(|found| found.is_live(now_millis)))
            };
            if stands(&own)?.is_none() {
                continue;
            }
            newest.for_each_key(&index.entries, &KeyRange::prefix(index_key), |entry| {
                if entry == own {
                    return Ok(true);
                }
                if let Some(found) = stands(entry)? {
                    let (other_index_key, other) = split_entry(entry, &found.value)?;
                    if other_index_key == index_key {
                        return Err(violation(&index.definition, index_key, &other));
                    }
                }
                Ok(true)
            })?;
        }
        Ok(())
    }

    /// The changes, once they are complete and checked.
    pub(crate) fn into_changes(self) -> IndexChanges {
        self.changes
    }
}

fn keys_of(index: &Index, key: &[u8], record: Option<&StoredRecord>) -> Result<Vec<Vec<u8>>> {
    match record {
        Some(record) => index.definition.keys_of(key, &record.value),
        None => Ok(Vec::new()),
    }
}

fn within_limit(bytes: usize) -> Result<()> {
    if bytes <= MAX_INDEX_CHANGES_BYTES {
        return Ok(());
    }
    let sentence = format!(
        "one batch may change {} MiB of index entries at most; write or delete in parts",
        MAX_INDEX_CHANGES_BYTES >> 20
    );
    Err(Error::new(ErrorKind::LimitExceeded, sentence))
}
