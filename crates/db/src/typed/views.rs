//! A typed keyspace seen through a batch, a snapshot or a transaction.
//!
//! Invariant: each is its untyped counterpart with keys and values converted, and no state beside.

use crate::batch::WriteBatch;
use crate::snapshot::Snapshot;
use crate::transaction::Transaction;
use crate::typed::codec::{decode_value, encode_value};
use crate::typed::{TypedEntries, TypedKeyspace};
use esker_base::Result;
use esker_tuple::{ToTuple, TupleKey, TuplePrefix, encode, prefix, range};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Borrow;
use std::ops::RangeBounds;
use std::time::Duration;

/// Typed writes into a batch: [`TypedKeyspace::batch`].
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// let ages = db.typed_keyspace::<String, u8>("ages")?;
/// let mut batch = esker::WriteBatch::new();
/// ages.batch(&mut batch).put(&"ada".into(), &36)?;
/// ages.batch(&mut batch).delete("grace");
/// db.write(batch)?;
/// assert_eq!(ages.get("ada")?, Some(36));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TypedBatch<'a, K, V> {
    typed: TypedKeyspace<K, V>,
    batch: &'a mut WriteBatch,
}

impl<'a, K: TupleKey, V: Serialize + DeserializeOwned> TypedBatch<'a, K, V> {
    pub(crate) fn new(typed: &TypedKeyspace<K, V>, batch: &'a mut WriteBatch) -> Self {
        Self {
            typed: typed.clone(),
            batch,
        }
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// `InvalidArgument` where the value cannot be serialized; the batch is as before then.
    pub fn put(&mut self, key: &K, value: &V) -> Result<()> {
        let value = encode_value(value)?;
        self.batch.put_in(self.typed.keyspace(), encode(key), value);
        Ok(())
    }

    /// Sets `key` to `value` until `ttl` after the batch is written.
    ///
    /// # Errors
    /// As [`TypedBatch::put`].
    pub fn put_with_ttl(&mut self, key: &K, value: &V, ttl: Duration) -> Result<()> {
        let value = encode_value(value)?;
        self.batch
            .put_with_ttl_in(self.typed.keyspace(), encode(key), value, ttl);
        Ok(())
    }

    /// Removes `key`.
    pub fn delete<Q: ToTuple + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.batch.delete_in(self.typed.keyspace(), encode(key));
    }

    /// Removes every key of `keys`.
    pub fn delete_range(&mut self, keys: impl RangeBounds<K>) {
        self.batch
            .delete_range_in(self.typed.keyspace(), range(&keys));
    }
}

/// Typed reads as of a snapshot: [`TypedKeyspace::at`].
#[derive(Debug)]
pub struct TypedSnapshot<K, V> {
    typed: TypedKeyspace<K, V>,
    snapshot: Snapshot,
}

impl<K: TupleKey, V: Serialize + DeserializeOwned> TypedSnapshot<K, V> {
    pub(crate) fn new(typed: &TypedKeyspace<K, V>, snapshot: &Snapshot) -> Self {
        Self {
            typed: typed.clone(),
            snapshot: snapshot.of(typed.keyspace()),
        }
    }

    /// The value of `key` then.
    ///
    /// # Errors
    /// As [`TypedKeyspace::get`].
    pub fn get<Q: ToTuple + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let key = encode(key);
        let value = self.snapshot.get(&key)?;
        value
            .map(|value| decode_value(self.typed.keyspace(), &key, &value))
            .transpose()
    }

    /// All entries in key order.
    #[must_use]
    pub fn iter(&self) -> TypedEntries<K, V> {
        TypedEntries::new(self.typed.keyspace(), self.snapshot.iter())
    }

    /// The entries of a range of keys, in order.
    pub fn range(&self, keys: impl RangeBounds<K>) -> TypedEntries<K, V> {
        TypedEntries::new(self.typed.keyspace(), self.snapshot.range(range(&keys)))
    }

    /// The entries whose keys begin with `leading` components, in order.
    pub fn prefix<P: TuplePrefix<K>>(&self, leading: &P) -> TypedEntries<K, V> {
        TypedEntries::new(self.typed.keyspace(), self.snapshot.range(prefix(leading)))
    }
}

/// Typed reads and writes of a transaction: [`TypedKeyspace::within`].
///
/// ```
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// let stock = db.typed_keyspace::<String, u32>("stock")?;
/// stock.put(&"tea".into(), &3)?;
/// db.transact(|tx| {
///     let mut stock = stock.within(tx);
///     let left = stock.get("tea")?.unwrap_or(0);
///     stock.put(&"tea".into(), &left.saturating_sub(1))
/// })?;
/// assert_eq!(stock.get("tea")?, Some(2));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TypedTransaction<'a, K, V> {
    typed: TypedKeyspace<K, V>,
    transaction: &'a mut Transaction,
}

impl<'a, K: TupleKey, V: Serialize + DeserializeOwned> TypedTransaction<'a, K, V> {
    pub(crate) fn new(typed: &TypedKeyspace<K, V>, transaction: &'a mut Transaction) -> Self {
        Self {
            typed: typed.clone(),
            transaction,
        }
    }

    /// The value of `key` as the transaction sees it.
    ///
    /// # Errors
    /// As [`TypedKeyspace::get`].
    pub fn get<Q: ToTuple + ?Sized>(&mut self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let key = encode(key);
        let value = self.transaction.get_in(self.typed.keyspace(), &key)?;
        value
            .map(|value| decode_value(self.typed.keyspace(), &key, &value))
            .transpose()
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// As [`TypedKeyspace::put`].
    pub fn put(&mut self, key: &K, value: &V) -> Result<()> {
        let value = encode_value(value)?;
        self.transaction
            .put_in(self.typed.keyspace(), encode(key), value)
    }

    /// Removes `key`.
    ///
    /// # Errors
    /// As [`Transaction::delete_in`].
    pub fn delete<Q: ToTuple + ?Sized>(&mut self, key: &Q) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.transaction
            .delete_in(self.typed.keyspace(), encode(key))
    }

    /// The entries of a range of keys, in order. Reading a range protects all of it.
    pub fn range(&mut self, keys: impl RangeBounds<K>) -> TypedEntries<K, V> {
        let keyspace = self.typed.keyspace();
        TypedEntries::new(keyspace, self.transaction.range_in(keyspace, range(&keys)))
    }

    /// The entries whose keys begin with `leading` components. Reading them protects all such keys.
    pub fn prefix<P: TuplePrefix<K>>(&mut self, leading: &P) -> TypedEntries<K, V> {
        let keyspace = self.typed.keyspace();
        TypedEntries::new(
            keyspace,
            self.transaction.range_in(keyspace, prefix(leading)),
        )
    }
}
