//! Many sorted inputs as one: the heart of scans, flushes and compactions.
//!
//! A loser tree (Knuth, The Art of Computer Programming 3, section 5.4.1, "tree of losers"): a step
//! plays the advanced child against the losers on the path from its leaf to the root, one
//! comparison per level. Every node carries the first sixteen bytes of its child's key as a number,
//! so that most comparisons touch no key; equal prefixes fall back to the whole key, then to the
//! trailer, then to the lower child. (Eight bytes are a little faster where they tell keys apart
//! and much slower for the many key schemes that begin with a name or with zeros.) The rank of the
//! runner-up is at hand, so that a child which stays ahead of it costs one comparison and no match. Once
//! a single child is left, a step is that child's step.
//!
//! Invariant: while valid, the winner is the child that is first in the direction of travel, every
//! other valid child stands beyond it in that direction, and node prefixes equal those of the keys
//! their children stand on. A step allocates nothing; only a change of direction copies the key,
//! into a buffer that is kept. Equal records cannot exist (see [`internal_key`]); should damaged
//! input bring them anyway, each is returned once per pass, the one of the lower child first.
//!
//! [`internal_key`]: crate::internal_key
//!
//! Callers: db (scans over memtables, runs and levels) and compaction (the merge itself).

use std::cmp::Ordering;

use crate::error::Result;
use crate::internal_key::{Trailer, long_key_prefix};
use crate::iterator::{Direction, InternalIterator, RecordView, Step};

mod order;

/// A child and its key's prefix, as a rank: the smaller rank comes first in the direction of
/// travel. Exhausted children have the largest rank.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    rank: u128,
    child: usize,
}

const EXHAUSTED: u128 = u128::MAX;

/// Merges children that are sorted in internal-key order.
///
/// ```
/// use esker_base::iterator::InternalIterator;
/// use esker_base::merging_iterator::MergingIterator;
/// # fn first_key<I: InternalIterator>(memtables: I, level: I) -> esker_base::Result<Vec<u8>> {
/// let mut merged = MergingIterator::new(vec![memtables, level]);
/// merged.seek_to_first()?;
/// # assert!(merged.valid());
/// # Ok(
/// merged.user_key().to_vec()
/// # )
/// # }
/// ```
#[derive(Debug)]
pub struct MergingIterator<I> {
    children: Vec<I>,
    /// The child that the record comes from. Its rank is up to date where other children live.
    winner: Node,
    /// Leaf `i` is node `children.len() + i`, the parent of node `n` is `n / 2`; inner nodes (from
    /// 1 on) hold the losers of their matches, node 0 nothing. Leaves are not stored. Empty where
    /// there are no matches.
    losers: Vec<Node>,
    /// The least rank of all children but the winner. Up to date where the winner's rank is.
    runner_up: u128,
    /// Whether it is known that no other child has the winner's user key, which the last matches may have told;
    /// `false` says nothing. Up to date where the winner's rank is.
    winner_differs: bool,
    /// Children that stand on a record; 0 exactly when the merge is invalid.
    live: usize,
    direction: Direction,
    /// The key that a change of direction seeks the other children to.
    turning_key: Vec<u8>,
}

impl<I: InternalIterator> Default for MergingIterator<I> {
    /// Merges nothing.
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<I: InternalIterator> MergingIterator<I> {
    /// Merges `children`; invalid until the first seek. The lower child wins ties.
    #[must_use]
    #[inline]
    pub fn new(children: Vec<I>) -> Self {
        let losers = match children.len() {
            0 | 1 => Vec::new(),
            count => vec![Node::default(); count],
        };
        let direction = Direction::Forward;
        Self {
            children,
            winner: Node::default(),
            losers,
            runner_up: EXHAUSTED,
            winner_differs: false,
            live: 0,
            direction,
            turning_key: Vec::new(),
        }
    }

    /// Which child the record comes from. Meaningful only while valid.
    #[must_use]
    #[inline]
    pub fn child_index(&self) -> usize {
        self.winner.child
    }

    /// The child that the record comes from, for what only it can do (handing out a pinned value).
    /// Call only while valid.
    #[must_use]
    #[inline]
    pub fn current_child(&self) -> &I {
        &self.children[self.winner.child]
    }

    /// The same, for what it does without moving.
    #[must_use]
    #[inline]
    pub fn current_child_mut(&mut self) -> &mut I {
        &mut self.children[self.winner.child]
    }

    /// Gives up where it stands, and lets `let_go` take from each child what it need not keep until the next
    /// seek.
    pub fn rest(&mut self, let_go: impl FnMut(&mut I)) {
        self.live = 0;
        self.children.iter_mut().for_each(let_go);
    }

    /// How many children it has.
    #[must_use]
    #[inline]
    pub fn child_count(&self) -> usize {
        self.children.len()
    }

    /// Whether the next record in the direction of travel is known to have another user key, or not
    /// to exist. `false` says nothing. Call only while valid.
    ///
    /// The runner-up is one of the losers on the winner's path, so that only these are looked at.
    #[inline]
    #[must_use]
    pub fn next_differs(&self) -> bool {
        let child = &self.children[self.winner.child];
        if !child.neighbour_differs(self.direction) {
            return false;
        }
        self.live == 1 || self.others_differ()
    }

    /// Whether no other child has the key that the winner stands on.
    #[inline]
    fn others_differ(&self) -> bool {
        self.winner_differs || self.others_differ_by_key()
    }

    #[inline(never)]
    fn others_differ_by_key(&self) -> bool {
        let winner = self.winner;
        let mut parent = (self.children.len() + winner.child) / 2;
        while parent > 0 {
            let loser = self.losers[parent];
            if loser.rank == winner.rank && self.has_same_key(loser.child, winner.child) {
                return false;
            }
            parent /= 2;
        }
        true
    }

    fn has_same_key(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.children[a], &self.children[b]);
        a.valid() && b.valid() && a.user_key() == b.user_key()
    }

