//! Values that can be told right from wrong: derived from (key, generation), half-compressible or
//! whatever ratio is asked for.
//!
//! Invariant: a value is a function of (index, generation, length, compression ratio) alone, so
//! that a reader needs no copy of what was written. Layout: one byte of generation, one byte of
//! compression ratio in per cent, six bytes of a keyed tag over all four, then a slice of a pool
//! that the tag chooses. Shorter values keep as much of it as fits.

use crate::random::{Rng, mix64};
use std::sync::OnceLock;

/// The bytes before the slice of the pool.
const HEADER_BYTES: usize = 8;
/// A power of two, so that a tag chooses a place by masking.
const POOL_BYTES: usize = 1 << 20;
/// A piece of the pool: random bytes, repeated up to this length.
const PIECE_BYTES: usize = 100;

/// Makes and checks the values of a run.
#[derive(Debug)]
pub struct Values {
    value_bytes: usize,
    percent: u8,
    /// One pool per ratio, made when first needed: an existing database may hold other ratios.
    pools: Vec<OnceLock<Box<[u8]>>>,
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The header is not the one of this key, generation and length.
    Header,
    /// The header is right, a byte behind it is not.
    Contents,
}

impl Values {
    /// Values of `value_bytes` bytes that compress to about `ratio` (0 to 1) of their size.
    #[must_use]
    pub fn new(value_bytes: usize, ratio: f64) -> Self {
        let percent = (ratio.clamp(0.0, 1.0) * 100.0).round() as u8;
        let values = Self {
            value_bytes,
            percent,
            pools: (0..=100).map(|_| OnceLock::new()).collect(),
        };
        values.pool(percent);
        values
    }

    /// The length of a value, bytes.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Makes `out` the value of key `index` in `generation`.
    #[inline]
    pub fn write(&self, index: u64, generation: u8, out: &mut Vec<u8>) {
        let header = header(index, generation, self.percent, self.value_bytes);
        out.clear();
        if self.value_bytes <= HEADER_BYTES {
            out.extend_from_slice(&header.to_le_bytes()[..self.value_bytes]);
            return;
        }
        out.extend_from_slice(&header.to_le_bytes());
        let pool = self.pool(self.percent);
        let mut place = place(header);
        while out.len() < self.value_bytes {
            let piece = (self.value_bytes - out.len()).min(POOL_BYTES - place);
            out.extend_from_slice(&pool[place..place + piece]);
            place = 0;
        }
    }

    /// The generation that `value` says it is of; `None` for an empty one.
    #[inline]
    #[must_use]
    pub fn generation(value: &[u8]) -> Option<u8> {
        value.first().copied()
    }

    /// Checks the header of `value` (key, generation, length), and, if `whole`, every byte.
    ///
    /// # Errors
    /// The [`Defect`] that was found.
    #[inline]
    pub fn check(&self, index: u64, value: &[u8], whole: bool) -> Result<(), Defect> {
        let Some((stored, body)) = value.split_first_chunk::<HEADER_BYTES>() else {
            return Self::check_short(index, value, self.percent);
        };
        let [generation, percent, ..] = *stored;
        let expected = header(index, generation, percent, value.len());
        if expected != u64::from_le_bytes(*stored) || percent > 100 {
            return Err(Defect::Header);
        }
        if whole {
            self.check_body(expected, percent, body)
        } else {
            Ok(())
        }
    }

    fn check_short(index: u64, value: &[u8], percent: u8) -> Result<(), Defect> {
        let Some(&generation) = value.first() else {
            return Ok(());
        };
        let percent = value.get(1).copied().unwrap_or(percent);
        let expected = header(index, generation, percent, value.len()).to_le_bytes();
        if expected.starts_with(value) {
            Ok(())
        } else {
            Err(Defect::Header)
        }
    }

    fn check_body(&self, header: u64, percent: u8, body: &[u8]) -> Result<(), Defect> {
        let pool = self.pool(percent);
        let mut place = place(header);
        let mut rest = body;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(POOL_BYTES - place));
            if *piece != pool[place..place + piece.len()] {
                return Err(Defect::Contents);
            }
            rest = after;
            place = 0;
        }
        Ok(())
    }

    #[inline]
    fn pool(&self, percent: u8) -> &[u8] {
        self.pools[usize::from(percent)].get_or_init(|| make_pool(percent))
    }
}

