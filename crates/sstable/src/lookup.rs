//! Point lookups in a table: in one go, or in steps that several lookups take together.
//!
//! The first steps only ask memory for what the next one needs. Whoever takes one step for several keys,
//! in one table or in many, before the next waits for memory once and not once for each key.
//!
//! Invariant: whether and when memory is asked ahead changes no answer and counts as no use of a block.
//! Called by `db`.

use std::ops::Range;

use arc_swap::Guard;
use esker_base::{Result, SequenceNumber, Trailer};

use crate::block::{Block, BlockParts, PinnedValue};
use crate::block_cache::BlockSlots;
use crate::table::{Table, TableHit};

/// A lookup of one key in one table that is under way. It is meant to end soon, and a thread has room for a
/// few of them before they become slower.
#[derive(Debug)]
pub struct Lookup {
    leaf: usize,
    block: usize,
    /// The block, if somebody has looked whether it is cached.
    held: Option<Guard<Option<Block>>>,
    /// What [`BlockParts::prefetch_record`] has said.
    slot: Option<usize>,
}

/// A record where it lies, for as long as a lookup holds its block.
#[derive(Clone, Debug)]
pub struct FoundRecord<'a> {
    trailer: Trailer,
    block: &'a Block,
    value: Range<usize>,
}

impl FoundRecord<'_> {
    /// Sequence number and kind.
    #[must_use]
    #[inline]
    pub fn trailer(&self) -> Trailer {
        self.trailer
    }

    /// The value as stored (a value with expiry begins with its expiry).
    #[must_use]
    #[inline]
    pub fn stored(&self) -> &[u8] {
        &self.block.bytes()[self.value.clone()]
    }

    /// The stored value, and what lies behind it in its block.
    #[must_use]
    #[inline]
    pub fn from_stored(&self) -> &[u8] {
        &self.block.bytes()[self.value.start..]
    }

    /// The stored value from byte `skip` on, for longer than the lookup takes: a share of the block, which
    /// is a write to memory that other readers of it write as well.
    ///
    /// # Panics
    /// If `skip` lies beyond the end.
    #[must_use]
    pub fn pin(&self, skip: usize) -> PinnedValue {
        PinnedValue::new(self.block.clone(), self.value.clone()).slice(skip)
    }
}

/// The block of a lookup, for as long as the lookup takes.
enum Held {
    Cached(Guard<Option<Block>>),
    Loaded(Block),
}

impl Held {
    #[inline]
    fn block(&self) -> &Block {
        match self {
            Self::Loaded(block) => block,
            Self::Cached(guard) => match &**guard {
                Some(block) => block,
                None => unreachable!("made only of a guard that holds a block"),
            },
        }
    }

    #[inline]
    fn into_block(self) -> Block {
        match self {
            Self::Loaded(block) => block,
            Self::Cached(_) => self.block().clone(),
        }
    }
}

impl Table {
    /// The newest point record of `key` with a sequence of at most `visible`; `hash` is
    /// [`key_hash`](esker_base::checksum::key_hash) of the key.
    ///
    /// # Errors
    /// I/O errors and damage of what is read.
    pub fn get(&self, key: &[u8], hash: u64, visible: SequenceNumber) -> Result<Option<TableHit>> {
        if !self.may_contain(hash) {
            return Ok(None);
        }
        self.find(key, visible)
    }

