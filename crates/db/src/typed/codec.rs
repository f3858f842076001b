//! Values as postcard bytes, and the errors of what does not decode.
//!
//! Invariant: postcard is named here and nowhere else. A value is exactly its bytes: what is left
//! over is damage as well.

use crate::keyspace::Keyspace;
use esker_base::{Error, Result};
use esker_tuple::{FromTuple, decode, decode_elements};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How much of a key an error shows, characters.
const SHOWN_CHARACTERS: usize = 200;

pub(crate) fn encode_value<V: Serialize>(value: &V) -> Result<Vec<u8>> {
    postcard::to_allocvec(value).map_err(|error| {
        let name = std::any::type_name::<V>();
        Error::invalid_argument(format!("a value of type {name} cannot be serialized"))
            .with_source(error)
    })
}

pub(crate) fn decode_value<V: DeserializeOwned>(
    keyspace: &Keyspace,
    key: &[u8],
    bytes: &[u8],
) -> Result<V> {
    let undecodable = || {
        let name = std::any::type_name::<V>();
        format!("the value of {} is no {name}", place(keyspace, key))
    };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, left)) => {
            let sentence = format!("{}: {} bytes are left over", undecodable(), left.len());
            Err(Error::corruption(sentence))
        }
        Err(error) => Err(Error::corruption(undecodable()).with_source(error)),
    }
}

pub(crate) fn decode_key<K: FromTuple>(keyspace: &Keyspace, key: &[u8]) -> Result<K> {
    decode(key).map_err(|error| {
        let name = std::any::type_name::<K>();
        let sentence = format!("the key of {} is no {name}", place(keyspace, key));
        Error::corruption(sentence).with_source(error)
    })
}

/// Key and value of a record that is about to be written, for an index that knows their types.
pub(crate) fn decode_record<K: FromTuple, V: DeserializeOwned>(
    key: &[u8],
    value: &[u8],
) -> Result<(K, V)> {
    let refused = |error: &dyn std::fmt::Display| {
        let (key, value) = (std::any::type_name::<K>(), std::any::type_name::<V>());
        let sentence = format!("an index takes records of {key} and {value} only: {error}");
        Error::invalid_argument(sentence)
    };
    let key = decode(key).map_err(|error| refused(&error))?;
    match postcard::take_from_bytes(value) {
        Ok((value, [])) => Ok((key, value)),
        Ok(_) => Err(refused(&"bytes are left over")),
        Err(error) => Err(refused(&error)),
    }
}

/// The key in words: its components where it has any, else its bytes.
fn place(keyspace: &Keyspace, key: &[u8]) -> String {
    let shown = match decode_elements(key) {
        Ok(elements) => format!("{elements:?}"),
        Err(_) => format!("\"{}\"", key.escape_ascii()),
    };
    let shown: String = shown.chars().take(SHOWN_CHARACTERS).collect();
    format!("{shown} in keyspace {:?}", keyspace.name())
}
