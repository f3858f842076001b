//! A seek of one sorted run that is under way, for whoever seeks several runs and has them wait for memory
//! together.
//!
//! Invariant: the steps between the first and the last only ask memory ahead and search what has arrived: an
//! iterator comes to stand where a seek at once would have brought it. Made by `level_iter`, whose caller
//! keeps one for each run.

use arc_swap::Guard;

use crate::block::Block;

/// How far a seek has come. It is meant to end soon, and a thread has room for a few of them before they
/// become slower.
#[derive(Debug)]
pub struct RunSeek {
    /// The partition of the index and the block.
    pub(crate) leaf: usize,
    pub(crate) block: usize,
    /// The block, if it is cached, from the second step to the third.
    pub(crate) held: Option<Guard<Option<Block>>>,
    /// What the slots of the block have told, if the third step was made.
    pub(crate) slot: Option<usize>,
}

impl RunSeek {
    #[inline]
    pub(crate) fn to(leaf: usize, block: usize) -> Self {
        Self {
            leaf,
            block,
            held: None,
            slot: None,
        }
    }
}
