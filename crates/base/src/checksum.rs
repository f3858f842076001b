//! xxh3: every checksum and every key hash of esker. The only place that names the crate.
//!
//! Source: Yann Collet's XXH3, 64-bit variant, as specified in the xxHash repository.

/// The checksum of stored bytes.
///
/// `seed` binds the bytes to their place (a segment number, a file number), so that valid bytes in
/// the wrong place do not pass.
#[must_use]
#[inline]
pub fn checksum(bytes: &[u8], seed: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, seed)
}

/// The hash of a user key for filters and hash indexes.
#[must_use]
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// A checksum over bytes that arrive in pieces: equals [`checksum`] of their concatenation.
#[derive(Clone)]
pub struct StreamingChecksum {
    state: Box<xxhash_rust::xxh3::Xxh3>,
}

impl StreamingChecksum {
    /// Begins with nothing.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: Box::new(xxhash_rust::xxh3::Xxh3::with_seed(seed)),
        }
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// The checksum of everything added so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.state.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_that_are_on_disk_never_change() {
        // xxHash's published test vector for the empty input, and our own golden value.
        assert_eq!(checksum(b"", 0), 0x2d06_8005_38d3_94c2);
        let mut pieces = StreamingChecksum::new(9);
        pieces.update(b"esk");
        pieces.update(b"er");
        assert_eq!(pieces.value(), checksum(b"esker", 9));
        assert_ne!(checksum(b"esker", 9), checksum(b"esker", 10));
    }
}
