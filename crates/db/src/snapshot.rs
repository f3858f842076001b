//! Snapshots: a sequence number that compaction respects.
//!
//! Invariant (I6): a sequence number is listed before anybody reads at it and until its last reader
//! is gone; compaction takes the list and the visible sequence under the same lock, so that nothing
//! a listed or future snapshot can see is dropped. Creating and dropping one is O(log n) of the
//! snapshots open, whatever the size of the database.

use crate::engine::Engine;
use crate::keyspace::Keyspace;
use crate::range_spec::KeyRange;
use crate::scan::Entries;
use crate::value::Value;
use crate::visible::Visible;
use crate::{Cursor, Db};
use esker_base::{Error, Result, SequenceNumber};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

/// The sequence numbers that open snapshots read at, each with how many do.
#[derive(Debug, Default)]
pub(crate) struct SnapshotList {
    open: Mutex<BTreeMap<SequenceNumber, usize>>,
}

impl SnapshotList {
    /// Lists the sequence that is visible now.
    pub(crate) fn take(&self, visible: &Visible) -> SequenceNumber {
        let mut open = self.open.lock();
        let sequence = visible.get();
        *open.entry(sequence).or_insert(0) += 1;
        sequence
    }

    fn release(&self, sequence: SequenceNumber) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&sequence) {
            *count -= 1;
            if *count == 0 {
                open.remove(&sequence);
            }
        }
    }

    /// Every sequence that must stay readable, ascending: the open snapshots' and the visible one.
    pub(crate) fn retained(&self, visible: &Visible) -> Vec<SequenceNumber> {
        let open = self.open.lock();
        let visible = visible.get();
        let mut sequences: Vec<_> = open.keys().copied().collect();
        if sequences.last() != Some(&visible) {
            sequences.push(visible);
        }
        sequences
    }

    /// The newest open snapshot's sequence.
    pub(crate) fn newest(&self) -> Option<SequenceNumber> {
        self.open.lock().keys().next_back().copied()
    }

    /// How many snapshots are open, and the oldest one's sequence.
    pub(crate) fn summary(&self) -> (usize, Option<SequenceNumber>) {
        let open = self.open.lock();
        (open.values().sum(), open.keys().next().copied())
    }
}

/// A listed sequence number; dropping it takes it off the list.
pub(crate) struct SnapshotPin {
    db: Db,
    sequence: SequenceNumber,
}

impl Drop for SnapshotPin {
    fn drop(&mut self) {
        let engine = self.db.engine();
        engine.snapshots.release(self.sequence);
        engine.forget_replaced();
    }
}

/// The database as it was at one moment: never changes, costs O(1), holds no lock.
///
/// What it pins is the versions of records that only it can still see: compaction keeps them until
/// the last clone is dropped.
///
/// It holds the writes, not the clock: a value with a time to live expires under it at its instant, as for
/// every other reader, for iterators and cursors that are under way as well.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// db.put("k", "old")?;
/// let snapshot = db.snapshot();
/// db.put("k", "new")?;
/// assert_eq!(snapshot.get("k")?.as_deref(), Some(&b"old"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    keyspace: Keyspace,
    pin: Arc<SnapshotPin>,
}

impl Snapshot {
    pub(crate) fn new(db: &Db) -> Self {
        let engine = db.engine();
        let sequence = engine.snapshots.take(&engine.visible);
        let pin = Arc::new(SnapshotPin {
            db: db.clone(),
            sequence,
        });
        Self {
            keyspace: (**db).clone(),
            pin,
        }
    }

    /// The same moment, seen in another keyspace of the same database.
    #[must_use]
    pub fn of(&self, keyspace: &Keyspace) -> Self {
        Self {
            keyspace: keyspace.clone(),
            pin: Arc::clone(&self.pin),
        }
    }

