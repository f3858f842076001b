//! Which keys the tree certainly does not hold, told by a word or a few of memory and not by a descent.
//!
//! Readers ask the memtables first, and most keys that they look for lie in tables. This is a Bloom
//! filter in which all bits of a key lie in one word (Putze, Sanders, Singler: Cache-, Hash- and
//! Space-Efficient Bloom Filters, 2007). Nobody knows how many keys will come, so it has parts, each
//! eight times as large as the one before up to half a megabyte, which the writer clears while others wait:
//! a key goes into the last, and readers ask all of them.
//!
//! Invariant: once [`KeyFilter::add`] has returned, the key passes, whoever asks. One thread adds at
//! a time; a part never moves, and its bits are only ever set. Called by `b_tree`.

use super::node::NODE_ALIGN;
use crate::arena::Arena;
use esker_prefetch::prefetch_address;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64};

/// Words of the first part, as a power of two: a kilobyte, which has room beside the first two nodes.
const FIRST_WORD_BITS: u32 = if cfg!(miri) { 1 } else { 7 };
/// How much larger each part is than the one before, as a power of two.
const GROWTH_BITS: u32 = 3;
/// Parts do not grow beyond so many words, as a power of two.
const LARGEST_WORD_BITS: u32 = 16;
/// More keys than the last part is meant for, 4.4 million, make it let more through, which costs
/// time alone.
const PARTS: usize = 14;
/// A part is full when it has taken so many keys for each of its words: it lets one in fifty keys
/// pass then that are not there.
const KEYS_OF_A_WORD: usize = 6;

/// The filter of one tree.
pub(super) struct KeyFilter {
    /// Null from the first on that is not needed yet.
    parts: [AtomicPtr<AtomicU64>; PARTS],
}

/// How far the filter is filled: for the writer alone, who writes it with every key.
#[derive(Debug, Default)]
pub(super) struct Filling {
    parts: usize,
    /// How many keys the last part is still to take.
    room: usize,
}

/// The bits of its word that a key sets.
#[inline]
fn bits_of(hash: u64) -> u64 {
    1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63) | 1 << (hash >> 18 & 63)
}

/// How many words a part has, as a power of two.
#[inline]
fn word_bits(part: usize) -> u32 {
    (FIRST_WORD_BITS + GROWTH_BITS * part as u32).min(LARGEST_WORD_BITS)
}

/// Which word of a part belongs to a key.
#[inline]
fn word_of(part: usize, hash: u64) -> usize {
    (hash >> (u64::BITS - word_bits(part))) as usize
}

impl KeyFilter {
    /// Holds no key.
    pub(super) fn new() -> Self {
        Self {
            parts: [const { AtomicPtr::new(ptr::null_mut()) }; PARTS],
        }
    }

    /// Begins to load what [`KeyFilter::may_contain`] looks at.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        for (part, words) in self.parts.iter().enumerate() {
            let words = words.load(Relaxed);
            if words.is_null() {
                return;
            }
            prefetch_address(words.wrapping_add(word_of(part, hash)));
        }
    }

    /// Whether a key with this hash may have been added.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let bits = bits_of(hash);
        for (part, words) in self.parts.iter().enumerate() {
            let words = words.load(Acquire);
            if words.is_null() {
                return false;
            }
            // SAFETY: not null, so `grow` made this part, of more words than `word_of` counts, and
            // stored its address with release; the arena outlives the tree's readers.
            let word = unsafe { &*words.add(word_of(part, hash)) };
            if word.load(Relaxed) & bits == bits {
                return true;
            }
        }
        false
    }

    /// Begins to load what [`KeyFilter::add`] writes.
    #[inline]
    pub(super) fn prefetch_to_add(&self, hash: u64, filling: &Filling) {
        if let Some(part) = filling.parts.checked_sub(1) {
            let words = self.parts[part].load(Relaxed);
            prefetch_address(words.wrapping_add(word_of(part, hash)));
        }
    }

    /// Adds a key by its hash; parts are made in `arena`, the same for all. Writer only.
    #[inline]
    pub(super) fn add(&self, hash: u64, filling: &mut Filling, arena: &Arena) {
        if filling.room == 0 && filling.parts < PARTS {
            self.grow(filling, arena);
        }
        let part = filling.parts - 1;
        let words = self.parts[part].load(Relaxed);
        // SAFETY: this thread made the part, or the one did that wrote before and gave the lock up,
        // of more words than `word_of` counts; the arena lives as long as the tree.
        let word = unsafe { &*words.add(word_of(part, hash)) };
        let (before, bits) = (word.load(Relaxed), bits_of(hash));
        if before & bits != bits {
            word.store(before | bits, Release);
            filling.room = filling.room.saturating_sub(1);
        }
    }

    #[cold]
    fn grow(&self, filling: &mut Filling, arena: &Arena) {
        let count = 1 << word_bits(filling.parts);
        let words = arena.allocate(count * size_of::<AtomicU64>(), NODE_ALIGN);
        let words = words.cast::<AtomicU64>();
        for index in 0..count {
            // SAFETY: the allocation is ours alone, aligned, and has room for so many words.
            unsafe { words.add(index).write(AtomicU64::new(0)) };
        }
        self.parts[filling.parts].store(words.as_ptr(), Release);
        *filling = Filling {
            parts: filling.parts + 1,
            room: count * KEYS_OF_A_WORD,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_base::checksum::key_hash;

    fn hash(number: usize) -> u64 {
        key_hash(&number.to_le_bytes())
    }

    #[test]
    fn what_was_added_passes_and_little_else_does() {
        let (filter, arena) = (KeyFilter::new(), Arena::new(4096, None));
        let mut filling = Filling::default();
        assert!(
            !filter.may_contain(hash(0)),
            "an empty filter lets nothing through"
        );
        filter.prefetch(hash(0));
        let keys = if cfg!(miri) { 200 } else { 100_000 };
        for key in 0..keys {
            filter.prefetch_to_add(hash(key), &filling);
            filter.add(hash(key), &mut filling, &arena);
            filter.prefetch(hash(key));
            assert!(filter.may_contain(hash(key)));
        }
        assert!(filling.parts > 2, "it has grown");
        assert_eq!(word_bits(PARTS - 1), LARGEST_WORD_BITS);
        assert!((0..keys).all(|key| filter.may_contain(hash(key))));
        let passed = (keys..2 * keys).filter(|&key| filter.may_contain(hash(key)));
        assert!(passed.count() < keys / 10);
    }

    #[test]
    fn a_key_that_comes_again_takes_no_room() {
        let (filter, arena) = (KeyFilter::new(), Arena::new(4096, None));
        let mut filling = Filling::default();
        filter.add(hash(1), &mut filling, &arena);
        let room = filling.room;
        (0..10_000).for_each(|_| filter.add(hash(1), &mut filling, &arena));
        assert_eq!((filling.parts, filling.room), (1, room));
    }

    #[test]
    fn readers_find_what_a_writer_has_added() {
        let (filter, arena) = (KeyFilter::new(), Arena::new(4096, None));
        let added = std::sync::atomic::AtomicUsize::new(0);
        let keys = if cfg!(miri) { 100 } else { 50_000 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut filling = Filling::default();
                for key in 0..keys {
                    filter.add(hash(key), &mut filling, &arena);
                    added.store(key + 1, Release);
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while seen < keys {
                        seen = added.load(Acquire);
                        for key in seen.saturating_sub(50)..seen {
                            assert!(filter.may_contain(hash(key)), "key {key} of {seen}");
                        }
                        std::thread::yield_now();
                    }
                });
            }
        });
    }
}
