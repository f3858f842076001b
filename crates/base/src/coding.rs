//! Little-endian numbers, LEB128 varints and length-prefixed bytes: how every format of esker is
//! written and read.
//!
//! Invariant (I10): a [`Decoder`] never panics and never reads past its input, whatever the bytes;
//! it hands out slices of the input, so that decoding allocates nothing.

use crate::error::{Error, Result};

/// The most bytes that a 64-bit varint takes.
pub const MAX_VARINT_BYTES: usize = 10;

/// Appends `value` as a LEB128 varint of one to ten bytes.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`put_varint`] takes for `value`.
#[must_use]
#[inline]
pub fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads a varint from the front of `input`: the value and how many bytes it took. `None` if it is
/// cut short or longer than 64 bits.
#[must_use]
#[inline]
pub fn get_varint(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    if first < 0x80 {
        return Some((u64::from(first), 1));
    }
    get_long_varint(input)
}

fn get_long_varint(input: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().take(MAX_VARINT_BYTES).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == MAX_VARINT_BYTES - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Appends a varint length and then the bytes.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The little-endian `u64` at `at`, or `None` beyond the end.
#[must_use]
#[inline]
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk::<8>()
        .map(|chunk| u64::from_le_bytes(*chunk))
}

/// The little-endian `u32` at `at`, or `None` beyond the end.
#[must_use]
#[inline]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk::<4>()
        .map(|chunk| u32::from_le_bytes(*chunk))
}

/// The little-endian `u16` at `at`, or `None` beyond the end.
#[must_use]
#[inline]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk::<2>()
        .map(|chunk| u16::from_le_bytes(*chunk))
}

/// Reads numbers and slices off the front of untrusted bytes, and knows how far it is.
///
/// ```
/// use esker_base::coding::{Decoder, put_bytes, put_varint};
/// let mut bytes = Vec::new();
/// put_varint(&mut bytes, 300);
/// put_bytes(&mut bytes, b"key");
/// let mut decoder = Decoder::new(&bytes);
/// assert_eq!(decoder.varint()?, 300);
/// assert_eq!(decoder.bytes()?, b"key");
/// assert!(decoder.is_empty() && decoder.u8().is_err());
/// # Ok::<(), esker_base::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    input: &'a [u8],
    position: usize,
}

impl<'a> Decoder<'a> {
    /// Begins at the front of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, position: 0 }
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// What has not been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        &self.input[self.position..]
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.position == self.input.len()
    }

    fn cut_short(&self, what: &str) -> Error {
        Error::corruption(format!("the encoding is cut short inside {what}"))
            .with_offset(self.position as u64)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Corruption`](crate::ErrorKind::Corruption) where fewer are left; likewise for all below.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some(bytes) = self.rest().get(..count) else {
            return Err(self.cut_short("a byte string"));
        };
        self.position += count;
        Ok(bytes)
    }

    /// The next byte.
    ///
    /// # Errors
    /// As [`Decoder::take`].
    #[inline]
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// The next little-endian `u32`.
    ///
    /// # Errors
    /// As [`Decoder::take`].
    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        let value = u32_at(self.input, self.position).ok_or_else(|| self.cut_short("a u32"))?;
        self.position += 4;
        Ok(value)
    }

    /// The next little-endian `u64`.
    ///
    /// # Errors
    /// As [`Decoder::take`].
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        let value = u64_at(self.input, self.position).ok_or_else(|| self.cut_short("a u64"))?;
        self.position += 8;
        Ok(value)
    }

    /// The next varint.
    ///
    /// # Errors
    /// As [`Decoder::take`], and for a varint of more than 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        let (value, bytes) = get_varint(self.rest()).ok_or_else(|| self.cut_short("a varint"))?;
        self.position += bytes;
        Ok(value)
    }

    /// The next varint, which must fit a `u32`.
    ///
    /// # Errors
    /// As [`Decoder::varint`].
    #[inline]
    pub fn varint_u32(&mut self) -> Result<u32> {
        let at = self.position;
        u32::try_from(self.varint()?)
            .map_err(|_| Error::corruption("a number does not fit 32 bits").with_offset(at as u64))
    }

    /// The next length-prefixed byte string.
    ///
    /// # Errors
    /// As [`Decoder::take`].
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let count = self.varint()?;
        let count = usize::try_from(count).map_err(|_| self.cut_short("a byte string"))?;
        self.take(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn varints_at_their_edges() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_bytes(value));
            assert_eq!(get_varint(&bytes), Some((value, bytes.len())));
            assert_eq!(get_varint(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(get_varint(&[0xff; 10]), None, "more than 64 bits");
    }

    proptest! {
        #[test]
        fn a_decoder_survives_any_bytes(bytes: Vec<u8>, calls: Vec<u8>) {
            let mut decoder = Decoder::new(&bytes);
            for call in calls {
                let _ = match call % 5 {
                    0 => decoder.u8().map(u64::from),
                    1 => decoder.u32().map(u64::from),
                    2 => decoder.u64(),
                    3 => decoder.varint(),
                    _ => decoder.bytes().map(|b| b.len() as u64),
                };
                prop_assert!(decoder.position() <= bytes.len());
            }
        }
    }
}
