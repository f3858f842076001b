//! Times to live after the write: changing them, removing them, and removing what has expired.
//!
//! Invariant: none of these overwrites a newer value. Each reads at a snapshot and commits only if
//! the leader finds that what it read is still true, as a transaction does; else it looks again.

use crate::batch::WriteBatch;
use crate::commit;
use crate::cursor::Source;
use crate::db::Db;
use crate::engine::Engine;
use crate::index::definition::is_reserved_name;
use crate::keyspace::{Keyspace, KeyspaceState};
use crate::read;
use crate::read_set::{READ_SET_BYTES, ReadSet};
use crate::snapshot::Snapshot;
use crate::super_version::SuperVersion;
use crate::validation::Validation;
use esker_base::internal_key::SequenceNumber;
use esker_base::iterator::InternalIterator;
use esker_base::merging_iterator::MergingIterator;
use esker_base::write_batch::{KeyspaceId, split_expiry};
use esker_base::{Error, ErrorKind, Result, ValueKind};
use esker_sstable::{FillCache, LevelIter};
use std::sync::Arc;
use std::time::Duration;

/// Keys that one batch removes: what the commit leader checks at once.
const KEYS_PER_BATCH: usize = 128;
/// How often a change is tried again after somebody else wrote the key.
const ATTEMPTS: usize = 1000;

/// Turns the times to live of a batch into points in time: those that it names, and the defaults of
/// its keyspaces where it names none.
pub(crate) fn settle(
    engine: &Engine,
    batch: &mut WriteBatch,
    keyspaces: &[Arc<KeyspaceState>],
) -> Result<()> {
    let default_ttl = |state: &KeyspaceState| match batch.ttl {
        Some(asked) => asked,
        None => state.default_ttl_millis(&engine.settings),
    };
    let known = keyspaces
        .iter()
        .filter_map(|state| Some((state.id, default_ttl(state)?)));
    let ttls: Vec<(KeyspaceId, u64)> = known.collect();
    if !batch.has_expiries() && ttls.is_empty() {
        return Ok(());
    }
    let now_millis = engine.clock().now_millis();
    batch.settle_expiries(now_millis);
    batch.apply_default_ttls(&ttls, now_millis)
}

impl Db {
    /// Removes every expired key of every keyspace and says how many there were. They are invisible
    /// anyhow, and leave with compaction; this frees their space sooner.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub fn cleanup_expired(&self) -> Result<u64> {
        self.engine().check_writable()?;
        let mut removed = 0;
        for state in self.engine().all_keyspaces() {
            let keyspace = Keyspace::new(Arc::clone(self.handle()), state);
            let is_hidden = is_reserved_name(keyspace.name());
            let cleaned = keyspace.cleanup_expired();
            removed += match cleaned.map(|count| if is_hidden { 0 } else { count }) {
                Err(error) if keyspace.state().is_dropped() => {
                    tracing::debug!(%error, "dropped while it was cleaned up");
                    0
                }
                removed => removed?,
            };
        }
        Ok(removed)
    }
}

