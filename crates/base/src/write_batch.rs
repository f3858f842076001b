//! The encoding of a write batch, which is also the payload of a log record: encoded once by the
//! writer, logged as it stands, and decoded by recovery.
//!
//! Layout (little-endian; `docs/format/write_batch.md`):
//!
//! ```text
//! sequence u64 | count u32 | records...
//! record: tag u8 | [keyspace varint, if tag has 0x80] | key length varint | key
//!         | [value length varint | value, unless the kind is a tombstone]
//! ```
//!
//! Invariant: `count` equals the records that follow, each takes one sequence number from
//! `sequence` on in their order, and every kind is one this version knows. A value with expiry
//! begins with its 8-byte expiry; a range delete's key is its start and its value its end.

use crate::coding::{Decoder, put_bytes, put_varint, u32_at, u64_at};
use crate::error::{Error, Result};
use crate::internal_key::{MAX_SEQUENCE, SequenceNumber, ValueKind};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 12;
/// In a record's tag: a keyspace number follows (else it is keyspace 0, the default).
const KEYSPACE_FOLLOWS: u8 = 0x80;

/// The number of a keyspace; 0 is the default keyspace.
pub type KeyspaceId = u32;

/// One operation of a batch, as slices of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The keyspace it belongs to.
    pub keyspace: KeyspaceId,
    /// What it does.
    pub kind: ValueKind,
    /// The user key, or the start of a range delete.
    pub key: &'a [u8],
    /// The stored value; the exclusive end of a range delete; empty for tombstones.
    pub value: &'a [u8],
}

/// Appends records to a batch's encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchEncoder {
    bytes: Vec<u8>,
    count: u32,
    /// A bit for each kind that was pushed, so that who cares for a rare one need not look for it.
    kinds: u16,
}

impl Default for BatchEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchEncoder {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; HEADER_BYTES],
            count: 0,
            kinds: 0,
        }
    }

    /// Forgets every record and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES, 0);
        self.count = 0;
        self.kinds = 0;
    }

    /// Appends a record.
    #[inline]
    pub fn push(&mut self, keyspace: KeyspaceId, kind: ValueKind, key: &[u8], value: &[u8]) {
        self.push_parts(keyspace, kind, key, &[], value);
    }

    /// Appends a value that expires at `expiry_millis` (since 1970).
    pub fn push_expiring(
        &mut self,
        keyspace: KeyspaceId,
        key: &[u8],
        value: &[u8],
        expiry_millis: u64,
    ) {
        let expiry = expiry_millis.to_le_bytes();
        self.push_parts(keyspace, ValueKind::ValueWithExpiry, key, &expiry, value);
    }

    #[inline]
    fn push_parts(
        &mut self,
        keyspace: KeyspaceId,
        kind: ValueKind,
        key: &[u8],
        head: &[u8],
        tail: &[u8],
    ) {
        self.bytes.reserve(key.len() + head.len() + tail.len() + 16);
        if keyspace == 0 {
            self.bytes.push(kind as u8);
        } else {
            self.bytes.push(kind as u8 | KEYSPACE_FOLLOWS);
            put_varint(&mut self.bytes, u64::from(keyspace));
        }
        put_bytes(&mut self.bytes, key);
        if has_value(kind) {
            put_varint(&mut self.bytes, (head.len() + tail.len()) as u64);
            self.bytes.extend_from_slice(head);
            self.bytes.extend_from_slice(tail);
        }
        self.count += 1;
        self.kinds |= 1 << kind as u8;
    }

    /// Replaces the expiry of the value with expiry that ends at byte `end` of the encoding and whose
    /// user value takes `value_bytes`: how a time to live becomes a point in time at commit.
    pub fn set_expiry(&mut self, end: usize, value_bytes: usize, expiry_millis: u64) {
        let at = end - value_bytes - 8;
        self.bytes[at..at + 8].copy_from_slice(&expiry_millis.to_le_bytes());
    }

    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether a record of `kind` may be among them: certain where it says no.
    #[must_use]
    #[inline]
    pub fn may_hold(&self, kind: ValueKind) -> bool {
        self.kinds & (1 << kind as u8) != 0
    }

    /// Bytes of the encoding so far.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the header: the batch's first sequence number and its count. Called by the commit
    /// leader, once, right before the batch is logged.
    #[inline]
    pub fn seal(&mut self, sequence: SequenceNumber) -> &[u8] {
        self.bytes[..8].copy_from_slice(&sequence.to_le_bytes());
        self.bytes[8..HEADER_BYTES].copy_from_slice(&self.count.to_le_bytes());
        &self.bytes
    }

    /// The encoding as it stands: what is logged once it is sealed.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The records, in their order.
    #[must_use]
    #[inline]
    pub fn records(&self) -> Records<'_> {
        Records {
            decoder: Decoder::new(&self.bytes[HEADER_BYTES..]),
            remaining: self.count,
        }
    }

    /// The records after the first `count`, which take `encoded_bytes` bytes of the encoding: what was
    /// appended since [`BatchEncoder::count`] and [`BatchEncoder::encoded_bytes`] said so.
    #[must_use]
    pub fn records_after(&self, count: u32, encoded_bytes: usize) -> Records<'_> {
        Records {
            decoder: Decoder::new(self.bytes.get(encoded_bytes..).unwrap_or_default()),
            remaining: self.count.saturating_sub(count),
        }
    }

    /// Appends all records of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes[HEADER_BYTES..]);
        self.count += other.count;
        self.kinds |= other.kinds;
    }

    /// Forgets everything after the first `count` records, which took `encoded_bytes` bytes: how a
    /// savepoint is rolled back to.
    pub fn truncate(&mut self, count: u32, encoded_bytes: usize) {
        debug_assert!(count <= self.count && encoded_bytes <= self.bytes.len());
        self.bytes.truncate(encoded_bytes.max(HEADER_BYTES));
        self.count = count;
    }
}

