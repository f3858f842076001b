//! The writing end of the write-ahead log, a chain of segments.
//!
//! Invariants: a segment takes records only after its header, its directory entry and the manifest
//! edit that names it are durable, so that a missing segment is always noticed. Before a record of a
//! later segment is synced, everything in earlier ones is (prefix recovery). The log of the last life is
//! closed with an end record before the first record of this one, not at open: opening writes
//! nothing. Whoever holds the writer lock closes no file of a segment and takes down no map of one: that
//! takes milliseconds (`spent_segments`). Only the commit leader uses it.

mod leaving;
mod void;

use self::leaving::Leaving;
use crate::engine::Engine;
use crate::log_mark::{Marker, Reasons, numbers_of};
use esker_base::filename::{FileNumber, wal_path};
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_wal::{SegmentHeader, SegmentOptions, SegmentWriter, SyncMode};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Complete segments of the usual length that may wait for the first sync anybody asks for. Most never see one: a flush
/// brings what they hold to stable storage, and lets them go. More are only where flushes are far
/// behind, or where a keyspace that is seldom written to pins the log.
const UNSYNCED_SEGMENTS: u64 = 16;

/// Where the last life's log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogTail {
    pub(crate) header: SegmentHeader,
    pub(crate) end_offset: u64,
}

/// A segment that the manifest names and that takes no records yet.
#[derive(Debug)]
pub(crate) struct ReadySegment {
    pub(crate) writer: SegmentWriter,
    /// Made of the reserve for a full disk: for deletes alone.
    pub(crate) for_deletes: bool,
}

/// The writing end of the log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    current: Option<SegmentWriter>,
    /// Whether the current segment is for deletes alone.
    for_deletes: bool,
    /// Once the current segment has so many bytes, something is for the background to do.
    tend_at: u64,
    /// Complete segments with records that were never synced.
    unsynced: Vec<SegmentWriter>,
    /// Ready, and not yet linked to what came before.
    prepared: Option<ReadySegment>,
    tail: Option<LogTail>,
    /// What is to stand between the batches where the log is archived.
    pub(crate) marker: Marker,
    leaving: Leaving,
    /// The number of the last write that this life has logged.
    last_logged: SequenceNumber,
}

impl Log {
    /// The log of a life whose first write has the number `next`. Of the numbers before, those behind
    /// `last_held` were given to writes that no log and no table holds: they were never durable.
    pub(crate) fn new(
        tail: Option<LogTail>,
        next: SequenceNumber,
        last_held: SequenceNumber,
    ) -> Self {
        let mut marker = Marker::new(next);
        if last_held + 1 < next {
            marker.note_failed(last_held + 1);
        }
        Self {
            tail,
            marker,
            ..Self::default()
        }
    }

    /// Marks stand in the log from the write with the number `next` on.
    pub(crate) fn begin_marks(&mut self, next: SequenceNumber) {
        self.marker.begin(next);
    }

    /// Sequence numbers are given to something that does not stand in the log.
    pub(crate) fn note_unlogged(&mut self, reason: Reasons) {
        self.marker.note(reason);
    }

    /// The group that begins at `sequence` has failed, though it may be in the log.
    pub(crate) fn note_failed(&mut self, sequence: SequenceNumber) {
        self.marker.note_failed(sequence);
    }

    pub(crate) fn current_number(&self) -> Option<FileNumber> {
        self.current.as_ref().map(SegmentWriter::number)
    }

    /// Where the records of the current segment end, bytes from its beginning.
    pub(crate) fn current_end(&self) -> u64 {
        self.current.as_ref().map_or(0, SegmentWriter::bytes)
    }

    /// Appends the payloads of a group, the first of which begins at `sequence`. Failure is latched:
    /// no further write is acknowledged until what the log holds is safe in tables. Where the disk is
    /// full, a group of deletes alone may take the reserve.
    #[inline]
    pub(crate) fn append(
        &mut self,
        engine: &Engine,
        payloads: &[&[u8]],
        sequence: SequenceNumber,
        mode: SyncMode,
        only_deletes: impl Fn() -> bool,
    ) -> Result<()> {
        if !engine.archive.is_on() {
            let millis = || engine.clock().now_millis();
            let mark = self.marker.due_after_failure(sequence, millis);
            let is_marked = mark.is_some();
            let mark = mark.map(|mark| mark.encode()).transpose()?;
            self.append_run(engine, mark, payloads, sequence, mode, only_deletes)?;
            if is_marked {
                self.marker.forget_failure();
            }
            return Ok(());
        }
        self.append_with_marks(engine, payloads, sequence, mode, only_deletes)
    }

