//! Validation of indexes: every record is found under its keys, and every entry leads to its record.
//!
//! Invariant: both are read at one snapshot, in memory that does not grow with the data. What expires
//! while it is looked at is no disagreement.

use crate::db::Db;
use crate::index::catalog::Index;
use crate::index::definition::{entry_key, split_entry};
use crate::index::stored_record::{self, StoredRecord};
use crate::keyspace::KeyspaceState;
use crate::range_spec::KeyRange;
use crate::snapshot::Snapshot;
use crate::super_version::SuperVersion;
use crate::validate::{Issue, Shared};
use esker_base::{Result, SequenceNumber};
use std::sync::Arc;

/// Disagreements of one index that are reported one by one.
const MOST_ISSUES: usize = 20;

/// Compares every index that is ready with its records.
pub(crate) fn check(db: &Db, shared: &Shared<'_>) {
    let engine = db.engine();
    let owners = engine.all_keyspaces();
    for owner in owners.iter().filter(|owner| owner.indexes.any()) {
        for index in &owner.indexes.set().declared {
            let snapshot = db.snapshot();
            if index.check_ready(Some(snapshot.sequence())).is_ok() {
                let checked = Check::new(owner, index, &snapshot).run();
                match checked {
                    _ if owner.is_dropped() => {}
                    Ok(found) => found.into_iter().for_each(|issue| shared.found(issue)),
                    // What cannot be read is damage of a file; what cannot be decoded, of an index.
                    Err(error) => shared.failed(error, Issue::damage),
                }
            }
        }
    }
}

struct Check<'a> {
    owner: &'a KeyspaceState,
    index: &'a Index,
    records: Arc<SuperVersion>,
    entries: Arc<SuperVersion>,
    sequence: SequenceNumber,
    now_millis: u64,
    issues: Vec<Issue>,
    _snapshot: Snapshot,
}

impl<'a> Check<'a> {
    fn new(owner: &'a KeyspaceState, index: &'a Index, snapshot: &Snapshot) -> Self {
        let sequence = snapshot.sequence();
        let at = |state: &KeyspaceState| arc_swap::Guard::into_inner(state.load_at(Some(sequence)));
        Self {
            owner,
            index,
            records: at(owner),
            entries: at(&index.entries),
            sequence,
            now_millis: snapshot.now_millis(),
            issues: Vec::new(),
            _snapshot: snapshot.clone(),
        }
    }

    fn run(mut self) -> Result<Vec<Issue>> {
        let (records, entries) = (Arc::clone(&self.records), Arc::clone(&self.entries));
        let sequence = self.sequence;
        stored_record::for_each_key(&records, &KeyRange::all(), |key| {
            if let Some(record) = stored_record::find(&records, key, sequence)?
                && record.is_live(self.now_millis)
            {
                self.check_record(key, &record)?;
            }
            Ok(self.issues.len() < MOST_ISSUES)
        })?;
        stored_record::for_each_key(&entries, &KeyRange::all(), |entry| {
            if let Some(stored) = stored_record::find(&entries, entry, sequence)?
                && stored.is_live(self.now_millis)
            {
                self.check_entry(entry, &stored)?;
            }
            Ok(self.issues.len() < 2 * MOST_ISSUES)
        })?;
        Ok(self.issues)
    }

    fn check_record(&mut self, key: &[u8], record: &StoredRecord) -> Result<()> {
        for index_key in self.index.definition.keys_of(key, &record.value)? {
            let entry = entry_key(&index_key, key);
            match stored_record::find(&self.entries, &entry, self.sequence)? {
                Some(stored) if stored.expiry_millis == record.expiry_millis => {}
                Some(_) => self.report("has an entry that expires at another time", key),
                None => self.report("is missing", key),
            }
        }
        Ok(())
    }

    fn check_entry(&mut self, entry: &[u8], stored: &StoredRecord) -> Result<()> {
        let Ok((index_key, key)) = split_entry(entry, &stored.value) else {
            self.report("has an entry that cannot be decoded", entry);
            return Ok(());
        };
        let record = stored_record::find(&self.records, &key, self.sequence)?;
        let found = match record {
            Some(record) => self.index.definition.keys_of(&key, &record.value)?,
            None => Vec::new(),
        };
        if !found.iter().any(|found| found == index_key) {
            self.report("has an entry that its record does not have", &key);
        }
        Ok(())
    }

    fn report(&mut self, what: &str, key: &[u8]) {
        let shown = key.get(..64).unwrap_or(key).escape_ascii();
        let (name, keyspace) = (self.index.definition.name(), &self.owner.name);
        let message = format!("index {name:?} of keyspace {keyspace:?}: \"{shown}\" {what}");
        self.issues.push(Issue::of_index(message));
    }
}
