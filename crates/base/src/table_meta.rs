//! What the manifest remembers of a table: enough to plan reads and compactions without opening it.
//!
//! Invariant (I7): written once when the table is finished, and true of its bytes for ever.

use crate::coding::{Decoder, put_varint};
use crate::filename::FileNumber;
use crate::internal_key::SequenceNumber;
use crate::key_bounds::KeyBounds;
use crate::{Error, Result};

/// The description of one immutable table.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TableMeta {
    /// The number in the table's file name.
    pub number: FileNumber,
    /// The size of the file, bytes.
    pub file_bytes: u64,
    /// The user keys covered, by point records and by range tombstones.
    pub bounds: KeyBounds,
    /// The smallest sequence number of any record or range tombstone.
    pub smallest_sequence: SequenceNumber,
    /// The largest sequence number of any record or range tombstone.
    pub largest_sequence: SequenceNumber,
    /// Point records, tombstones included.
    pub entries: u64,
    /// Point tombstones.
    pub tombstones: u64,
    /// Range tombstones.
    pub range_tombstones: u64,
    /// Bytes of all user keys.
    pub raw_key_bytes: u64,
    /// Bytes of all values.
    pub raw_value_bytes: u64,
    /// Records that have an expiry.
    pub expiring_entries: u64,
    /// The earliest expiry of any record, milliseconds since 1970; 0 where none expires.
    pub earliest_expiry_millis: u64,
    /// The latest expiry of any record, milliseconds since 1970; 0 where none expires.
    pub latest_expiry_millis: u64,
    /// When the table was written, milliseconds since 1970.
    pub created_millis: u64,
    /// Where it is not 0, it stands for the sequence number of every record of the table, whose
    /// stored ones are 0: a table built by bulk load before its place in the order was known.
    pub ingested_sequence: SequenceNumber,
    /// xxh3 of the whole file.
    pub checksum: u64,
    /// What its pointers point to: one entry for each value table, ascending by number.
    pub value_refs: Vec<ValueRef>,
}

/// What the pointers of one table need of one value table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ValueRef {
    /// The value table.
    pub number: FileNumber,
    /// Pointers to it, each to another record.
    pub records: u64,
    /// Bytes of the values that they point to, as users see them.
    pub bytes: u64,
}

impl ValueRef {
    /// The bytes of a list, as manifests and tables keep it: three varints for each.
    #[must_use]
    pub fn encode_all(refs: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        for one in refs {
            for number in [one.number, one.records, one.bytes] {
                put_varint(&mut out, number);
            }
        }
        out
    }

    /// Reads what [`ValueRef::encode_all`] wrote.
    ///
    /// # Errors
    /// [`Corruption`](crate::ErrorKind::Corruption): numbers must ascend, and each must be needed.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>> {
        let mut refs: Vec<Self> = Vec::new();
        let mut decoder = Decoder::new(bytes);
        while !decoder.is_empty() {
            let one = Self {
                number: decoder.varint()?,
                records: decoder.varint()?,
                bytes: decoder.varint()?,
            };
            if one.records == 0 || refs.last().is_some_and(|last| last.number >= one.number) {
                return Err(Error::corruption(
                    "what a table's pointers need makes no sense",
                ));
            }
            refs.push(one);
        }
        Ok(refs)
    }
}

impl TableMeta {
    /// Whether every record of the table has expired at `now_millis`, so that it can be dropped
    /// without being read. Range tombstones keep it: they may still hide older records below.
    #[must_use]
    pub fn is_wholly_expired(&self, now_millis: u64) -> bool {
        self.range_tombstones == 0
            && self.tombstones == 0
            && self.entries > 0
            && self.expiring_entries == self.entries
            && self.latest_expiry_millis <= now_millis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_table_whose_every_record_expired_may_be_dropped_unread() {
        let expired = TableMeta {
            entries: 2,
            expiring_entries: 2,
            latest_expiry_millis: 10,
            ..TableMeta::default()
        };
        assert!(expired.is_wholly_expired(10) && !expired.is_wholly_expired(9));
        let mixed = TableMeta {
            entries: 3,
            ..expired.clone()
        };
        assert!(!mixed.is_wholly_expired(10));
        let hiding = TableMeta {
            range_tombstones: 1,
            ..expired
        };
        assert!(!hiding.is_wholly_expired(10));
    }
}
