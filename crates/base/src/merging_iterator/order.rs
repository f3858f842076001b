//! In which order the children of a merge come.
//!
//! Invariant: by user key in the direction of travel, then by trailer, then the lower child first; who stands on no
//! record comes last. Ranks decide where they differ, and nothing where they do not. Called by the matches of
//! `merging_iterator`.

use std::cmp::Ordering;

use super::{MergingIterator, Node};
use crate::iterator::{Direction, InternalIterator};

impl<I: InternalIterator> MergingIterator<I> {
    /// Whether `a` comes before `b` in the direction of travel.
    #[inline]
    pub(super) fn is_before(&self, a: Node, b: Node) -> bool {
        match self.order_of_keys(a, b) {
            Ordering::Less => true,
            Ordering::Equal => self.is_before_within_key(a.child, b.child),
            Ordering::Greater => false,
        }
    }

    /// How the user keys of `a` and `b` follow each other in the direction of travel, behind which comes who has
    /// none.
    #[inline]
    pub(super) fn order_of_keys(&self, a: Node, b: Node) -> Ordering {
        match a.rank.cmp(&b.rank) {
            Ordering::Equal => self.order_of_whole_keys(a.child, b.child),
            order => order,
        }
    }

    fn order_of_whole_keys(&self, a: usize, b: usize) -> Ordering {
        let (first, second) = (&self.children[a], &self.children[b]);
        match (first.valid(), second.valid(), self.direction) {
            (true, true, Direction::Forward) => first.user_key().cmp(second.user_key()),
            (true, true, Direction::Backward) => second.user_key().cmp(first.user_key()),
            (first, second, _) => second.cmp(&first),
        }
    }

    /// As [`MergingIterator::is_before`], for children with the same user key, or none.
    pub(super) fn is_before_within_key(&self, a: usize, b: usize) -> bool {
        let (first, second) = (&self.children[a], &self.children[b]);
        if !first.valid() {
            return false;
        }
        match (first.trailer().cmp(&second.trailer()), self.direction) {
            (Ordering::Equal, _) => a < b,
            (order, Direction::Forward) => order == Ordering::Less,
            (order, Direction::Backward) => order == Ordering::Greater,
        }
    }
}
