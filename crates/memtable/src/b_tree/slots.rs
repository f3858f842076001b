//! The sorted part of every node: eight distinguishing bytes and a record for each slot, changed
//! by one writer and read by anyone without a lock.
//!
//! Invariant: slots `0..count` hold records in internal-key order, and their words order the same
//! way: `words[i]` are the eight bytes of key `i` behind the first `skip`, which all keys of the
//! node have in common. A reader that finds the version even and unchanged around its loads has
//! seen such a state (Boehm, "Can seqlocks get along with programming language memory models?",
//! 2012). What it loads meanwhile may be a mixture, but every address it can load is that of a
//! stored record, so that following it is harmless.
//!
//! Skipping what a node's keys share keeps the words distinguishing where all keys begin alike, as
//! decimal numbers and URLs do; a search then touches no record but the one it is after.
//!
//! Callers: `node`, for leaves and inner nodes.

use crate::arena::{Record, RecordRef};
use crate::atomics::{AtomicPtr, AtomicU32, AtomicU64, fence, spin_loop, yield_now};
use crate::probe::{Probe, common_prefix_bytes, word_at};
use esker_prefetch::{LINE_BYTES, prefetch_address};
use std::array::from_fn;
use std::cmp::Ordering::{Equal, Greater, Less};
use std::hint::select_unpredictable;
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Slots of a node. Few under Miri, so that small tests make deep trees, and fewer under loom.
pub(crate) const SLOTS: usize = if cfg!(miri) {
    8
} else if cfg!(loom) {
    4
} else {
    64
};

/// How many 8-byte words of what its keys have in common a node carries. A longer common prefix
/// costs a search another cache miss.
const COMMON_WORDS: usize = 8;

/// How often a reader looks again at a node that is being changed before it lets others run.
const SPINS_BEFORE_YIELD: u32 = 64;

#[repr(C)]
pub(super) struct Slots {
    /// Odd while the writer changes what readers may be looking at.
    version: AtomicU64,
    count: AtomicU32,
    /// Bytes that all keys of the node have in common (not necessarily all that they have).
    skip: AtomicU32,
    /// Bit `i` says that record `i` has the key of record `i - 1`, of which it is an older one. Bits 0 and
    /// those from `count` on say nothing.
    older: AtomicU64,
    /// The first of the bytes that all keys have in common.
    common: [AtomicU64; COMMON_WORDS],
    /// A record whose key begins with all of them; null while `skip` is zero.
    witness: AtomicPtr<u8>,
    words: [AtomicU64; SLOTS],
    records: [AtomicPtr<u8>; SLOTS],
}

/// What a node says of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lookup {
    /// The first record at or after what was looked for. It may be of another key.
    Candidate(RecordRef),
    /// The first record at or after it is here, and of another key.
    Absent,
    /// All records are before it.
    Beyond,
}

/// The part of the word number `word` that the first `skip` bytes of a key cover.
#[inline]
fn covered(skip: usize, word: usize) -> u64 {
    let bits = (8 * skip).saturating_sub(64 * word);
    if bits >= 64 {
        u64::MAX
    } else {
        !(u64::MAX >> bits)
    }
}

