//! Appending records to one segment, syncing it and sealing it.
//!
//! Invariants: a failed write or sync is final (I3): the writer keeps the error and touches the
//! file no more. After each successful sync, and never before, the note in front of the records says so,
//! durably unless the sync wrote its records twice (`stored`, I4). A record is on stable
//! storage only when [`SegmentWriter::sync`] has returned `Ok` after it. The callers are the commit
//! leader of db and the manifest; neither shares a writer between threads.
//!
//! Short buffered records go through a map of the file where there is one (a copy of memory instead of a
//! system call), all else through writes: both reach the same pages of the operating system. A store
//! into a page that a sync has just cleaned costs a fault, which doubles the time of the next sync.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::{Error, Result};
use esker_vfs::fs::{MappedWriter, WritableFile};

use crate::format::{
    self, END_RECORD_BYTES, MAX_PAYLOAD_BYTES, NOTE_OFFSET, RecordType, SECOND_NOTE_OFFSET,
    TAIL_RESERVE_BYTES, WATERMARK_RECORD_BYTES,
};
use crate::segment::{SegmentHeader, SegmentOptions};

mod buffered;
mod stored;

/// What is assembled in memory before it is written; a larger group takes several writes.
const ASSEMBLY_BYTES: usize = 1 << 20;

/// Appends up to this length are stored by one write that waits for the device; with the zeros ahead
/// and a watermark they stay within what is assembled.
const STORED_BYTES: u64 = (ASSEMBLY_BYTES / 4) as u64;

/// How an append reaches the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// As cheaply as it survives the process: no sync follows soon.
    Buffered,
    /// So that a [`SegmentWriter::sync`], which the caller calls next, is cheap: often all of it has
    /// happened by then.
    Sync,
}

/// The writing end of one segment.
#[derive(Debug)]
pub struct SegmentWriter {
    file: Arc<dyn WritableFile>,
    window: Option<Box<dyn MappedWriter>>,
    path: PathBuf,
    header: SegmentHeader,
    options: SegmentOptions,
    first_record_offset: u64,
    /// The length of the file that the header says.
    first_bytes: u64,
    has_note: bool,
    /// Where the next note goes: not over the last one.
    note_offset: u64,
    /// Where the last note stands that was stored, which may be the only proof of its sync: those that are
    /// not stored leave it alone. 0 before the first.
    stored_note_offset: u64,
    /// Where the next record goes.
    bytes: u64,
    /// Everything below is on stable storage.
    synced_bytes: u64,
    /// Where the last append that was on stable storage when it returned ended.
    stored_bytes: u64,
    /// Where the copies of the last synced groups lie, while one of them is all that proves a sync:
    /// no record goes there.
    copies: Option<stored::Copies>,
    /// What the file holds of the stretch of `copies`.
    stretch: stored::Stretch,
    /// Below, the blocks of the file were written before, by zeros or by an older segment.
    prewritten_bytes: u64,
    /// How much was last made ready for buffered appends.
    ready_bytes: u64,
    /// Whether anything but a watermark was written since the last sync.
    dirty: bool,
    sealed: bool,
    poison: Option<Error>,
    /// Records on their way to `write_at`; kept for its memory.
    assembly: Vec<u8>,
    /// Where the first byte of `assembly` goes.
    assembly_offset: u64,
}

/// What a writer begins with.
pub(crate) struct Begun<'a> {
    pub(crate) file: Arc<dyn WritableFile>,
    pub(crate) window: Option<Box<dyn MappedWriter>>,
    pub(crate) path: &'a Path,
    pub(crate) header: SegmentHeader,
    pub(crate) options: SegmentOptions,
    pub(crate) first_record_offset: u64,
    pub(crate) first_bytes: u64,
    /// Whether the segment has a page for the synced note: those of earlier versions have none.
    pub(crate) has_note: bool,
    /// Where the next note goes: not over the last one.
    pub(crate) note_offset: u64,
    /// Where the next record goes.
    pub(crate) bytes: u64,
    pub(crate) prewritten_bytes: u64,
}

