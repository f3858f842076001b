//! The typed layer: keyspaces whose keys and values are Rust values instead of bytes.
//!
//! Keys are encoded in their order (`esker::tuple`), values by serde with postcard. The layer holds
//! nothing: whatever it writes, the untyped handles read as bytes, and the other way round.
//!
//! Invariant: what cannot be decoded as the types that were asked for is `Corruption` naming the
//! keyspace and the key, never a panic or a wrong value.

mod codec;
mod entries;
mod views;

pub use entries::TypedEntries;
pub use views::{TypedBatch, TypedSnapshot, TypedTransaction};

use crate::batch::WriteBatch;
use crate::db::Db;
use crate::index::{IndexDefinition, IndexKeys};
use crate::keyspace::Keyspace;
use crate::options::WriteOptions;
use crate::query::{Query, Row};
use crate::snapshot::Snapshot;
use crate::transaction::Transaction;
use codec::{decode_key, decode_record, decode_value, encode_value};
use esker_base::Result;
use esker_tuple::{FromTuple, ToTuple, TupleKey, TuplePrefix, encode, prefix, range};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::time::Duration;

/// A keyspace with keys of type `K`, in their order, and values of type `V`.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct Reading { celsius: f32 }
///
/// # fn main() -> esker::Result<()> {
/// let db = esker::Options::new().open_in_memory()?;
/// // By place and time.
/// let readings = db.keyspace("readings")?.typed::<(String, u64), Reading>();
/// readings.put(&("attic".into(), 60), &Reading { celsius: 31.5 })?;
/// readings.put(&("attic".into(), 120), &Reading { celsius: 32.0 })?;
/// readings.put(&("cellar".into(), 60), &Reading { celsius: 12.0 })?;
/// let attic: Vec<_> = readings.prefix(&("attic",)).collect::<esker::Result<_>>()?;
/// assert_eq!(attic.len(), 2);
/// assert_eq!(attic[1], (("attic".to_string(), 120), Reading { celsius: 32.0 }));
/// # Ok(()) }
/// ```
pub struct TypedKeyspace<K, V> {
    keyspace: Keyspace,
    types: PhantomData<fn(K) -> V>,
}

impl Keyspace {
    /// This keyspace with typed keys and values. The types are not stored: reading with others than
    /// were written fails, or reads what the bytes happen to mean in them.
    #[must_use]
    pub fn typed<K: TupleKey, V: Serialize + DeserializeOwned>(&self) -> TypedKeyspace<K, V> {
        TypedKeyspace {
            keyspace: self.clone(),
            types: PhantomData,
        }
    }
}

impl IndexDefinition {
    /// As [`IndexDefinition::new`], over the keys and values of a typed keyspace. A record that is
    /// none of them is refused with `InvalidArgument`.
    ///
    /// ```
    /// use esker::{IndexDefinition, Options, Query};
    /// # fn main() -> esker::Result<()> {
    /// let by_age = IndexDefinition::typed("by_age", 1, |_name: &String, age: &u8, keys| keys.add(age));
    /// let db = Options::new().index("people", by_age).open_in_memory()?;
    /// let people = db.typed_keyspace::<String, u8>("people")?;
    /// people.put(&"ada".into(), &36)?;
    /// people.put(&"emmy".into(), &53)?;
    /// let older = Query::new(people.keyspace()).index_range("by_age", 40u8..);
    /// let older: Vec<_> = people.select(older)?.collect::<esker::Result<_>>()?;
    /// assert_eq!(older, [("emmy".to_string(), 53)]);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn typed<K: FromTuple, V: DeserializeOwned>(
        name: impl Into<String>,
        version: u64,
        extract: impl Fn(&K, &V, &mut IndexKeys) + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, version, move |key, value, keys| {
            let (key, value) = decode_record(key, value)?;
            extract(&key, &value, keys);
            Ok(())
        })
    }
}

impl Db {
    /// The keyspace of this name, created if there is none, with typed keys and values.
    ///
    /// # Errors
    /// As [`Db::keyspace`].
    pub fn typed_keyspace<K: TupleKey, V: Serialize + DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<TypedKeyspace<K, V>> {
        Ok(self.keyspace(name)?.typed())
    }
}

