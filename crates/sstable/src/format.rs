//! The frame of a table file: block handles and the footer that leads to everything else.
//!
//! Invariant: the footer is the last [`FOOTER_BYTES`] of the file, and every handle in it lies
//! before the footer. Specified in `docs/format/table.md`. Written by `table_writer`, read by
//! `table`.

use esker_base::checksum::checksum;
use esker_base::coding::{Decoder, u64_at};
use esker_base::filename::FileNumber;
use esker_base::{Error, Result};

/// Bytes of the footer.
pub(crate) const FOOTER_BYTES: usize = 120;
/// The last eight bytes of every table.
pub(crate) const MAGIC: [u8; 8] = *b"eskerTBL";
/// The version of the format that this code writes, and the only one it reads.
pub(crate) const VERSION: u32 = 1;
/// The footer's bytes that its checksum covers.
const CHECKED_BYTES: usize = FOOTER_BYTES - 16;

/// Where a block lies in its file, its trailer included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct BlockHandle {
    /// The first byte.
    pub(crate) offset: u64,
    /// Bytes, trailer included. 0 where there is no such block.
    pub(crate) bytes: u64,
}

impl BlockHandle {
    /// The first byte after the block; `None` where that is no number.
    pub(crate) fn end(self) -> Option<u64> {
        self.offset.checked_add(self.bytes)
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
    }

    fn decode(decoder: &mut Decoder<'_>, file_bytes: u64) -> Result<Self> {
        let at = decoder.position() as u64;
        let handle = Self {
            offset: decoder.u64()?,
            bytes: decoder.u64()?,
        };
        let limit = file_bytes - FOOTER_BYTES as u64;
        if handle.end().is_none_or(|end| end > limit) {
            return Err(
                Error::corruption("a table's footer points outside the file")
                    .with_offset(limit + at),
            );
        }
        Ok(handle)
    }
}

/// The end of a table file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// The index, or the top of a partitioned one.
    pub(crate) index: BlockHandle,
    /// The filter; no bytes where there is none.
    pub(crate) filter: BlockHandle,
    /// The range tombstones; no bytes where there are none.
    pub(crate) range_tombstones: BlockHandle,
    /// The properties.
    pub(crate) properties: BlockHandle,
    /// The number under which the table was written.
    pub(crate) number: FileNumber,
    /// 1 for a flat index, 2 for a partitioned one.
    pub(crate) index_levels: u32,
    /// xxh3 with seed 0 of every byte before the footer.
    pub(crate) file_checksum: u64,
}

impl Footer {
    /// The bytes as they stand at the end of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        for handle in [
            self.index,
            self.filter,
            self.range_tombstones,
            self.properties,
        ] {
            handle.encode(&mut out);
        }
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        // No feature of version 1 has a bit: compatible, read-only compatible, incompatible.
        for features in [0u32, 0, 0] {
            out.extend_from_slice(&features.to_le_bytes());
        }
        out.extend_from_slice(&self.index_levels.to_le_bytes());
        out.extend_from_slice(&self.file_checksum.to_le_bytes());
        // Bytes 100..104 wait for a use; they are zero until then.
        out.resize(CHECKED_BYTES, 0);
        let sum = checksum(&out, self.number);
        out.extend_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out
    }

    /// Reads the footer of a file of `file_bytes` bytes.
    ///
    /// # Errors
    /// Corruption; Unsupported for a version or feature that this code does not know.
    pub(crate) fn decode(bytes: &[u8], file_bytes: u64) -> Result<Self> {
        if bytes.len() != FOOTER_BYTES || file_bytes < FOOTER_BYTES as u64 {
            return Err(Error::corruption("a table is shorter than its footer"));
        }
        let start = file_bytes - FOOTER_BYTES as u64;
        if bytes[FOOTER_BYTES - 8..] != MAGIC {
            return Err(
                Error::corruption("a table does not end with the magic number of tables")
                    .with_offset(file_bytes - 8),
            );
        }
        let mut decoder = Decoder::new(&bytes[64..CHECKED_BYTES]);
        let number = decoder.u64()?;
        let stored = u64_at(bytes, CHECKED_BYTES).unwrap_or_default();
        if stored != checksum(&bytes[..CHECKED_BYTES], number) {
            return Err(
                Error::corruption("a table's footer does not match its checksum")
                    .with_offset(start),
            );
        }
        let version = decoder.u32()?;
        let (_compatible, _read_only_compatible) = (decoder.u32()?, decoder.u32()?);
        let incompatible = decoder.u32()?;
        if version != VERSION || incompatible != 0 {
            let message = format!(
                "a table has format version {version} and features {incompatible:#x}, which this \
                 version of esker does not read"
            );
            return Err(Error::new(esker_base::ErrorKind::Unsupported, message));
        }
        let index_levels = decoder.u32()?;
        let file_checksum = decoder.u64()?;
        let mut handles = Decoder::new(bytes);
        let footer = Self {
            index: BlockHandle::decode(&mut handles, file_bytes)?,
            filter: BlockHandle::decode(&mut handles, file_bytes)?,
            range_tombstones: BlockHandle::decode(&mut handles, file_bytes)?,
            properties: BlockHandle::decode(&mut handles, file_bytes)?,
            number,
            index_levels,
            file_checksum,
        };
        if !matches!(index_levels, 1 | 2) {
            return Err(
                Error::corruption("a table's index has neither one level nor two")
                    .with_offset(start),
            );
        }
        Ok(footer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Footer {
        let handle = |offset, bytes| BlockHandle { offset, bytes };
        Footer {
            index: handle(100, 50),
            filter: handle(150, 64),
            range_tombstones: handle(0, 0),
            properties: handle(214, 30),
            number: 7,
            index_levels: 1,
            file_checksum: 0x1122_3344_5566_7788,
        }
    }

    #[test]
    fn a_footer_round_trips_and_no_flipped_bit_passes() {
        let footer = sample();
        let bytes = footer.encode();
        assert_eq!(bytes.len(), FOOTER_BYTES);
        assert_eq!(Footer::decode(&bytes, 1000).unwrap(), footer);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&flipped, 1000).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn handles_outside_the_file_are_refused() {
        let mut footer = sample();
        footer.filter = BlockHandle {
            offset: u64::MAX,
            bytes: 2,
        };
        assert!(Footer::decode(&footer.encode(), 1000).is_err());
        let footer = sample();
        assert!(Footer::decode(&footer.encode(), 243 + FOOTER_BYTES as u64).is_err());
        assert!(Footer::decode(&footer.encode(), 244 + FOOTER_BYTES as u64).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_footer_or_an_error(bytes: Vec<u8>, file_bytes: u64) {
            let _ = Footer::decode(&bytes, file_bytes);
        }
    }
}