impl SegmentWriter {
    /// A writer of a segment of which nothing is known to be synced.
    pub(crate) fn at(begun: Begun<'_>) -> Self {
        Self {
            file: begun.file,
            window: begun.window,
            path: begun.path.to_path_buf(),
            header: begun.header,
            options: begun.options,
            first_record_offset: begun.first_record_offset,
            first_bytes: begun.first_bytes,
            has_note: begun.has_note,
            note_offset: begun.note_offset,
            stored_note_offset: 0,
            bytes: begun.bytes,
            synced_bytes: 0,
            stored_bytes: 0,
            copies: None,
            stretch: stored::Stretch::default(),
            prewritten_bytes: begun.prewritten_bytes,
            ready_bytes: 0,
            dirty: true,
            sealed: false,
            poison: None,
            assembly: Vec::new(),
            assembly_offset: begun.bytes,
        }
    }

    /// Notes that everything so far is on stable storage.
    pub(crate) fn mark_synced(&mut self) {
        self.synced_bytes = self.bytes;
        self.dirty = false;
    }

    /// Bytes that a record of this payload takes, header and padding included.
    #[must_use]
    pub fn record_bytes(payload_bytes: usize) -> u64 {
        format::record_bytes(payload_bytes)
    }

    /// What records may still take, by [`SegmentWriter::record_bytes`]; `u64::MAX` for a file that
    /// grows.
    #[must_use]
    #[inline]
    pub fn remaining_bytes(&self) -> u64 {
        match self.options.segment_bytes {
            0 => u64::MAX,
            bytes => bytes
                .saturating_sub(TAIL_RESERVE_BYTES)
                .saturating_sub(self.next_offset()),
        }
    }

    /// Bytes that records take so far, the engine's own included.
    #[must_use]
    #[inline]
    pub fn record_bytes_so_far(&self) -> u64 {
        self.bytes - self.first_record_offset
    }