    /// As [`Log::append`], with marks before each stretch of consecutive numbers that needs one.
    #[cold]
    fn append_with_marks(
        &mut self,
        engine: &Engine,
        payloads: &[&[u8]],
        sequence: SequenceNumber,
        mode: SyncMode,
        only_deletes: impl Fn() -> bool,
    ) -> Result<()> {
        let mut rest = payloads;
        loop {
            let first = rest
                .first()
                .map_or(sequence, |payload| numbers_of(payload).0);
            let mut next = first;
            let in_order = rest.iter().take_while(|payload| {
                let (begin, end) = numbers_of(payload);
                let follows = begin == next;
                next = if follows { end } else { next };
                follows
            });
            let (run, after) = rest.split_at(in_order.count());
            let begins = self.current.as_ref();
            let begins = begins.is_none_or(|current| current.record_bytes_so_far() == 0);
            let mark = self.marker.due(engine, first, begins)?;
            self.append_run(engine, mark, run, first, mode, &only_deletes)?;
            self.marker.note_logged(first, next);
            rest = after;
            if rest.is_empty() {
                self.marker.forget_reasons();
                return Ok(());
            }
        }
    }

    /// Logs what changed of keyspaces, if anything did that no mark says; `next` is the number of the
    /// next write.
    pub(crate) fn write_marks(&mut self, engine: &Engine, next: SequenceNumber) -> Result<()> {
        if !engine.archive.is_on() || !engine.archive.has_changes() {
            return Ok(());
        }
        self.append_with_marks(engine, &[], next, SyncMode::Buffered, || false)
    }

    /// As [`Log::write_marks`], for whoever takes what the log says for what there is: also what became
    /// of keyspaces in a life whose last mark a crash may have taken.
    pub(crate) fn write_all_marks(&mut self, engine: &Engine, next: SequenceNumber) -> Result<()> {
        if !engine.archive.is_on() || !self.marker.owes_all() {
            return self.write_marks(engine, next);
        }
        self.append_with_marks(engine, &[], next, SyncMode::Buffered, || false)
    }

    #[inline]
    fn append_run(
        &mut self,
        engine: &Engine,
        mut mark: Option<Vec<u8>>,
        payloads: &[&[u8]],
        sequence: SequenceNumber,
        mode: SyncMode,
        only_deletes: impl Fn() -> bool,
    ) -> Result<()> {
        let payload_bytes: u64 = payloads
            .iter()
            .map(|p| SegmentWriter::record_bytes(p.len()))
            .sum();
        let record_bytes = |mark: &Vec<u8>| SegmentWriter::record_bytes(mark.len());
        let mark_bytes = |mark: &Option<Vec<u8>>| mark.as_ref().map_or(0, record_bytes);
        let mut bytes = payload_bytes + mark_bytes(&mark);
        let for_others = self.for_deletes && !only_deletes();
        if for_others || self.leaves(engine, bytes) || !self.has_room(engine, bytes, mode) {
            if engine.archive.is_on() {
                // A segment begins with a mark in any case, and with all that is not certain to be read
                // in the one before.
                mark = self.marker.due(engine, sequence, true)?;
                bytes = payload_bytes + mark_bytes(&mark);
            }
            // Nothing of this group is logged yet, so a failure here is this group's alone.
            self.roll(engine, sequence, bytes, only_deletes())?;
        }
        let Some(current) = &mut self.current else {
            return Err(no_segment());
        };
        let appended = match &mark {
            Some(mark) => current.append_marked(mark, payloads, mode),
            None => current.append(payloads, mode),
        };
        if let Err(error) = appended {
            engine.health.latch_log_failure(&error);
            return Err(error);
        }
        if mark.is_some() && engine.archive.is_on() {
            self.marker.note_marked(engine);
        }
        let end = payloads.last().map(|payload| numbers_of(payload).1);
        self.last_logged = end.map_or(self.last_logged, |end| end.saturating_sub(1));
        let record_bytes = current.record_bytes_so_far();
        engine.segments.note_current_bytes(record_bytes);
        let written = &engine.counters.log_bytes_written;
        written.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the current segment has room for `bytes`, or can be given it. For what is synced the next one is
    /// better than one that has grown.
    #[inline]
    fn has_room(&mut self, engine: &Engine, bytes: u64, mode: SyncMode) -> bool {
        let may_grow = mode == SyncMode::Buffered && !self.for_deletes;
        self.current.as_mut().is_some_and(|current| {
            let has_room = current.remaining_bytes() >= bytes;
            if has_room && mode == SyncMode::Sync && current.has_grown() {
                return !engine.next_segment.is_ready_for(current.number(), bytes);
            }
            has_room || (may_grow && engine.grow_segment(current, bytes))
        })
    }

    /// Brings everything logged so far to stable storage, oldest first.
    pub(crate) fn sync(&mut self, engine: &Engine) -> Result<()> {
        engine.segments.note_synced();
        let synced = self.sync_all(engine);
        // What was synced is safe also where the note of it failed, but the segment takes no more: the
        // next write finds that out before it is refused, and goes on in another one.
        let noted = self.current.as_ref().and_then(SegmentWriter::poison);
        if let Some(error) = synced.as_ref().err().or(noted) {
            engine.health.latch_log_failure(error);
        }
        engine.counters.log_syncs.fetch_add(1, Ordering::Relaxed);
        synced
    }

    /// Whether it is time for [`Log::tend`].
    #[inline]
    pub(crate) fn wants_tending(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| current.bytes() >= self.tend_at)
    }

