//! Ranges as callers write them, turned into an inclusive start and an exclusive end.
//!
//! Invariant: user keys are never empty, so an empty start means "from the first key" and an empty
//! end "to the last".

use std::ops::{Bound, RangeBounds};

/// A half-open range of user keys.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct KeyRange {
    start: Vec<u8>,
    end: Vec<u8>,
    inverted: bool,
    empty: bool,
}

impl KeyRange {
    /// The range that `range` means.
    pub(crate) fn new<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(key) => key.as_ref().to_vec(),
            Bound::Excluded(key) => successor(key.as_ref()),
            Bound::Unbounded => Vec::new(),
        };
        // An end that is given but empty lies before every key.
        let (end, nothing) = match range.end_bound() {
            Bound::Included(key) => (successor(key.as_ref()), false),
            Bound::Excluded(key) => (key.as_ref().to_vec(), key.as_ref().is_empty()),
            Bound::Unbounded => (Vec::new(), false),
        };
        let inverted = !end.is_empty() && start > end;
        let empty = nothing || (!end.is_empty() && start >= end);
        Self {
            start,
            end,
            inverted,
            empty,
        }
    }

    /// The keys from `start` to `end`, excluded (empty: no end).
    pub(crate) fn half_open(start: &[u8], end: &[u8]) -> Self {
        Self {
            start: start.to_vec(),
            end: end.to_vec(),
            inverted: false,
            empty: false,
        }
    }

    /// Every key that begins with `prefix`.
    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        let end = prefix_end(prefix);
        Self {
            start: prefix.to_vec(),
            end,
            inverted: false,
            empty: false,
        }
    }

    /// Every key.
    pub(crate) fn all() -> Self {
        Self::default()
    }

    /// The first key of the range, or empty.
    pub(crate) fn start(&self) -> &[u8] {
        &self.start
    }

    /// The first key beyond the range, or empty.
    pub(crate) fn end(&self) -> &[u8] {
        &self.end
    }

    /// Whether no key can be in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.empty
    }

    /// Whether it ends before it starts: a mistake of the caller where it matters.
    pub(crate) fn is_inverted(&self) -> bool {
        self.inverted
    }
}

/// The smallest key that is larger than `key`.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// The smallest key beyond all that begin with `prefix`; empty where there is none.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_become_half_open() {
        let cases: [(KeyRange, &[u8], &[u8], bool); 6] = [
            (KeyRange::new(&("a".."c")), b"a", b"c", false),
            (KeyRange::new(&("a"..="c")), b"a", b"c\0", false),
            (KeyRange::new::<&str>(&(..)), b"", b"", false),
            (KeyRange::new(&("c"..)), b"c", b"", false),
            (KeyRange::new(&("c".."c")), b"c", b"c", true),
            (KeyRange::new(&("c".."")), b"c", b"", true),
        ];
        for (range, start, end, empty) in cases {
            assert_eq!(
                (range.start(), range.end(), range.is_empty()),
                (start, end, empty)
            );
        }
        assert!(KeyRange::new(&("d".."c")).is_inverted());
    }

    #[test]
    fn a_prefix_ends_where_its_last_byte_can_grow() {
        assert_eq!(KeyRange::prefix(b"ab").end(), b"ac");
        assert_eq!(KeyRange::prefix(b"a\xff").end(), b"b");
        assert_eq!(KeyRange::prefix(b"\xff\xff").end(), b"");
    }
}