/// The first eight bytes of a value as a little-endian word.
#[inline]
fn header(index: u64, generation: u8, percent: u8, value_bytes: usize) -> u64 {
    let low = u64::from(generation) | u64::from(percent) << 8;
    let keyed = mix64(index ^ (value_bytes as u64) << 40)
        .wrapping_add(low.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    low | mix64(keyed) << 16
}

#[inline]
fn place(header: u64) -> usize {
    (header >> 16) as usize % POOL_BYTES
}

/// Pieces of random bytes, each repeated to [`PIECE_BYTES`], as LevelDB's `CompressibleString`.
fn make_pool(percent: u8) -> Box<[u8]> {
    let mut rng = Rng::new(0x706f_6f6c, u64::from(percent));
    let random_bytes = (PIECE_BYTES * usize::from(percent) / 100).max(1);
    let mut pool = Vec::with_capacity(POOL_BYTES + PIECE_BYTES);
    while pool.len() < POOL_BYTES {
        let mut piece = [0u8; PIECE_BYTES];
        rng.fill(&mut piece[..random_bytes]);
        for at in random_bytes..PIECE_BYTES {
            piece[at] = piece[at - random_bytes];
        }
        pool.extend_from_slice(&piece);
    }
    pool.truncate(POOL_BYTES);
    pool.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(values: &Values, index: u64, generation: u8) -> Vec<u8> {
        let mut out = Vec::new();
        values.write(index, generation, &mut out);
        out
    }

    #[test]
    fn every_wrong_byte_is_found() {
        for value_bytes in [1, 2, 5, 8, 9, 100, 1000] {
            let values = Values::new(value_bytes, 0.5);
            let right = value(&values, 77, 3);
            assert_eq!(right.len(), value_bytes);
            assert_eq!(values.check(77, &right, true), Ok(()));
            for at in 0..value_bytes {
                let mut wrong = right.clone();
                wrong[at] ^= 0x10;
                // Values of one or two bytes have no room for a tag: any are possible.
                assert_eq!(
                    values.check(77, &wrong, true).is_ok(),
                    value_bytes <= 2,
                    "byte {at}"
                );
            }
        }
    }

    #[test]
    fn another_key_or_length_is_found_without_looking_at_the_contents() {
        let values = Values::new(100, 0.5);
        let right = value(&values, 77, 3);
        assert_eq!(values.check(78, &right, false), Err(Defect::Header));
        assert_eq!(values.check(77, &right[..99], false), Err(Defect::Header));
        assert_eq!(
            values.check(77, &[right.clone(), vec![0]].concat(), false),
            Err(Defect::Header)
        );
        assert_eq!(Values::generation(&right), Some(3));
        let mut damaged = right;
        damaged[50] ^= 1;
        assert_eq!(values.check(77, &damaged, false), Ok(()));
        assert_eq!(values.check(77, &damaged, true), Err(Defect::Contents));
    }

    #[test]
    fn values_longer_than_the_pool_wrap_around() {
        let values = Values::new(2 * POOL_BYTES + 4321, 1.0);
        let mut long = value(&values, 5, 1);
        assert_eq!(values.check(5, &long, true), Ok(()));
        let last = long.len() - 1;
        long[last] ^= 1;
        assert_eq!(values.check(5, &long, true), Err(Defect::Contents));
    }

    #[test]
    fn values_of_another_ratio_are_checked_as_well() {
        let written = value(&Values::new(100, 0.25), 5, 1);
        assert_eq!(Values::new(100, 0.5).check(5, &written, true), Ok(()));
    }

    #[test]
    fn the_ratio_decides_how_much_repeats() {
        for (ratio, repeats) in [(0.5, true), (1.0, false)] {
            let values = Values::new(1000, ratio);
            let body = &value(&values, 9, 1)[HEADER_BYTES..];
            let equal = body.iter().zip(&body[50..]).filter(|(a, b)| a == b).count();
            assert_eq!(
                equal > 300,
                repeats,
                "{equal} of 942 bytes repeat at a distance of 50"
            );
        }
    }
}
