//! The range deletes of a memtable.
//!
//! Invariant: the published list holds every tombstone that was added before; its chunks are
//! immutable, and each holds more than twice as many tombstones as the next, so that there are
//! O(log n) of them and adding one costs O(log n) amortised (Bentley and Saxe, "Decomposable
//! searching problems", 1980). Callers: `memtable`.

use arc_swap::ArcSwap;
use esker_base::SequenceNumber;
use esker_base::range_tombstone::{FragmentedTombstones, RangeTombstone};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

type Chunks = Vec<Arc<FragmentedTombstones>>;

/// Range tombstones that readers see without a lock.
#[derive(Debug, Default)]
pub(crate) struct RangeTombstones {
    /// Larger chunks first.
    chunks: ArcSwap<Chunks>,
    any: AtomicBool,
    bytes: AtomicUsize,
    adding: Mutex<()>,
}

impl RangeTombstones {
    /// Adds one tombstone; visible to whoever looks after this returns.
    pub(crate) fn add(&self, start: &[u8], end: &[u8], sequence: SequenceNumber) {
        let tombstone = RangeTombstone {
            start: start.into(),
            end: end.into(),
            sequence,
        };
        let _adding = self.adding.lock();
        let mut chunks = Chunks::clone(&self.chunks.load());
        let mut newest = FragmentedTombstones::build([tombstone]);
        while let Some(last) =
            chunks.pop_if(|last| last.tombstone_count() <= 2 * newest.tombstone_count())
        {
            newest = FragmentedTombstones::merge([&*last, &newest]);
        }
        if !newest.is_empty() {
            chunks.push(Arc::new(newest));
        }
        self.bytes.store(
            chunks.iter().map(|chunk| chunk.memory_bytes()).sum(),
            Ordering::Relaxed,
        );
        let any = !chunks.is_empty();
        self.chunks.store(Arc::new(chunks));
        self.any.store(any, Ordering::Release);
    }

    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The newest tombstone of sequence at most `visible` that covers `key`.
    pub(crate) fn covering_sequence(
        &self,
        key: &[u8],
        visible: SequenceNumber,
    ) -> Option<SequenceNumber> {
        if !self.any() {
            return None;
        }
        let chunks = self.chunks.load();
        chunks
            .iter()
            .filter_map(|chunk| chunk.covering_sequence(key, visible))
            .max()
    }

    /// All tombstones added so far.
    pub(crate) fn merged(&self) -> FragmentedTombstones {
        if !self.any() {
            return FragmentedTombstones::default();
        }
        FragmentedTombstones::merge(self.chunks.load().iter().map(|chunk| &**chunk))
    }

    /// Bytes that the tombstones take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}
