//! Typed iterators: the untyped ones, decoded one entry at a time.
//!
//! Invariant: after an error the iterator ends, as the one beneath it does.

use crate::keyspace::Keyspace;
use crate::scan::Entries;
use crate::typed::codec::{decode_key, decode_value};
use crate::value::Value;
use esker_base::Result;
use esker_tuple::FromTuple;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;

/// Decoded entries in key order, from either end.
pub struct TypedEntries<K, V> {
    keyspace: Keyspace,
    entries: Option<Entries>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: FromTuple, V: DeserializeOwned> TypedEntries<K, V> {
    pub(crate) fn new(keyspace: &Keyspace, entries: Entries) -> Self {
        Self {
            keyspace: keyspace.clone(),
            entries: Some(entries),
            types: PhantomData,
        }
    }

    fn decoded(&mut self, entry: Option<Result<(Value, Value)>>) -> Option<Result<(K, V)>> {
        let decoded = entry?.and_then(|(key, value)| {
            let decoded_key = decode_key(&self.keyspace, &key)?;
            Ok((decoded_key, decode_value(&self.keyspace, &key, &value)?))
        });
        if decoded.is_err() {
            self.entries = None;
        }
        Some(decoded)
    }
}

impl<K: FromTuple, V: DeserializeOwned> Iterator for TypedEntries<K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.as_mut()?.next();
        self.decoded(entry)
    }
}

impl<K: FromTuple, V: DeserializeOwned> DoubleEndedIterator for TypedEntries<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.entries.as_mut()?.next_back();
        self.decoded(entry)
    }
}

impl<K: FromTuple, V: DeserializeOwned> std::iter::FusedIterator for TypedEntries<K, V> {}

impl<K, V> fmt::Debug for TypedEntries<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedEntries")
            .field("keyspace", &self.keyspace)
            .field("entries", &self.entries)
            .finish()
    }
}
