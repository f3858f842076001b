//! Ranges of keys given by their leading components.
//!
//! Invariant: a bound stands for every key that begins with it. "Up to and including `("ada",)`"
//! holds all keys whose first component is "ada", and "after" it none of them.

use crate::encode;
use crate::tuples::ToTuple;
use std::ops::{Bound, RangeBounds};

/// The smallest bytes beyond everything that begins with `prefix`; empty where there is none.
///
/// ```
/// assert_eq!(esker_tuple::successor(&[0x44, 0x61, 0xff]), [0x44, 0x62]);
/// assert!(esker_tuple::successor(&[0xff]).is_empty());
/// ```
#[must_use]
pub fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// The bounds, in bytes, of all keys that begin with `leading`.
///
/// ```
/// let bounds = esker_tuple::prefix(&("ada",));
/// let key = esker_tuple::encode(&("ada", 7u64));
/// assert!(std::ops::RangeBounds::contains(&bounds, &key));
/// ```
#[must_use]
pub fn prefix<T: ToTuple + ?Sized>(leading: &T) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let start = encode(leading);
    let end = above(&start);
    (Bound::Included(start), end)
}

/// The bounds, in bytes, of the keys whose leading components lie in `range`.
///
/// ```
/// use std::ops::RangeBounds;
/// let year = esker_tuple::range(&(("ada", 2023)..=("ada", 2024)));
/// assert!(year.contains(&esker_tuple::encode(&("ada", 2024, "December"))));
/// assert!(!year.contains(&esker_tuple::encode(&("ada", 2025))));
/// ```
#[must_use]
pub fn range<T: ToTuple>(range: &impl RangeBounds<T>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let start = match range.start_bound() {
        Bound::Included(leading) => Bound::Included(encode(leading)),
        Bound::Excluded(leading) => match above(&encode(leading)) {
            Bound::Excluded(beyond) => Bound::Included(beyond),
            // No key begins above: such a first byte is no component's.
            _ => Bound::Excluded(vec![0xff]),
        },
        Bound::Unbounded => Bound::Unbounded,
    };
    let end = match range.end_bound() {
        Bound::Included(leading) => above(&encode(leading)),
        Bound::Excluded(leading) => Bound::Excluded(encode(leading)),
        Bound::Unbounded => Bound::Unbounded,
    };
    (start, end)
}

/// Below everything beyond the keys that begin with `prefix`.
fn above(prefix: &[u8]) -> Bound<Vec<u8>> {
    let beyond = successor(prefix);
    if beyond.is_empty() {
        Bound::Unbounded
    } else {
        Bound::Excluded(beyond)
    }
}
