//! The search for a key in a slot block: the slots first, without a branch for each, and then, where several
//! entries share a prefix, these.
//!
//! Invariant: as that of [`SlotShape`]: whoever gives the bytes that were parsed is told a place inside them. Called
//! by `block` and `block_iter`.

use std::cmp::Ordering;
use std::ops::Range;

use esker_base::Trailer;
use esker_base::coding::u64_at;
use esker_base::internal_key::key_prefix;

use super::{NARROW, PREFIX_BYTES, SlotEntry, SlotShape, WIDE};

/// Up to so many slots are compared without a branch, in two steps: the last of each group, and then
/// one group. That costs less than the cache misses that a binary search, whose loads wait for each other,
/// takes one after the other, and less than to compare them all.
const COUNTED_SLOTS: usize = 64;
const SLOT_GROUP: usize = 8;

/// The prefix in a slot.
#[inline]
fn prefix_of<const N: usize>(slot: &[u8; N]) -> u64 {
    u64_at(slot, 0).unwrap_or_default()
}

/// How many slots at the front have a prefix below `wanted`; prefixes ascend.
#[inline]
fn count_below<const N: usize>(mut slots: &[[u8; N]], wanted: u64) -> usize {
    let mut skipped = 0;
    while slots.len() > COUNTED_SLOTS {
        let middle = slots.len() / 2;
        if prefix_of(&slots[middle]) < wanted {
            skipped += middle;
            slots = &slots[middle..];
        } else {
            slots = &slots[..middle];
        }
    }
    let count = |slots: &[[u8; N]]| -> usize {
        let below = slots.iter().map(|slot| prefix_of(slot) < wanted);
        below.map(usize::from).sum()
    };
    let (groups, _) = slots.as_chunks::<SLOT_GROUP>();
    let passed = groups
        .iter()
        .map(|group| usize::from(prefix_of(&group[SLOT_GROUP - 1]) < wanted));
    let passed = SLOT_GROUP * passed.sum::<usize>();
    let rest = &slots[passed..];
    skipped + passed + count(&rest[..rest.len().min(SLOT_GROUP)])
}

/// What a lookup looks for inside a block: the key after the common bytes.
struct Target<'a> {
    suffix: &'a [u8],
    trailer: Trailer,
}

impl Target<'_> {
    /// How `entry`, whose prefix equals the target's, compares to the target. Padding decides
    /// nothing, so that among equal prefixes the tails decide, and then the lengths.
    fn order_of(&self, bytes: &[u8], entry: &SlotEntry) -> Ordering {
        self.key_order_of(bytes, entry)
            .then_with(|| entry.trailer.cmp(&self.trailer))
    }

    fn key_order_of(&self, bytes: &[u8], entry: &SlotEntry) -> Ordering {
        let by_length = entry.suffix_bytes.cmp(&self.suffix.len());
        match self.suffix.get(PREFIX_BYTES..) {
            Some(tail @ [_, ..]) if entry.suffix_bytes > PREFIX_BYTES => {
                entry.tail(bytes).cmp(tail).then(by_length)
            }
            // One of the two ends where its prefix does. To compare nothing would not be free: an empty
            // slice may point to where no memory is, and looking there, even at no byte of it, takes a
            // vectorised comparison longer than all the rest of the search.
            _ => by_length,
        }
    }
}

impl SlotShape {
    /// The newest record of `key` that sorts at or after `trailer`: its trailer, and where its
    /// value lies.
    #[inline]
    pub(crate) fn find(
        &self,
        bytes: &[u8],
        key: &[u8],
        trailer: Trailer,
    ) -> Option<(Trailer, Range<usize>)> {
        let suffix = key.strip_prefix(self.common(bytes))?;
        let first = self.count_below(bytes, key_prefix(suffix));
        self.find_suffix(first, bytes, &Target { suffix, trailer })
    }

    /// The first slot at which a record of `key` could be, told by the slots alone; `None` where `key` does
    /// not begin as all keys of the block do.
    #[inline]
    pub(crate) fn first_slot(&self, bytes: &[u8], key: &[u8]) -> Option<usize> {
        let suffix = key.strip_prefix(self.common(bytes))?;
        Some(self.count_below(bytes, key_prefix(suffix)))
    }

    /// As [`SlotShape::find`], for whoever has been told the first slot.
    #[inline]
    pub(crate) fn find_from(
        &self,
        first: usize,
        bytes: &[u8],
        key: &[u8],
        trailer: Trailer,
    ) -> Option<(Trailer, Range<usize>)> {
        let suffix = key.strip_prefix(self.common(bytes))?;
        self.find_suffix(first, bytes, &Target { suffix, trailer })
    }

    /// What `target` looks for, where `first` slots have a prefix below the target's.
    #[inline]
    fn find_suffix(
        &self,
        first: usize,
        bytes: &[u8],
        target: &Target<'_>,
    ) -> Option<(Trailer, Range<usize>)> {
        if first < self.entries() {
            // Where the value begins is known once the first line of the entry has come: asked for now,
            // its lines come together with that.
            self.touch(bytes, first, first);
        }
        let index = self.lower_bound(first, bytes, target);
        if index == self.entries() {
            return None;
        }
        let entry = self.entry(bytes, index);
        let is_same_key = entry.prefix == key_prefix(target.suffix)
            && target.key_order_of(bytes, &entry) == Ordering::Equal;
        is_same_key.then_some((entry.trailer, entry.value))
    }

    /// What the slots alone tell of where a search for `key` ends: [`SlotShape::seek_from`] goes on there.
    #[inline]
    pub(crate) fn seek_slot(&self, bytes: &[u8], key: &[u8]) -> usize {
        let common = self.common(bytes);
        match key.strip_prefix(common) {
            Some(suffix) => self.count_below(bytes, key_prefix(suffix)),
            None if key < common => 0,
            None => self.entries(),
        }
    }

    /// The first entry at or after (`key`, `trailer`), of which [`SlotShape::seek_slot`] has told `slot`; the
    /// number of entries where there is none.
    #[inline]
    pub(crate) fn seek_from(
        &self,
        slot: usize,
        bytes: &[u8],
        key: &[u8],
        trailer: Trailer,
    ) -> usize {
        match key.strip_prefix(self.common(bytes)) {
            Some(suffix) => self.lower_bound(slot, bytes, &Target { suffix, trailer }),
            None => slot,
        }
    }

    /// How many slots have a prefix below `wanted`.
    #[inline]
    fn count_below(&self, bytes: &[u8], wanted: u64) -> usize {
        let slots = self.slots(bytes);
        if self.wide {
            count_below(slots.as_chunks::<WIDE>().0, wanted)
        } else {
            count_below(slots.as_chunks::<NARROW>().0, wanted)
        }
    }

    /// The first entry at or after `target`, where `first` slots have a prefix below the target's.
    #[inline]
    fn lower_bound(&self, first: usize, bytes: &[u8], target: &Target<'_>) -> usize {
        let wanted = key_prefix(target.suffix);
        let is_equal = |index| index < self.entries() && self.prefix(bytes, index) == wanted;
        let is_before = |index| target.order_of(bytes, &self.entry(bytes, index)).is_lt();
        if !is_equal(first) {
            return first;
        }
        if !is_equal(first + 1) {
            return first + usize::from(is_before(first));
        }
        // Several keys or versions share the prefix: the entries themselves decide.
        let (mut low, mut high) = (first, self.entries());
        while low < high {
            let middle = low + (high - low) / 2;
            let before = self.prefix(bytes, middle) == wanted && is_before(middle);
            if before {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }
}
