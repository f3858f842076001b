//! What a transaction writes: into its batch, which is what it will commit, and into its overlay,
//! which is what it reads.
//!
//! Invariant: the overlay holds exactly the records of the batch, in their order; a write that is
//! refused is in neither.

use super::{OVERLAY_BASE, Transaction};
use crate::batch::WriteBatch;
use crate::commit;
use crate::index;
use crate::keyspace::{Keyspace, dropped};
use crate::range_spec::KeyRange;
use esker_base::write_batch::Record;
use esker_base::{Error, Result, SequenceNumber, Trailer, ValueKind};
use esker_memtable::Memtable;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

impl Transaction {
    /// Sets `key` to `value` in the default keyspace.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty or oversized key or value. In a pessimistic transaction also
    /// those of [`Transaction::get_for_update`]. Likewise for all writes below.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_in(&(*self.db).clone(), key, value)
    }

    /// As [`Transaction::put`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::put`]; `NotFound` where `keyspace` was dropped, `InvalidArgument` where it is
    /// one of another database.
    pub fn put_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.ready_to_write(keyspace, key, value)?;
        self.push(|batch| batch.put_in(keyspace, key, value))
    }

    /// Sets `key` to `value` for as long as `ttl` from now.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn put_with_ttl(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        self.put_with_ttl_in(&(*self.db).clone(), key, value, ttl)
    }

    /// As [`Transaction::put_with_ttl`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::put_in`].
    pub fn put_with_ttl_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        self.ready_to_write(keyspace, key, value)?;
        let now_millis = self.db.engine().clock().now_millis();
        self.push(|batch| {
            batch.put_with_ttl_in(keyspace, key, value, ttl);
            batch.settle_expiries(now_millis);
        })
    }

    /// Removes `key` from the default keyspace.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_in(&(*self.db).clone(), key)
    }

    /// As [`Transaction::delete`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::put_in`].
    pub fn delete_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        self.ready_to_write(keyspace, key, &[])?;
        self.push(|batch| batch.delete_in(keyspace, key))
    }

    /// Removes every key of `range` from the default keyspace. A pessimistic transaction locks none of
    /// them: whoever holds one, or writes one meanwhile, is found at commit.
    ///
    /// # Errors
    /// As [`Transaction::put`]; `InvalidArgument` for a range that ends before it starts.
    pub fn delete_range<K: AsRef<[u8]>>(&mut self, range: impl RangeBounds<K>) -> Result<()> {
        self.delete_range_in(&(*self.db).clone(), range)
    }

    /// As [`Transaction::delete_range`], in `keyspace`.
    ///
    /// # Errors
    /// As [`Transaction::delete_range`] and [`Transaction::put_in`].
    pub fn delete_range_in<K: AsRef<[u8]>>(
        &mut self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> Result<()> {
        let key_range = KeyRange::new(&range);
        if key_range.is_inverted() {
            let sentence = "the range to delete ends before it starts";
            return Err(Error::invalid_argument(sentence));
        }
        self.check_target(keyspace)?;
        if self.locks.is_some() && !self.is_serializable() {
            self.protect_range(keyspace, &key_range);
        }
        self.push(|batch| batch.delete_range_in(keyspace, range))
    }

    /// Checks an entry and where it goes, and locks its key in a pessimistic transaction.
    pub(super) fn ready_to_write(
        &mut self,
        keyspace: &Keyspace,
        key: &[u8],
        value: &[u8],
    ) -> Result<()> {
        commit::check_entry(&self.db.engine().settings, key, value)?;
        self.check_target(keyspace)?;
        self.lock_to_write(keyspace, key)
    }

    fn check_target(&self, keyspace: &Keyspace) -> Result<()> {
        self.db.engine().check_open()?;
        self.check_keyspace(keyspace)?;
        if keyspace.state().is_dropped() {
            return Err(dropped(keyspace.name()));
        }
        Ok(())
    }

    /// Adds operations to the batch and to the overlay.
    pub(super) fn push(&mut self, operation: impl FnOnce(&mut WriteBatch)) -> Result<()> {
        let encoder = &self.batch.encoder;
        let (operations, bytes) = (encoder.count(), encoder.encoded_bytes());
        operation(&mut self.batch);
        let overlaid = self.overlay_from(operations, bytes);
        if overlaid.is_err() {
            // What an index refuses was never written.
            self.batch.truncate(operations, bytes);
        }
        overlaid
    }

    /// Adds the batch's operations to the overlay, but for the first ones, which take `bytes` of it.
    pub(super) fn overlay_from(&mut self, operations: u32, bytes: usize) -> Result<()> {
        let engine = self.db.engine();
        let records = self.batch.encoder.records_after(operations, bytes);
        for (sequence, record) in (OVERLAY_BASE + u64::from(operations)..).zip(records) {
            let record = record?;
            let snapshot = self.snapshot.sequence();
            index::overlay::apply(engine, &mut self.overlays, snapshot, &record, sequence)?;
            let overlay = self.overlays.entry(record.keyspace).or_insert_with(|| {
                let arenas = Arc::clone(&engine.arenas);
                Arc::new(Memtable::with_pool(engine.settings.memtable(), arenas))
            });
            insert(overlay, &record, sequence);
        }
        Ok(())
    }

    /// First committer wins: what is written must not have been written by another since.
    pub(super) fn protect_writes(&self) -> Result<()> {
        let Some(reads) = self.reads.last() else {
            return Ok(());
        };
        let mut reads = reads.lock();
        let default: &Keyspace = &self.db;
        for record in self.batch.encoder.records() {
            let record = record?;
            let mut named = self.batch.keyspaces.iter();
            let keyspace = named.find(|named| named.id() == record.keyspace);
            let keyspace = keyspace.unwrap_or(default);
            if record.kind == ValueKind::RangeDelete {
                let range = KeyRange::half_open(record.key, record.value);
                reads.add_range(keyspace, &range);
            } else {
                reads.add_key(keyspace, record.key);
            }
        }
        Ok(())
    }
}

fn insert(overlay: &Memtable, record: &Record<'_>, sequence: SequenceNumber) {
    if record.kind == ValueKind::RangeDelete {
        overlay.add_range_tombstone(record.key, record.value, sequence);
    } else {
        let trailer = Trailer::new(sequence, record.kind);
        overlay.insert(record.key, trailer, record.value);
    }
}
