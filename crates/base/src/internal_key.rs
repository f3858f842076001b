//! The internal key: a user key and an 8-byte trailer that says which write of it this is.
//!
//! Invariant: the order is user key ascending (bytewise), then trailer descending (newest first).
//! It is the order of every memtable, table and merge, and it is defined only here. No two records
//! of one keyspace ever have the same user key and sequence number.
//!
//! The trailer is `sequence << 8 | kind`, stored little-endian (`docs/format/internal_key.md`).

use std::cmp::Ordering;

/// The number of a write. Every record of a batch takes one; 56 bits.
pub type SequenceNumber = u64;

/// The largest sequence number: 2^56 - 1, a million writes a second for two thousand years.
pub const MAX_SEQUENCE: SequenceNumber = (1 << 56) - 1;

/// Bytes that a trailer takes wherever it is stored.
pub const TRAILER_BYTES: usize = 8;

/// What a record means. The numbers are on disk: they only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ValueKind {
    /// The key has this value.
    Value = 1,
    /// The value's first 8 bytes are its expiry (milliseconds since 1970, little-endian).
    ValueWithExpiry = 2,
    /// The key has no value.
    Tombstone = 3,
    /// The key was written once and is deleted once (reserved).
    SingleDelete = 4,
    /// The user key is the inclusive start, the value the exclusive end (empty: unbounded).
    RangeDelete = 5,
    /// An operand for the keyspace's merge operator: it changes the value beneath.
    MergeOperand = 6,
    /// The value lies in a value table ([`ValuePointer`](crate::value_pointer::ValuePointer)).
    ValuePointer = 7,
    /// An entry of a secondary index (reserved).
    IndexEntry = 8,
    /// As `ValuePointer`, behind 8 bytes of expiry as those of `ValueWithExpiry`.
    ValuePointerWithExpiry = 9,
}

impl ValueKind {
    /// The kind that `byte` stands for; `None` for bytes no version of the format has written.
    #[must_use]
    #[inline]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Value,
            2 => Self::ValueWithExpiry,
            3 => Self::Tombstone,
            4 => Self::SingleDelete,
            5 => Self::RangeDelete,
            6 => Self::MergeOperand,
            7 => Self::ValuePointer,
            8 => Self::IndexEntry,
            9 => Self::ValuePointerWithExpiry,
            _ => return None,
        })
    }

    /// Whether the stored bytes begin with an expiry.
    #[must_use]
    #[inline]
    pub fn expires(self) -> bool {
        matches!(self, Self::ValueWithExpiry | Self::ValuePointerWithExpiry)
    }

    /// Whether the value lies elsewhere.
    #[must_use]
    #[inline]
    pub fn is_pointer(self) -> bool {
        matches!(self, Self::ValuePointer | Self::ValuePointerWithExpiry)
    }

    /// The kind of a pointer to a value of this kind, and the kind of what a pointer of this kind
    /// points to; others stay what they are.
    #[must_use]
    pub fn across_pointer(self) -> Self {
        match self {
            Self::Value => Self::ValuePointer,
            Self::ValueWithExpiry => Self::ValuePointerWithExpiry,
            Self::ValuePointer => Self::Value,
            Self::ValuePointerWithExpiry => Self::ValueWithExpiry,
            other => other,
        }
    }
}

/// Sequence number and kind of a record in one word. Orders newest first: of two trailers the one
/// with the larger sequence is `Less`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trailer(u64);

impl Trailer {
    /// The trailer of a write.
    #[must_use]
    #[inline]
    pub const fn new(sequence: SequenceNumber, kind: ValueKind) -> Self {
        debug_assert!(sequence <= MAX_SEQUENCE);
        Self(sequence << 8 | kind as u64)
    }

    /// The trailer that sorts before every record with a sequence of at most `sequence`, and after
    /// all newer ones: where a reader at that sequence begins.
    #[must_use]
    #[inline]
    pub const fn seek(sequence: SequenceNumber) -> Self {
        Self(sequence << 8 | 0xff)
    }

    /// Sorts after every record of a key.
    pub const OLDEST: Self = Self(0);

    /// The stored word.
    #[must_use]
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The trailer stored as `raw`.
    #[must_use]
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The sequence number.
    #[must_use]
    #[inline]
    pub const fn sequence(self) -> SequenceNumber {
        self.0 >> 8
    }

    /// The same sequence number with another kind.
    #[must_use]
    #[inline]
    pub const fn with_kind(self, kind: ValueKind) -> Self {
        Self(self.0 & !0xff | kind as u64)
    }

    /// The kind; `None` where the byte is none that this version knows.
    #[must_use]
    #[inline]
    pub fn kind(self) -> Option<ValueKind> {
        ValueKind::from_byte(self.0 as u8)
    }
}

impl Ord for Trailer {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.cmp(&self.0)
    }
}

impl PartialOrd for Trailer {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of internal keys: user key ascending, then newest first.
#[must_use]
#[inline]
pub fn compare(a_key: &[u8], a: Trailer, b_key: &[u8], b: Trailer) -> Ordering {
    a_key.cmp(b_key).then_with(|| a.cmp(&b))
}

/// The first eight bytes of `key` as a number that orders as the bytes do; short keys are padded
/// with zeros, so that equal prefixes decide nothing and unequal ones decide the order.
#[must_use]
#[inline]
pub fn key_prefix(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(bytes)
        }
    }
}

/// As [`key_prefix`], of the first sixteen bytes.
#[must_use]
#[inline]
pub fn long_key_prefix(key: &[u8]) -> u128 {
    match key.first_chunk::<16>() {
        Some(bytes) => u128::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 16];
            bytes[..key.len()].copy_from_slice(key);
            u128::from_be_bytes(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_first_within_a_key_and_seek_lands_before_what_it_may_see() {
        let old = Trailer::new(7, ValueKind::Value);
        let new = Trailer::new(9, ValueKind::Tombstone);
        assert_eq!(compare(b"a", new, b"a", old), Ordering::Less);
        assert_eq!(compare(b"a", old, b"b", new), Ordering::Less);
        assert!(Trailer::seek(8) < old && Trailer::seek(8) > new);
        assert!(Trailer::seek(9) < new && Trailer::OLDEST > old);
        assert_eq!(
            (new.sequence(), new.kind()),
            (9, Some(ValueKind::Tombstone))
        );
    }

    #[test]
    fn prefixes_order_as_the_bytes_do() {
        let keys: [&[u8]; 6] = [b"", b"a", b"a\0", b"abcdefgh", b"abcdefghi", b"b"];
        for pair in keys.windows(2) {
            assert!(key_prefix(pair[0]) <= key_prefix(pair[1]), "{pair:?}");
            assert!(
                long_key_prefix(pair[0]) <= long_key_prefix(pair[1]),
                "{pair:?}"
            );
        }
    }

    #[test]
    fn every_kind_round_trips_and_others_are_refused() {
        for byte in 0..=255 {
            if let Some(kind) = ValueKind::from_byte(byte) {
                assert_eq!(kind as u8, byte);
            } else {
                assert!(byte == 0 || byte > 9);
            }
        }
    }
}
