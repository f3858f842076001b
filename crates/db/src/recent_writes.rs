//! The keys that the latest commits wrote: a bounded window that commit leaders check transactions
//! against.
//!
//! Invariant: while `covers(since, last)` holds, every record ordered after `since` and up to `last`
//! is in the window. What does not fit leaves from the old end, and a gap (commits that nobody
//! recorded, sequence numbers that a restore or an ingestion took) empties it: the window may know
//! too little, and then says so; it never misses a write that it claims to cover. It may hold
//! writes that were never made, because their log append failed afterwards: those only refuse a
//! transaction more than needed.
//!
//! Callers: `validation`, with the writer lock held.

use esker_base::write_batch::{KeyspaceId, Records};
use esker_base::{SequenceNumber, ValueKind};

/// Writes that one half of the window holds.
const WRITES: usize = 4096;
/// Bytes of keys that one half of the window holds.
const BYTES: usize = 256 << 10;

/// One write: a key, or the range of a range delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecentWrite<'a> {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: &'a [u8],
    /// Of a range delete, its exclusive end (empty: to the last key).
    pub(crate) end: Option<&'a [u8]>,
}

impl<'a> RecentWrite<'a> {
    pub(crate) fn of(record: &esker_base::write_batch::Record<'a>) -> Self {
        Self {
            keyspace: record.keyspace,
            key: record.key,
            end: (record.kind == ValueKind::RangeDelete).then_some(record.value),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    sequence: SequenceNumber,
    keyspace: KeyspaceId,
    /// Where its bytes begin, its key ends and its range's end ends.
    at: u32,
    key_end: u32,
    end: u32,
    is_range: bool,
}

/// Writes after `start`.
#[derive(Debug, Default)]
struct Half {
    start: SequenceNumber,
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

impl Half {
    fn clear(&mut self, start: SequenceNumber) {
        self.start = start;
        self.entries.clear();
        self.bytes.clear();
    }

    fn push(&mut self, sequence: SequenceNumber, write: RecentWrite<'_>) {
        // Within u32: a half holds BYTES at most.
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(write.key);
        let key_end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(write.end.unwrap_or_default());
        self.entries.push(Entry {
            sequence,
            keyspace: write.keyspace,
            at,
            key_end,
            end: self.bytes.len() as u32,
            is_range: write.end.is_some(),
        });
    }

    fn write(&self, entry: &Entry) -> RecentWrite<'_> {
        let bytes = |from: u32, to: u32| &self.bytes[from as usize..to as usize];
        let end = entry.is_range.then(|| bytes(entry.key_end, entry.end));
        RecentWrite {
            keyspace: entry.keyspace,
            key: bytes(entry.at, entry.key_end),
            end,
        }
    }
}

/// The window: two halves, of which the older one is forgotten when the newer one is full.
#[derive(Debug, Default)]
pub(crate) struct RecentWrites {
    newer: Half,
    older: Half,
    end: SequenceNumber,
}

impl RecentWrites {
    /// Whether every write after `since` and up to `last`, the last one ordered, is known.
    pub(crate) fn covers(&self, since: SequenceNumber, last: SequenceNumber) -> bool {
        since == last || (self.end == last && self.older.start <= since)
    }

    /// Notes a batch of `count` records that begins at sequence `first`.
    pub(crate) fn record(&mut self, first: SequenceNumber, count: u32, records: Records<'_>) {
        let before = first.saturating_sub(1);
        if self.end != before {
            self.forget(before);
        }
        for (sequence, record) in (first..).zip(records.flatten()) {
            let write = RecentWrite::of(&record);
            let bytes = write.key.len() + write.end.map_or(0, <[u8]>::len);
            if bytes > BYTES {
                self.forget(sequence);
                continue;
            }
            if self.newer.entries.len() == WRITES || self.newer.bytes.len() + bytes > BYTES {
                std::mem::swap(&mut self.newer, &mut self.older);
                self.newer.clear(sequence - 1);
            }
            self.newer.push(sequence, write);
        }
        self.end = before + u64::from(count);
    }

    /// The writes after `since`, newest first.
    pub(crate) fn after(&self, since: SequenceNumber) -> impl Iterator<Item = RecentWrite<'_>> {
        [&self.newer, &self.older]
            .into_iter()
            .flat_map(move |half| {
                let entries = half.entries.iter().rev();
                let entries = entries.take_while(move |entry| entry.sequence > since);
                entries.map(|entry| half.write(entry))
            })
    }

    /// Memory that it takes.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        let halves = [&self.newer, &self.older].into_iter();
        let bytes =
            |half: &Half| half.entries.capacity() * size_of::<Entry>() + half.bytes.capacity();
        halves.map(bytes).sum()
    }

