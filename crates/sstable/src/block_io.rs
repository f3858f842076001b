//! Blocks between memory and the file: the one place where compression meets checksums.
//!
//! On disk a block is `payload | [uncompressed bytes u32, if compressed] | compression u8 |
//! checksum u64`. The checksum is xxh3 over everything before it, seeded by the file's number and
//! the block's offset, so that a right block in a wrong place does not pass.
//!
//! Invariant: nothing looks at a payload, and nothing decompresses it, before its checksum matched.

use std::path::Path;

use esker_base::checksum::checksum;
use esker_base::coding::{u32_at, u64_at};
use esker_base::filename::FileNumber;
use esker_base::limits::MAX_BLOCK_BYTES;
use esker_base::{Error, Result};
use esker_vfs::fs::RandomAccessFile;

use crate::compression;
use crate::format::BlockHandle;
use crate::options::Compression;

/// Bytes after the payload of a block that is not compressed.
pub(crate) const TRAILER_BYTES: usize = 9;

/// The largest block there can be, with its trailer. An index or a filter may be larger than a data
/// block, but not than this.
const MAX_STORED_BYTES: usize = MAX_BLOCK_BYTES + 64;

/// What binds a block to its place.
fn seed(number: FileNumber, offset: u64) -> u64 {
    number.rotate_left(32) ^ offset
}

/// Appends `payload` to `out` as a block that will stand at `offset` of file `number`; tells how
/// it was compressed.
pub(crate) fn seal(
    payload: &[u8],
    compression: Compression,
    number: FileNumber,
    offset: u64,
    out: &mut Vec<u8>,
) -> Compression {
    let start = out.len();
    let used = match compression {
        Compression::Lz4 if compression::compress_if_worthwhile(payload, out) => {
            out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            Compression::Lz4
        }
        _ => {
            out.extend_from_slice(payload);
            Compression::None
        }
    };
    out.push(used as u8);
    let sum = checksum(&out[start..], seed(number, offset));
    out.extend_from_slice(&sum.to_le_bytes());
    used
}

/// Appends a block that stands elsewhere, as [`checked`] gave it, as the block that will stand at `offset` of
/// file `number`.
pub(crate) fn reseal(checked: &[u8], number: FileNumber, offset: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(checked);
    let sum = checksum(checked, seed(number, offset));
    out.extend_from_slice(&sum.to_le_bytes());
}

/// What the checksum of a block is over, as it was read from `offset` of file `number`: everything before it.
///
/// # Errors
/// Corruption.
pub(crate) fn checked(stored: &[u8], number: FileNumber, offset: u64) -> Result<&[u8]> {
    let damaged = |message| Err(Error::corruption(message).with_offset(offset));
    let Some(checked_bytes) = stored.len().checked_sub(8).filter(|&bytes| bytes > 0) else {
        return damaged("a block is shorter than its trailer");
    };
    let (checked, sum) = stored.split_at(checked_bytes);
    if u64_at(sum, 0) != Some(checksum(checked, seed(number, offset))) {
        return damaged("a block does not match its checksum");
    }
    Ok(checked)
}

/// A stored block whose checksum matched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verified<'a> {
    payload: &'a [u8],
    uncompressed_bytes: u64,
    compression: Compression,
}

impl<'a> Verified<'a> {
    /// Checks a block as it was read from `offset` of file `number`.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn check(stored: &'a [u8], number: FileNumber, offset: u64) -> Result<Self> {
        let damaged = |message| Err(Error::corruption(message).with_offset(offset));
        let checked = checked(stored, number, offset)?;
        let (payload, kind) = checked.split_at(checked.len() - 1);
        match kind {
            [0] => Ok(Self {
                payload,
                uncompressed_bytes: payload.len() as u64,
                compression: Compression::None,
            }),
            [1] => {
                let Some(at) = payload.len().checked_sub(4) else {
                    return damaged("a compressed block is shorter than its trailer");
                };
                let uncompressed_bytes = u64::from(u32_at(payload, at).unwrap_or_default());
                if uncompressed_bytes > MAX_BLOCK_BYTES as u64 {
                    return damaged("a compressed block states an impossible length");
                }
                let payload = &payload[..at];
                Ok(Self {
                    payload,
                    uncompressed_bytes,
                    compression: Compression::Lz4,
                })
            }
            _ => damaged("a block is compressed in a way this version does not know"),
        }
    }

    /// How it is compressed.
    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    /// How many bytes [`Verified::unpack`] gives, unless it fails.
    pub(crate) fn content_bytes(&self) -> usize {
        self.uncompressed_bytes as usize
    }

    /// As [`Verified::unpack`], into `out`, which is [`Verified::content_bytes`] long.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn unpack_into(&self, out: &mut [u8]) -> Result<()> {
        match self.compression {
            Compression::None => {
                out.copy_from_slice(self.payload);
                Ok(())
            }
            Compression::Lz4 => compression::decompress_into(self.payload, out),
        }
    }

    /// The payload, decompressed into `scratch` if it is compressed.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn unpack<'b>(&self, scratch: &'b mut Vec<u8>) -> Result<&'b [u8]>
    where
        'a: 'b,
    {
        match self.compression {
            Compression::None => Ok(self.payload),
            Compression::Lz4 => {
                compression::decompress(self.payload, self.uncompressed_bytes, scratch)?;
                Ok(scratch)
            }
        }
    }
}