    /// As [`Table::get`], for whoever has asked the filter already. Where the value may only have to be
    /// copied or compared, [`Table::find_with`] is faster.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn find(&self, key: &[u8], visible: SequenceNumber) -> Result<Option<TableHit>> {
        let Some((leaf, block)) = self.place(key, visible)? else {
            return Ok(None);
        };
        let held = self.hold(leaf, block)?;
        let found = self.find_in(held.block(), key, visible);
        Ok(found.map(|(trailer, range)| TableHit {
            trailer,
            value: PinnedValue::new(held.into_block(), range),
        }))
    }

    /// As [`Table::find`], but hands the record to `read` where it lies.
    ///
    /// # Errors
    /// As [`Table::get`].
    #[inline]
    pub fn find_with<R>(
        &self,
        key: &[u8],
        visible: SequenceNumber,
        read: impl FnOnce(FoundRecord<'_>) -> R,
    ) -> Result<Option<R>> {
        let Some((leaf, block)) = self.place(key, visible)? else {
            return Ok(None);
        };
        let held = self.hold(leaf, block)?;
        let block = held.block();
        let found = self.find_in(block, key, visible);
        Ok(found.map(|(trailer, value)| {
            read(FoundRecord {
                trailer,
                block,
                value,
            })
        }))
    }

    /// Whether the filter lets a key of this hash through.
    #[must_use]
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
    }

    /// Begins to load what [`Table::may_contain`] looks at.
    #[inline]
    pub fn prefetch_filter(&self, hash: u64) {
        self.filter.prefetch(hash);
    }

    /// Begins a lookup: the block in which the newest record of `key` at `visible` is if there is one; `None`
    /// where there is none. Begins to load what says where that block is.
    ///
    /// # Errors
    /// As [`Table::get`], where a part of the index has to be read.
    #[inline]
    pub fn begin(&self, key: &[u8], visible: SequenceNumber) -> Result<Option<Lookup>> {
        let Some((leaf, block)) = self.place(key, visible)? else {
            return Ok(None);
        };
        self.leaf(leaf)?.slots.prefetch(block);
        Ok(Some(Lookup {
            leaf,
            block,
            held: None,
            slot: None,
        }))
    }

    /// The second step: takes the block, if it is cached, and begins to load what a search of it looks at
    /// first.
    #[inline]
    pub fn take_block(&self, lookup: &mut Lookup) {
        if let Ok(leaf) = self.leaf(lookup.leaf) {
            let guard = leaf.slots.peek(lookup.block);
            if let Some(block) = &*guard {
                block.touch();
                lookup.held = Some(guard);
            }
        }
    }

    /// The third step: searches what the block says of its records, and begins to load the one of `key`.
    #[inline]
    pub fn find_record(&self, lookup: &mut Lookup, key: &[u8]) {
        if let Some(guard) = &lookup.held
            && let Some(block) = &**guard
        {
            lookup.slot = block.prefetch_record(key);
        }
    }

    /// The last step of a lookup of `key` at `visible`, as [`Table::find_with`]. Steps in between may have been
    /// left out.
    ///
    /// # Errors
    /// As [`Table::get`].
    #[inline]
    pub fn finish<R>(
        &self,
        lookup: &Lookup,
        key: &[u8],
        visible: SequenceNumber,
        read: impl FnOnce(FoundRecord<'_>) -> R,
    ) -> Result<Option<R>> {
        let trailer = self.to_stored(Trailer::seek(visible));
        let held;
        let (block, slot) = match lookup.held.as_deref() {
            Some(Some(block)) => {
                BlockSlots::note_use(block);
                (block, lookup.slot)
            }
            _ => {
                held = self.hold(lookup.leaf, lookup.block)?;
                (held.block(), None)
            }
        };
        let found = block.find_from(slot, key, trailer);
        Ok(found.map(|(trailer, value)| {
            read(FoundRecord {
                trailer: self.to_shown(trailer),
                block,
                value,
            })
        }))
    }

    /// The partition of the index and the block in which the newest record of `key` is if there is one.
    #[inline]
    fn place(&self, key: &[u8], visible: SequenceNumber) -> Result<Option<(usize, usize)>> {
        self.locate(key, self.to_stored(Trailer::seek(visible)))
    }

    #[inline]
    fn find_in(
        &self,
        block: &Block,
        key: &[u8],
        visible: SequenceNumber,
    ) -> Option<(Trailer, Range<usize>)> {
        let found = block.find(key, self.to_stored(Trailer::seek(visible)));
        found.map(|(trailer, range)| (self.to_shown(trailer), range))
    }

    /// A block, which is read if it is not cached.
    #[inline]
    fn hold(&self, leaf: usize, block: usize) -> Result<Held> {
        let leaf = self.leaf(leaf)?;
        let guard = leaf.slots.get(block);
        match &*guard {
            Some(_) => Ok(Held::Cached(guard)),
            None => Ok(Held::Loaded(self.load_block(leaf, block)?)),
        }
    }
}
