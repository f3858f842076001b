//! The public write batch: operations over keyspaces that become visible and durable together.
//!
//! Invariant: a batch knows nothing of a database until it is written; bad keys and handles of
//! another database are found then, before anything is changed.

use crate::keyspace::Keyspace;
use crate::option_word::millis_of;
use crate::range_spec::KeyRange;
use esker_base::limits::MAX_BATCH_BYTES;
use esker_base::write_batch::{BatchEncoder, KeyspaceId, Record};
use esker_base::{Error, Result, ValueKind};
use std::ops::RangeBounds;
use std::time::Duration;

/// Operations that are applied together or not at all; later ones on a key win.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// let mut batch = esker::WriteBatch::new();
/// batch.put("a", "1");
/// batch.delete("b");
/// db.write(batch)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    pub(crate) encoder: BatchEncoder,
    /// The keyspaces named so far, so that each is checked once.
    pub(crate) keyspaces: Vec<Keyspace>,
    /// Values whose time to live begins when the batch is written: their end in the encoding, their
    /// length, and the time to live in milliseconds.
    relative_expiries: Vec<(usize, usize, u64)>,
    /// Milliseconds that values live which name no time themselves, or that they do not expire;
    /// nothing: the default of their keyspace.
    pub(crate) ttl: Option<Option<u64>>,
    /// The puts that do not expire whatever the default is: their places among the operations, ascending.
    lasting: Vec<u32>,
    /// The first operation that can be no good in any database.
    refused: Option<Error>,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value` in the default keyspace.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.push(0, ValueKind::Value, key.as_ref(), value.as_ref());
    }

    /// Removes `key` from the default keyspace.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.push(0, ValueKind::Tombstone, key.as_ref(), &[]);
    }

    /// Sets `key` to `value` until `ttl` after the batch is written.
    pub fn put_with_ttl(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, ttl: Duration) {
        self.push_expiring(0, key.as_ref(), value.as_ref(), ttl);
    }

    /// Removes every key of `range` from the default keyspace, in O(1).
    pub fn delete_range<K: AsRef<[u8]>>(&mut self, range: impl RangeBounds<K>) {
        self.push_range(0, &KeyRange::new(&range));
    }

    /// As [`WriteBatch::put`], in `keyspace`.
    pub fn put_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let id = self.name(keyspace);
        self.push(id, ValueKind::Value, key.as_ref(), value.as_ref());
    }

    /// As [`WriteBatch::delete`], in `keyspace`.
    pub fn delete_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) {
        let id = self.name(keyspace);
        self.push(id, ValueKind::Tombstone, key.as_ref(), &[]);
    }

    /// As [`WriteBatch::put_with_ttl`], in `keyspace`.
    pub fn put_with_ttl_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) {
        let id = self.name(keyspace);
        self.push_expiring(id, key.as_ref(), value.as_ref(), ttl);
    }

    /// As [`WriteBatch::delete_range`], in `keyspace`.
    pub fn delete_range_in<K: AsRef<[u8]>>(
        &mut self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) {
        let id = self.name(keyspace);
        self.push_range(id, &KeyRange::new(&range));
    }

    /// Number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.encoder.count() as usize
    }

    /// Whether there is no operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.encoder.count() == 0
    }

    /// Bytes of the batch as it is logged.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.encoder.encoded_bytes()
    }

    /// Forgets every operation and keeps the memory.
    pub fn clear(&mut self) {
        self.encoder.clear();
        self.keyspaces.clear();
        self.relative_expiries.clear();
        self.ttl = None;
        self.lasting.clear();
        self.refused = None;
    }

    pub(crate) fn name(&mut self, keyspace: &Keyspace) -> KeyspaceId {
        if !self.keyspaces.iter().any(|known| known.is_same(keyspace)) {
            self.keyspaces.push(keyspace.clone());
        }
        keyspace.id()
    }

    pub(crate) fn push(&mut self, keyspace: KeyspaceId, kind: ValueKind, key: &[u8], value: &[u8]) {
        self.encoder.push(keyspace, kind, key, value);
    }

    /// As [`WriteBatch::put_in`], for a value that does not expire whatever the keyspace's default is.
    pub(crate) fn put_lasting_in(&mut self, keyspace: &Keyspace, key: &[u8], value: &[u8]) {
        self.lasting.push(self.encoder.count());
        self.put_in(keyspace, key, value);
    }

    /// Whether the put at `place` among the operations takes no default time to live.
    pub(crate) fn is_lasting(&self, place: u32) -> bool {
        self.lasting.binary_search(&place).is_ok()
    }

    /// Forgets everything after the first `operations`, which took `bytes` of the encoding. What
    /// expires has been settled.
    pub(crate) fn truncate(&mut self, operations: u32, bytes: usize) {
        self.encoder.truncate(operations, bytes);
        let kept = self.lasting.partition_point(|place| *place < operations);
        self.lasting.truncate(kept);
    }

    pub(crate) fn push_expiring(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        value: &[u8],
        ttl: Duration,
    ) {
        self.encoder.push_expiring(keyspace, key, value, 0);
        self.relative_expiries
            .push((self.encoder.encoded_bytes(), value.len(), millis_of(ttl)));
    }

    pub(crate) fn push_range(&mut self, keyspace: KeyspaceId, range: &KeyRange) {
        if range.is_inverted() {
            let error = Error::invalid_argument("the range to delete ends before it starts");
            self.refused.get_or_insert(error);
        } else if !range.is_empty() {
            self.encoder
                .push(keyspace, ValueKind::RangeDelete, range.start(), range.end());
        }
    }

    /// What makes the batch impossible in any database.
    pub(crate) fn check(&self) -> Result<()> {
        self.refused.clone().map_or(Ok(()), Err)
    }

    /// Turns times to live into points in time.
    pub(crate) fn settle_expiries(&mut self, now_millis: u64) {
        for (end, value_bytes, ttl_millis) in self.relative_expiries.drain(..) {
            self.encoder
                .set_expiry(end, value_bytes, now_millis.saturating_add(ttl_millis));
        }
    }

    /// Gives values that name no time to live the one of their keyspace, from `now_millis` on.
    pub(crate) fn apply_default_ttls(
        &mut self,
        ttls: &[(KeyspaceId, u64)],
        now_millis: u64,
    ) -> Result<()> {
        if ttls.is_empty() {
            return Ok(());
        }
        let mut encoder = BatchEncoder::new();
        for (place, record) in (0..).zip(self.encoder.records()) {
            let Record {
                keyspace,
                kind,
                key,
                value,
            } = record?;
            let ttl = ttls.iter().find(|(id, _)| *id == keyspace);
            match ttl.filter(|_| kind == ValueKind::Value && !self.is_lasting(place)) {
                Some((_, ttl_millis)) => {
                    let expiry = now_millis.saturating_add(*ttl_millis);
                    encoder.push_expiring(keyspace, key, value, expiry);
                }
                None => encoder.push(keyspace, kind, key, value),
            }
        }
        self.encoder = encoder;
        self.check_size()
    }

    /// Whether a log record can hold it.
    pub(crate) fn check_size(&self) -> Result<()> {
        if self.size_bytes() > MAX_BATCH_BYTES {
            return Err(Error::invalid_argument("a write batch of more than 2 GiB"));
        }
        Ok(())
    }

    pub(crate) fn has_expiries(&self) -> bool {
        !self.relative_expiries.is_empty()
    }
}
