//! The bound on the bytes of cached blocks.
//!
//! A cached block hangs in the slot of its index entry, so that a hit is one load of a pointer and
//! no search; this cache only knows which slots are filled and empties them again. Which block goes
//! is decided by second chance (Corbató's clock): blocks wait in queues, and one that was used
//! since it was last looked at goes to the end once more.
//!
//! What open tables take beside their blocks, blocks that somebody holds and no slot has (lent ones), and the buffers
//! of iterators are counted here as well, and take room from the blocks where that is asked for. What tables had fetched into the system's cache (`warm_up`) is
//! counted too, and takes no room.
//!
//! A block that is read takes over the memory of the one that goes for it, where that is of the same size and
//! nobody reads it any more: to give memory back and take other costs more than to decompress into it.
//!
//! A block that a merge hands on as it is hangs in slots of both tables for as long as both are there, and counts once.
//!
//! Invariants: `used_bytes` is the memory of exactly the blocks that hang in slots, are being read or wait for the
//! table that is being written to be opened (`new_blocks`; those take no more than reads have had use for,
//! so that a load without reads leaves the cache empty), and is never
//! above the capacity (a block that finds no room is used without being kept; what tables take beyond
//! it leaves no room at all); every filled slot
//! has one entry in a queue; a table that goes takes its bytes along. Used by `table`; shared by all
//! tables of a database.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwapAny, Guard};
use esker_prefetch::prefetch_read;
use parking_lot::Mutex;

use crate::block::{self, Block, BlockParts};
use crate::block_memory::BlockMemory;
use crate::block_reads;
use crate::held_memory::ScanMemory;
use crate::index::SAMPLE_STEP;

/// Queues, so that threads that miss at once seldom wait for each other.
const SHARDS: usize = 16;
/// A queue is first searched for entries of vanished tables when it is this long.
const FIRST_PURGE: usize = 64;

/// A block that hangs in a slot.
#[derive(Debug)]
struct Resident {
    slots: Weak<BlockSlots>,
    index: u32,
}

#[derive(Debug)]
struct Shard {
    queue: VecDeque<Resident>,
    /// The length at which entries of vanished tables are next removed: twice what was left the
    /// last time, so that removing them costs a constant for each insertion.
    purge_at: usize,
}

/// A part of a cache's capacity, for a block that is being read; given back unless a block takes it.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    cache: &'a BlockCache,
    bytes: usize,
    /// The last block that went for it.
    spare: Option<Block>,
}

impl Room<'_> {
    /// The block that went for this one, if one had to. Its memory does for the new one if nobody reads it
    /// any more ([`block::make_in`]).
    pub(crate) fn take_spare(&mut self) -> Option<Block> {
        self.spare.take()
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.cache.release(self.bytes);
    }
}