/// A file of blocks that is open for reading, and what its errors are to name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockFile<'a> {
    /// The file.
    pub(crate) file: &'a dyn RandomAccessFile,
    /// Its path, for errors.
    pub(crate) path: &'a Path,
    /// Its number, which seeds the checksums.
    pub(crate) number: FileNumber,
}

impl BlockFile<'_> {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// I/O; Corruption where the file is too short. A device that says so of a file which is long enough
    /// has failed to read it.
    pub(crate) fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        self.file.read_exact_at(buffer, offset).map_err(|source| {
            let is_end = source.kind() == std::io::ErrorKind::UnexpectedEof;
            if is_end && !self.file.len().is_ok_and(|bytes| bytes >= end) {
                Error::corruption("a table is shorter than it states")
                    .with_file(self.path)
                    .with_offset(offset)
            } else {
                Error::io("read a table", self.path, source).with_offset(offset)
            }
        })
    }

    /// The payload of the block at `handle`, which the caller has checked against the length of
    /// the file.
    ///
    /// # Errors
    /// I/O; Corruption.
    pub(crate) fn read_block(&self, handle: BlockHandle) -> Result<Vec<u8>> {
        let mut stored = vec![0; self.stored_bytes(handle)?];
        self.read_exact(&mut stored, handle.offset)?;
        self.unpack_owned(stored, handle.offset)
    }

    /// Reads the block at `handle` into `stored`, memory that is used again, and checks it.
    ///
    /// # Errors
    /// I/O; Corruption.
    pub(crate) fn read_verified<'b>(
        &self,
        handle: BlockHandle,
        stored: &'b mut Vec<u8>,
    ) -> Result<Verified<'b>> {
        let stored = self.read_stored(handle, stored)?;
        Verified::check(stored, self.number, handle.offset)
            .map_err(|error| error.with_file(self.path))
    }

    /// Reads the block at `handle` into `stored`, memory that is used again, as the file has it.
    ///
    /// # Errors
    /// I/O; Corruption.
    pub(crate) fn read_stored<'b>(
        &self,
        handle: BlockHandle,
        stored: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        let bytes = self.stored_bytes(handle)?;
        stored.resize(bytes, 0);
        self.read_exact(stored, handle.offset)?;
        Ok(stored)
    }

    /// The length of the block at `handle`, if one can have it.
    fn stored_bytes(&self, handle: BlockHandle) -> Result<usize> {
        match usize::try_from(handle.bytes) {
            Ok(bytes) if bytes <= MAX_STORED_BYTES => Ok(bytes),
            _ => Err(self.damaged("a block states an impossible length", handle.offset)),
        }
    }

    /// As [`BlockFile::unpack`], in the same memory where the block is not compressed.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn unpack_owned(&self, mut stored: Vec<u8>, offset: u64) -> Result<Vec<u8>> {
        let in_place = |error: Error| error.with_file(self.path).with_offset(offset);
        let verified = Verified::check(&stored, self.number, offset).map_err(in_place)?;
        match verified.compression {
            Compression::None => {
                stored.truncate(stored.len() - TRAILER_BYTES);
                Ok(stored)
            }
            Compression::Lz4 => {
                let mut out = Vec::new();
                verified.unpack(&mut out).map_err(in_place)?;
                Ok(out)
            }
        }
    }

    /// The payload of the block that was read as `stored` from `offset`: a part of it, or, where it
    /// is compressed, in `scratch`.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn unpack<'b>(
        &self,
        stored: &'b [u8],
        offset: u64,
        scratch: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        Verified::check(stored, self.number, offset)
            .and_then(|verified| verified.unpack(scratch))
            .map_err(|error| error.with_file(self.path).with_offset(offset))
    }

    /// Damage at `offset`.
    pub(crate) fn damaged(&self, message: &'static str, offset: u64) -> Error {
        Error::corruption(message)
            .with_file(self.path)
            .with_offset(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unpack(stored: &[u8], number: u64, offset: u64) -> Result<Vec<u8>> {
        let mut scratch = Vec::new();
        Ok(Verified::check(stored, number, offset)?
            .unpack(&mut scratch)?
            .to_vec())
    }

    #[test]
    fn a_block_passes_only_in_its_place_and_whole() {
        for (compression, payload) in [
            (Compression::None, b"some payload".to_vec()),
            (Compression::Lz4, vec![9; 500]),
        ] {
            let mut stored = Vec::new();
            assert_eq!(
                seal(&payload, compression, 7, 4096, &mut stored),
                compression
            );
            assert_eq!(unpack(&stored, 7, 4096).unwrap(), payload);
            let mut elsewhere = Vec::new();
            reseal(checked(&stored, 7, 4096).unwrap(), 8, 0, &mut elsewhere);
            assert_eq!(unpack(&elsewhere, 8, 0).unwrap(), payload);
            assert!(unpack(&elsewhere, 7, 4096).is_err());
            assert!(unpack(&stored, 7, 4095).is_err());
            assert!(unpack(&stored, 8, 4096).is_err());
            for bit in 0..stored.len() * 8 {
                let mut flipped = stored.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(unpack(&flipped, 7, 4096).is_err(), "bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_under_a_right_checksum_give_a_payload_or_an_error(mut bytes: Vec<u8>) {
            let sum = checksum(&bytes, seed(1, 2));
            bytes.extend_from_slice(&sum.to_le_bytes());
            let _ = unpack(&bytes, 1, 2);
        }
    }
}