    /// As [`Snapshot::get`], in `keyspace`. Everything else that a snapshot can be asked has such a
    /// form too; several reads of one keyspace may as well go through [`Snapshot::of`].
    ///
    /// # Errors
    /// As [`Snapshot::get`]; `InvalidArgument` for a keyspace of another database.
    pub fn get_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.check_is_of_this_database(keyspace)?;
        keyspace.get_at(key.as_ref(), Some(self.pin.sequence))
    }

    /// As [`Snapshot::contains_key`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Snapshot::get_in`].
    pub fn contains_key_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_in(keyspace, key)?.is_some())
    }

    /// As [`Snapshot::multi_get`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Snapshot::get_in`].
    pub fn multi_get_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>> {
        self.check_is_of_this_database(keyspace)?;
        keyspace.multi_get_at(keys, Some(self.pin.sequence))
    }

    /// As [`Snapshot::ttl`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Snapshot::get_in`].
    pub fn ttl_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Duration>> {
        self.check_is_of_this_database(keyspace)?;
        keyspace.ttl_at(key.as_ref(), Some(self.pin.sequence))
    }

    /// As [`Snapshot::iter`], in `keyspace`.
    #[must_use]
    pub fn iter_in(&self, keyspace: &Keyspace) -> Entries {
        self.of(keyspace).iter()
    }

    /// As [`Snapshot::range`], in `keyspace`.
    pub fn range_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> Entries {
        self.of(keyspace).range(range)
    }

    /// As [`Snapshot::prefix`], in `keyspace`.
    pub fn prefix_in(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Entries {
        self.of(keyspace).prefix(prefix)
    }

    /// As [`Snapshot::cursor`], in `keyspace`.
    #[must_use]
    pub fn cursor_in(&self, keyspace: &Keyspace) -> Cursor {
        self.of(keyspace).cursor()
    }

    /// As [`Snapshot::count`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Snapshot::get_in`].
    pub fn count_in(&self, keyspace: &Keyspace) -> Result<u64> {
        self.check_is_of_this_database(keyspace)?;
        self.of(keyspace).count()
    }

    fn check_is_of_this_database(&self, keyspace: &Keyspace) -> Result<()> {
        if Arc::ptr_eq(keyspace.engine(), self.keyspace.engine()) {
            return Ok(());
        }
        let sentence = "the keyspace is of another database than the snapshot";
        Err(Error::invalid_argument(sentence))
    }

    /// The keyspace that it reads.
    #[must_use]
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Whether it is one of this database.
    pub(crate) fn is_of(&self, engine: &Arc<Engine>) -> bool {
        Arc::ptr_eq(self.pin.db.engine(), engine)
    }

    /// The sequence number it reads at: it sees every write up to it and none after.
    #[must_use]
    pub fn sequence(&self) -> SequenceNumber {
        self.pin.sequence
    }

    pub(crate) fn now_millis(&self) -> u64 {
        self.pin.db.engine().clock().now_millis()
    }

    /// The value of `key` then.
    ///
    /// # Errors
    /// `Corruption` and `Io` from the tables; `Closed` after [`Db::close`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.keyspace.get_at(key.as_ref(), Some(self.pin.sequence))
    }

    /// Whether `key` had a value.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>> {
        self.keyspace.multi_get_at(keys, Some(self.pin.sequence))
    }

    /// How long `key` still had to live, as seen by the clock now; `None` where it has no expiry.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Duration>> {
        self.keyspace.ttl_at(key.as_ref(), Some(self.pin.sequence))
    }

    /// All entries in key order.
    #[must_use]
    pub fn iter(&self) -> Entries {
        self.entries(KeyRange::all())
    }

    /// The entries of a range of keys, in order.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Entries {
        self.entries(KeyRange::new(&range))
    }

    /// The entries whose keys begin with `prefix`, in order.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Entries {
        self.entries(KeyRange::prefix(prefix.as_ref()))
    }

    /// A cursor over the entries.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::new(&self.keyspace, KeyRange::all(), Some(self.clone()))
    }

    /// Number of entries, counted.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn count(&self) -> Result<u64> {
        self.cursor().count_rest()
    }

    fn entries(&self, range: KeyRange) -> Entries {
        Entries::new(&self.keyspace, range, Some(self.clone()))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("keyspace", &self.keyspace.name())
            .field("sequence", &self.pin.sequence)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_each_sequence_until_its_last_reader_is_gone() {
        let (list, visible) = (SnapshotList::default(), Visible::new(5));
        assert_eq!(list.retained(&visible), [5]);
        let (a, b) = (list.take(&visible), list.take(&visible));
        visible.publish(9);
        assert_eq!(list.retained(&visible), [5, 9]);
        list.release(a);
        assert_eq!(
            (list.retained(&visible), list.summary()),
            (vec![5, 9], (1, Some(5)))
        );
        list.release(b);
        assert_eq!(list.retained(&visible), [9]);
    }
}
