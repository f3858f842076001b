//! What the database must hold: one byte per key, the generation that was written last.
//!
//! Invariant: a key's byte changes only after the engine has acknowledged the write, so that a
//! reader who loads the byte before it reads may demand that state or a newer one. Generations
//! belong to phases and a value to (key, generation): two threads that write a key in one phase
//! write the same bytes, and their order does not matter.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// The key is not there.
pub const ABSENT: u8 = 0;
/// The database was there before this run: the key may be there or not, in any generation.
pub const UNKNOWN: u8 = 255;

const CHUNK_KEYS: usize = 1 << 20;
const MAX_CHUNKS: usize = 1 << 12;

/// The most keys that can be kept account of.
pub const MAX_KEYS: u64 = (CHUNK_KEYS * MAX_CHUNKS) as u64;

/// The generation that phase number `phase` writes: never [`ABSENT`] nor [`UNKNOWN`].
#[must_use]
pub fn generation_of_phase(phase: u64) -> u8 {
    (phase % 254) as u8 + 1
}

/// One state per key, allocated a million at a time. Reading and writing are relaxed atomics.
#[derive(Debug)]
pub struct Expectations {
    default: u8,
    chunks: Box<[OnceLock<Box<[AtomicU8]>>]>,
}

impl Expectations {
    /// Every key in state `default`.
    #[must_use]
    pub fn new(default: u8) -> Self {
        Self {
            default,
            chunks: (0..MAX_CHUNKS).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The state of key `index`.
    #[inline]
    #[must_use]
    pub fn get(&self, index: u64) -> u8 {
        let index = index as usize;
        match self.chunks.get(index / CHUNK_KEYS).and_then(OnceLock::get) {
            Some(chunk) => chunk[index % CHUNK_KEYS].load(Ordering::Relaxed),
            None => self.default,
        }
    }

    /// Notes that key `index` (below [`MAX_KEYS`]) is in `state` now.
    #[inline]
    pub fn set(&self, index: u64, state: u8) {
        let index = index as usize;
        let chunk = self.chunks[index / CHUNK_KEYS].get_or_init(|| self.new_chunk());
        chunk[index % CHUNK_KEYS].store(state, Ordering::Relaxed);
    }

    fn new_chunk(&self) -> Box<[AtomicU8]> {
        (0..CHUNK_KEYS)
            .map(|_| AtomicU8::new(self.default))
            .collect()
    }

    /// How many of the first `bound` keys are known to be there, and how many may be.
    #[must_use]
    pub fn live_keys(&self, bound: u64) -> (u64, u64) {
        let mut known = 0;
        let mut unknown = 0;
        for index in 0..bound {
            match self.get(index) {
                ABSENT => {}
                UNKNOWN => unknown += 1,
                _ => known += 1,
            }
        }
        (known, unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_kept_across_chunks() {
        let expectations = Expectations::new(ABSENT);
        let far = CHUNK_KEYS as u64 * 3 + 5;
        expectations.set(far, 7);
        assert_eq!(
            (expectations.get(far), expectations.get(far - 1)),
            (7, ABSENT)
        );
        assert_eq!(expectations.get(MAX_KEYS + 1), ABSENT);
        assert_eq!(expectations.live_keys(far + 1), (1, 0));
        assert_eq!(Expectations::new(UNKNOWN).live_keys(3), (0, 3));
    }

    #[test]
    fn a_generation_is_never_a_special_state() {
        for phase in 0..1000 {
            assert!(![ABSENT, UNKNOWN].contains(&generation_of_phase(phase)));
        }
        assert_ne!(generation_of_phase(1), generation_of_phase(2));
    }
}
