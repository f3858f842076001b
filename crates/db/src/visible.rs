//! The last sequence number that readers see.
//!
//! Invariants (I5, I6): it is published after everything up to it was inserted, and whoever loads it finds
//! that. A reader without a snapshot takes its view of memtables and tables first and the sequence after it:
//! the other way round, a flush or compaction in between could have dropped what the older sequence still
//! sees. `tests/interleavings` tries every order.

use crate::interleaved::{AtomicU64, Ordering};
use esker_base::SequenceNumber;

/// Everything up to it is visible.
#[derive(Debug)]
pub(crate) struct Visible(AtomicU64);

impl Visible {
    pub(crate) fn new(sequence: SequenceNumber) -> Self {
        Self(AtomicU64::new(sequence))
    }

    #[inline]
    pub(crate) fn get(&self) -> SequenceNumber {
        self.0.load(Ordering::Acquire)
    }

    /// Makes visible everything up to `sequence`, which the caller has inserted.
    #[inline]
    pub(crate) fn publish(&self, sequence: SequenceNumber) {
        self.0.store(sequence, Ordering::Release);
    }

    /// A view, and the sequence to read it at.
    #[inline]
    pub(crate) fn after<V>(&self, load: impl FnOnce() -> V) -> (V, SequenceNumber) {
        let view = load();
        (view, self.get())
    }
}
