//! What a table says of itself: tagged fields, so that later versions can add some.
//!
//! ```text
//! field: tag varint | bytes length varint | bytes
//! ```
//!
//! Tags ascend. A reader skips a tag that it does not know if the tag is odd, and refuses the table
//! if it is even. Numbers are varints. Specified in `docs/format/table.md`.
//!
//! Invariant: everything the manifest remembers of the table stands here as well (but for what
//! depends on the finished file), so that a lost manifest can be made again from the tables.

use esker_base::coding::{Decoder, put_bytes, put_varint, varint_bytes};
use esker_base::table_meta::{TableMeta, ValueRef};
use esker_base::{Error, ErrorKind, Result};

use crate::format::BlockHandle;
use crate::options::{Compression, FilterKind};

/// What a table says of itself.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Properties {
    /// The description that the manifest keeps, as it can be told from the file alone
    /// (`ingested_sequence` cannot, and is 0).
    pub meta: TableMeta,
    /// Distinct user keys.
    pub distinct_keys: u64,
    /// Data blocks.
    pub data_blocks: u64,
    /// Bytes of all data blocks as they are stored; they are the first bytes of the file.
    pub data_bytes: u64,
    /// Bytes of all data blocks before compression.
    pub uncompressed_data_bytes: u64,
    /// How the blocks were to be compressed.
    pub compression: Compression,
    /// The filter that was asked for (a table without point records has none).
    pub filter: FilterKind,
    /// A target for the size of data blocks, bytes before compression.
    pub block_bytes: u64,
    /// Where it says of each data block when its records expire; no bytes where it does not.
    pub(crate) block_expiries: BlockHandle,
}

// Even tags are needed to read the table rightly, odd ones inform.
const TAG_SMALLEST: u64 = 2;
const TAG_LARGEST: u64 = 4;
const TAG_LARGEST_IS_EXCLUSIVE: u64 = 6;
/// The numbers: each has the tag of its place in [`Properties::numbers`], counted from this in
/// steps of two.
const TAG_NUMBERS: u64 = 101;
const TAG_COMPRESSION: u64 = 201;
const TAG_FILTER: u64 = 203;
const TAG_BLOCK_EXPIRIES: u64 = 205;
/// Needed: who does not follow pointers cannot read the table.
const TAG_VALUE_REFS: u64 = 206;

impl Properties {
    /// The fields that are plain numbers, in the order of their tags. New ones go to the end.
    fn numbers(&mut self) -> [&mut u64; 17] {
        let meta = &mut self.meta;
        [
            &mut meta.smallest_sequence,
            &mut meta.largest_sequence,
            &mut meta.entries,
            &mut meta.tombstones,
            &mut meta.range_tombstones,
            &mut meta.raw_key_bytes,
            &mut meta.raw_value_bytes,
            &mut meta.expiring_entries,
            &mut meta.earliest_expiry_millis,
            &mut meta.latest_expiry_millis,
            &mut meta.created_millis,
            &mut self.distinct_keys,
            &mut self.data_blocks,
            &mut self.data_bytes,
            &mut self.uncompressed_data_bytes,
            &mut self.block_bytes,
            &mut meta.number,
        ]
    }

