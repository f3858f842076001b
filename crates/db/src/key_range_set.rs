//! A set of keys as disjoint ranges: what a transaction's scans have read.
//!
//! Invariant: the ranges are disjoint, do not touch, and none is empty; each is half-open, from its
//! start to its exclusive end, where an empty end means "to the last key". Adding a range never makes
//! the set smaller, and neither does [`KeyRangeSet::halve`], which trades precision for memory.
//!
//! Callers: `read_set`.

use esker_base::key_bounds::end_is_above;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Disjoint ranges of user keys, by their starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyRangeSet {
    ends: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
}

/// Memory of a range beside its bounds, about.
const RANGE_BYTES: usize = 64;

impl KeyRangeSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Memory that the set takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The ranges in order: start, and exclusive end (empty: to the last key).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let ranges = self.ends.iter();
        ranges.map(|(start, end)| (start.as_slice(), end.as_slice()))
    }

    /// Adds the keys from `start` to `end`, excluded (empty: to the last key).
    pub(crate) fn add(&mut self, start: &[u8], end: &[u8]) {
        if !end_is_above(end, start) {
            return;
        }
        let (mut start, mut end) = (start.to_vec(), end.to_vec());
        // From the last range that begins at or before the new one on, those that meet it.
        if let Some((before, its_end)) = self.last_from(Bound::Included(&start))
            && (end_is_above(its_end, &start) || its_end == start.as_slice())
        {
            start = before.to_vec();
        }
        loop {
            let from = (Bound::Included(start.as_slice()), Bound::Unbounded);
            let next = self.ends.range::<[u8], _>(from).next();
            let meets = |next: &[u8]| end_is_above(&end, next) || end == next;
            let Some((met, _)) = next.filter(|(next, _)| meets(next)) else {
                break;
            };
            let met = met.clone();
            if let Some(its_end) = self.ends.remove(&met) {
                self.bytes -= RANGE_BYTES + met.len() + its_end.len();
                if its_end.is_empty() || !end_is_above(&end, &its_end) {
                    end = its_end;
                }
            }
        }
        self.bytes += RANGE_BYTES + start.len() + end.len();
        self.ends.insert(start, end);
    }

    /// Whether `key` is in the set.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let range = self.last_from(Bound::Included(key));
        range.is_some_and(|(_, end)| end_is_above(end, key))
    }

    /// Whether any key from `start` to `end`, excluded (empty: to the last key), is in the set.
    pub(crate) fn overlaps(&self, start: &[u8], end: &[u8]) -> bool {
        let bound = if end.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(end)
        };
        let range = self.last_from(bound);
        range.is_some_and(|(_, its_end)| end_is_above(its_end, start))
    }

    /// Makes one range of every two neighbours, gap included: half the memory, never less protected.
    pub(crate) fn halve(&mut self) {
        let mut halved = Self::default();
        let mut ranges = std::mem::take(&mut self.ends).into_iter();
        while let Some((start, end)) = ranges.next() {
            let end = ranges.next().map_or(end, |(_, end)| end);
            halved.bytes += RANGE_BYTES + start.len() + end.len();
            halved.ends.insert(start, end);
        }
        *self = halved;
    }

    /// The last range whose start is within `bound`.
    fn last_from(&self, bound: Bound<&[u8]>) -> Option<(&[u8], &[u8])> {
        let ranges = self.ends.range::<[u8], _>((Bound::Unbounded, bound));
        let mut ranges = ranges.map(|(start, end)| (start.as_slice(), end.as_slice()));
        ranges.next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(set: &KeyRangeSet) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        set.iter().map(|(s, e)| (text(s), text(e))).collect()
    }

    #[test]
    fn ranges_that_meet_become_one() {
        let mut set = KeyRangeSet::default();
        for (start, end) in [("c", "e"), ("g", "i"), ("a", "b"), ("k", "k"), ("p", "o")] {
            set.add(start.as_bytes(), end.as_bytes());
        }
        assert_eq!(ranges(&set), [("a", "b"), ("c", "e"), ("g", "i")]);
        set.add(b"e", b"g");
        assert_eq!(ranges(&set), [("a", "b"), ("c", "i")]);
        set.add(b"h", b"");
        assert_eq!(ranges(&set), [("a", "b"), ("c", "")]);
        set.add(b"", b"a");
        assert_eq!(ranges(&set), [("", "b"), ("c", "")]);
        assert!(set.contains(b"zz") && !set.contains(b"bb") && !set.overlaps(b"b", b"c"));
        set.halve();
        assert_eq!(ranges(&set), [("", "")]);
    }

    proptest! {
        /// Bit by bit the same as a plain set, and never smaller for having been halved.
        #[test]
        fn agrees_with_a_set_of_keys(
            added in prop::collection::vec((0u8..40, 0u8..41), 0..12),
            probe in (0u8..40, 0u8..41),
        ) {
            // 40 stands for "no end".
            let end = |end: u8| if end == 40 { Vec::new() } else { vec![end] };
            let mut set = KeyRangeSet::default();
            let mut plain = [false; 40];
            for (from, to) in added {
                set.add(&[from], &end(to));
                (from..to).for_each(|key| plain[usize::from(key)] = true);
            }
            for key in 0..40u8 {
                prop_assert_eq!(set.contains(&[key]), plain[usize::from(key)]);
            }
            let (from, to) = probe;
            if from < to {
                // Between two keys of the model lie keys that it does not have: probe whole ones.
                let any = (from..to).any(|key| plain[usize::from(key)]);
                prop_assert_eq!(set.overlaps(&[from], &end(to)), any);
            }
            let bytes: usize = set.iter().map(|(s, e)| RANGE_BYTES + s.len() + e.len()).sum();
            prop_assert_eq!(set.bytes(), bytes);
            let before = set.clone();
            set.halve();
            prop_assert!(set.len() <= before.len().div_ceil(2));
            for key in 0..40u8 {
                prop_assert!(set.contains(&[key]) || !before.contains(&[key]));
            }
        }
    }
}