    /// Has the background do what later writes should not wait for: with the first segment, setting
    /// the reserve aside; with every further one, closing what the one before has left; once a segment is
    /// half full, or a memtable nearly (`leaving`), preparing the next one.
    #[cold]
    pub(crate) fn tend(&mut self, engine: &Arc<Engine>, next_sequence: SequenceNumber) {
        if engine.segments.spent.any() {
            engine.close_spent();
        }
        let half = self.prepares_at(engine);
        if engine.reserve.is_wanted() {
            self.tend_at = half;
            engine.stock_reserve();
        } else if self.tend_at < half {
            self.tend_at = half;
        } else {
            self.tend_at = u64::MAX;
            engine.prepare_ahead(next_sequence);
        }
    }

    /// Whether the current segment is for deletes alone.
    pub(crate) fn is_for_deletes(&self) -> bool {
        self.for_deletes
    }

    fn sync_all(&mut self, engine: &Engine) -> Result<()> {
        self.forget_released(engine);
        for segment in &mut self.unsynced {
            segment.sync()?;
        }
        self.unsynced.clear();
        self.current.as_mut().map_or(Ok(()), SegmentWriter::sync)
    }

    /// What was in segments that the manifest does not name any more is durable in tables: no sync has
    /// to cover them.
    fn forget_released(&mut self, engine: &Engine) {
        let segments = &engine.segments;
        let released = self
            .unsynced
            .extract_if(.., |segment| !segments.is_live(segment.number()));
        segments.spent.add_files(released);
    }

    /// As `forget_released`, for a flush that has just released segments: their files are gone only once
    /// they are closed, and nobody may write for a long time.
    pub(crate) fn leave_released(&mut self, engine: &Engine) {
        self.forget_released(engine);
        self.note_closed(engine);
    }

