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
use esker_prefetch::prefetch_from;

use crate::block::{Block, BlockParts, PinnedValue, Shape};

/// How many entries ahead of the current one a walk begins to load. Processors foresee a walk forwards
/// only after a while and only inside a page, and one backwards over entries of more than a line not at all.
const TOUCHED_AHEAD: usize = 5;
/// About the bytes of an entry before its value.
const ENTRY_HEAD: usize = 9;
/// How much of an entry ahead is asked for: its key and the beginning of its value.
const ENTRY_LINES: usize = 2;
/// Bytes of a suffix behind the prefix that are copied whether the suffix has them or not: that takes no
/// call and no branch.
const COPIED_TAIL: usize = 16;

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
    /// Whether it is known that no two entries of the block have the same user key.
    is_told_apart: bool,
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
            is_told_apart: false,
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
        self.is_told_apart = false;
        match block.shape() {
            Shape::Slot(shape) => {
                self.is_told_apart = shape.is_told_apart();
                let common = shape.common(block.bytes());
                self.common_bytes = common.len();
                // Room for the longest suffix, and for what is always written of one.
                let room = common.len() + shape.longest_suffix().max(8 + COPIED_TAIL);
                if self.keys.len() < room {
                    self.keys.clear();
                    self.keys.reserve_exact(room);
                    self.keys.resize(room, 0);
                }
                self.keys[..common.len()].copy_from_slice(common);
                self.key_start = 0;
            }
            Shape::Restart(_) => self.interval.clear(),
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

    /// Bytes of the block that the cursor is over; 0 where it is over none.
    #[inline]
    pub(crate) fn block_bytes(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.bytes().len())
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
        self.load(0);
    }

    /// Moves to the last entry.
    pub(crate) fn seek_to_last(&mut self) {
        let last = self.entries.wrapping_sub(1);
        self.touch(last.saturating_sub(TOUCHED_AHEAD), last);
        self.load(last);
    }

    /// Moves to the next entry; invalid after the last.
    #[inline]
    pub(crate) fn next(&mut self) {
        self.touch_ahead(Direction::Forward);
        self.load(self.index + 1);
    }

    /// Moves to the previous entry; invalid before the first.
    #[inline]
    pub(crate) fn prev(&mut self) {
        self.touch_ahead(Direction::Backward);
        self.load(self.index.wrapping_sub(1));
    }

    /// Begins to load what a walk comes to a few entries later, if the entries there are as long as the
    /// current one. (Their slots would say it, for more instructions than the rest of a step takes.)
    #[inline(always)]
    fn touch_ahead(&self, direction: Direction) {
        if let Some(block) = &self.block {
            let entry_bytes = self.value_end - self.value_start + ENTRY_HEAD;
            let entry_start = self.value_start.wrapping_sub(ENTRY_HEAD);
            let distance = (TOUCHED_AHEAD + 1) * entry_bytes;
            let at = match direction {
                Direction::Forward => entry_start.wrapping_add(distance),
                Direction::Backward => entry_start.wrapping_sub(distance),
            };
            prefetch_from(block.bytes(), at, ENTRY_LINES);
        }
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
    #[inline]
    pub(crate) fn seek(&mut self, key: &[u8], trailer: Trailer) {
        let slot = self.begin_seek(key);
        self.finish_seek(slot, key, trailer);
    }

    /// The first half of a seek: what the slots tell of where it ends. Begins to load the entries from
    /// there on.
    #[inline]
    pub(crate) fn begin_seek(&self, key: &[u8]) -> usize {
        let Some(block) = &self.block else {
            return 0;
        };
        let Shape::Slot(shape) = block.shape() else {
            return 0;
        };
        let slot = shape.seek_slot(block.bytes(), key);
        let last = (slot + TOUCHED_AHEAD).min(self.entries - 1);
        shape.touch(block.bytes(), slot.min(last), last);
        slot
    }

    /// The second half, told what the first one has found.
    #[inline]
    pub(crate) fn finish_seek(&mut self, slot: usize, key: &[u8], trailer: Trailer) {
        let Some(block) = &self.block else {
            return;
        };
        match block.shape() {
            Shape::Slot(shape) => {
                let index = shape.seek_from(slot, block.bytes(), key, trailer);
                self.load(index);
            }
            Shape::Restart(shape) => {
                let first = shape.interval_of(block.bytes(), key, trailer) * shape.interval();
                self.load(first);
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
        if neighbour >= self.entries {
            return None;
        }
        Some(self.is_told_apart || self.keys_differ(neighbour))
    }

    /// Whether entry `neighbour`, which is beside the current one, is known to have another user key.
    #[inline(never)]
    fn keys_differ(&self, neighbour: usize) -> bool {
        let Some(block) = &self.block else {
            return false;
        };
        match block.shape() {
            Shape::Slot(shape) => shape.keys_differ(block.bytes(), self.index, neighbour),
            Shape::Restart(_) => {
                let decoded = neighbour
                    .checked_sub(self.interval_first)
                    .and_then(|place| self.interval.get(place));
                decoded.is_some_and(|it| self.keys[it.key_start..it.key_end] != *self.user_key())
            }
        }
    }

    /// How the current entry compares to (`key`, `trailer`).
    pub(crate) fn compare(&self, key: &[u8], trailer: Trailer) -> Ordering {
        compare(self.user_key(), self.trailer, key, trailer)
    }

    /// Decodes entry `index`; invalid where there is none.
    #[inline(always)]
    fn load(&mut self, index: usize) {
        let Some(block) = self.block.as_ref().filter(|_| index < self.entries) else {
            self.index = self.entries;
            return;
        };
        self.index = index;
        match block.shape() {
            Shape::Slot(shape) => {
                let bytes = block.bytes();
                let entry = shape.entry(bytes, index);
                let suffix_at = self.common_bytes;
                self.keys[suffix_at..suffix_at + 8].copy_from_slice(&entry.prefix.to_be_bytes());
                self.key_end = suffix_at + entry.suffix_bytes;
                if entry.suffix_bytes > 8 {
                    let keys = &mut self.keys[suffix_at + 8..];
                    let tail = &bytes[entry.tail_at..];
                    match (keys.first_chunk_mut::<COPIED_TAIL>(), tail.first_chunk()) {
                        (Some(to), Some(from)) if entry.suffix_bytes <= 8 + COPIED_TAIL => {
                            *to = *from;
                        }
                        _ => {
                            let tail_bytes = entry.suffix_bytes - 8;
                            keys[..tail_bytes].copy_from_slice(&tail[..tail_bytes]);
                        }
                    }
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
