//! The segments of the write-ahead log as everybody may see them: which one takes records, which ones
//! are still needed, which files can be used again.
//!
//! Invariants: a segment is removed from the manifest before its file is reused or deleted (I1). A
//! segment that is named and not in use yet is held: whatever memtables need, it stays (`next_segment`
//! makes them). What takes records and what was complete changes by the commit leader alone (`log`).

use crate::engine::Engine;
use crate::log_history::VoidFrom;
use crate::spent_segments::SpentSegments;
use esker_base::SequenceNumber;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::sync::Mutex;
use esker_wal::SegmentWriter;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Files of segments that are kept for reuse: their blocks are allocated and written, which makes
/// synced appends about a third cheaper than in new files. Where nobody syncs none is kept: the system
/// would write to the device what an earlier life has left in it, which it need not for a removed file.
const RECYCLED_SEGMENTS: usize = 2;

/// What a segment that takes no more records holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Complete {
    pub(crate) record_bytes: u64,
    /// The last write in it or in those before; 0 where that is not known.
    pub(crate) last: SequenceNumber,
}

/// What everybody may know about the segments. Readers of sizes and the flush use it without the
/// writer lock.
#[derive(Debug, Default)]
pub(crate) struct SegmentTable {
    /// The segments that the manifest names, oldest first.
    live: Mutex<BTreeMap<FileNumber, Complete>>,
    /// Those of them that are ready for records and take none yet. Locked after `live`.
    held: Mutex<BTreeSet<FileNumber>>,
    recyclable: Mutex<Vec<FileNumber>>,
    /// Every segment below has no writer left that could be synced.
    closed_below: AtomicU64,
    /// The segment that takes records; 0 before the first write.
    current: AtomicU64,
    current_bytes: AtomicU64,
    /// Whether anybody asked for a sync since segments were released last.
    is_synced: AtomicBool,
    /// What nobody writes to any more and is not closed yet.
    pub(crate) spent: SpentSegments,
    /// What the last recovery has left out.
    void_from: VoidFrom,
}

impl SegmentTable {
    /// The segments that a recovery found; nothing behind `last_held` that counts stands in segments up to `last`,
    /// though numbers up to `last_given` were given.
    pub(crate) fn new(
        live: BTreeMap<FileNumber, Complete>,
        last: FileNumber,
        last_held: SequenceNumber,
        last_given: SequenceNumber,
    ) -> Self {
        let void_from = VoidFrom {
            segment: last,
            sequence: last_held + 1,
            last_given,
        };
        Self {
            live: Mutex::new(live),
            void_from,
            ..Self::default()
        }
    }

    pub(crate) fn void_from(&self) -> VoidFrom {
        self.void_from
    }

    /// Record bytes in all live segments.
    pub(crate) fn bytes(&self) -> u64 {
        let live = self.live.lock();
        let live: u64 = live.values().map(|it| it.record_bytes).sum();
        live + self.current_bytes.load(Ordering::Relaxed)
    }

    /// The segment that takes records, if there is one.
    pub(crate) fn current(&self) -> Option<FileNumber> {
        Some(self.current.load(Ordering::Acquire)).filter(|&number| number != 0)
    }

    /// Segment `number` takes records from now on.
    pub(crate) fn begin(&self, number: FileNumber) {
        self.current_bytes.store(0, Ordering::Relaxed);
        self.current.store(number, Ordering::Release);
        self.let_go(number);
    }

    /// The segment that takes records has so many bytes of them.
    #[inline]
    pub(crate) fn note_current_bytes(&self, record_bytes: u64) {
        self.current_bytes.store(record_bytes, Ordering::Relaxed);
    }

    /// A segment takes no more records behind the write `last`.
    pub(crate) fn note_complete(&self, segment: &SegmentWriter, last: SequenceNumber) {
        let complete = Complete {
            record_bytes: segment.record_bytes_so_far(),
            last,
        };
        self.live.lock().insert(segment.number(), complete);
    }

    /// The last write in these segments, which take no more records; 0 where that is not known.
    pub(crate) fn last_in(&self, numbers: &[FileNumber]) -> SequenceNumber {
        let live = self.live.lock();
        let known = numbers.iter().filter_map(|number| live.get(number));
        known.map(|it| it.last).max().unwrap_or(0)
    }

    /// No segment takes records until the next one begins.
    pub(crate) fn end(&self) {
        self.current_bytes.store(0, Ordering::Relaxed);
        self.current.store(0, Ordering::Release);
    }