    /// Moves every child with `position` and rebuilds the tree for `direction`.
    fn position_all(
        &mut self,
        direction: Direction,
        mut position: impl FnMut(&mut I) -> Result<()>,
    ) -> Result<()> {
        self.live = 0;
        self.direction = direction;
        for child in &mut self.children {
            position(child)?;
        }
        self.rebuild();
        Ok(())
    }

    /// Plays every match anew: leaf by leaf, each new winner rises until it meets an empty node
    /// (whose match waits for its other side) or the root.
    fn rebuild(&mut self) {
        const EMPTY: usize = usize::MAX;
        let count = self.children.len();
        self.live = self.children.iter().filter(|child| child.valid()).count();
        if count <= 1 {
            self.winner = Node::default();
            return;
        }
        self.losers.fill(Node {
            rank: EXHAUSTED,
            child: EMPTY,
        });
        for child in 0..count {
            let mut winner = self.leaf(child);
            let mut parent = (count + child) / 2;
            while parent > 0 && self.losers[parent].child != EMPTY {
                if self.is_before(self.losers[parent], winner) {
                    std::mem::swap(&mut self.losers[parent], &mut winner);
                }
                parent /= 2;
            }
            match parent {
                0 => self.winner = winner,
                _ => self.losers[parent] = winner,
            }
        }
        self.find_runner_up(false);
    }

    /// The runner-up has lost to the winner, and nobody loses to the winner but on its path. `differs` says that
    /// all that did were seen to have other keys.
    #[inline]
    fn find_runner_up(&mut self, differs: bool) {
        let mut rank = EXHAUSTED;
        let mut parent = (self.children.len() + self.winner.child) / 2;
        while parent > 0 {
            rank = rank.min(self.losers[parent].rank);
            parent /= 2;
        }
        self.runner_up = rank;
        self.winner_differs = differs || self.winner.rank < rank;
    }

    /// The node of `child` where it stands now.
    #[inline]
    fn leaf(&self, child: usize) -> Node {
        let iterator = &self.children[child];
        let rank = if !iterator.valid() {
            EXHAUSTED
        } else if self.direction == Direction::Forward {
            long_key_prefix(iterator.user_key())
        } else {
            !long_key_prefix(iterator.user_key())
        };
        Node { rank, child }
    }

    /// The winner has moved, and stands on a record or not: finds the new one.
    #[inline]
    fn settle(&mut self, moved: Result<()>, is_valid: bool) -> Result<()> {
        if moved.is_err() {
            self.live = 0;
        } else if !(is_valid && self.live == 1) {
            self.replay(is_valid);
        }
        moved
    }

    /// Plays the winner's matches anew.
    #[inline(never)]
    fn replay(&mut self, is_valid: bool) {
        let child = self.winner.child;
        if !is_valid {
            self.live -= 1;
            if self.live == 0 {
                return;
            }
        }
        let mut winner = self.leaf(child);
        if winner.rank < self.runner_up {
            self.winner = winner;
            self.winner_differs = true;
            return;
        }
        // Who has won all of these matches by its key has met all whose key could be the same.
        let mut differs = true;
        let mut parent = (self.children.len() + child) / 2;
        while parent > 0 {
            let loser = self.losers[parent];
            let order = self.order_of_keys(loser, winner);
            differs &= order == Ordering::Greater;
            if order == Ordering::Less
                || (order == Ordering::Equal
                    && self.is_before_within_key(loser.child, winner.child))
            {
                self.losers[parent] = winner;
                winner = loser;
            }
            parent /= 2;
        }
        self.winner = winner;
        self.find_runner_up(differs);
    }

