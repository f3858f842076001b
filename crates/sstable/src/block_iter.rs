//! Walks over the entries of one block, in both directions.
//!
//! Invariant: while valid, key, trailer and value of the current entry are at hand: each entry is
//! decoded once when it is reached. A slot block rewrites the part of the key after its common
//! bytes; a restart block decodes a whole interval when it is entered and walks over that. Memory
//! is kept from block to block. Used by `table_iter` and `verify`.

use std::cmp::Ordering;

use esker_base::Trailer;
use esker_base::internal_key::compare;
use esker_base::iterator::Direction;

use crate::block::{Block, BlockParts, PinnedValue, Shape};

/// How many entries ahead of the current one a walk begins to load. Processors foresee a walk forwards
/// only after a while and only inside a page, and one backwards over entries of more than a line not at all.
const TOUCHED_AHEAD: usize = 5;

/// An entry of the decoded interval of a restart block.
#[derive(Clone, Copy, Debug)]
struct Decoded {
    key_start: usize,
    key_end: usize,
    trailer: Trailer,
    value_start: usize,
    value_end: usize,
}

/// A cursor over one block at a time.
#[derive(Debug)]
pub(crate) struct BlockIter {
    block: Option<Block>,
    /// The current entry, below `entries` while valid.
    index: usize,
    entries: usize,
    /// Slot: common bytes and the current suffix. Restart: all keys of the interval in a row.
    keys: Vec<u8>,
    key_start: usize,
    key_end: usize,
    /// Bytes at the front of `keys` that all keys of a slot block share.
    common_bytes: usize,
    trailer: Trailer,
    value_start: usize,
    value_end: usize,
    /// The interval of a restart block that holds the current entry.
    interval: Vec<Decoded>,
    /// The index of the first entry in `interval`.
    interval_first: usize,
}

impl BlockIter {
    /// A cursor over nothing.
    pub(crate) fn new() -> Self {
        Self {
            block: None,
            index: 0,
            entries: 0,
            keys: Vec::new(),
            key_start: 0,
            key_end: 0,
            common_bytes: 0,
            trailer: Trailer::OLDEST,
            value_start: 0,
            value_end: 0,
            interval: Vec::new(),
            interval_first: 0,
        }
    }

    /// Goes over to `block`, standing on none of its entries.
    pub(crate) fn enter(&mut self, block: Block) {
        self.entries = block.entries();
        self.index = self.entries;
        self.interval.clear();
        if let Shape::Slot(shape) = block.shape() {
            let common = shape.common(block.bytes());
            self.common_bytes = common.len();
            self.keys.clear();
            self.keys.extend_from_slice(common);
            // Room for the longest suffix, and for the eight bytes that are always written.
            self.keys
                .resize(common.len() + shape.longest_suffix().max(8), 0);
            self.key_start = 0;
        }
        self.block = Some(block);
    }

    /// Leaves the block.
    pub(crate) fn leave(&mut self) {
        self.index = 0;
        self.entries = 0;
        self.block = None;
    }

    /// Whether the cursor is over a block.
    #[inline]
    pub(crate) fn has_block(&self) -> bool {
        self.block.is_some()
    }

    /// The block, if the cursor stands on the only entry of it.
    #[inline]
    pub(crate) fn lone_block(&self) -> Option<&Block> {
        let is_alone = self.entries == 1 && self.valid();
        self.block.as_ref().filter(|_| is_alone)
    }

    /// Whether the cursor stands on an entry.
    #[inline]
    pub(crate) fn valid(&self) -> bool {
        self.index < self.entries
    }

    /// The user key of the entry.
    #[inline]
    pub(crate) fn user_key(&self) -> &[u8] {
        &self.keys[self.key_start..self.key_end]
    }

    /// The trailer of the entry, as stored.
    #[inline]
    pub(crate) fn trailer(&self) -> Trailer {
        self.trailer
    }

