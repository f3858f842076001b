//! Leaves as batches of records: what an iterator over the tree takes over at once, and looks at ahead.
//!
//! Invariant: a batch is a leaf, or the rest of one, as it was at one moment; the leaf behind it is the one
//! that was behind it then, so that nothing between the two is missed. What is looked at ahead is a hint.
//!
//! Callers: `entry_iter`.

use super::BTree;
use super::node::{Leaf, LeafRef};
use super::slots::Slots;
use crate::entry_iter::{Batch, EntrySource};
use crate::probe::Probe;
use esker_base::Trailer;
use esker_base::internal_key::MAX_SEQUENCE;
use std::ptr;

/// The leaf that a batch is a copy of, and the one that was behind it then.
#[derive(Default)]
pub(crate) struct LeafPlace {
    leaf: Option<LeafRef>,
    next: Option<LeafRef>,
}

// SAFETY: every record pushed below is one of `self.records`, loaded with acquire from a slot
// where it was stored with release; it lives as long as `self`.
unsafe impl EntrySource for BTree {
    type Place = LeafPlace;

    fn batch_from(&self, probe: &Probe<'_>, batch: &mut Batch<LeafPlace>) -> usize {
        batch.clear();
        let mut leaf = self.find_leaf(probe);
        while let Some(here) = leaf {
            let position = copy(here, batch, |slots, count| slots.position(probe, count));
            if position < batch.len() {
                return position;
            }
            leaf = self.behind(batch);
        }
        batch.clear();
        0
    }

    fn foresee(&self, probe: &Probe<'_>) {
        self.prefetch(probe);
    }

    fn rest_from(&self, probe: &Probe<'_>, batch: &mut Batch<LeafPlace>) -> usize {
        batch.clear();
        let mut leaf = self.find_leaf(probe);
        while let Some(here) = leaf {
            copy_rest(here, batch, probe);
            if batch.len() > 0 {
                return 0;
            }
            leaf = self.behind(batch);
        }
        0
    }

    fn foresee_batch(&self, batch: &Batch<LeafPlace>) {
        if let Some(leaf) = self.behind(batch) {
            Slots::prefetch_records(&raw const leaf.slots);
        }
    }

    #[inline]
    fn foresee_next(&self, batch: &Batch<LeafPlace>, first: usize) -> usize {
        match self.behind(batch) {
            Some(leaf) => leaf.slots.prefetch_newest(first),
            None => first,
        }
    }

    fn foresee_batch_before(&self, batch: &Batch<LeafPlace>) {
        if let Some(leaf) = self.before(batch) {
            Slots::prefetch_records(&raw const leaf.slots);
        }
    }

    #[inline]
    fn foresee_previous(&self, batch: &Batch<LeafPlace>, back: usize) {
        if let Some(leaf) = self.before(batch)
            && let Some(slot) = leaf.slots.count().checked_sub(back + 1)
            && let Some(record) = leaf.slots.record(slot)
        {
            record.prefetch();
        }
    }

    fn first_batch(&self, batch: &mut Batch<LeafPlace>) {
        self.batch_from(&Probe::new(&[], Trailer::seek(MAX_SEQUENCE)), batch);
    }

    fn last_batch(&self, batch: &mut Batch<LeafPlace>) {
        batch.clear();
        let mut leaf = self.rightmost();
        while let Some(here) = leaf {
            copy(here, batch, |_, _| ());
            leaf = self.behind(batch);
        }
    }

    fn next_batch(&self, batch: &mut Batch<LeafPlace>) {
        match self.behind(batch) {
            Some(leaf) => copy(leaf, batch, |_, _| ()),
            None => batch.clear(),
        }
    }

    fn previous_batch(&self, batch: &mut Batch<LeafPlace>) {
        // SAFETY: the batch was filled from this tree.
        let Some(here) = batch.place.leaf.map(|leaf| unsafe { leaf.leaf() }) else {
            return;
        };
        let mut leaf = here.previous();
        while let Some(before) = leaf {
            copy(before, batch, |_, _| ());
            leaf = self.behind(batch);
            // Leaves that `before` has just split into stand between it and `here`.
            if leaf.is_some_and(|next| ptr::eq(next, here)) {
                return;
            }
        }
        batch.clear();
    }
}

impl BTree {
    /// The leaf behind the one that `batch` is a copy of, as of then.
    fn behind(&self, batch: &Batch<LeafPlace>) -> Option<&Leaf> {
        // SAFETY: the batch was filled from this tree.
        batch.place.next.map(|leaf| unsafe { leaf.leaf() })
    }

    /// The leaf before the one that `batch` is a copy of, or one before that.
    #[inline]
    fn before(&self, batch: &Batch<LeafPlace>) -> Option<&Leaf> {
        // SAFETY: the batch was filled from this tree.
        let here = batch.place.leaf.map(|leaf| unsafe { leaf.leaf() });
        here.and_then(Leaf::previous)
    }
}

/// Copies the records of `leaf` from `probe` on, as they are at one moment.
fn copy_rest(leaf: &Leaf, batch: &mut Batch<LeafPlace>, probe: &Probe<'_>) {
    let next = leaf.slots.read(|| {
        let count = leaf.slots.count();
        batch.clear();
        let first = leaf.slots.position(probe, count);
        for record in (first..count).filter_map(|index| leaf.slots.record(index)) {
            batch.push_back(record);
        }
        batch.older = leaf.slots.older().unbounded_shr(first as u32);
        batch.is_cut = first > 0;
        leaf.next().map(Leaf::remember)
    });
    batch.place = LeafPlace {
        leaf: Some(leaf.remember()),
        next,
    };
}

/// Copies `leaf` as it is at one moment, and what `look` sees at that moment.
fn copy<T>(leaf: &Leaf, batch: &mut Batch<LeafPlace>, look: impl Fn(&Slots, usize) -> T) -> T {
    let (seen, next) = leaf.slots.read(|| {
        let count = leaf.slots.count();
        batch.clear();
        for record in (0..count).filter_map(|index| leaf.slots.record(index)) {
            batch.push_back(record);
        }
        batch.older = leaf.slots.older();
        (look(&leaf.slots, count), leaf.next().map(Leaf::remember))
    });
    batch.place = LeafPlace {
        leaf: Some(leaf.remember()),
        next,
    };
    seen
}
