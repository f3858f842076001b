//! What a search looks for: an internal key that nobody stored.
//!
//! Invariant: a probe borrows the caller's key and allocates nothing. Callers: both memtables.

use esker_base::Trailer;
use esker_base::internal_key::{compare, key_prefix};
use std::cmp::Ordering;

/// A position in internal-key order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) trailer: Trailer,
}

impl<'a> Probe<'a> {
    #[inline]
    pub(crate) fn new(key: &'a [u8], trailer: Trailer) -> Self {
        Self { key, trailer }
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
    match key.get(skip..) {
        Some(rest) => key_prefix(rest),
        None => 0,
    }
}