    /// The most that it may take: vectors grow to twice of what they hold.
    #[cfg(test)]
    pub(crate) const MOST_BYTES: usize = 4 * (WRITES * size_of::<Entry>() + BYTES);

    fn forget(&mut self, until: SequenceNumber) {
        self.newer.clear(until);
        self.older.clear(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_base::write_batch::BatchEncoder;

    fn batch(keys: impl IntoIterator<Item = Vec<u8>>) -> BatchEncoder {
        let mut batch = BatchEncoder::new();
        for key in keys {
            batch.push(1, ValueKind::Value, &key, b"value");
        }
        batch
    }

    fn record(window: &mut RecentWrites, first: SequenceNumber, batch: &BatchEncoder) {
        window.record(first, batch.count(), batch.records());
    }

    #[test]
    fn every_write_after_a_sequence_is_found_newest_first() {
        let mut window = RecentWrites::default();
        record(&mut window, 5, &batch([b"a".to_vec(), b"b".to_vec()]));
        let mut ranges = BatchEncoder::new();
        ranges.push(0, ValueKind::RangeDelete, b"c", b"e");
        ranges.push(0, ValueKind::RangeDelete, b"x", b"");
        record(&mut window, 7, &ranges);
        assert!(window.covers(4, 8) && window.covers(6, 8) && window.covers(8, 8));
        assert!(!window.covers(3, 8), "nobody recorded what came before 5");
        assert!(!window.covers(6, 9), "nor what came after 8");
        let found: Vec<_> = window.after(5).map(|w| (w.key.to_vec(), w.end)).collect();
        let expected: [(Vec<u8>, Option<&[u8]>); 3] = [
            (b"x".to_vec(), Some(b"")),
            (b"c".to_vec(), Some(b"e")),
            (b"b".to_vec(), None),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_gap_empties_the_window() {
        let mut window = RecentWrites::default();
        record(&mut window, 1, &batch([b"a".to_vec()]));
        record(&mut window, 3, &batch([b"b".to_vec()]));
        assert!(!window.covers(0, 3) && !window.covers(1, 3));
        assert!(window.covers(2, 3));
        assert_eq!(window.after(2).count(), 1);
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_not_claimed() {
        let mut window = RecentWrites::default();
        let key = |number: usize| number.to_be_bytes().to_vec();
        for number in 0..5 * WRITES {
            record(&mut window, number as u64 + 1, &batch([key(number)]));
        }
        let last = 5 * WRITES as u64;
        assert!(window.covers(last - WRITES as u64, last));
        assert!(!window.covers(last - 2 * WRITES as u64 - 1, last));
        assert_eq!(window.after(last - WRITES as u64).count(), WRITES);
        assert!(window.after(0).count() <= 2 * WRITES);

        // One batch that is larger than the window, and one key that is.
        record(&mut window, last + 1, &batch((0..3 * WRITES).map(key)));
        let last = last + 3 * WRITES as u64;
        assert!(!window.covers(last - 3 * WRITES as u64, last));
        assert!(window.covers(last - WRITES as u64, last));
        record(&mut window, last + 1, &batch([vec![7; BYTES + 1]]));
        assert!(!window.covers(last, last + 1) && window.covers(last + 1, last + 1));
        assert!(window.newer.bytes.capacity() <= 2 * BYTES);
    }
}
