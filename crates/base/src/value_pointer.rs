//! Where a value lies that is kept apart from its key: what the table stores in its place.
//!
//! ```text
//! number varint | offset varint | stored bytes varint | value bytes varint
//! ```
//!
//! Behind it nothing follows; where the record expires, 8 bytes of expiry stand before it
//! (`docs/format/value_table.md`). Invariant: it names a whole block of a value table, which holds one
//! record of the same user key. Written by compaction's outputs, read by whoever wants the value.

use crate::coding::{Decoder, put_varint};
use crate::filename::FileNumber;
use crate::internal_key::ValueKind;
use crate::write_batch::split_expiry;
use crate::{Error, Result};

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ValuePointer {
    /// The value table.
    pub number: FileNumber,
    /// The first byte of the block.
    pub offset: u64,
    /// Bytes of the block as it is stored.
    pub stored_bytes: u64,
    /// Bytes of the value, as users see it.
    pub value_bytes: u64,
}

impl ValuePointer {
    /// Appends the bytes of the pointer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for number in [
            self.number,
            self.offset,
            self.stored_bytes,
            self.value_bytes,
        ] {
            put_varint(out, number);
        }
    }

    /// Reads what [`ValuePointer::encode`] wrote.
    ///
    /// # Errors
    /// [`Corruption`](crate::ErrorKind::Corruption).
    ///
    /// ```
    /// use esker_base::value_pointer::ValuePointer;
    /// let pointer = ValuePointer { number: 7, offset: 4096, stored_bytes: 300, value_bytes: 280 };
    /// let mut bytes = Vec::new();
    /// pointer.encode(&mut bytes);
    /// assert_eq!(ValuePointer::decode(&bytes)?, pointer);
    /// assert!(ValuePointer::decode(&bytes[1..]).is_err());
    /// # Ok::<(), esker_base::Error>(())
    /// ```
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let pointer = Self {
            number: decoder.varint()?,
            offset: decoder.varint()?,
            stored_bytes: decoder.varint()?,
            value_bytes: decoder.varint()?,
        };
        if decoder.is_empty() {
            Ok(pointer)
        } else {
            Err(Error::corruption("a value pointer has bytes after it"))
        }
    }

    /// Splits a stored record of a pointer's kind into its expiry, if it has one, and the pointer.
    ///
    /// # Errors
    /// [`Corruption`](crate::ErrorKind::Corruption).
    pub fn of_stored(kind: ValueKind, stored: &[u8]) -> Result<(Option<u64>, Self)> {
        if !kind.expires() {
            return Ok((None, Self::decode(stored)?));
        }
        let (expiry, pointer) = split_expiry(stored)
            .ok_or_else(|| Error::corruption("an expiring pointer is shorter than its expiry"))?;
        Ok((Some(expiry), Self::decode(pointer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pointer_keeps_its_expiry_in_front() {
        let pointer = ValuePointer {
            number: u64::MAX,
            offset: 1 << 40,
            stored_bytes: 9,
            value_bytes: 0,
        };
        let mut stored = 77_u64.to_le_bytes().to_vec();
        pointer.encode(&mut stored);
        let kind = ValueKind::ValuePointerWithExpiry;
        assert_eq!(
            ValuePointer::of_stored(kind, &stored).unwrap(),
            (Some(77), pointer)
        );
        let plain = ValuePointer::of_stored(ValueKind::ValuePointer, &stored[8..]).unwrap();
        assert_eq!(plain, (None, pointer));
        for length in 0..stored.len() {
            assert!(ValuePointer::of_stored(kind, &stored[..length]).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_pointer_or_an_error(bytes: Vec<u8>) {
            let _ = ValuePointer::decode(&bytes);
            let _ = ValuePointer::of_stored(ValueKind::ValuePointerWithExpiry, &bytes);
        }
    }
}