impl<K: TupleKey, V: Serialize + DeserializeOwned> TypedKeyspace<K, V> {
    /// The same keyspace as bytes.
    #[must_use]
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The value of `key`, or `None`.
    ///
    /// # Errors
    /// `Corruption` where the value is no `V`; otherwise as [`Keyspace::get`].
    pub fn get<Q: ToTuple + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let key = encode(key);
        let value = self.keyspace.get(&key)?;
        value
            .map(|value| decode_value(&self.keyspace, &key, &value))
            .transpose()
    }

    /// Whether `key` has a value; the value is not decoded.
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn contains_key<Q: ToTuple + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.keyspace.contains_key(encode(key))
    }

    /// The values of several keys, in their order, all seen at one moment.
    ///
    /// # Errors
    /// As [`TypedKeyspace::get`].
    pub fn multi_get<'a, Q: ToTuple + ?Sized + 'a>(
        &self,
        keys: impl IntoIterator<Item = &'a Q>,
    ) -> Result<Vec<Option<V>>>
    where
        K: Borrow<Q>,
    {
        let keys: Vec<_> = keys.into_iter().map(encode).collect();
        let values = self.keyspace.multi_get(&keys)?;
        let decode = |(key, value): (&Vec<u8>, Option<crate::Value>)| {
            value
                .map(|value| decode_value(&self.keyspace, key, &value))
                .transpose()
        };
        keys.iter().zip(values).map(decode).collect()
    }

    /// Sets `key` to `value`, with the database's default durability.
    ///
    /// # Errors
    /// `InvalidArgument` where the value cannot be serialized; otherwise as [`Keyspace::put`].
    pub fn put(&self, key: &K, value: &V) -> Result<()> {
        self.keyspace.put(encode(key), encode_value(value)?)
    }

    /// As [`TypedKeyspace::put`], with options of its own.
    ///
    /// # Errors
    /// As [`TypedKeyspace::put`].
    pub fn put_opt(&self, key: &K, value: &V, options: &WriteOptions) -> Result<()> {
        self.keyspace
            .put_opt(encode(key), encode_value(value)?, options)
    }

    /// As [`Keyspace::put_with_ttl`].
    ///
    /// # Errors
    /// As [`TypedKeyspace::put`].
    pub fn put_with_ttl(&self, key: &K, value: &V, ttl: Duration) -> Result<()> {
        self.keyspace
            .put_with_ttl(encode(key), encode_value(value)?, ttl)
    }

    /// As [`Keyspace::ttl`].
    ///
    /// # Errors
    /// As [`Keyspace::get`].
    pub fn ttl<Q: ToTuple + ?Sized>(&self, key: &Q) -> Result<Option<Duration>>
    where
        K: Borrow<Q>,
    {
        self.keyspace.ttl(encode(key))
    }

    /// As [`Keyspace::set_ttl`].
    ///
    /// # Errors
    /// As [`Keyspace::set_ttl`].
    pub fn set_ttl<Q: ToTuple + ?Sized>(&self, key: &Q, ttl: Duration) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.keyspace.set_ttl(encode(key), ttl)
    }

    /// As [`Keyspace::persist`].
    ///
    /// # Errors
    /// As [`Keyspace::persist`].
    pub fn persist<Q: ToTuple + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.keyspace.persist(encode(key))
    }

    /// Removes `key`; that it has no value is no error.
    ///
    /// # Errors
    /// As [`Keyspace::delete`].
    pub fn delete<Q: ToTuple + ?Sized>(&self, key: &Q) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.keyspace.delete(encode(key))
    }

    /// Removes every key of `range`.
    ///
    /// # Errors
    /// As [`Keyspace::delete_range`].
    pub fn delete_range(&self, keys: impl RangeBounds<K>) -> Result<()> {
        self.keyspace.delete_range(range(&keys))
    }

    /// Removes every key that begins with `leading` components.
    ///
    /// # Errors
    /// As [`Keyspace::delete_range`].
    pub fn delete_prefix<P: TuplePrefix<K>>(&self, leading: &P) -> Result<()> {
        self.keyspace.delete_range(prefix(leading))
    }

    /// Removes everything.
    ///
    /// # Errors
    /// As [`Keyspace::clear`].
    pub fn clear(&self) -> Result<()> {
        self.keyspace.clear()
    }

    /// All entries in key order.
    #[must_use]
    pub fn iter(&self) -> TypedEntries<K, V> {
        TypedEntries::new(&self.keyspace, self.keyspace.iter())
    }

    /// The entries of a range of keys, in order.
    pub fn range(&self, keys: impl RangeBounds<K>) -> TypedEntries<K, V> {
        TypedEntries::new(&self.keyspace, self.keyspace.range(range(&keys)))
    }

    /// The entries whose keys begin with `leading` components, in order.
    pub fn prefix<P: TuplePrefix<K>>(&self, leading: &P) -> TypedEntries<K, V> {
        TypedEntries::new(&self.keyspace, self.keyspace.range(prefix(leading)))
    }

    /// Number of entries, counted without decoding them.
    ///
    /// # Errors
    /// As [`Keyspace::count`].
    pub fn count(&self) -> Result<u64> {
        self.keyspace.count()
    }

    /// The decoded records of a query over this keyspace.
    ///
    /// # Errors
    /// As [`Query::rows`]; each record as [`TypedKeyspace::get`].
    pub fn select<'a>(
        &self,
        query: Query<'a>,
    ) -> Result<impl Iterator<Item = Result<(K, V)>> + use<'a, K, V>> {
        let keyspace = self.keyspace.clone();
        let decoded = move |row: Result<Row>| {
            let row = row?;
            let key = decode_key(&keyspace, row.key())?;
            Ok((key, decode_value(&keyspace, row.key(), row.value())?))
        };
        Ok(query.rows()?.map(decoded))
    }

    /// Writes of this keyspace's types into `batch`.
    pub fn batch<'a>(&self, batch: &'a mut WriteBatch) -> TypedBatch<'a, K, V> {
        TypedBatch::new(self, batch)
    }

    /// Reads and writes of this keyspace's types within `transaction`.
    pub fn within<'a>(&self, transaction: &'a mut Transaction) -> TypedTransaction<'a, K, V> {
        TypedTransaction::new(self, transaction)
    }

    /// Reads of this keyspace's types as of `snapshot`.
    #[must_use]
    pub fn at(&self, snapshot: &Snapshot) -> TypedSnapshot<K, V> {
        TypedSnapshot::new(self, snapshot)
    }
}

impl<K, V> Clone for TypedKeyspace<K, V> {
    fn clone(&self) -> Self {
        Self {
            keyspace: self.keyspace.clone(),
            types: PhantomData,
        }
    }
}

impl<K, V> fmt::Debug for TypedKeyspace<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedKeyspace")
            .field("keyspace", &self.keyspace)
            .finish()
    }
}