    /// The contents of the properties block.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let bounds = &self.meta.bounds;
        for (tag, bytes) in [
            (TAG_SMALLEST, &bounds.smallest),
            (TAG_LARGEST, &bounds.largest),
        ] {
            put_varint(&mut out, tag);
            put_bytes(&mut out, bytes);
        }
        put_number(
            &mut out,
            TAG_LARGEST_IS_EXCLUSIVE,
            u64::from(bounds.largest_is_exclusive),
        );
        for (place, number) in self.clone().numbers().into_iter().enumerate() {
            put_number(&mut out, TAG_NUMBERS + 2 * place as u64, *number);
        }
        put_number(&mut out, TAG_COMPRESSION, self.compression as u64);
        put_number(&mut out, TAG_FILTER, self.filter as u64);
        if self.block_expiries.bytes > 0 {
            let mut field = Vec::new();
            put_varint(&mut field, self.block_expiries.offset);
            put_varint(&mut field, self.block_expiries.bytes);
            put_varint(&mut out, TAG_BLOCK_EXPIRIES);
            put_bytes(&mut out, &field);
        }
        if !self.meta.value_refs.is_empty() {
            put_varint(&mut out, TAG_VALUE_REFS);
            put_bytes(&mut out, &ValueRef::encode_all(&self.meta.value_refs));
        }
        out
    }

    /// Reads the contents of a properties block.
    ///
    /// # Errors
    /// Corruption; Unsupported for an unknown field that must not be skipped.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut properties = Self::default();
        let mut decoder = Decoder::new(bytes);
        let mut previous = None;
        while !decoder.is_empty() {
            let tag = decoder.varint()?;
            let field = decoder.bytes()?;
            if previous.is_some_and(|previous| tag <= previous) {
                return Err(Error::corruption(
                    "the fields of a table's properties do not ascend",
                ));
            }
            previous = Some(tag);
            properties.set(tag, field)?;
        }
        Ok(properties)
    }

    fn set(&mut self, tag: u64, field: &[u8]) -> Result<()> {
        match tag {
            TAG_SMALLEST => self.meta.bounds.smallest = field.to_vec(),
            TAG_LARGEST => self.meta.bounds.largest = field.to_vec(),
            TAG_LARGEST_IS_EXCLUSIVE => {
                self.meta.bounds.largest_is_exclusive = number_of(field)? != 0;
            }
            // An unknown kind is no damage: blocks and filters say themselves what they are.
            TAG_COMPRESSION => {
                self.compression = if number_of(field)? == 1 {
                    Compression::Lz4
                } else {
                    Compression::None
                };
            }
            TAG_FILTER => {
                self.filter = match number_of(field)? {
                    1 => FilterKind::Blocked,
                    2 => FilterKind::Standard,
                    _ => FilterKind::None,
                };
            }
            TAG_BLOCK_EXPIRIES => {
                let mut decoder = Decoder::new(field);
                self.block_expiries = BlockHandle {
                    offset: decoder.varint()?,
                    bytes: decoder.varint()?,
                };
                if !decoder.is_empty() {
                    return Err(Error::corruption(
                        "a table's property 205 has bytes after it",
                    ));
                }
            }
            TAG_VALUE_REFS => self.meta.value_refs = ValueRef::decode_all(field)?,
            _ => {
                let place = tag.checked_sub(TAG_NUMBERS).filter(|steps| steps % 2 == 0);
                let place = place.and_then(|steps| usize::try_from(steps / 2).ok());
                let mut numbers = self.numbers();
                if let Some(number) = place.and_then(|place| numbers.get_mut(place)) {
                    **number = number_of(field)?;
                } else if tag.is_multiple_of(2) {
                    let message = format!("a table has the property {tag}, which must be known");
                    return Err(Error::new(ErrorKind::Unsupported, message));
                }
            }
        }
        Ok(())
    }
}

fn put_number(out: &mut Vec<u8>, tag: u64, number: u64) {
    put_varint(out, tag);
    put_varint(out, varint_bytes(number) as u64);
    put_varint(out, number);
}

fn number_of(field: &[u8]) -> Result<u64> {
    let mut decoder = Decoder::new(field);
    let number = decoder.varint()?;
    if decoder.is_empty() {
        Ok(number)
    } else {
        Err(Error::corruption(
            "a number among a table's properties has bytes after it",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_base::key_bounds::KeyBounds;
    use proptest::prelude::*;

    fn sample() -> Properties {
        let mut properties = Properties {
            compression: Compression::Lz4,
            filter: FilterKind::Standard,
            block_expiries: BlockHandle {
                offset: 4000,
                bytes: 77,
            },
            ..Properties::default()
        };
        properties.meta.bounds = KeyBounds::half_open("a", "");
        properties.meta.value_refs = vec![ValueRef {
            number: 3,
            records: 2,
            bytes: 9000,
        }];
        for (place, number) in properties.numbers().into_iter().enumerate() {
            *number = 1000 * place as u64;
        }
        properties
    }

    #[test]
    fn properties_round_trip() {
        let properties = sample();
        assert_eq!(
            Properties::decode(&properties.encode()).unwrap(),
            properties
        );
    }

    #[test]
    fn unknown_odd_fields_are_skipped_and_even_ones_refused() {
        let mut bytes = sample().encode();
        put_number(&mut bytes, 9001, 5);
        assert_eq!(Properties::decode(&bytes).unwrap(), sample());
        put_number(&mut bytes, 9002, 5);
        assert_eq!(
            Properties::decode(&bytes).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_properties_or_an_error(bytes: Vec<u8>) {
            let _ = Properties::decode(&bytes);
        }

        #[test]
        fn mutated_properties_give_properties_or_an_error(at: prop::sample::Index, value: u8) {
            let mut bytes = sample().encode();
            let index = at.index(bytes.len());
            bytes[index] = value;
            let _ = Properties::decode(&bytes);
        }
    }
}