    /// Syncs the oldest of the complete segments where many have piled up, so that a write that asks for
    /// a sync does not wait for any number of them.
    fn bound_unsynced(&mut self, engine: &Engine) -> Result<()> {
        self.forget_released(engine);
        let most = UNSYNCED_SEGMENTS * engine.settings.wal_segment_bytes();
        let mut bytes = 0;
        let newest = self.unsynced.iter().rev().take_while(|segment| {
            bytes += segment.segment_bytes();
            bytes <= most
        });
        let above = self.unsynced.len() - newest.count();
        for mut segment in self.unsynced.drain(..above) {
            engine.counters.log_syncs.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = segment.sync() {
                engine.health.latch_log_failure(&error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Goes on in a new segment with room for at least `bytes`.
    pub(crate) fn roll(
        &mut self,
        engine: &Engine,
        sequence: SequenceNumber,
        bytes: u64,
        only_deletes: bool,
    ) -> Result<()> {
        self.bound_unsynced(engine)?;
        let next = self.next_segment(engine, sequence, bytes, only_deletes)?;
        // The manifest names it from now on, so it must be the one that the end record names: it is
        // kept for the next attempt if closing the last life's log fails.
        let number = next.writer.number();
        self.prepared = Some(next);
        self.close_tail(engine, number)?;
        if let Some(mut complete) = self.current.take() {
            engine.segments.note_complete(&complete, self.last_logged);
            engine.segments.spent.add_map(complete.take_map());
            if let Err(error) = complete.seal(number) {
                engine.health.latch_log_failure(&error);
                return Err(error);
            }
            self.unsynced.push(complete);
        }
        if let Some(next) = self.prepared.take() {
            self.for_deletes = next.for_deletes;
            self.tend_at = 0;
            self.current = Some(next.writer);
        }
        engine.segments.begin(number);
        self.note_closed(engine);
        Ok(())
    }

    /// The segment to go on in: one that is ready, or one that is made now; of the reserve only where
    /// the disk is full and nothing but deletes is to be written.
    fn next_segment(
        &mut self,
        engine: &Engine,
        sequence: SequenceNumber,
        bytes: u64,
        only_deletes: bool,
    ) -> Result<ReadySegment> {
        let previous = match (&self.current, &self.tail) {
            (Some(current), _) => current.number(),
            (None, Some(tail)) => tail.header.number,
            (None, None) => 0,
        };
        if let Some(ready) = self.prepared.take() {
            if ready.writer.remaining_bytes() >= bytes && (only_deletes || !ready.for_deletes) {
                return Ok(ready);
            }
            engine.segments.let_go(ready.writer.number());
        }
        let ahead = engine.next_segment.take(engine, previous, bytes);
        let prepare = || self.prepare(engine, sequence, previous, bytes, only_deletes);
        let usual = ahead.map_or_else(prepare, Ok);
        let (writer, for_deletes) = match usual {
            Err(error) if only_deletes && error.kind() == ErrorKind::NoSpace => {
                let header = engine.next_header(sequence, previous);
                let reserved = engine.prepare_reserved_segment(header, bytes);
                // What is told is that the disk is full, not what became of the reserve.
                (reserved.map_err(|_| error)?, true)
            }
            usual => (usual?, false),
        };
        Ok(ReadySegment {
            writer,
            for_deletes,
        })
    }

    /// A new segment; for other writes than deletes once the reserve for those is whole.
    fn prepare(
        &mut self,
        engine: &Engine,
        sequence: SequenceNumber,
        previous: FileNumber,
        bytes: u64,
        only_deletes: bool,
    ) -> Result<SegmentWriter> {
        engine.spare_reserve(bytes, only_deletes)?;
        let used = engine.segments.take_recyclable(false);
        if let Some(used) = used {
            // Everything in it is durable in tables. A writer that was left to be synced would
            // write its watermark into what is another segment from now on.
            let taken = self
                .unsynced
                .extract_if(.., |segment| segment.number() == used);
            engine.segments.spent.add_files(taken);
        }
        let header = engine.next_header(sequence, previous);
        engine.prepare_segment(header, bytes, used)
    }

    /// Tells the background which files have no writer here any more.
    fn note_closed(&self, engine: &Engine) {
        let open = self.unsynced.first().or(self.current.as_ref());
        let below = open.map_or(0, SegmentWriter::number);
        engine.segments.note_closed_below(below);
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
            ..SegmentOptions::default()
        };
        let mut segment =
            SegmentWriter::reopen(&*engine.fs, &path, tail.header, tail.end_offset, options)?;
        segment.seal(next)?;
        segment.sync().inspect_err(|error| {
            // Asked once more, the file system would say that all is well, and what this sync has lost
            // would be noted as durable (I3).
            if engine.segments.is_live(tail.header.number) {
                engine.health.latch_log_failure(error);
            }
        })
    }

    /// Leaves the current segment for good, after a failure or because everything in it is in tables:
    /// the next record goes to a new one.
    pub(crate) fn abandon(&mut self, engine: &Engine) {
        if let Some(current) = self.current.take() {
            engine.segments.note_complete(&current, self.last_logged);
        }
        self.unsynced.clear();
        if let Some(ready) = self.prepared.take() {
            engine.segments.let_go(ready.writer.number());
        }
        self.for_deletes = false;
        self.tail = None;
        self.marker.begin_chain();
        engine.segments.end();
    }
}

#[cold]
fn no_segment() -> Error {
    Error::invalid_argument("invariant: a roll leaves a current segment")
}
