//! Keys: of one fixed length, in one of several shapes, their byte order being their number's order.
//!
//! Invariant: writing and parsing are inverse, for every index below the limit of the keys; what
//! parses is exactly one index; a longer index's key is the larger one. Called once or twice per
//! operation, so neither allocates, and nothing but decimals is written inline.

mod shapes;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What keys look like. Stores treat long shared beginnings worse than random bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyShape {
    /// Zero-padded decimals of --key_size (16) bytes
    #[default]
    Decimal,
    /// Random bytes, --key_size (16) of them
    Random,
    /// Addresses of web pages: 82 bytes, 46 or more of them shared with all others
    Url,
    /// A tenant, a table, a day and a number, as bytes: 24
    Composite,
    /// As few bytes as tell the keys apart: one up to 128 keys
    Tiny,
    /// 1 KiB (--key_size), of which all but the last 20 bytes are shared with all others
    Huge,
}

/// All keys of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    shape: KeyShape,
    bytes: usize,
    /// How far neighbours of random keys are apart, as the first eight bytes count.
    spacing: u64,
}

impl Keys {
    /// Keys of `shape` for a run over `keys` of them, and as many inserted ones. `bytes` is the length
    /// of a key, where the shape leaves that open.
    #[must_use]
    pub fn new(shape: KeyShape, bytes: Option<usize>, keys: u64) -> Self {
        let bytes = match shape {
            KeyShape::Decimal => bytes.unwrap_or(16),
            KeyShape::Random => bytes.unwrap_or(16).max(8),
            KeyShape::Huge => bytes.unwrap_or(1024),
            KeyShape::Url => shapes::URL_BYTES,
            KeyShape::Composite => shapes::COMPOSITE_BYTES,
            KeyShape::Tiny => shapes::tiny_bytes(keys.saturating_mul(2)),
        };
        Self {
            shape,
            bytes,
            spacing: u64::MAX / keys.saturating_mul(2).max(1),
        }
    }

    /// Zero-padded decimals of `bytes` bytes (at least 1).
    #[must_use]
    pub fn decimal(bytes: usize) -> Self {
        Self::new(KeyShape::Decimal, Some(bytes), 1)
    }

    /// The length of a key, bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether `--key_size` decides the length of keys of `shape`.
    #[must_use]
    pub fn have_any_length(shape: KeyShape) -> bool {
        use KeyShape::{Decimal, Huge, Random};
        matches!(shape, Decimal | Random | Huge)
    }

    /// How many keys there are.
    #[must_use]
    pub fn limit(&self) -> u64 {
        match self.shape {
            KeyShape::Decimal | KeyShape::Huge => largest_count(self.bytes),
            KeyShape::Random => u64::MAX / self.spacing,
            KeyShape::Url => shapes::URL_LIMIT,
            KeyShape::Composite => shapes::COMPOSITE_LIMIT,
            KeyShape::Tiny => shapes::tiny_limit(self.bytes),
        }
    }

    /// Writes the key of `index` (below [`Keys::limit`]) over `key`, whose length is that of keys.
    #[inline]
    pub fn write(&self, index: u64, key: &mut [u8]) {
        match self.shape {
            KeyShape::Decimal => write_key(index, key),
            shape => shapes::write(shape, self.spacing, index, key),
        }
    }

    /// The index of `key`; `None` for anything that [`Keys::write`] does not write.
    #[inline]
    #[must_use]
    pub fn parse(&self, key: &[u8]) -> Option<u64> {
        match self.shape {
            KeyShape::Decimal => parse_key(key, self.bytes),
            _ if key.len() != self.bytes => None,
            shape => shapes::parse(shape, self.spacing, key),
        }
    }
}

/// The most digits that a `u64` index has.
const MAX_DIGITS: usize = 20;

/// A key of a fixed length that is rewritten in place.
#[derive(Clone, Debug)]
pub struct KeyBuffer {
    keys: Keys,
    bytes: Vec<u8>,
}

impl KeyBuffer {
    /// Room for one of `keys`.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        let bytes = vec![b'0'; keys.bytes()];
        Self { keys, bytes }
    }

    /// Makes it the key of `index` and returns it.
    #[inline]
    pub fn set(&mut self, index: u64) -> &[u8] {
        self.keys.write(index, &mut self.bytes);
        &self.bytes
    }

    /// The key as it stands.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes the decimal key of `index` over `key`, whose length is the key's length. Digits that do not fit
