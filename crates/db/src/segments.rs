//! The write-ahead log as a chain of segments: which one takes records, which ones are still
//! needed, which files can be used again.
//!
//! Invariants: a segment takes records only after its header, its directory entry and the manifest
//! edit that names it are durable, so that a missing segment is always noticed. A segment is
//! removed from the manifest before its file is reused or deleted (I1). Before a record of a later
//! segment is synced, everything in earlier ones is (prefix recovery). The log of the last life is
//! closed with an end record before the first record of this one, not at open: opening writes
//! nothing.

use crate::engine::Engine;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::sync::Mutex;
use esker_base::{Error, Result, SequenceNumber};
use esker_manifest::VersionEdit;
use esker_wal::{SegmentHeader, SegmentOptions, SegmentWriter, SyncMode};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Files of segments that are kept for reuse: their blocks are allocated and written, which makes
/// synced appends about a third cheaper than in new files.
const RECYCLED_SEGMENTS: usize = 2;
/// Zeros that a synced append writes ahead into blocks that were never written.
const ZERO_AHEAD_BYTES: u64 = 256 << 10;
/// Segments are whole pages.
const PAGE_BYTES: u64 = 4096;

/// Where the last life's log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogTail {
    pub(crate) header: SegmentHeader,
    pub(crate) end_offset: u64,
}

/// What everybody may know about the segments. Readers of sizes and the flush use it without the
/// writer lock.
#[derive(Debug, Default)]
pub(crate) struct SegmentTable {
    /// The segments that the manifest names and their record bytes, oldest first.
    live: Mutex<BTreeMap<FileNumber, u64>>,
    recyclable: Mutex<Vec<FileNumber>>,
    /// The segment that takes records; 0 before the first write.
    current: AtomicU64,
    current_bytes: AtomicU64,
}

impl SegmentTable {
    pub(crate) fn new(live: BTreeMap<FileNumber, u64>) -> Self {
        Self {
            live: Mutex::new(live),
            ..Self::default()
        }
    }

    /// Record bytes in all live segments.
    pub(crate) fn bytes(&self) -> u64 {
        let live: u64 = self.live.lock().values().sum();
        live + self.current_bytes.load(Ordering::Relaxed)
    }

    /// The segment that takes records, if there is one.
    pub(crate) fn current(&self) -> Option<FileNumber> {
        Some(self.current.load(Ordering::Acquire)).filter(|&number| number != 0)
    }

    /// The oldest live segment.
    pub(crate) fn oldest(&self) -> Option<FileNumber> {
        self.live.lock().keys().next().copied()
    }

    /// Whether the manifest names segment `number` still.
    fn is_live(&self, number: FileNumber) -> bool {
        self.live.lock().contains_key(&number)
    }

    /// Whether the file of segment `number` is kept, to hold records or to be used again.
    pub(crate) fn is_kept(&self, number: FileNumber) -> bool {
        let is_recyclable = self.recyclable.lock().contains(&number);
        is_recyclable || self.is_live(number) || self.current() == Some(number)
    }

    /// The live segments below `needed`.
    pub(crate) fn below(&self, needed: FileNumber) -> Vec<FileNumber> {
        self.live
            .lock()
            .range(..needed)
            .map(|(&number, _)| number)
            .collect()
    }

    /// Forgets segments that the manifest no longer names and keeps or removes their files.
    pub(crate) fn release(&self, engine: &Engine, numbers: &[FileNumber]) {
        let mut live = self.live.lock();
        let mut recyclable = self.recyclable.lock();
        for &number in numbers {
            if live.remove(&number).is_none() {
                continue;
            }
            if recyclable.len() < RECYCLED_SEGMENTS && !engine.is_closed() {
                recyclable.push(number);
            } else {
                remove_segment(engine, number);
            }
        }
    }

    /// Removes the files kept for reuse.
    pub(crate) fn drop_recyclable(&self, engine: &Engine) {
        for number in self.recyclable.lock().drain(..) {
            remove_segment(engine, number);
        }
    }
}

