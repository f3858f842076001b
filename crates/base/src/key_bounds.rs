//! Ranges of user keys with an exclusive or inclusive end, or none: what tables, compactions and
//! range deletes cover.
//!
//! Invariant: user keys are never empty, so an empty *end* is free to mean "no upper bound".

/// Whether `end`, an exclusive upper bound (empty: none), lies above `key`.
#[must_use]
#[inline]
pub fn end_is_above(end: &[u8], key: &[u8]) -> bool {
    end.is_empty() || key < end
}

/// The smaller of two exclusive upper bounds (empty: none).
#[must_use]
pub fn min_end<'a>(a: &'a [u8], b: &'a [u8]) -> &'a [u8] {
    if a.is_empty() || (!b.is_empty() && b < a) {
        b
    } else {
        a
    }
}

/// The user keys that something covers: from `smallest`, inclusive, to `largest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct KeyBounds {
    /// The inclusive start.
    pub smallest: Vec<u8>,
    /// The end; empty (with `largest_is_exclusive`) where there is no upper bound.
    pub largest: Vec<u8>,
    /// Whether `largest` itself lies outside (it is the end of a range delete).
    pub largest_is_exclusive: bool,
}

impl KeyBounds {
    /// All keys from `smallest` to `largest`, both included.
    #[must_use]
    pub fn inclusive(smallest: impl Into<Vec<u8>>, largest: impl Into<Vec<u8>>) -> Self {
        Self {
            smallest: smallest.into(),
            largest: largest.into(),
            largest_is_exclusive: false,
        }
    }

    /// All keys from `start`, included, to `end`, excluded (empty: no end).
    #[must_use]
    pub fn half_open(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self {
            smallest: start.into(),
            largest: end.into(),
            largest_is_exclusive: true,
        }
    }

    /// Whether every covered key is smaller than `key`.
    #[must_use]
    #[inline]
    pub fn ends_before(&self, key: &[u8]) -> bool {
        if self.largest_is_exclusive {
            !self.largest.is_empty() && self.largest.as_slice() <= key
        } else {
            self.largest.as_slice() < key
        }
    }

    /// Whether `key` is covered.
    #[must_use]
    #[inline]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.smallest.as_slice() <= key && !self.ends_before(key)
    }

    /// Whether the two have a key in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.ends_before(&other.smallest) && !other.ends_before(&self.smallest)
    }

    /// Widens `self` until it covers `other` as well.
    pub fn extend(&mut self, other: &Self) {
        if other.smallest < self.smallest {
            self.smallest.clone_from(&other.smallest);
        }
        if self.end_is_less(other) {
            self.largest.clone_from(&other.largest);
            self.largest_is_exclusive = other.largest_is_exclusive;
        }
    }

    /// Whether `self` ends strictly before `other` does.
    #[must_use]
    pub fn end_is_less(&self, other: &Self) -> bool {
        let unbounded = |bounds: &Self| bounds.largest_is_exclusive && bounds.largest.is_empty();
        match (unbounded(self), unbounded(other)) {
            (true, _) => false,
            (false, true) => true,
            (false, false) => {
                let exclusive_first = !self.largest_is_exclusive as u8;
                let other_exclusive_first = !other.largest_is_exclusive as u8;
                (&self.largest, exclusive_first) < (&other.largest, other_exclusive_first)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_end_touches_its_neighbour_without_overlap() {
        let left = KeyBounds::half_open("a", "m");
        let right = KeyBounds::inclusive("m", "z");
        assert!(!left.overlaps(&right) && !right.overlaps(&left));
        assert!(KeyBounds::inclusive("a", "m").overlaps(&right));
        assert!(left.contains(b"lzz") && !left.contains(b"m") && left.ends_before(b"m"));
        assert!(left.end_is_less(&KeyBounds::inclusive("a", "m")));
    }

    #[test]
    fn no_end_is_above_everything() {
        let all = KeyBounds::half_open("a", "");
        assert!(all.contains(&[0xff; 40]) && !all.ends_before(&[0xff; 40]));
        assert!(all.overlaps(&KeyBounds::inclusive("z", "z")));
        let mut some = KeyBounds::inclusive("b", "c");
        assert!(some.end_is_less(&all) && !all.end_is_less(&some));
        some.extend(&all);
        assert_eq!(some, all);
        assert_eq!(min_end(b"", b"q"), b"q");
        assert_eq!(min_end(b"q", b""), b"q");
        assert_eq!(min_end(b"p", b"q"), b"p");
        assert!(end_is_above(b"", b"x") && !end_is_above(b"x", b"x"));
    }
}