    /// As [`InternalIterator::step`], while several children stand on records.
    #[inline(never)]
    fn step_before_others(&mut self) -> Result<Step> {
        if !self.others_differ() {
            return Ok(Step::Stayed);
        }
        let step = self.children[self.winner.child].step(self.direction);
        match step {
            Ok(Step::Stayed) => return step,
            Ok(Step::To(_)) => {
                let child = self.winner.child;
                self.replay(true);
                if self.winner.child == child {
                    return step;
                }
            }
            Ok(Step::End) => self.replay(false),
            Err(_) => {
                self.live = 0;
                return step;
            }
        }
        Ok(if self.live > 0 {
            Step::To(self.trailer())
        } else {
            Step::End
        })
    }

    /// Brings every child but the winner to the other side of the current record and moves the
    /// winner by one.
    #[cold]
    fn turn(&mut self, direction: Direction) -> Result<()> {
        let winner = self.winner.child;
        let trailer = self.children[winner].trailer();
        let mut key = std::mem::take(&mut self.turning_key);
        key.clear();
        key.extend_from_slice(self.children[winner].user_key());
        let mut index = 0;
        let turned = self.position_all(direction, |child| {
            let is_winner = index == winner;
            index += 1;
            match (direction, is_winner) {
                (Direction::Forward, true) => child.next(),
                (Direction::Forward, false) => child.seek(&key, trailer),
                (Direction::Backward, true) => child.prev(),
                (Direction::Backward, false) => child.seek_for_prev(&key, trailer),
            }
        });
        self.turning_key = key;
        turned
    }
}

impl<I: InternalIterator> InternalIterator for MergingIterator<I> {
    #[inline]
    fn valid(&self) -> bool {
        self.live > 0
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.position_all(Direction::Forward, I::seek_to_first)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.position_all(Direction::Backward, I::seek_to_last)
    }

    fn seek(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        self.live = 0;
        self.direction = Direction::Forward;
        I::seek_all(&mut self.children, user_key, trailer)?;
        self.rebuild();
        Ok(())
    }

    fn seek_for_prev(&mut self, user_key: &[u8], trailer: Trailer) -> Result<()> {
        self.position_all(Direction::Backward, |child| {
            child.seek_for_prev(user_key, trailer)
        })
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        debug_assert!(self.valid());
        if self.direction != Direction::Forward {
            return self.turn(Direction::Forward);
        }
        let child = &mut self.children[self.winner.child];
        let moved = child.next();
        let is_valid = child.valid();
        self.settle(moved, is_valid)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        debug_assert!(self.valid());
        if self.direction != Direction::Backward {
            return self.turn(Direction::Backward);
        }
        let child = &mut self.children[self.winner.child];
        let moved = child.prev();
        let is_valid = child.valid();
        self.settle(moved, is_valid)
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        self.current_child().user_key()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.current_child().trailer()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.current_child().value()
    }

    #[inline]
    fn record(&self) -> RecordView<'_> {
        self.current_child().record()
    }

    #[inline]
    fn neighbour_differs(&self, direction: Direction) -> bool {
        direction == self.direction && self.next_differs()
    }

    #[inline]
    fn step(&mut self, direction: Direction) -> Result<Step> {
        debug_assert!(self.valid());
        if direction != self.direction {
            return Ok(Step::Stayed);
        }
        if self.live > 1 {
            return self.step_before_others();
        }
        let step = self.children[self.winner.child].step(direction);
        if !matches!(step, Ok(Step::To(_) | Step::Stayed)) {
            self.live = 0;
        }
        step
    }

    fn pass_key(&mut self, user_key: &[u8]) -> Result<bool> {
        debug_assert!(self.valid());
        if self.direction != Direction::Forward {
            // Children may stand on either side of the key, however few records it has.
            self.seek(user_key, Trailer::OLDEST)?;
        }
        // Each child passes what it has of the key on its own, so that no record is compared with others'.
        let mut has_searched = false;
        while self.live > 0 && self.user_key() == user_key {
            let child = &mut self.children[self.winner.child];
            let passed = child.pass_key(user_key);
            let is_valid = child.valid();
            has_searched |= *passed.as_ref().unwrap_or(&false);
            self.settle(passed.map(|_| ()), is_valid)?;
        }
        Ok(has_searched)
    }
}

#[cfg(test)]
mod tests;
