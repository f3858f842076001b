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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_stay_few_and_a_list_that_is_held_stays_as_it_is() {
        let tombstones = RangeTombstones::default();
        assert!(!tombstones.any() && tombstones.merged().is_empty() && tombstones.bytes() == 0);
        let mut before = tombstones.chunks.load_full();
        let count = if cfg!(miri) { 40 } else { 1000u64 };
        for number in 1..=count {
            let (start, end) = (format!("{number:05}a"), format!("{number:05}b"));
            tombstones.add(start.as_bytes(), end.as_bytes(), number);
            let chunks = tombstones.chunks.load_full();
            assert!(chunks.len() <= 1 + number.ilog2() as usize, "{number}");
            let total = |chunks: &Chunks| chunks.iter().map(|c| c.tombstone_count()).sum::<u64>();
            assert_eq!((total(&before), total(&chunks)), (number - 1, number));
            before = chunks;
        }
        assert_eq!(tombstones.merged().tombstone_count(), count);
        assert_eq!(tombstones.covering_sequence(b"00007a", count), Some(7));
        assert_eq!(tombstones.covering_sequence(b"00007a", 6), None);
        assert_eq!(tombstones.covering_sequence(b"00007b", count), None);
    }

    #[test]
    fn an_empty_range_deletes_nothing() {
        let tombstones = RangeTombstones::default();
        tombstones.add(b"b", b"b", 1);
        tombstones.add(b"b", b"a", 2);
        assert!(!tombstones.any() && tombstones.covering_sequence(b"b", 9).is_none());
        tombstones.add(b"b", b"", 3);
        assert_eq!(tombstones.covering_sequence(b"zzz", 9), Some(3));
    }
}