/// are lost: [`largest_count`] says how many keys a length can tell apart.
#[inline]
pub fn write_key(index: u64, key: &mut [u8]) {
    let digits = key.len().min(MAX_DIGITS);
    let (zeros, tail) = key.split_at_mut(key.len() - digits);
    zeros.fill(b'0');
    let mut rest = index;
    let mut pairs = tail.rchunks_exact_mut(2);
    for pair in &mut pairs {
        let hundred = (rest % 100) as u8;
        rest /= 100;
        pair[0] = b'0' + hundred / 10;
        pair[1] = b'0' + hundred % 10;
    }
    if let [first] = pairs.into_remainder() {
        *first = b'0' + (rest % 10) as u8;
    }
}

/// The index of a decimal key of exactly `key_bytes` bytes; `None` for anything that [`write_key`] does not
/// write.
#[inline]
#[must_use]
pub fn parse_key(key: &[u8], key_bytes: usize) -> Option<u64> {
    if key.len() != key_bytes {
        return None;
    }
    let Some((zeros, tail)) = key.split_last_chunk::<16>() else {
        return parse_digits(key, 0);
    };
    let (high, low) = tail.split_at(8);
    let high = eight_digits(high.try_into().ok()?)?;
    let low = eight_digits(low.try_into().ok()?)?;
    let value = high * 100_000_000 + low;
    if zeros.is_empty() {
        return Some(value);
    }
    let above = parse_digits(zeros, 0)?;
    above
        .checked_mul(10_000_000_000_000_000)?
        .checked_add(value)
}

fn parse_digits(digits: &[u8], start: u64) -> Option<u64> {
    digits.iter().try_fold(start, |value, &digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Eight ASCII digits at once: pairs, then fours, then the whole, inside one word.
#[inline]
fn eight_digits(digits: &[u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(*digits);
    let above_nine = word.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0;
    if word & 0xf0f0_f0f0_f0f0_f0f0 != 0x3030_3030_3030_3030 || above_nine != 0x3030_3030_3030_3030
    {
        return None;
    }
    let digits = word & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff)
}

/// How many decimal keys of `key_bytes` bytes there are.
#[must_use]
pub fn largest_count(key_bytes: usize) -> u64 {
    let exponent = u32::try_from(key_bytes).unwrap_or(u32::MAX);
    10u64.checked_pow(exponent).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_and_parsing_are_inverse_for_every_length() {
        for key_bytes in 1..40 {
            let mut key = KeyBuffer::new(Keys::decimal(key_bytes));
            for index in [
                0u64,
                1,
                9,
                10,
                99,
                12_345_678,
                99_999_999,
                1_234_567_890_123_456,
            ] {
                if index >= largest_count(key_bytes) {
                    continue;
                }
                let expected = format!("{index:0key_bytes$}");
                assert_eq!(key.set(index), expected.as_bytes());
                assert_eq!(parse_key(key.as_slice(), key_bytes), Some(index));
            }
        }
        let mut key = KeyBuffer::new(Keys::decimal(20));
        assert_eq!(key.set(u64::MAX), u64::MAX.to_string().as_bytes());
        assert_eq!(parse_key(key.as_slice(), 20), Some(u64::MAX));
    }

    #[test]
    fn every_shape_keeps_the_order_and_is_read_back() {
        for shape in KeyShape::value_variants() {
            for num in [1u64, 100, 5000, 1_000_000] {
                let keys = Keys::new(*shape, None, num);
                assert!(keys.limit() >= 2 * num, "{shape:?}: {}", keys.limit());
                let mut last: Option<Vec<u8>> = None;
                let mut buffer = KeyBuffer::new(keys);
                for index in (0..2 * num).step_by(1 + num as usize / 3000) {
                    let key = buffer.set(index).to_vec();
                    assert_eq!(key.len(), keys.bytes());
                    assert_eq!(keys.parse(&key), Some(index), "{shape:?} {key:?}");
                    assert!(last.is_none_or(|last| last < key), "{shape:?} {index}");
                    let mut other = key.clone();
                    other[keys.bytes() / 2] ^= 0x40;
                    assert_ne!(keys.parse(&other), Some(index), "{shape:?} {key:?}");
                    assert_eq!(keys.parse(&[&key[..], b"."].concat()), None);
                    last = Some(key);
                }
            }
        }
        assert_eq!(Keys::new(KeyShape::Tiny, None, 128).bytes(), 1);
        assert_eq!(Keys::new(KeyShape::Huge, None, 128).bytes(), 1024);
    }

    #[test]
    fn what_is_not_a_key_does_not_parse() {
        for key in [
            &b"000000000000000"[..],
            b"00000000000000000",
            b"000000000000000.",
            b"00000000000000:0",
            b"000000000000/000",
            b"0000 00000000000",
            b"000000\xff000000000",
            b"",
        ] {
            assert_eq!(parse_key(key, 16), None, "{key:?}");
        }
        assert_eq!(parse_key(b"x", 1), None);
        assert_eq!(parse_key(b"99999999999999999999999", 23), None);
    }
}
