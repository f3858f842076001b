//! A data block in memory: its bytes, the layout they turned out to have, and what the cache needs.
//!
//! Invariant: the bytes were validated against their layout when the block was made and never
//! change, so that searches and iterators stay inside them without looking again. Made by `table`
//! from what `block_io` has verified.

use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use esker_base::{Error, Result, Trailer};
use esker_prefetch::{LINE_BYTES, prefetch_lines, prefetch_read};
use triomphe::{Arc, ThinArc};

use crate::block_memory::BlockMemory;
use crate::restart_block::RestartShape;
use crate::slot_block::SlotShape;

/// The first byte of a slot block.
pub(crate) const LAYOUT_SLOT: u8 = 1;
/// The first byte of a restart block.
pub(crate) const LAYOUT_RESTART: u8 = 2;
/// In the second byte: one trailer stands for all entries.
pub(crate) const FLAG_UNIFORM_TRAILER: u8 = 1;
/// In the second byte: offsets take four bytes, not two.
pub(crate) const FLAG_WIDE_OFFSETS: u8 = 2;

/// Where a slot block of the usual size has its slots.
const FIRST_LINES: usize = 6;
/// How much of the end of a block a walk backwards is to find there.
const LAST_LINES: usize = 6;

/// Whether offsets into `content_bytes` bytes need four bytes.
pub(crate) fn offsets_are_wide(content_bytes: usize) -> bool {
    content_bytes > usize::from(u16::MAX)
}

/// How the bytes of a block are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// See `slot_block`.
    Slot(SlotShape),
    /// See `restart_block`.
    Restart(RestartShape),
}

/// What stands in front of a block's bytes.
#[derive(Debug)]
pub(crate) struct BlockHead {
    shape: Shape,
    /// How many bytes the block has; what lies behind them in its piece of memory means nothing.
    content_bytes: u32,
    /// Whether it was used since the cache last looked. Written only when it changes, so that
    /// readers of a hot block share its cache line.
    referenced: AtomicBool,
    /// In how many places the cache keeps it: a table that takes over another one's block shares it. Its memory
    /// counts there once.
    places: AtomicU16,
    /// Where its memory counts, if that has a bound.
    memory: Option<std::sync::Arc<BlockMemory>>,
}

impl Drop for BlockHead {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.remove(memory_bytes_of(self.content_bytes as usize));
        }
    }
}

/// A data block in memory, shared: count, head and bytes in one piece of memory, so that a lookup
/// which comes from the index finds the first of the bytes in the line next to the head.
pub(crate) type Block = ThinArc<BlockHead, u8>;

/// What a [`Block`] consists of.
pub(crate) trait BlockParts {
    /// The head.
    fn head(&self) -> &BlockHead;
    /// The bytes.
    fn bytes(&self) -> &[u8];
    /// The bytes and what is behind them, which can be told without the head.
    fn room(&self) -> &[u8];

    /// How the bytes are laid out.
    #[inline]
    fn shape(&self) -> &Shape {
        &self.head().shape
    }

    /// Number of entries, at least one.
    #[inline]
    fn entries(&self) -> usize {
        match self.shape() {
            Shape::Slot(shape) => shape.entries(),
            Shape::Restart(shape) => shape.entries(),
        }
    }

    /// Bytes of memory that the block takes.
    fn memory_bytes(&self) -> usize {
        memory_bytes_of(self.room().len())
    }

    /// The newest record of `key` in this block that sorts at or after `trailer`: its trailer, and
    /// where its value lies.
    #[inline]
    fn find(&self, key: &[u8], trailer: Trailer) -> Option<(Trailer, Range<usize>)> {
        touch_first_lines(self.room());
        match self.shape() {
            Shape::Slot(shape) => shape.find(self.bytes(), key, trailer),
            Shape::Restart(shape) => shape.find(self.bytes(), key, trailer),
        }
    }

    /// The slot of a slot block at which a record of `key` could be; begins to load its entry.
    #[inline]
    fn prefetch_record(&self, key: &[u8]) -> Option<usize> {
        let Shape::Slot(shape) = self.shape() else {
            return None;
        };
        let slot = shape.first_slot(self.bytes(), key)?;
        if slot < shape.entries() {
            shape.touch(self.bytes(), slot, slot);
        }
        Some(slot)
    }

    /// As [`BlockParts::find`], from what [`BlockParts::prefetch_record`] has said of the same block and key.
    #[inline]
    fn find_from(
        &self,
        slot: Option<usize>,
        key: &[u8],
        trailer: Trailer,
    ) -> Option<(Trailer, Range<usize>)> {
        match (slot, self.shape()) {
            (Some(slot), Shape::Slot(shape)) => shape.find_from(slot, self.bytes(), key, trailer),
            _ => self.find(key, trailer),
        }
    }

    /// Begins to load what a search of the block looks at first.
    #[inline]
    fn touch(&self) {
        prefetch_read(self.head());
        touch_first_lines(self.room());
    }

    /// Begins to load what a walk backwards over the block looks at first beside that. Where the block
    /// ends is known once its head has arrived.
    #[inline]
    fn touch_end(&self) {
        let bytes = self.bytes();
        let from = bytes.len().saturating_sub(LAST_LINES * LINE_BYTES);
        prefetch_lines(&bytes[from..], LAST_LINES);
    }

