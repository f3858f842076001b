//! A data block in memory. Skeleton.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// A data block, loaded and validated.
#[derive(Debug)]
pub struct Block {
    bytes: Box<[u8]>,
}

/// Bytes of a cached block, kept alive without copying.
#[derive(Clone, Debug)]
pub struct PinnedValue {
    block: Arc<Block>,
    start: u32,
    end: u32,
}

impl PinnedValue {
    /// The part of these bytes from `from` on.
    ///
    /// # Panics
    /// If `from` lies beyond the end.
    #[must_use]
    pub fn slice(&self, from: usize) -> Self {
        assert!(
            from <= self.len(),
            "slice begins beyond the end of the value"
        );
        Self {
            block: Arc::clone(&self.block),
            start: self.start + from as u32,
            end: self.end,
        }
    }

    /// The block and the range of its bytes.
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