/// A file that stays is a stray, which the next open removes.
fn remove_segment(engine: &Engine, number: FileNumber) {
    if let Err(error) = engine.fs.remove_file(&wal_path(&engine.directory, number)) {
        tracing::warn!(number, %error, "could not remove a log segment");
    }
}

/// The writing end of the log. Only the commit leader uses it.
#[derive(Debug, Default)]
pub(crate) struct Log {
    current: Option<SegmentWriter>,
    /// Complete segments with records that were never synced.
    unsynced: Vec<SegmentWriter>,
    /// Named by the manifest, ready for records, and not yet linked to what came before.
    prepared: Option<SegmentWriter>,
    tail: Option<LogTail>,
}

impl Log {
    pub(crate) fn new(tail: Option<LogTail>) -> Self {
        Self {
            tail,
            ..Self::default()
        }
    }

    pub(crate) fn current_number(&self) -> Option<FileNumber> {
        self.current.as_ref().map(SegmentWriter::number)
    }

    /// Where the records of the current segment end, bytes from its beginning.
    pub(crate) fn current_end(&self) -> u64 {
        self.current.as_ref().map_or(0, SegmentWriter::bytes)
    }

    /// Appends the payloads of a group, the first of which begins at `sequence`. Failure is latched:
    /// no further write is acknowledged until what the log holds is safe in tables.
    #[inline]
    pub(crate) fn append(
        &mut self,
        engine: &Engine,
        payloads: &[&[u8]],
        sequence: SequenceNumber,
        mode: SyncMode,
    ) -> Result<()> {
        let bytes = payloads
            .iter()
            .map(|p| SegmentWriter::record_bytes(p.len()))
            .sum();
        if self
            .current
            .as_ref()
            .is_none_or(|current| current.remaining_bytes() < bytes)
        {
            // Nothing of this group is logged yet, so a failure here is this group's alone.
            self.roll(engine, sequence, bytes)?;
        }
        let Some(current) = &mut self.current else {
            return Err(no_segment());
        };
        if let Err(error) = current.append(payloads, mode) {
            engine.health.latch_log_failure(&error);
            return Err(error);
        }
        let segments = &engine.segments;
        segments
            .current_bytes
            .store(current.record_bytes_so_far(), Ordering::Relaxed);
        engine
            .counters
            .log_bytes_written
            .fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Brings everything logged so far to stable storage, oldest first.
    pub(crate) fn sync(&mut self, engine: &Engine) -> Result<()> {
        let synced = self.sync_all();
        if let Err(error) = &synced {
            engine.health.latch_log_failure(error);
        }
        engine.counters.log_syncs.fetch_add(1, Ordering::Relaxed);
        synced
    }

    fn sync_all(&mut self) -> Result<()> {
        for segment in &mut self.unsynced {
            segment.sync()?;
        }
        self.unsynced.clear();
        self.current.as_mut().map_or(Ok(()), SegmentWriter::sync)
    }

    /// Goes on in a new segment with room for at least `bytes`.
    pub(crate) fn roll(
        &mut self,
        engine: &Engine,
        sequence: SequenceNumber,
        bytes: u64,
    ) -> Result<()> {
        // Complete segments pile up unsynced where no write asks for a sync: that would make the
        // next one that does wait for all of them.
        if self.unsynced.len() > 1 {
            self.sync(engine)?;
        }
        let previous = match (&self.current, &self.tail) {
            (Some(current), _) => current.number(),
            (None, Some(tail)) => tail.header.number,
            (None, None) => 0,
        };
        let next = match self
            .prepared
            .take()
            .filter(|next| next.remaining_bytes() >= bytes)
        {
            Some(next) => next,
            None => self.prepare(engine, sequence, previous, bytes)?,
        };
        engine.segments.live.lock().insert(next.number(), 0);
        // The manifest names it from now on, so it must be the one that the end record names: it is
        // kept for the next attempt if closing the last life's log fails.
        let number = next.number();
        self.prepared = Some(next);
        self.close_tail(engine, number)?;
        if let Some(mut complete) = self.current.take() {
            let record_bytes = complete.record_bytes_so_far();
            engine
                .segments
                .live
                .lock()
                .insert(complete.number(), record_bytes);
            if let Err(error) = complete.seal(number) {
                engine.health.latch_log_failure(&error);
                return Err(error);
            }
            self.unsynced.push(complete);
        }
        self.current = self.prepared.take();
        engine.segments.current_bytes.store(0, Ordering::Relaxed);
        engine.segments.current.store(number, Ordering::Release);
        Ok(())
    }

    /// A segment that is ready for records: its header, name and manifest entry are durable.
    fn prepare(
        &mut self,
        engine: &Engine,
        sequence: SequenceNumber,
        previous: FileNumber,
        bytes: u64,
    ) -> Result<SegmentWriter> {
        let number = engine.versions.new_file_number();
        let path = wal_path(&engine.directory, number);
        let header = SegmentHeader {
            number,
            first_sequence: sequence,
            previous,
        };
        let needed =
            SegmentOptions::segment_bytes_for(usize::try_from(bytes).unwrap_or(usize::MAX));
        let usual = engine.settings.wal_segment_bytes();
        let options = SegmentOptions {
            segment_bytes: usual.max(needed).next_multiple_of(PAGE_BYTES),
            mapped: true,
            zero_ahead_bytes: ZERO_AHEAD_BYTES,
        };
        let fs = &*engine.fs;
        let used = engine
            .segments
            .recyclable
            .lock()
            .pop()
            .filter(|_| needed <= usual);
        let writer = match used {
            Some(used) => {
                // Everything in it is durable in tables. A writer that was left to be synced would
                // write its watermark into what is another segment from now on.
                self.unsynced.retain(|segment| segment.number() != used);
                let from = wal_path(&engine.directory, used);
                fs.rename(&from, &path)
                    .map_err(|error| Error::io("rename the log segment", &from, error))?;
                SegmentWriter::recycle(fs, &path, header, options)?
            }
            None => SegmentWriter::create(fs, &path, header, options)?,
        };
        fs.sync_dir(&engine.directory)
            .map_err(|error| Error::io("sync the directory", &engine.directory, error))?;
        let edit = VersionEdit {
            added_segments: vec![number],
            ..VersionEdit::default()
        };
        engine.versions.log_and_apply(edit)?;
        Ok(writer)
    }

    /// Writes the end record of the last life's log, durably. A flush may have released that log
    /// already, and this very roll may have taken its file: then there is nothing to close.
    fn close_tail(&mut self, engine: &Engine, next: FileNumber) -> Result<()> {
        let Some(tail) = self.tail else { return Ok(()) };
        let is_live = || engine.segments.is_live(tail.header.number);
        if is_live()
            && let Err(error) = self.end_tail(engine, &tail, next)
            && is_live()
        {
            return Err(error);
        }
        self.tail = None;
        Ok(())
    }

    fn end_tail(&self, engine: &Engine, tail: &LogTail, next: FileNumber) -> Result<()> {
        let path = wal_path(&engine.directory, tail.header.number);
        let options = SegmentOptions {
            segment_bytes: 0,
            mapped: false,
            zero_ahead_bytes: 0,
        };
        let mut segment =
            SegmentWriter::reopen(&*engine.fs, &path, tail.header, tail.end_offset, options)?;
        segment.seal(next)?;
        segment.sync()
    }

    /// Leaves the current segment for good, after a failure or because everything in it is in tables:
    /// the next record goes to a new one.
    pub(crate) fn abandon(&mut self, engine: &Engine) {
        if let Some(current) = self.current.take() {
            let bytes = current.record_bytes_so_far();
            engine.segments.live.lock().insert(current.number(), bytes);
        }
        self.unsynced.clear();
        self.prepared = None;
        self.tail = None;
        engine.segments.current_bytes.store(0, Ordering::Relaxed);
        engine.segments.current.store(0, Ordering::Release);
    }
}

#[cold]
fn no_segment() -> Error {
    Error::invalid_argument("invariant: a roll leaves a current segment")
}