impl Keyspace {
    /// Removes every expired key and says how many there were.
    ///
    /// # Errors
    /// As [`Keyspace::put`].
    pub fn cleanup_expired(&self) -> Result<u64> {
        self.engine().check_writable()?;
        let snapshot = self.snapshot();
        let mut removed = 0;
        for_expired_keys(self, snapshot.sequence(), &mut |keys| {
            removed += match self.remove_unchanged(keys, &snapshot) {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    self.remove_one_by_one(keys, &snapshot)?
                }
                removed => removed?,
            };
            Ok(())
        })?;
        Ok(removed)
    }

    /// Gives the value of `key` a new time to live, from now on. Says whether there was a value.
    ///
    /// # Errors
    /// As [`Keyspace::put`]; `Conflict` where the key is written over and over meanwhile.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn main() -> esker::Result<()> {
    /// let db = esker::Options::new().open_in_memory()?;
    /// db.put("session", "active")?;
    /// assert!(db.set_ttl("session", Duration::from_secs(60))?);
    /// assert!(db.ttl("session")?.is_some());
    /// assert!(db.persist("session")?);
    /// assert_eq!(db.ttl("session")?, None);
    /// assert_eq!(db.get("session")?.as_deref(), Some(&b"active"[..]));
    /// # Ok(()) }
    /// ```
    pub fn set_ttl(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        let key = key.as_ref();
        self.rewrite(key, |snapshot, batch| {
            let Some(value) = snapshot.get(key)? else {
                return Ok(false);
            };
            batch.put_with_ttl_in(self, key, &value, ttl);
            Ok(true)
        })
    }

    /// Removes the expiry of `key`. Says whether it had one.
    ///
    /// # Errors
    /// As [`Keyspace::set_ttl`].
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        self.rewrite(key, |snapshot, batch| {
            let expires = snapshot.ttl(key)?.is_some();
            match snapshot.get(key)? {
                Some(value) if expires => {
                    // Whatever the keyspace's default is.
                    batch.ttl = Some(None);
                    batch.put_in(self, key, &value);
                    Ok(true)
                }
                _ => Ok(false),
            }
        })
    }

    /// Commits what `change` makes of a snapshot if `key` has not changed since; else tries again.
    fn rewrite(
        &self,
        key: &[u8],
        change: impl Fn(&Snapshot, &mut WriteBatch) -> Result<bool>,
    ) -> Result<bool> {
        let engine = self.engine();
        engine.check_writable()?;
        let mut conflict = None;
        for _ in 0..ATTEMPTS {
            let snapshot = self.snapshot();
            let mut batch = WriteBatch::new();
            if !change(&snapshot, &mut batch)? {
                return Ok(false);
            }
            let mut reads = ReadSet::new(snapshot, READ_SET_BYTES);
            reads.add_key(self, key);
            let validation = Validation::new(vec![reads]);
            let durability = engine.settings.default_durability();
            match commit::write_batch(engine, batch, durability, Some(&validation)) {
                Err(error) if error.kind() == ErrorKind::Conflict => conflict = Some(error),
                written => return written.map(|()| true),
            }
        }
        let sentence = "the key is written all the time";
        Err(conflict.unwrap_or_else(|| Error::new(ErrorKind::Conflict, sentence)))
    }

    /// Removes `keys` if none of them has changed since `snapshot`.
    fn remove_unchanged(&self, keys: &[Vec<u8>], snapshot: &Snapshot) -> Result<u64> {
        let engine = self.engine();
        let mut batch = WriteBatch::new();
        let mut reads = ReadSet::new(snapshot.clone(), READ_SET_BYTES);
        for key in keys {
            batch.delete_in(self, key);
            reads.add_key(self, key);
        }
        let durability = engine.settings.default_durability();
        let validation = Validation::new(vec![reads]);
        commit::write_batch(engine, batch, durability, Some(&validation))?;
        Ok(keys.len() as u64)
    }

    /// As [`Keyspace::remove_unchanged`], leaving out those that have changed.
    fn remove_one_by_one(&self, keys: &[Vec<u8>], snapshot: &Snapshot) -> Result<u64> {
        let mut removed = 0;
        for key in keys {
            removed += match self.remove_unchanged(std::slice::from_ref(key), snapshot) {
                Err(error) if error.kind() == ErrorKind::Conflict => 0,
                removed => removed?,
            };
        }
        Ok(removed)
    }
}

/// Hands out the keys whose newest value at `sequence` has expired, a batch at a time. Of the tables
/// only those are scanned that hold an expired record.
fn for_expired_keys(
    keyspace: &Keyspace,
    sequence: SequenceNumber,
    found: &mut dyn FnMut(&[Vec<u8>]) -> Result<()>,
) -> Result<()> {
    let view = keyspace.super_version(Some(sequence));
    let now_millis = keyspace.engine().clock().now_millis();
    let mut merge = MergingIterator::new(sources_with_expired(&view, now_millis));
    let mut expired: Vec<Vec<u8>> = Vec::new();
    merge.seek_to_first()?;
    while merge.valid() {
        let (key, trailer) = (merge.user_key(), merge.trailer());
        let seen = expired.last().is_some_and(|last| last == key);
        let has_expired = trailer.kind() == Some(ValueKind::ValueWithExpiry)
            && split_expiry(merge.value()).is_some_and(|(expiry, _)| expiry <= now_millis);
        if !seen && has_expired && trailer.sequence() <= sequence {
            let newest = read::find(&view, key, sequence)?;
            if newest.is_some_and(|found| found.trailer() == trailer) {
                expired.push(key.to_vec());
            }
        }
        merge.next()?;
        if expired.len() > KEYS_PER_BATCH {
            // The last one stays, so that its older versions are told from new keys.
            let last = expired.split_off(KEYS_PER_BATCH);
            found(&expired)?;
            expired = last;
        }
    }
    if expired.is_empty() {
        return Ok(());
    }
    found(&expired)
}

fn sources_with_expired(view: &SuperVersion, now_millis: u64) -> Vec<Source> {
    let memtables = view.memtables().filter(|memtable| memtable.entries() > 0);
    let memtables = memtables.map(|memtable| Source::Memtable(memtable.iter()));
    let runs = view.runs.iter().filter_map(|run| {
        let tables = run.tables.iter().filter(|table| {
            let meta = table.meta();
            meta.expiring_entries > 0 && meta.earliest_expiry_millis <= now_millis
        });
        let tables: Arc<[_]> = tables.cloned().collect();
        (!tables.is_empty()).then(|| Source::Run(LevelIter::new(tables, FillCache::No)))
    });
    memtables.chain(runs).collect()
}
