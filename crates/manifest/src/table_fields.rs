//! The encoding of a table's description: one tagged field per property, zeros left out.
//!
//! Invariant: `decode(encode(meta)) == meta`; a property of a later version is skipped or refused
//! as its tag says.

use esker_base::coding::Decoder;
use esker_base::table_meta::{TableMeta, ValueRef};
use esker_base::{Error, Result};

use crate::tagged_fields::{Field, put_field, put_varint_field};
use crate::version::check_table;

const SMALLEST_KEY: u64 = 3;
const LARGEST_KEY: u64 = 4;
const LARGEST_IS_EXCLUSIVE: u64 = 5;
const CHECKSUM: u64 = 17;
/// Must be known: who does not follow pointers cannot read the table.
const VALUE_REFS: u64 = 19;

/// The number of the field of each plain number of a description.
fn numbers(meta: &mut TableMeta) -> [(u64, &mut u64); 14] {
    [
        (1, &mut meta.number),
        (2, &mut meta.file_bytes),
        (6, &mut meta.smallest_sequence),
        (7, &mut meta.largest_sequence),
        (8, &mut meta.entries),
        (9, &mut meta.tombstones),
        (10, &mut meta.range_tombstones),
        (11, &mut meta.raw_key_bytes),
        (12, &mut meta.raw_value_bytes),
        (13, &mut meta.expiring_entries),
        (14, &mut meta.earliest_expiry_millis),
        (15, &mut meta.latest_expiry_millis),
        (16, &mut meta.created_millis),
        (18, &mut meta.ingested_sequence),
    ]
}

/// Appends the fields of `meta`.
pub(crate) fn encode(meta: &TableMeta, out: &mut Vec<u8>) {
    for (number, value) in numbers(&mut meta.clone()) {
        if *value != 0 {
            put_varint_field(out, number, *value);
        }
    }
    put_field(out, SMALLEST_KEY, &meta.bounds.smallest);
    put_field(out, LARGEST_KEY, &meta.bounds.largest);
    if meta.bounds.largest_is_exclusive {
        put_field(out, LARGEST_IS_EXCLUSIVE, &[]);
    }
    put_field(out, CHECKSUM, &meta.checksum.to_le_bytes());
    if !meta.value_refs.is_empty() {
        put_field(out, VALUE_REFS, &ValueRef::encode_all(&meta.value_refs));
    }
}

/// Decodes a description that makes sense.
pub(crate) fn decode(bytes: &[u8]) -> Result<TableMeta> {
    let mut meta = TableMeta::default();
    let mut seen = 0u64;
    let mut decoder = Decoder::new(bytes);
    while !decoder.is_empty() {
        let field = Field::read(&mut decoder)?;
        let bit = 1u64
            .checked_shl(u32::try_from(field.number).unwrap_or(u32::MAX))
            .unwrap_or(0);
        if seen & bit != 0 {
            return Err(Error::corruption("a table's description has a field twice"));
        }
        seen |= bit;
        match field.number {
            SMALLEST_KEY => meta.bounds.smallest = field.payload.to_vec(),
            LARGEST_KEY => meta.bounds.largest = field.payload.to_vec(),
            LARGEST_IS_EXCLUSIVE => meta.bounds.largest_is_exclusive = field.flag()?,
            CHECKSUM => {
                let bytes = field.payload.try_into().map_err(|_| field.malformed())?;
                meta.checksum = u64::from_le_bytes(bytes);
            }
            VALUE_REFS => meta.value_refs = ValueRef::decode_all(field.payload)?,
            number => match numbers(&mut meta)
                .into_iter()
                .find(|(known, _)| *known == number)
            {
                Some((_, value)) => *value = field.varint()?,
                None => field.skip_or_refuse("table")?,
            },
        }
    }
    check_table(&meta)?;
    Ok(meta)
}
