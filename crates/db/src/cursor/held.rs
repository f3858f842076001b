//! What a cursor itself takes of a memory budget: its sources and its buffers.
//!
//! Invariant: where there is a budget, a cursor that was placed counts until it is dropped, and one that finds none of
//! the budget left is not placed. The blocks that it stands on count where they were made. One at rest counts
//! for nothing. Called by `body`.

use super::Source;
use super::body::Body;
use esker_base::Result;
use esker_sstable::HeldMemory;
use std::sync::Arc;

/// What a source has on the heap beside its blocks, about.
const SOURCE_HEAP_BYTES: usize = 128;

impl Body {
    /// Counts the cursor, before it is placed for the first time.
    #[inline]
    pub(super) fn hold(&mut self) -> Result<()> {
        if self.held.is_none() && self.view.keyspace().engine().blocks.is_shared() {
            return self.hold_for_the_first_time();
        }
        Ok(())
    }

    #[cold]
    fn hold_for_the_first_time(&mut self) -> Result<()> {
        let blocks = &self.view.keyspace().engine().blocks;
        blocks.admit_scan()?;
        self.held = Some(HeldMemory::new(Arc::clone(blocks)));
        self.note_buffers();
        Ok(())
    }

    /// Counts what the buffers have become.
    #[inline]
    pub(super) fn note_buffers(&mut self) {
        if let Some(held) = &mut self.held {
            let sources = self.merge.child_count() * (size_of::<Source>() + SOURCE_HEAP_BYTES);
            let buffers = self.key.capacity() + self.value.capacity();
            held.set(size_of::<Self>() + sources + buffers);
        }
    }

    /// Puts a value that is kept apart into the buffer, if there is memory for it.
    pub(super) fn buffer_value(&mut self, value: &[u8]) -> Result<()> {
        self.value.clear();
        if value.len() > self.value.capacity() && self.held.is_some() {
            self.view.keyspace().engine().blocks.admit_scan()?;
        }
        self.value.extend_from_slice(value);
        self.note_buffers();
        Ok(())
    }
}