    /// Bytes of the segment in use, header page and note included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The length of the file, all of which is allocated; 0 for one that grows with its records.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.options.segment_bytes
    }

    /// Everything below this offset is on stable storage; 0 where nothing is known yet.
    #[must_use]
    pub fn synced_bytes(&self) -> u64 {
        self.synced_bytes
    }

    /// The number in the segment's file name.
    #[must_use]
    pub fn number(&self) -> FileNumber {
        self.header.number
    }

    /// The sequence number of the first write that may be in the segment.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.header.first_sequence
    }

    /// Whether an append, sync or seal has failed, so that all later ones will.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    /// The failure that every call returns from now on, if there was one: also that of the note of a
    /// [`SegmentWriter::sync`] which was done itself.
    #[must_use]
    pub fn poison(&self) -> Option<&Error> {
        self.poison.as_ref()
    }

    /// Appends one record. Does not allocate once its buffer has grown to the records' size.
    ///
    /// # Errors
    /// As [`SegmentWriter::append`].
    #[inline]
    pub fn append_one(&mut self, payload: &[u8], mode: SyncMode) -> Result<()> {
        self.append(&[payload], mode)
    }

    /// Appends records, all in one write where they take less than a mebibyte together.
    ///
    /// # Errors
    /// [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) where the payloads do not fit
    /// [`SegmentWriter::remaining_bytes`] or the segment is sealed; nothing was written then.
    /// Whatever the file system says otherwise: the writer is then poisoned, a part of the records
    /// may be in the file, and this and every other call returns that error from now on.
    pub fn append(&mut self, payloads: &[&[u8]], mode: SyncMode) -> Result<()> {
        let bytes = self.check_appendable(payloads)?;
        if payloads.is_empty() {
            return Ok(());
        }
        let was_dirty = std::mem::replace(&mut self.dirty, true);
        let outcome = match mode {
            SyncMode::Sync if !was_dirty && bytes <= STORED_BYTES => self.store(None, payloads),
            SyncMode::Buffered if self.copies_into_map(bytes) => self
                .make_way(bytes, mode)
                .and_then(|()| self.copy(payloads)),
            _ => self
                .make_way(bytes, mode)
                .and_then(|()| self.write(payloads, mode)),
        };
        self.or_poison(outcome)
    }

    /// As [`SegmentWriter::append`], with a mark in front of the records, in the same write: what the
    /// caller notes between its payloads, which [`SegmentReader::next`](crate::SegmentReader::next)
    /// passes over.
    ///
    /// # Errors
    /// As [`SegmentWriter::append`].
    pub fn append_marked(&mut self, mark: &[u8], payloads: &[&[u8]], mode: SyncMode) -> Result<()> {
        self.check_appendable(payloads)?;
        let sizes = payloads
            .iter()
            .map(|payload| format::record_bytes(payload.len()));
        let bytes = sizes.sum::<u64>() + format::record_bytes(mark.len());
        if bytes > self.remaining_bytes() || mark.len() > MAX_PAYLOAD_BYTES {
            return Err(self.refusal(bytes));
        }
        let was_dirty = std::mem::replace(&mut self.dirty, true);
        let outcome = match mode {
            SyncMode::Sync if !was_dirty && bytes <= STORED_BYTES => {
                self.store(Some(mark), payloads)
            }
            SyncMode::Buffered if self.copies_into_map(bytes) => self
                .make_way(bytes, mode)
                .and_then(|()| self.copy_record(RecordType::Mark, mark))
                .and_then(|()| self.copy(payloads)),
            _ => self
                .make_way(bytes, mode)
                .and_then(|()| self.assemble(RecordType::Mark, mark))
                .and_then(|()| self.write(payloads, mode)),
        };
        self.or_poison(outcome)
    }

    #[inline]
    fn check_appendable(&self, payloads: &[&[u8]]) -> Result<u64> {
        if let Some(error) = &self.poison {
            return Err(error.clone());
        }
        let fits = payloads
            .iter()
            .all(|payload| payload.len() <= MAX_PAYLOAD_BYTES);
        let bytes = payloads.iter().fold(0u64, |sum, payload| {
            sum.saturating_add(format::record_bytes(payload.len()))
        });
        if self.sealed || !fits || bytes > self.remaining_bytes() {
            return Err(self.refusal(bytes));
        }
        Ok(bytes)
    }

    #[cold]
    fn refusal(&self, bytes: u64) -> Error {
        let message = if self.sealed {
            "the log segment is sealed".to_owned()
        } else {
            format!("records of {bytes} bytes do not fit the log segment")
        };
        Error::invalid_argument(message)
            .with_file(&self.path)
            .with_offset(self.bytes)
    }

    #[inline]
    fn or_poison(&mut self, outcome: Result<()>) -> Result<()> {
        if let Err(error) = &outcome {
            self.poison = Some(error.clone());
        }
        outcome
    }

    /// Writes records by `write_at`.
    fn write(&mut self, payloads: &[&[u8]], mode: SyncMode) -> Result<()> {
        for payload in payloads {
            self.assemble(RecordType::Data, payload)?;
        }
        if mode == SyncMode::Sync {
            self.assemble_zeros();
        }
        self.flush_assembly()
    }

    /// Adds a record to what will be written; writes where that grows too large to keep.
    fn assemble(&mut self, record_type: RecordType, payload: &[u8]) -> Result<()> {
        let end = self.bytes + format::record_bytes(payload.len());
        let header =
            format::encode_record_header(self.header.number, self.bytes, record_type, payload);
        if self.assembly.len() + payload.len() > ASSEMBLY_BYTES {
            self.flush_assembly()?;
        }
        if self.assembly.is_empty() {
            self.assembly_offset = self.bytes;
        }
        self.assembly.extend_from_slice(&header);
        if payload.len() > ASSEMBLY_BYTES {
            self.flush_assembly()?;
            let at = self.bytes + header.len() as u64;
            self.write_at(at, payload)?;
            self.assembly_offset = at + payload.len() as u64;
        } else {
            self.assembly.extend_from_slice(payload);
        }
        self.bytes = end;
        let padded = (end - self.assembly_offset) as usize;
        self.assembly.resize(padded, 0);
        Ok(())
    }

    /// Where the records reach beyond the blocks written before, adds zeros for the next ones, so
    /// that the syncs to come have no block to convert and no length to log.
    fn assemble_zeros(&mut self) {
        if self.options.zero_ahead_bytes == 0 || self.bytes <= self.prewritten_bytes {
            return;
        }
        let limit = match self.options.segment_bytes {
            0 => u64::MAX,
            bytes => bytes,
        };
        let end = self
            .bytes
            .saturating_add(self.options.zero_ahead_bytes)
            .min(limit);
        self.assembly
            .resize((end.max(self.bytes) - self.assembly_offset) as usize, 0);
    }

    fn flush_assembly(&mut self) -> Result<()> {
        if self.assembly.is_empty() {
            return Ok(());
        }
        let assembly = std::mem::take(&mut self.assembly);
        let outcome = self.write_at(self.assembly_offset, &assembly);
        self.keep(assembly);
        outcome
    }

    /// Keeps the memory of what was written.
    fn keep(&mut self, mut assembly: Vec<u8>) {
        assembly.clear();
        assembly.shrink_to(2 * ASSEMBLY_BYTES);
        self.assembly = assembly;
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .write_at(offset, bytes)
            .map_err(|e| Error::io("write the log segment", &self.path, e))?;
        self.prewritten_bytes = self.prewritten_bytes.max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Adds one of the engine's own records, whose space is reserved.
    fn append_own(&mut self, record_type: RecordType, payload: &[u8]) -> Result<()> {
        self.assemble(record_type, payload)?;
        self.flush_assembly()
    }

    /// Brings everything appended so far to stable storage and then notes in the segment that this has
    /// happened: durably, unless a copy of the records proves it. Does nothing where nothing was appended since the last sync.
    ///
    /// # Errors
    /// Whatever the file system says; the writer is poisoned then, and how much is on stable
    /// storage is unknown.
    pub fn sync(&mut self) -> Result<()> {
        if let Some(error) = &self.poison {
            return Err(error.clone());
        }
        if !self.dirty {
            return Ok(());
        }
        let was_stored = self.stored_bytes == self.bytes;
        if !was_stored {
            let synced = self
                .file
                .sync_data()
                .map_err(|e| Error::io("sync the log segment", &self.path, e));
            self.or_poison(synced)?;
        }
        self.mark_synced();
        if was_stored && self.copies.is_some() {
            let noted = self.note(false);
            let _ = self.or_poison(noted);
            return Ok(());
        }
        self.copies = None;
        let after_end = if self.sealed {
            0
        } else {
            END_RECORD_BYTES + WATERMARK_RECORD_BYTES
        };
        let room = match self.options.segment_bytes {
            0 => u64::MAX,
            bytes => bytes.saturating_sub(self.bytes),
        };
        let synced_bytes = self.synced_bytes;
        let noted = self.note(true).and_then(|()| {
            if room < WATERMARK_RECORD_BYTES + after_end {
                return Ok(());
            }
            let payload = format::encode_watermark(synced_bytes);
            self.append_own(RecordType::Watermark, &payload)
        });
        // What was asked for has happened; that the note of it failed is the next call's error, and
        // `poison` says so at once.
        let _ = self.or_poison(noted);
        Ok(())
    }

    /// Puts down at the front of the segment that everything below `synced_bytes` was synced. Where
    /// nothing else on stable storage proves that, the note has to be there before the sync returns.
    fn note(&mut self, is_proof: bool) -> Result<()> {
        if !self.has_note {
            return Ok(());
        }
        let offset = self.note_offset;
        if is_proof {
            self.stored_note_offset = offset;
        }
        let other = NOTE_OFFSET + SECOND_NOTE_OFFSET - offset;
        if other != self.stored_note_offset {
            self.note_offset = other;
        }
        let note = format::encode_note(self.header.number, offset, self.synced_bytes);
        let noted = match is_proof {
            true => self.file.write_synced_at(offset, &note),
            false => self.file.write_at(offset, &note),
        };
        noted.map_err(|e| Error::io("note the sync in the log segment", &self.path, e))
    }

    /// Gives away the map of the file, where there is one: taking it down takes a millisecond, which
    /// whoever appends need not wait for. Buffered appends are writes from now on.
    pub fn take_map(&mut self) -> Option<Box<dyn MappedWriter>> {
        self.window.take()
    }

    /// Writes the end record: the segment is complete, and segment `next` follows (0: none does).
    /// Appends are refused from now on; a [`SegmentWriter::sync`] is not.
    ///
    /// # Errors
    /// As [`SegmentWriter::append`].
    pub fn seal(&mut self, next: FileNumber) -> Result<()> {
        self.check_appendable(&[])?;
        self.sealed = true;
        self.dirty = true;
        // Nothing is copied any more. A map that stayed until the sync would count as memory of the
        // process, and cost the sync an interrupt of every processor for each of its pages.
        self.window = None;
        let outcome = self.append_own(
            RecordType::End,
            &format::encode_end(next, self.synced_bytes),
        );
        self.or_poison(outcome)
    }
}
