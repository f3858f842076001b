//! An encoding of composite keys whose bytes order as the values do.
//!
//! A key made of several components (an account and a time, a country and a name) becomes bytes that
//! compare, byte by byte, as the components do from the first to the last. Every component is
//! integers, floats, strings, byte strings, booleans, nulls or nested tuples, ascending or, inside
//! [`Reverse`](std::cmp::Reverse), descending. The encoding of the leading components is a prefix of
//! the whole key, so that a scan over a prefix finds all keys that begin with them.
//!
//! ```
//! use esker_tuple::{decode, encode};
//! use std::cmp::Reverse;
//!
//! let older = encode(&("ada", Reverse(1_700_000_000u64)));
//! let newer = encode(&("ada", Reverse(1_800_000_000u64)));
//! assert!(newer < older);
//! assert!(older.starts_with(&encode(&("ada",))));
//! let (name, Reverse(time)): (String, Reverse<u64>) = decode(&older)?;
//! assert_eq!((name.as_str(), time), ("ada", 1_700_000_000));
//! # Ok::<(), esker_base::Error>(())
//! ```
//!
//! Invariants: no element's encoding is a prefix of another's, so that a tuple orders by its first
//! differing component; each value has one encoding, and the decoder accepts no other; a decoder
//! given any bytes answers with a value or with `Corruption` and the offset (I10). The format is
//! specified in `docs/format/tuple.md`. Called by the facade's typed layer and its indexes, and
//! published by it as `esker::tuple`.
#![forbid(unsafe_code)]

mod convert;
mod element;
mod range;
mod reader;
mod tuples;
mod writer;

pub use convert::{FromElement, NeverNull, ToElement};
pub use element::Element;
pub use range::{prefix, range, successor};
pub use reader::{Integer, TupleReader};
pub use tuples::{AsComponent, FromTuple, ToTuple, TupleKey, TuplePrefix};
pub use writer::TupleWriter;

use esker_base::Result;

/// How deep tuples may be nested in tuples.
pub const MAX_DEPTH: usize = 32;

/// The bytes of a key.
#[must_use]
pub fn encode<T: ToTuple + ?Sized>(key: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.write(&mut TupleWriter::new(&mut bytes));
    bytes
}

/// The key of these bytes, all of them.
///
/// # Errors
/// [`Corruption`](esker_base::ErrorKind::Corruption) with the offset, where the bytes are not such a
/// key's.
pub fn decode<T: FromTuple>(bytes: &[u8]) -> Result<T> {
    let mut reader = TupleReader::new(bytes);
    let key = T::read(&mut reader)?;
    reader.finish()?;
    Ok(key)
}

/// The bytes of a key whose components are only known at run time.
///
/// # Errors
/// [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) for tuples nested deeper than
/// [`MAX_DEPTH`].
pub fn encode_elements(elements: &[Element]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = TupleWriter::new(&mut bytes);
    elements
        .iter()
        .try_for_each(|element| element.write(&mut writer, 0))?;
    Ok(bytes)
}

/// The components of any key, whatever their kinds.
///
/// # Errors
/// As [`decode`].
pub fn decode_elements(bytes: &[u8]) -> Result<Vec<Element>> {
    let mut reader = TupleReader::new(bytes);
    let mut elements = Vec::new();
    while !reader.is_empty() {
        elements.push(Element::read(&mut reader, 0)?);
    }
    Ok(elements)
}