    /// The value of the entry.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        match &self.block {
            Some(block) => &block.bytes()[self.value_start..self.value_end],
            None => &[],
        }
    }

    /// The value of the entry, pinned; `None` while the cursor is over no block.
    pub(crate) fn pinned_value(&self) -> Option<PinnedValue> {
        let block = self.block.clone()?;
        Some(PinnedValue::new(block, self.value_start..self.value_end))
    }

    /// Moves to the first entry.
    pub(crate) fn seek_to_first(&mut self) {
        self.touch(0, TOUCHED_AHEAD.min(self.entries.wrapping_sub(1)));
        self.load(0, usize::MAX);
    }

    /// Moves to the last entry.
    pub(crate) fn seek_to_last(&mut self) {
        let last = self.entries.wrapping_sub(1);
        self.touch(last.saturating_sub(TOUCHED_AHEAD), last);
        self.load(last, usize::MAX);
    }

    /// Moves to the next entry; invalid after the last.
    #[inline]
    pub(crate) fn next(&mut self) {
        self.load(self.index + 1, self.index + 1 + TOUCHED_AHEAD);
    }

    /// Moves to the previous entry; invalid before the first.
    #[inline]
    pub(crate) fn prev(&mut self) {
        let before = self.index.wrapping_sub(1);
        self.load(before, before.wrapping_sub(TOUCHED_AHEAD));
    }

    /// How many entries there are from the current one on to the end; 0 while invalid.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.entries - self.index
    }

    /// How many entries there are before the current one.
    #[inline]
    pub(crate) fn passed(&self) -> usize {
        self.index
    }

    /// Begins to load the entries from `first` to `last` of a slot block, if it has them.
    #[inline]
    fn touch(&self, first: usize, last: usize) {
        if let Some(block) = self.block.as_ref().filter(|_| last < self.entries)
            && let Shape::Slot(shape) = block.shape()
        {
            shape.touch(block.bytes(), first, last);
        }
    }

    /// Moves to the first entry at or after (`key`, `trailer`); invalid where there is none.
    pub(crate) fn seek(&mut self, key: &[u8], trailer: Trailer) {
        let Some(block) = &self.block else {
            return;
        };
        match block.shape() {
            Shape::Slot(shape) => {
                let index = shape.seek(block.bytes(), key, trailer);
                let last = (index + TOUCHED_AHEAD).min(self.entries - 1);
                self.touch(index.min(last), last);
                self.load(index, usize::MAX);
            }
            Shape::Restart(shape) => {
                let first = shape.interval_of(block.bytes(), key, trailer) * shape.interval();
                self.load(first, usize::MAX);
                while self.valid() && self.compare(key, trailer) == Ordering::Less {
                    self.next();
                }
            }
        }
    }

    /// Whether the neighbour that way has another user key; `None` where it is not in the block.
    #[inline]
    pub(crate) fn neighbour_differs(&self, direction: Direction) -> Option<bool> {
        let neighbour = match direction {
            Direction::Forward => self.index + 1,
            Direction::Backward => self.index.wrapping_sub(1),
        };
        let block = self.block.as_ref().filter(|_| neighbour < self.entries)?;
        Some(match block.shape() {
            Shape::Slot(shape) => shape.keys_differ(block.bytes(), self.index, neighbour),
            Shape::Restart(_) => {
                let decoded = neighbour
                    .checked_sub(self.interval_first)
                    .and_then(|place| self.interval.get(place));
                decoded.is_some_and(|it| self.keys[it.key_start..it.key_end] != *self.user_key())
            }
        })
    }

    /// How the current entry compares to (`key`, `trailer`).
    pub(crate) fn compare(&self, key: &[u8], trailer: Trailer) -> Ordering {
        compare(self.user_key(), self.trailer, key, trailer)
    }

    /// Decodes entry `index`, and begins to load entry `ahead` if there is one; invalid where there is no
    /// entry `index`.
    #[inline(always)]
    fn load(&mut self, index: usize, ahead: usize) {
        let Some(block) = self.block.as_ref().filter(|_| index < self.entries) else {
            self.index = self.entries;
            return;
        };
        self.index = index;
        match block.shape() {
            Shape::Slot(shape) => {
                let bytes = block.bytes();
                if ahead < self.entries {
                    shape.touch_one(bytes, ahead);
                }
                let entry = shape.entry(bytes, index);
                let suffix_at = self.common_bytes;
                self.keys[suffix_at..suffix_at + 8].copy_from_slice(&entry.prefix.to_be_bytes());
                self.key_end = suffix_at + entry.suffix_bytes;
                if entry.suffix_bytes > 8 {
                    let tail = &bytes[entry.tail_at..entry.tail_at + entry.suffix_bytes - 8];
                    self.keys[suffix_at + 8..self.key_end].copy_from_slice(tail);
                }
                self.trailer = entry.trailer;
                self.value_start = entry.value.start;
                self.value_end = entry.value.end;
            }
            Shape::Restart(_) => self.load_from_interval(index),
        }
    }

    fn load_from_interval(&mut self, index: usize) {
        let is_decoded =
            index >= self.interval_first && index - self.interval_first < self.interval.len();
        if !is_decoded {
            self.decode_interval_of(index);
        }
        let entry = self.interval[index - self.interval_first];
        self.key_start = entry.key_start;
        self.key_end = entry.key_end;
        self.trailer = entry.trailer;
        self.value_start = entry.value_start;
        self.value_end = entry.value_end;
    }

    fn decode_interval_of(&mut self, index: usize) {
        let Some((block, Shape::Restart(shape))) =
            self.block.as_ref().map(|block| (block, block.shape()))
        else {
            return;
        };
        let bytes = block.bytes();
        let restart = index / shape.interval();
        self.interval_first = restart * shape.interval();
        self.interval.clear();
        self.keys.clear();
        let mut at = shape.restart(bytes, restart);
        let mut previous_start = 0;
        for _ in self.interval_first..self.entries.min(self.interval_first + shape.interval()) {
            let entry = shape.entry(bytes, at);
            at = entry.value.end;
            let key_start = self.keys.len();
            self.keys
                .extend_from_within(previous_start..previous_start + entry.shared_bytes);
            self.keys.extend_from_slice(&bytes[entry.unshared]);
            self.interval.push(Decoded {
                key_start,
                key_end: self.keys.len(),
                trailer: entry.trailer,
                value_start: entry.value.start,
                value_end: entry.value.end,
            });
            previous_start = key_start;
        }
    }
}
