//! Chunks that are made ready before an arena asks for them.
//!
//! Invariant: at most one is there ahead of time, within what the pool may keep. The first touch of a huge page
//! waits until all of it is cleared: a fifth of a millisecond, and four or five milliseconds where the host of a
//! virtual machine has taken its memory back. While they take that long, who finds no chunk ready takes one of small
//! pages. Called by the database: it looks after each group of
//! writes, and has the chunk made in the background.

use super::{ArenaPool, CHUNK_CLASSES, MAX_CHUNK_BYTES, Memory, Pages};
use std::sync::atomic::Ordering;

/// There is no system whose pages are smaller.
const PAGE_BYTES: usize = 4 << 10;

impl ArenaPool {
    /// Whether the next full-sized chunk should be made ready: the last one was taken. Says so once.
    #[must_use]
    #[inline]
    pub fn wants_chunk(&self) -> bool {
        self.is_short.load(Ordering::Relaxed) && self.is_short.swap(false, Ordering::Relaxed)
    }

    /// Makes a full-sized chunk ready for the next arena that asks, where none is there and the pool may keep it.
    /// Whether it did.
    pub fn make_chunk(&self) -> bool {
        let has_room = self.held_bytes() + MAX_CHUNK_BYTES <= self.limit_bytes;
        let rests = self.rests.load(Ordering::Relaxed);
        if rests || !has_room || !self.free.lock()[CHUNK_CLASSES - 1].is_empty() {
            return false;
        }
        let memory = Memory::allocate(MAX_CHUNK_BYTES, Pages::Huge);
        for page in (0..memory.bytes).step_by(PAGE_BYTES) {
            // SAFETY: `page` lies within the allocation, which is ours alone and holds nothing yet.
            unsafe { memory.start.add(page).write_volatile(0) };
        }
        self.give(memory);
        true
    }

    /// Notes whether the chunk that was made ready last took so long that nobody should wait for another.
    pub fn note_made(&self, slowly: bool) {
        self.makes_slowly.store(slowly, Ordering::Relaxed);
    }

    /// What a chunk is made of that somebody needs at once.
    pub(super) fn pages(&self) -> Pages {
        match self.makes_slowly.load(Ordering::Relaxed) {
            true => Pages::Small,
            false => Pages::Huge,
        }
    }
}
