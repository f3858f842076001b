//! What a search looks for: an internal key that nobody stored.
//!
//! Invariant: a probe borrows the caller's key and allocates nothing. Callers: both memtables.

use esker_base::Trailer;
use esker_base::internal_key::{compare, key_prefix};
use std::cmp::Ordering;

/// How many 8-byte words of its key a probe carries: what most searches compare.
pub(crate) const HEAD_WORDS: usize = 3;

/// A position in internal-key order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) trailer: Trailer,
    /// The first words of the key, padded with zeros.
    pub(crate) head: [u64; HEAD_WORDS],
}

impl<'a> Probe<'a> {
    #[inline]
    pub(crate) fn new(key: &'a [u8], trailer: Trailer) -> Self {
        Self {
            key,
            trailer,
            head: [word_at(key, 0), word_at(key, 8), word_at(key, 16)],
        }
    }

    /// How the stored (`key`, `trailer`) compares with this position.
    #[inline]
    pub(crate) fn order_of(&self, key: &[u8], trailer: Trailer) -> Ordering {
        compare(key, trailer, self.key, self.trailer)
    }
}

/// The eight bytes of `key` from `skip` on as a number that orders as they do, padded with zeros.
#[inline]
pub(crate) fn word_at(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    if let Some(word) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*word);
    }
    match key.last_chunk::<8>() {
        // The usual short rest: the end of the key's last eight bytes, shifted to the front.
        Some(word) if !rest.is_empty() => u64::from_be_bytes(*word) << (64 - 8 * rest.len()),
        _ => key_prefix(rest),
    }
}

/// How many bytes `a` and `b` have in common at the front.
pub(crate) fn common_prefix_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_prefix_of_what_is_left() {
        let key = b"abcdefghijklm\0\xff";
        for bytes in 0..=key.len() {
            for skip in 0..=bytes {
                let key = &key[..bytes];
                assert_eq!(
                    word_at(key, skip),
                    key_prefix(&key[skip..]),
                    "{bytes} {skip}"
                );
            }
            assert_eq!(word_at(&key[..bytes], bytes + 1), 0);
        }
        assert_eq!(common_prefix_bytes(b"abc", b"abd"), 2);
        assert_eq!(common_prefix_bytes(b"abc", b"abcd"), 3);
    }
}