impl Slots {
    /// No slots taken.
    pub(super) fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            count: AtomicU32::new(0),
            skip: AtomicU32::new(0),
            common: from_fn(|_| AtomicU64::new(0)),
            witness: AtomicPtr::new(ptr::null_mut()),
            older: AtomicU64::new(0),
            words: from_fn(|_| AtomicU64::new(0)),
            records: from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }

    /// Runs `look` until nothing changed while it ran.
    #[inline]
    pub(super) fn read<T>(&self, mut look: impl FnMut() -> T) -> T {
        let mut spins = 0;
        loop {
            let version = self.version.load(Acquire);
            if version & 1 == 0 {
                let seen = look();
                // Keeps the loads of `look` before the second load of the version.
                fence(Acquire);
                if self.version.load(Relaxed) == version {
                    return seen;
                }
            }
            spins += 1;
            if spins % SPINS_BEFORE_YIELD == 0 {
                yield_now();
            } else {
                spin_loop();
            }
        }
    }

    /// Runs `change` such that no reader takes what it saw meanwhile for good. Writer only.
    pub(super) fn change(&self, change: impl FnOnce()) {
        let version = self.version.load(Relaxed);
        self.version.store(version + 1, Relaxed);
        // Keeps the stores of `change` behind the store above.
        fence(Release);
        change();
        self.version.store(version + 2, Release);
    }

    #[inline]
    pub(super) fn count(&self) -> usize {
        (self.count.load(Acquire) as usize).min(SLOTS)
    }

    /// Which records are older ones of the key before them: bit `i` for slot `i`, meaningless for slot 0 and
    /// from the count on. To be read within `read`, behind the count.
    #[inline]
    pub(super) fn older(&self) -> u64 {
        self.older.load(Relaxed)
    }

    /// The record in slot `index`; `None` where there never was one.
    #[inline]
    pub(super) fn record(&self, index: usize) -> Option<RecordRef> {
        let address = NonNull::new(self.records[index].load(Acquire))?;
        // SAFETY: only `RecordRef::address` is ever stored in a slot.
        Some(unsafe { RecordRef::from_address(address) })
    }

    /// Key, trailer and value of the record in slot `index`.
    #[inline]
    pub(super) fn view(&self, index: usize) -> Option<Record<'_>> {
        // SAFETY: whoever calls `insert` or `take_over` promises that records outlive the node,
        // and the address was loaded with acquire and stored with release.
        self.record(index).map(|record| unsafe { record.view() })
    }

    /// A record whose key begins with what all keys have in common; `None` if that is nothing.
    fn witness(&self) -> Option<Record<'_>> {
        let address = NonNull::new(self.witness.load(Acquire))?;
        // SAFETY: as in `record` and `view`: a witness is or was in a slot.
        Some(unsafe { RecordRef::from_address(address).view() })
    }

    /// Whether all records are before `probe`. A hint, but for the writer.
    #[inline]
    pub(super) fn is_before(&self, probe: &Probe<'_>) -> bool {
        let Some(last) = self.count().checked_sub(1) else {
            return true;
        };
        let skip = self.skip.load(Relaxed) as usize;
        self.order_of_common(probe, skip)
            .then_with(|| {
                self.words[last]
                    .load(Relaxed)
                    .cmp(&word_at(probe.key, skip))
            })
            .then_with(|| probe.order_of(self.filled(last).key, self.filled(last).trailer))
            .is_lt()
    }

    /// The record in slot `index`, which is or was taken.
    pub(super) fn filled_ref(&self, index: usize) -> RecordRef {
        self.record(index)
            .unwrap_or_else(|| unreachable!("a slot below the count holds a record"))
    }

    /// What `filled_ref` refers to.
    fn filled(&self, index: usize) -> Record<'_> {
        // SAFETY: as in `view`.
        unsafe { self.filled_ref(index).view() }
    }

    /// Where the newest record of the probe's key at or after the probe is. To be read within `read`.
    #[inline]
    pub(super) fn find(&self, probe: &Probe<'_>) -> Lookup {
        // The count is looked at once: an append changes it without changing the version.
        let count = self.count();
        let position = self.position(probe, count);
        if position >= count {
            return Lookup::Beyond;
        }
        // Keys of which the words differ differ. Without this a key that is not here would cost the
        // cache miss of the record that comes after it.
        let word = word_at(probe.key, self.skip.load(Relaxed) as usize);
        if self.words[position].load(Relaxed) != word {
            return Lookup::Absent;
        }
        self.record(position)
            .map_or(Lookup::Beyond, Lookup::Candidate)
    }

    /// The first of `count` slots whose record is at or after `probe`; `count` if there is none.
    /// Meaningless while the node changes.
    #[inline]
    pub(super) fn position(&self, probe: &Probe<'_>, count: usize) -> usize {
        let skip = self.skip.load(Relaxed) as usize;
        if skip > 0 {
            match self.order_of_common(probe, skip) {
                Equal => {}
                Less => return count,
                Greater => return 0,
            }
        }
        let word = word_at(probe.key, skip);
        let first = self.first_at_or_above(word, count);
        if first == count || self.words[first % SLOTS].load(Relaxed) != word {
            return first;
        }
        self.position_among_equals(probe, word, first, count)
    }

    /// How the bytes that the node's keys have in common compare with the probe's: `Less` if all
    /// keys are smaller than the probe, `Greater` if all are larger.
    #[inline]
    fn order_of_common(&self, probe: &Probe<'_>, skip: usize) -> std::cmp::Ordering {
        for (index, common) in self.common.iter().take(skip.div_ceil(8)).enumerate() {
            let word = probe.head.get(index).copied();
            let word = word.unwrap_or_else(|| word_at(probe.key, 8 * index));
            let (common, word) = (common.load(Relaxed), word & covered(skip, index));
            if common != word {
                return common.cmp(&word);
            }
        }
        if skip > 8 * COMMON_WORDS {
            return self.order_of_long_common(probe, skip);
        }
        if probe.key.len() < skip {
            Greater
        } else {
            Equal
        }
    }

    /// As `order_of_common`, for what lies behind the words kept in the node.
    #[cold]
    #[inline(never)]
    fn order_of_long_common(&self, probe: &Probe<'_>, skip: usize) -> std::cmp::Ordering {
        let Some(witness) = self.witness() else {
            return Equal;
        };
        let tail = |key: &[u8]| (8 * COMMON_WORDS).min(key.len())..skip.min(key.len());
        let common = witness.key.get(tail(witness.key)).unwrap_or_default();
        common.cmp(probe.key.get(tail(probe.key)).unwrap_or_default())
    }

    /// The first of `count` slots whose word is at least `word`.
    #[inline]
    fn first_at_or_above(&self, word: u64, count: usize) -> usize {
        let (mut base, mut size) = (0, count);
        while size > 1 {
            let half = size / 2;
            let below = self.words[(base + half - 1) % SLOTS].load(Relaxed) < word;
            base = select_unpredictable(below, base + half, base);
            size -= half;
        }
        base + usize::from(size == 1 && self.words[base % SLOTS].load(Relaxed) < word)
    }

    /// The first slot at or after `probe`, where slot `first` is the first whose word is `word`.
    #[inline]
    fn position_among_equals(
        &self,
        probe: &Probe<'_>,
        word: u64,
        first: usize,
        count: usize,
    ) -> usize {
        let is_below = |slot: usize| {
            self.view(slot)
                .is_some_and(|record| probe.order_of(record.key, record.trailer) == Less)
        };
        // Of the records of one key the newest comes first, and it is what most look for.
        if !is_below(first) {
            return first;
        }
        let equals = self.words[first..count].iter();
        let mut end = first
            + equals
                .take_while(|other| other.load(Relaxed) == word)
                .count();
        let mut position = first + 1;
        while position < end {
            let middle = position + (end - position) / 2;
            if is_below(middle) {
                position = middle + 1
            } else {
                end = middle
            }
        }
        position
    }

    /// Puts `record`, which `probe` describes, into slot `position`, moving the ones behind it.
    /// Writer only; there must be a free slot. `moved` runs inside of the change, for what else
    /// moves along.
    ///
    /// # Safety
    /// The record outlives the node.
    pub(super) unsafe fn insert(
        &self,
        position: usize,
        record: RecordRef,
        probe: &Probe<'_>,
        moved: impl FnOnce(),
    ) {
        self.make_room_for(probe);
        let count = self.count();
        let word = word_at(probe.key, self.skip.load(Relaxed) as usize);
        let put = |index: usize, word: u64, address: *mut u8| {
            self.words[index].store(word, Relaxed);
            self.records[index].store(address, Release);
        };
        let older = self.older_with(position, count, word, probe.key);
        let address = record.address().as_ptr();
        let grown = count as u32 + 1;
        if position == count {
            // Readers look at the new slot only once they see the new count.
            put(count, word, address);
            self.older.store(older, Relaxed);
            moved();
            self.count.store(grown, Release);
        } else {
            self.change(|| {
                for index in (position..count).rev() {
                    let word = self.words[index].load(Relaxed);
                    put(index + 1, word, self.records[index].load(Relaxed));
                }
                put(position, word, address);
                self.older.store(older, Relaxed);
                moved();
                self.count.store(grown, Release);
            });
        }
        // Where it is cheap on average, see whether the words still tell the keys apart.
        if grown.is_power_of_two() {
            self.skip_what_is_common();
        }
    }

    /// What `older` is once a record of `key`, which has this word, stands in slot `position` of `count`
    /// that are taken so far. Keys are compared only where words are equal: the search for the position has
    /// loaded those. Writer only.
    fn older_with(&self, position: usize, count: usize, word: u64, key: &[u8]) -> u64 {
        let has_key =
            |slot: usize| self.words[slot].load(Relaxed) == word && self.filled(slot).key == key;
        let is_older = position > 0 && has_key(position - 1);
        let has_older = position < count && has_key(position);
        let older = self.older();
        let before = (1 << position) - 1;
        let behind = older & !before & !(1 << position);
        older & before
            | u64::from(is_older) << position
            | (u64::from(has_older) << position | behind) << 1
    }

    /// Shortens `skip` to what the probe's key has in common with the others as well.
    fn make_room_for(&self, probe: &Probe<'_>) {
        let skip = self.skip.load(Relaxed) as usize;
        if skip == 0 || self.order_of_common(probe, skip) == Equal {
            return;
        }
        let common = self
            .witness()
            .map_or(0, |other| common_prefix_bytes(other.key, probe.key));
        self.change(|| self.set_skip(common.min(skip)));
    }

    fn skip_what_is_common(&self) {
        let (first, last) = (self.filled(0), self.filled(self.count() - 1));
        self.skip_more(common_prefix_bytes(first.key, last.key));
    }

    /// Skips `bytes` at the front of the keys, which all of them have in common, if that is more
    /// than now and the words do not tell all keys apart. Writer only.
    pub(super) fn skip_more(&self, bytes: usize) {
        let words = &self.words[..self.count()];
        let tie = |pair: &[AtomicU64]| pair[0].load(Relaxed) == pair[1].load(Relaxed);
        if bytes > self.skip.load(Relaxed) as usize && words.windows(2).any(tie) {
            self.change(|| self.set_skip(bytes));
        }
    }

    /// Sets `skip`, and all that follows from it. Writer only, within a change.
    fn set_skip(&self, skip: usize) {
        let count = self.count();
        for record in (0..count).filter_map(|index| self.record(index)) {
            record.prefetch();
        }
        self.skip.store(skip as u32, Relaxed);
        if count > 0 {
            self.witness.store(self.records[0].load(Relaxed), Release);
        }
        let common = self.witness().map_or(&[][..], |record| record.key);
        for (index, stored) in self.common.iter().enumerate() {
            stored.store(word_at(common, 8 * index) & covered(skip, index), Relaxed);
        }
        for index in 0..count {
            self.words[index].store(word_at(self.filled(index).key, skip), Relaxed);
        }
    }

    /// Fills this empty node, which no reader knows yet, with `left`'s slots from `from` on.
    ///
    /// # Safety
    /// The records of `left` outlive this node.
    pub(super) unsafe fn take_over(&self, left: &Self, from: usize) {
        let count = left.count();
        self.skip.store(left.skip.load(Relaxed), Relaxed);
        self.witness.store(left.witness.load(Relaxed), Release);
        for (common, left) in self.common.iter().zip(&left.common) {
            common.store(left.load(Relaxed), Relaxed);
        }
        self.older
            .store(left.older().unbounded_shr(from as u32), Relaxed);
        for (to, from) in (from..count).enumerate() {
            self.words[to].store(left.words[from].load(Relaxed), Relaxed);
            self.records[to].store(left.records[from].load(Relaxed), Release);
        }
        self.count.store(count.saturating_sub(from) as u32, Release);
    }

    /// Forgets the slots from `count` on. Writer only, within a change.
    pub(super) fn truncate(&self, count: usize) {
        self.count.store(count as u32, Release);
    }

    /// Begins to load the node's cache lines, so that a search waits for memory once.
    #[inline]
    pub(super) fn prefetch(this: *const Self) {
        Self::prefetch_bytes(this, size_of::<Self>());
    }

    /// Begins to load what a copy of the records reads.
    #[inline]
    pub(super) fn prefetch_records(this: *const Self) {
        const { assert!(offset_of!(Self, older) < LINE_BYTES) };
        Self::prefetch_bytes(this, LINE_BYTES);
        let records = this.cast::<u8>().wrapping_add(offset_of!(Self, records));
        Self::prefetch_bytes(
            records.cast(),
            size_of::<Self>() - offset_of!(Self, records) + 1,
        );
    }

    /// Begins to load the first record from slot `first` on that is the newest of its key; the slot behind
    /// it, or `first` where there is none. A hint: nothing keeps the node from changing meanwhile.
    #[inline]
    pub(super) fn prefetch_newest(&self, first: usize) -> usize {
        let newest = !self.older() & u64::MAX.unbounded_shl(first as u32);
        let slot = newest.trailing_zeros() as usize;
        if slot >= self.count() {
            return first;
        }
        if let Some(record) = self.record(slot) {
            record.prefetch();
        }
        slot + 1
    }

    /// Begins to load what a search of an inner node reads for sure.
    #[inline]
    pub(super) fn prefetch_words(this: *const Self) {
        Self::prefetch_bytes(this, offset_of!(Self, records));
    }

    #[inline]
    fn prefetch_bytes(this: *const Self, bytes: usize) {
        for line in 0..bytes.div_ceil(LINE_BYTES) {
            prefetch_address(this.cast::<u8>().wrapping_add(LINE_BYTES * line));
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
