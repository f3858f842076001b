//! A tiny deterministic generator of numbers for simulated disks and generated workloads.
//!
//! Invariant: the numbers are a function of the seed alone, on every machine and in every version:
//! a seed that a failing test printed last year still replays it. Not for secrets.

/// SplitMix64: Guy L. Steele Jr., Doug Lea and Christine H. Flood, "Fast Splittable Pseudorandom
/// Number Generators", OOPSLA 2014; constants as in Sebastiano Vigna's public-domain
/// `splitmix64.c`. Any seed is a good one, and equal seeds give equal numbers.
///
/// ```
/// use esker_vfs::Random;
///
/// let mut random = Random::new(1234567);
/// assert_eq!(random.next_u64(), 6457827717110365317);
/// assert!(random.below(10) < 10);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator for one part of a larger thing, independent of those of its other parts.
    #[must_use]
    pub fn of_part(seed: u64, part: u64) -> Self {
        let mut random = Self::new(part);
        Self::new(seed ^ random.next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 where `bound` is 0. The bias is below `bound / 2^64`
    /// (Daniel Lemire, "Fast Random Integer Generation in an Interval", 2019, without rejection).
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// As [`Random::below`], for indices.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// True once in `one_in` times; never where that is 0.
    pub fn chance(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.below(one_in) == 0
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.next_u64().to_le_bytes()[..piece.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let mut random = Random::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        for number in expected {
            assert_eq!(random.next_u64(), number);
        }
    }

    #[test]
    fn bounds_hold_and_everything_below_them_occurs() {
        let mut random = Random::new(1);
        let mut seen = [false; 7];
        for _ in 0..500 {
            seen[random.index(7)] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!((random.below(0), random.below(1)), (0, 0));
        assert!(!random.chance(0) && random.chance(1));
    }

    #[test]
    fn parts_differ_from_each_other_and_bytes_come_in_any_number() {
        let first = |mut random: Random| random.next_u64();
        assert_ne!(first(Random::of_part(1, 0)), first(Random::of_part(1, 1)));
        assert_ne!(first(Random::of_part(1, 0)), first(Random::of_part(2, 0)));
        let (mut short, mut long) = ([0; 5], [0; 16]);
        Random::new(9).fill(&mut short);
        Random::new(9).fill(&mut long);
        assert_eq!(short, long[..5]);
        assert_ne!(long[..8], long[8..]);
    }
}