    /// Somebody has asked for a sync.
    pub(crate) fn note_synced(&self) {
        self.is_synced.store(true, Ordering::Relaxed);
    }

    /// Segments below `number` have no writer left that could be synced.
    pub(crate) fn note_closed_below(&self, number: FileNumber) {
        self.closed_below.store(number, Ordering::Release);
    }

    /// The oldest live segment.
    pub(crate) fn oldest(&self) -> Option<FileNumber> {
        self.live.lock().keys().next().copied()
    }

    /// Whether the manifest names segment `number` still.
    pub(crate) fn is_live(&self, number: FileNumber) -> bool {
        self.live.lock().contains_key(&number)
    }

    /// Whether the file of segment `number` is kept, to hold records or to be used again.
    pub(crate) fn is_kept(&self, number: FileNumber) -> bool {
        let is_recyclable = self.recyclable.lock().contains(&number);
        is_recyclable || self.is_live(number) || self.current() == Some(number)
    }

    /// The live segments below `needed` that will take no more records.
    pub(crate) fn below(&self, needed: FileNumber) -> Vec<FileNumber> {
        let live = self.live.lock();
        let held = self.held.lock();
        // Looked at once more: one that is no longer held has become the current one before.
        let needed = needed.min(self.current().unwrap_or(u64::MAX));
        let below = live.range(..needed).map(|(&number, _)| number);
        below.filter(|number| !held.contains(number)).collect()
    }

    /// The live segments that may hold records, oldest first, and the one of them that takes more.
    pub(crate) fn readable(&self) -> (Vec<FileNumber>, Option<FileNumber>) {
        let live = self.live.lock();
        let held = self.held.lock();
        let current = self.current();
        let numbers = live.keys().copied();
        let readable = numbers.filter(|number| Some(*number) == current || !held.contains(number));
        (readable.collect(), current)
    }

    /// Segment `number`, which the manifest names from now on, stays until it is let go.
    pub(crate) fn hold(&self, number: FileNumber) {
        let mut live = self.live.lock();
        self.held.lock().insert(number);
        live.insert(number, Complete::default());
    }

    /// Segment `number` takes records, or never will.
    pub(crate) fn let_go(&self, number: FileNumber) {
        self.held.lock().remove(&number);
    }

    /// The file of a segment that can be used again, if there is one; where asked, only one that no
    /// writer is left of.
    pub(crate) fn take_recyclable(&self, only_closed: bool) -> Option<FileNumber> {
        let mut recyclable = self.recyclable.lock();
        let below = match only_closed {
            true => self.closed_below.load(Ordering::Acquire),
            false => u64::MAX,
        };
        let at = recyclable.iter().rposition(|&number| number < below)?;
        Some(recyclable.swap_remove(at))
    }

    /// Forgets segments that the manifest no longer names and keeps or removes their files.
    pub(crate) fn release(&self, engine: &Engine, numbers: &[FileNumber]) {
        let is_synced = self.is_synced.swap(false, Ordering::Relaxed);
        let keeps = is_synced && !engine.is_closed() && !engine.reserve.is_short();
        let mut removed = Vec::new();
        {
            let mut live = self.live.lock();
            let mut recyclable = self.recyclable.lock();
            for &number in numbers {
                if live.remove(&number).is_none() {
                    continue;
                }
                if recyclable.len() < RECYCLED_SEGMENTS && keeps {
                    recyclable.push(number);
                } else {
                    removed.push(number);
                }
            }
        }
        // A writer that begins a segment waits for those locks, and removing a file takes milliseconds.
        for number in removed {
            remove_segment(engine, number);
        }
    }

    /// Removes the files kept for reuse, the oldest first: whatever a crash leaves ends like the log.
    /// Says whether there were any.
    pub(crate) fn drop_recyclable(&self, engine: &Engine) -> bool {
        let mut numbers = std::mem::take(&mut *self.recyclable.lock());
        numbers.sort_unstable();
        for &number in &numbers {
            remove_segment(engine, number);
        }
        !numbers.is_empty()
    }
}

/// A file that stays is a stray, which the next open removes.
fn remove_segment(engine: &Engine, number: FileNumber) {
    if let Err(error) = engine.fs.remove_file(&wal_path(&engine.directory, number)) {
        tracing::warn!(number, %error, "could not remove a log segment");
    }
}