/// Bounds the memory of the cached blocks of any number of tables.
#[derive(Debug)]
pub struct BlockCache {
    capacity_bytes: AtomicUsize,
    used_bytes: AtomicUsize,
    /// The room that reads have asked for: what is written may take so much of the capacity.
    wanted_bytes: AtomicUsize,
    /// Memory of open tables, their blocks not counted.
    table_bytes: AtomicUsize,
    /// What open tables have had fetched into the system's cache.
    fetched_bytes: AtomicUsize,
    /// The memory of all blocks that exist, where a bound is set.
    memory: Arc<BlockMemory>,
    /// The memory that iterators hold beside blocks.
    scans: ScanMemory,
    /// The bound on blocks, lent ones included, `table_bytes` and `scans` together; `usize::MAX`: there is none.
    shared_bytes: AtomicUsize,
    /// Where lent blocks and `scans` are above this, iterators read no further ahead.
    scan_share_bytes: AtomicUsize,
    shards: [Mutex<Shard>; SHARDS],
    /// The shard from which the next block is evicted.
    hand: AtomicUsize,
    /// Spreads tables over the shards.
    next_salt: AtomicUsize,
    misses: AtomicU64,
    evictions: AtomicU64,
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`; 0 keeps nothing.
    #[must_use]
    pub fn new(capacity_bytes: usize) -> Arc<Self> {
        let shard = |_| {
            Mutex::new(Shard {
                queue: VecDeque::new(),
                purge_at: FIRST_PURGE,
            })
        };
        Arc::new(Self {
            capacity_bytes: AtomicUsize::new(capacity_bytes),
            used_bytes: AtomicUsize::new(0),
            wanted_bytes: AtomicUsize::new(0),
            table_bytes: AtomicUsize::new(0),
            fetched_bytes: AtomicUsize::new(0),
            memory: Arc::default(),
            scans: ScanMemory::default(),
            scan_share_bytes: AtomicUsize::new(usize::MAX),
            shared_bytes: AtomicUsize::new(usize::MAX),
            shards: std::array::from_fn(shard),
            hand: AtomicUsize::new(0),
            next_salt: AtomicUsize::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        })
    }

    /// Another number for each table: of this cache, so that one database does not decide where
    /// another one keeps its blocks.
    pub(crate) fn next_salt(&self) -> usize {
        self.next_salt.fetch_add(1, Ordering::Relaxed)
    }

    /// The memory of all blocks that are kept, bytes.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The bound on [`BlockCache::used_bytes`].
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes.load(Ordering::Relaxed)
    }

    /// Changes the bound; blocks above a smaller one are dropped before this returns.
    pub fn set_capacity_bytes(&self, capacity_bytes: usize) {
        self.capacity_bytes.store(capacity_bytes, Ordering::Relaxed);
        self.shrink();
    }

    /// Takes `bytes` of what may be fetched into the system's cache, if they are free: twice the capacity, since
    /// the system takes that memory back whenever somebody needs it.
    pub(crate) fn reserve_fetched(&self, bytes: usize) -> bool {
        let room = self.capacity_bytes().saturating_mul(2);
        reserve_of(&self.fetched_bytes, room, bytes)
    }

    /// What open tables have had fetched, bytes.
    #[cfg(test)]
    pub(crate) fn fetched_bytes(&self) -> usize {
        self.fetched_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn release_fetched(&self, bytes: usize) {
        self.fetched_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Drops blocks until the rest has room.
    pub(crate) fn shrink(&self) {
        while self.used_bytes() > self.room_bytes() && self.evict_one().is_some() {}
    }

    /// How many blocks were not found in their slots and had to be read. (Hits are not counted: a
    /// shared counter would cost more than the hit.)
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// How many blocks were dropped to make room.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Takes `bytes` of the capacity, dropping other blocks if it must; `None` where there is no
    /// room even so. The block exists already, and counts as lent so far, if `is_there`.
    fn make_room(&self, bytes: usize, is_there: bool) -> Option<Room<'_>> {
        let own_bytes = if is_there { bytes } else { 0 };
        let mut spare: Option<Block> = None;
        loop {
            // It is neither cached any more nor lent: the new one takes its place.
            let gone = spare.as_ref().filter(|block| !block.is_kept());
            let spare_bytes = gone.map_or(0, BlockParts::memory_bytes);
            let room = self.room_bytes_with(own_bytes + spare_bytes);
            if bytes > room {
                return None;
            }
            if reserve_of(&self.used_bytes, room, bytes) {
                return Some(Room {
                    cache: self,
                    bytes,
                    spare,
                });
            }
            spare = Some(self.evict_one()?);
        }
    }

    /// Says that reads have use for `bytes` more of the capacity.
    pub(crate) fn want(&self, bytes: usize) {
        // Looked at first: in the end it is all of it, and then nobody writes here any more.
        if self.wanted_bytes.load(Ordering::Relaxed) < self.capacity_bytes() {
            self.wanted_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Says that what is written will be read: it may take all of the capacity that is free.
    pub fn expect_reads(&self) {
        self.want(self.capacity_bytes());
    }

    /// Takes `bytes` of the capacity if they are free.
    fn reserve_free(&self, bytes: usize) -> bool {
        reserve_of(&self.used_bytes, self.room_bytes(), bytes)
    }

    /// Takes `bytes` for a block that was written and not read, if they are free of what reads want.
    pub(crate) fn reserve_new(&self, bytes: usize) -> bool {
        let wanted = self.wanted_bytes.load(Ordering::Relaxed);
        reserve_of(&self.used_bytes, self.room_bytes().min(wanted), bytes)
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Keeps `block` in a place more, for which its bytes were reserved: it needs them only where it is the first.
    pub(crate) fn keep(&self, block: &Block) -> bool {
        let before = block.add_place();
        if before != Some(0) {
            self.release(block.memory_bytes());
        }
        before.is_some()
    }

    /// Keeps `block` in a place less: with the last its memory goes.
    pub(crate) fn let_go(&self, block: &Block) {
        if block.remove_place() {
            self.release(block.memory_bytes());
        }
    }

    /// Takes one block out of its slot; `None` where none is kept.
    fn evict_one(&self) -> Option<Block> {
        // Twice around: the first time may find every block in use.
        for _ in 0..2 * SHARDS {
            let shard = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
            if let Some((slots, block)) = self.take_victim(shard) {
                self.let_go(&block);
                self.evictions.fetch_add(1, Ordering::Relaxed);
                // What was the last of a table goes here, outside the shard's lock.
                drop(slots);
                return Some(block);
            }
        }
        None
    }

    /// Takes the first block of a shard that was not in use out of its slot, if there is one.
    fn take_victim(&self, shard: usize) -> Option<(Arc<BlockSlots>, Block)> {
        // Tables that end while the lock is held are dropped after it.
        let mut looked_at = Vec::new();
        let mut shard = self.shards[shard].lock();
        for _ in 0..shard.queue.len() {
            let resident = shard.queue.pop_front()?;
            let Some(slots) = resident.slots.upgrade() else {
                continue;
            };
            let slot = &slots.slots[resident.index as usize];
            if slot
                .load()
                .as_ref()
                .is_some_and(|block| block.take_referenced())
            {
                shard.queue.push_back(resident);
                looked_at.push(slots);
                continue;
            }
            if let Some(block) = slot.swap(None) {
                return Some((slots, block));
            }
        }
        drop(shard);
        drop(looked_at);
        None
    }

    /// Enters a slot that was just filled into a queue.
    fn enqueue(&self, slots: &Arc<BlockSlots>, index: u32) {
        let mut shard = self.shards[(slots.salt.wrapping_add(index as usize)) % SHARDS].lock();
        if shard.queue.len() >= shard.purge_at {
            shard
                .queue
                .retain(|resident| resident.slots.strong_count() > 0);
            shard.purge_at = FIRST_PURGE.max(2 * shard.queue.len());
        }
        shard.queue.push_back(Resident {
            slots: Arc::downgrade(slots),
            index,
        });
    }
}

/// Adds `bytes` to what is `used` of `room` if they are free.
fn reserve_of(used: &AtomicUsize, room: usize, bytes: usize) -> bool {
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        used.checked_add(bytes).filter(|&sum| sum <= room)
    })
    .is_ok()
}

/// The cached blocks of one table (or of one partition of its index): a slot for each block.
#[derive(Debug)]
pub(crate) struct BlockSlots {
    slots: Box<[ArcSwapAny<Option<Block>>]>,
    cache: Arc<BlockCache>,
    /// Spreads the first blocks of different tables over the shards.
    salt: usize,
}

impl BlockSlots {
    /// Empty slots for `count` blocks.
    pub(crate) fn new(count: usize, salt: usize, cache: Arc<BlockCache>) -> Arc<Self> {
        let slots = (0..count).map(|_| ArcSwapAny::new(None)).collect();
        Arc::new(Self { slots, cache, salt })
    }

    /// The block in slot `index`, if one is kept.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Guard<Option<Block>> {
        let guard = self.slots[index].load();
        if let Some(block) = &*guard {
            Self::note_use(block);
        }
        guard
    }

    /// Counts a use of a block that was found in its slot.
    #[inline]
    pub(crate) fn note_use(block: &Block) {
        block.mark_referenced();
        block_reads::note_cached();
    }

    /// Begins to load slot `index`.
    #[inline]
    pub(crate) fn prefetch(&self, index: usize) {
        prefetch_read(&self.slots[index]);
    }

    /// Begins to load the slots that a search of the index narrows down to.
    #[inline]
    pub(crate) fn prefetch_some(&self, first: usize) {
        let last = (first + SAMPLE_STEP - 1).min(self.slots.len() - 1);
        for slot in [first.min(last), (first + SAMPLE_STEP / 2).min(last), last] {
            self.prefetch(slot);
        }
    }

    /// As [`BlockSlots::get`], without counting as a use.
    #[inline]
    pub(crate) fn peek(&self, index: usize) -> Guard<Option<Block>> {
        self.slots[index].load()
    }

    /// Room for a block of `content_bytes`, unless there is none; other blocks may have to go for it.
    pub(crate) fn make_room(&self, content_bytes: usize) -> Option<Room<'_>> {
        let bytes = block::memory_bytes_of(content_bytes);
        self.cache.make_room(bytes, false)
    }

    /// Keeps `block` in slot `index` if there is room for it. Gives back the block to use: another
    /// thread's, if that was faster.
    pub(crate) fn insert(self: &Arc<Self>, index: usize, block: Block) -> Block {
        let room = self.cache.make_room(block.memory_bytes(), true);
        self.insert_into(room, index, block)
    }

    /// As [`BlockSlots::insert`], where room was made before.
    pub(crate) fn insert_into(
        self: &Arc<Self>,
        room: Option<Room<'_>>,
        index: usize,
        block: Block,
    ) -> Block {
        block_reads::note_loaded();
        self.cache.misses.fetch_add(1, Ordering::Relaxed);
        let Some(mut room) = room else {
            return block;
        };
        self.cache.want(room.bytes);
        // From here on it is the block's.
        debug_assert_eq!(room.bytes, block.memory_bytes());
        room.bytes = 0;
        // With what it has left of another block, which is lent as long as it is there.
        drop(room);
        if !self.cache.keep(&block) {
            return block;
        }
        let hung = self.hang(index, block);
        // The capacity may have become smaller while the block was read.
        self.cache.shrink();
        hung
    }

    /// As [`BlockSlots::insert`], for a block that nobody waits for: only if its room is free. Whether it was.
    pub(crate) fn insert_if_free(self: &Arc<Self>, index: usize, block: Block) -> bool {
        let bytes = block.memory_bytes();
        let is_free = self.cache.reserve_free(bytes);
        if is_free {
            self.cache.want(bytes);
            if self.cache.keep(&block) {
                drop(self.hang(index, block));
            }
        }
        is_free
    }

    /// Hangs a block that counts as kept here into slot `index`. Gives back the one that hangs there then.
    fn hang(self: &Arc<Self>, index: usize, block: Block) -> Block {
        let nothing: Option<Block> = None;
        let before = self.slots[index].compare_and_swap(&nothing, Some(block.clone()));
        if let Some(faster) = &*before {
            self.cache.let_go(&block);
            return faster.clone();
        }
        self.cache.enqueue(self, index as u32);
        block
    }

    /// As [`BlockSlots::insert`], for a block that was not read and counts as kept here.
    pub(crate) fn adopt(self: &Arc<Self>, index: usize, block: Block) {
        drop(self.hang(index, block));
        // The capacity may have become smaller while the block waited.
        self.cache.shrink();
    }

    /// Takes the block that hangs in slot `other_index` of another table, and is this one's as well, for slot `index`.
    /// Both have it then.
    pub(crate) fn adopt_from(self: &Arc<Self>, index: usize, other: &Self, other_index: usize) {
        let block = other.peek(other_index);
        // Of another cache it would count nowhere; and it may have gone just now.
        let is_shared =
            |block: &Block| Arc::ptr_eq(&self.cache, &other.cache) && block.share_place();
        if let Some(block) = block.as_ref().filter(|block| is_shared(block)) {
            self.adopt(index, block.clone());
        }
    }

    /// Number of slots.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

impl Drop for BlockSlots {
    fn drop(&mut self) {
        // Nobody fills or empties these slots any more: both hold a reference while they do.
        for slot in &self.slots {
            if let Some(block) = &*slot.load() {
                self.cache.let_go(block);
            }
        }
    }
}

mod shared_bound;

#[cfg(test)]
mod tests;