fn has_value(kind: ValueKind) -> bool {
    !matches!(kind, ValueKind::Tombstone | ValueKind::SingleDelete)
}

/// A batch read back from a log record.
#[derive(Clone, Debug)]
pub struct BatchView<'a> {
    bytes: &'a [u8],
    sequence: SequenceNumber,
    count: u32,
}

impl<'a> BatchView<'a> {
    /// Reads the header of an encoded batch.
    ///
    /// # Errors
    /// [`Corruption`](crate::ErrorKind::Corruption) where the bytes cannot be a batch.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (Some(sequence), Some(count)) = (u64_at(bytes, 0), u32_at(bytes, 8)) else {
            return Err(Error::corruption(
                "a write batch is shorter than its header",
            ));
        };
        let records = (bytes.len() - HEADER_BYTES) as u64;
        let last = sequence.checked_add(u64::from(count));
        if u64::from(count) > records || last.is_none_or(|last| last > MAX_SEQUENCE) {
            return Err(Error::corruption(
                "a write batch's header contradicts its length",
            ));
        }
        Ok(Self {
            bytes,
            sequence,
            count,
        })
    }

    /// The sequence number of the first record.
    #[must_use]
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The records, in their order.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        Records {
            decoder: Decoder::new(&self.bytes[HEADER_BYTES..]),
            remaining: self.count,
        }
    }
}

/// Iterates over the records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    decoder: Decoder<'a>,
    remaining: u32,
}

impl<'a> Records<'a> {
    #[inline]
    fn record(&mut self) -> Result<Record<'a>> {
        let tag = self.decoder.u8()?;
        let Some(kind) = ValueKind::from_byte(tag & !KEYSPACE_FOLLOWS) else {
            return Err(
                Error::corruption("a write batch holds a record of an unknown kind")
                    .with_offset(self.decoder.position() as u64),
            );
        };
        let keyspace = if tag & KEYSPACE_FOLLOWS == 0 {
            0
        } else {
            self.decoder.varint_u32()?
        };
        let key = self.decoder.bytes()?;
        let value = if has_value(kind) {
            self.decoder.bytes()?
        } else {
            &[]
        };
        if kind == ValueKind::ValueWithExpiry && value.len() < 8 {
            return Err(Error::corruption(
                "an expiring value is too short for its expiry",
            ));
        }
        Ok(Record {
            keyspace,
            kind,
            key,
            value,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            if self.decoder.is_empty() {
                return None;
            }
            self.decoder = Decoder::new(&[]);
            return Some(Err(Error::corruption(
                "a write batch has bytes after its last record",
            )));
        }
        self.remaining -= 1;
        let record = self.record();
        if record.is_err() {
            self.remaining = 0;
            self.decoder = Decoder::new(&[]);
        }
        Some(record)
    }
}

/// The expiry and the user's value of a stored value with expiry; `None` where it is too short.
#[must_use]
#[inline]
pub fn split_expiry(stored: &[u8]) -> Option<(u64, &[u8])> {
    let (expiry, value) = stored.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*expiry), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_the_format() {
        let mut batch = BatchEncoder::new();
        batch.push(0, ValueKind::Value, b"k", b"v");
        batch.push(300, ValueKind::Tombstone, b"gone", b"");
        batch.push_expiring(0, b"t", b"x", 5);
        let bytes = batch.seal(7).to_vec();
        let expected = [
            &[7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0][..],
            &[1, 1, b'k', 1, b'v'],
            &[0x83, 0xac, 2, 4, b'g', b'o', b'n', b'e'],
            &[2, 1, b't', 9, 5, 0, 0, 0, 0, 0, 0, 0, b'x'],
        ]
        .concat();
        assert_eq!(bytes, expected);
        let view = BatchView::parse(&bytes).unwrap();
        assert_eq!((view.sequence(), view.count()), (7, 3));
        let records: Vec<_> = view.records().collect::<Result<_>>().unwrap();
        assert_eq!(records[1].keyspace, 300);
        assert_eq!(split_expiry(records[2].value), Some((5, &b"x"[..])));
    }

    #[test]
    fn a_savepoint_forgets_what_came_after() {
        let mut batch = BatchEncoder::new();
        batch.push(0, ValueKind::Value, b"a", b"1");
        let (count, bytes) = (batch.count(), batch.encoded_bytes());
        let before = batch.clone();
        batch.push(0, ValueKind::Value, b"b", b"2");
        batch.truncate(count, bytes);
        assert_eq!(batch, before);
    }

    proptest! {
        #[test]
        fn any_bytes_give_records_or_an_error(bytes: Vec<u8>) {
            if let Ok(view) = BatchView::parse(&bytes) {
                let mut errors = 0;
                for record in view.records() {
                    errors += usize::from(record.is_err());
                }
                prop_assert!(errors <= 1);
            }
        }
    }
}
