//! A data block in memory: its bytes, the layout they turned out to have, and what the cache needs.
//!
//! Invariant: the bytes were validated against their layout when the block was made and never
//! change, so that searches and iterators stay inside them without looking again. Made by `table`
//! from what `block_io` has verified.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use esker_base::{Error, Result, Trailer};

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

/// A data block in memory. Its contents are reached through tables and their iterators.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    shape: Shape,
    /// Whether it was used since the cache last looked. Written only when it changes, so that
    /// readers of a hot block share its cache line.
    referenced: AtomicBool,
}

impl Block {
    /// Validates `bytes`, the verified payload of a data block.
    ///
    /// # Errors
    /// Corruption.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let shape = match bytes.first() {
            Some(&LAYOUT_SLOT) => Shape::Slot(SlotShape::parse(&bytes)?),
            Some(&LAYOUT_RESTART) => Shape::Restart(RestartShape::parse(&bytes)?),
            _ => {
                return Err(Error::corruption(
                    "a data block has a layout of no known kind",
                ));
            }
        };
        Ok(Self {
            bytes,
            shape,
            referenced: AtomicBool::new(false),
        })
    }

    /// The bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The memory of the bytes, for the next block.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How the bytes are laid out.
    #[inline]
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Number of entries, at least one.
    #[inline]
    pub(crate) fn entries(&self) -> usize {
        match &self.shape {
            Shape::Slot(shape) => shape.entries(),
            Shape::Restart(shape) => shape.entries(),
        }
    }

    /// Bytes of memory that the block takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + size_of::<Self>() + 2 * size_of::<usize>()
    }

    /// The newest record of `key` in this block that sorts at or after `trailer`: its trailer, and
    /// where its value lies.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], trailer: Trailer) -> Option<(Trailer, Range<usize>)> {
        match &self.shape {
            Shape::Slot(shape) => shape.find(&self.bytes, key, trailer),
            Shape::Restart(shape) => shape.find(&self.bytes, key, trailer),
        }
    }

    /// Tells the cache that the block is in use.
    #[inline]
    pub(crate) fn mark_referenced(&self) {
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the block was in use since the last call.
    pub(crate) fn take_referenced(&self) -> bool {
        self.referenced.swap(false, Ordering::Relaxed)
    }
}

/// A value where it lies in its block, kept alive without copying it.
#[derive(Clone, Debug)]
pub struct PinnedValue {
    block: Arc<Block>,
    start: u32,
    end: u32,
}

impl PinnedValue {
    /// The bytes `range` of `block`, which are a value of it.
    #[inline]
    pub(crate) fn new(block: Arc<Block>, range: Range<usize>) -> Self {
        debug_assert!(range.start <= range.end && range.end <= block.bytes.len());
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
            block: Arc::clone(&self.block),
            start: self.start + from as u32,
            end: self.end,
        }
    }

    /// The block and where in [`Block`] memory the value lies.
    #[must_use]
    pub fn into_parts(self) -> (Arc<Block>, Range<usize>) {
        (self.block, self.start as usize..self.end as usize)
    }
}

impl Deref for PinnedValue {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.block.bytes[self.start as usize..self.end as usize]
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
