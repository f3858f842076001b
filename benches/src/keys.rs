//! Keys: zero-padded decimals of a fixed length, so that their byte order is their number's order.
//!
//! Invariant: writing and parsing are inverse, for every index below the limit of the length; what
//! parses is exactly one index. Called once or twice per operation, so neither allocates.

/// The most digits that a `u64` index has.
const MAX_DIGITS: usize = 20;

/// A key of a fixed length that is rewritten in place.
#[derive(Clone, Debug)]
pub struct KeyBuffer {
    bytes: Vec<u8>,
}

impl KeyBuffer {
    /// A key of `key_bytes` bytes (at least 1), index 0.
    #[must_use]
    pub fn new(key_bytes: usize) -> Self {
        Self {
            bytes: vec![b'0'; key_bytes],
        }
    }

    /// Makes it the key of `index` and returns it.
    #[inline]
    pub fn set(&mut self, index: u64) -> &[u8] {
        write_key(index, &mut self.bytes);
        &self.bytes
    }

    /// The key as it stands.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes the key of `index` over `key`, whose length is the key's length. Digits that do not fit
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

/// The index of a key of exactly `key_bytes` bytes; `None` for anything that [`write_key`] does not
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

/// How many keys of `key_bytes` bytes there are.
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
            let mut key = KeyBuffer::new(key_bytes);
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
        let mut key = KeyBuffer::new(20);
        assert_eq!(key.set(u64::MAX), u64::MAX.to_string().as_bytes());
        assert_eq!(parse_key(key.as_slice(), 20), Some(u64::MAX));
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