    /// Tells the cache that the block is in use.
    #[inline]
    fn mark_referenced(&self) {
        let referenced = &self.head().referenced;
        if !referenced.load(Ordering::Relaxed) {
            referenced.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the block was in use since the last call.
    fn take_referenced(&self) -> bool {
        self.head().referenced.swap(false, Ordering::Relaxed)
    }

    /// Counts a place more where the cache keeps the block: how many there were, or `None` where they are too many to
    /// count.
    fn add_place(&self) -> Option<u16> {
        let add = |places: u16| places.checked_add(1);
        let places = &self.head().places;
        places
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .ok()
    }

    /// Counts a place more, if there is one.
    fn share_place(&self) -> bool {
        let add = |places: u16| places.checked_add(1).filter(|_| places > 0);
        let places = &self.head().places;
        places
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }

    /// Counts a place less. Whether it was the last.
    fn remove_place(&self) -> bool {
        self.head().places.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Whether the cache keeps it somewhere.
    fn is_kept(&self) -> bool {
        self.head().places.load(Ordering::Relaxed) > 0
    }
}

/// What stands in front of the contents of a data block in its piece of memory, bytes.
pub const BLOCK_OVERHEAD_BYTES: usize = size_of::<BlockHead>() + 2 * size_of::<usize>();

/// Bytes of memory that a block of `content_bytes` takes.
pub(crate) fn memory_bytes_of(content_bytes: usize) -> usize {
    allocated_bytes(content_bytes + BLOCK_OVERHEAD_BYTES)
}

/// What a piece of memory of `bytes` takes. Allocators round up to one of four sizes between a power of
/// two and the next (mimalloc, jemalloc) or waste less (glibc, tcmalloc): a block of a value of 16 KiB takes
/// 20 KiB, and a cache that did not count them would take a quarter more than it may.
fn allocated_bytes(bytes: usize) -> usize {
    const FINEST_BYTES: usize = 16;
    const SIZES_PER_DOUBLING: usize = 4;
    let below = bytes.saturating_sub(1).max(1);
    let step = (1 << below.ilog2()) / SIZES_PER_DOUBLING;
    bytes.next_multiple_of(step.max(FINEST_BYTES))
}

/// Asks memory for the first lines of a block, where a slot block has its slots, before the head
/// has arrived and said where they are. Their addresses follow from that of the block alone, so that
/// this waits for nothing and a lookup waits once instead of twice.
#[inline]
fn touch_first_lines(bytes: &[u8]) {
    prefetch_lines(bytes, FIRST_LINES);
}

impl BlockParts for Block {
    #[inline]
    fn head(&self) -> &BlockHead {
        &self.header.header
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.slice[..self.header.header.content_bytes as usize]
    }

    #[inline]
    fn room(&self) -> &[u8] {
        &self.slice
    }
}

/// Makes a block of `bytes`, the verified contents of a data block, which counts in `memory`, if there is one.
///
/// # Errors
/// Corruption.
pub(crate) fn parse(bytes: &[u8], memory: Option<&std::sync::Arc<BlockMemory>>) -> Result<Block> {
    let head = BlockHead {
        shape: shape_of(bytes)?,
        // Its validation refuses what 32 bits do not count.
        content_bytes: bytes.len() as u32,
        referenced: AtomicBool::new(false),
        places: AtomicU16::new(0),
        memory: memory.cloned(),
    };
    if let Some(memory) = memory {
        memory.add(memory_bytes_of(bytes.len()));
    }
    Ok(ThinArc::from_header_and_slice(head, bytes))
}

/// Makes a block of `content_bytes` bytes, which `fill` writes, in the memory of `spare`; `None` where that is of
/// another size or held by somebody else.
///
/// # Errors
/// Corruption; what `fill` says.
pub(crate) fn make_in(
    mut spare: Block,
    content_bytes: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Option<Result<Block>> {
    if spare.room().len() < content_bytes || spare.memory_bytes() != memory_bytes_of(content_bytes)
    {
        return None;
    }
    let filled = spare.with_arc_mut(|shared| {
        let piece = Arc::get_mut(shared)?;
        let bytes = &mut piece.slice_mut()[..content_bytes];
        let shape = fill(bytes).and_then(|()| shape_of(bytes));
        Some(shape.map(|shape| {
            // Its memory stays what it was, and counts as before: both lengths take the same.
            let head = piece.header_mut();
            head.shape = shape;
            head.content_bytes = content_bytes as u32;
            head.referenced = AtomicBool::new(false);
        }))
    })?;
    Some(filled.map(|()| spare))
}

/// How the block that `bytes` are is laid out.
fn shape_of(bytes: &[u8]) -> Result<Shape> {
    match bytes.first() {
        Some(&LAYOUT_SLOT) => Ok(Shape::Slot(SlotShape::parse(bytes)?)),
        Some(&LAYOUT_RESTART) => Ok(Shape::Restart(RestartShape::parse(bytes)?)),
        _ => Err(Error::corruption(
            "a data block has a layout of no known kind",
        )),
    }
}

/// A value where it lies in its block, kept alive without copying it.
#[derive(Clone, Debug)]
pub struct PinnedValue {
    block: Block,
    start: u32,
    end: u32,
}

impl PinnedValue {
    /// The bytes `range` of `block`, which are a value of it.
    #[inline]
    pub(crate) fn new(block: Block, range: Range<usize>) -> Self {
        debug_assert!(range.start <= range.end && range.end <= block.bytes().len());
        // A block's length fits 32 bits: its validation refuses others.
        Self {
            block,
            start: range.start as u32,
            end: range.end as u32,
        }
    }

    /// These bytes from `from` on, for instance without the expiry of a value with expiry.
    ///
    /// # Panics
    /// If `from` lies beyond the end.
    #[must_use]
    pub fn slice(&self, from: usize) -> Self {
        assert!(
            from <= self.len(),
            "a slice that begins beyond the end of its value"
        );
        Self {
            block: self.block.clone(),
            start: self.start + from as u32,
            end: self.end,
        }
    }
}

impl Deref for PinnedValue {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.block.bytes()[self.start as usize..self.end as usize]
    }
}

impl AsRef<[u8]> for PinnedValue {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests;
