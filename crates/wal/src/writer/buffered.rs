//! Appends that no sync follows: copies into the map of the file, pages that are ready for them, and a file
//! that grows under them.
//!
//! Invariants: what is copied lies within the file, in front of everything that was not written yet; zeros that
//! are written ahead never reach what was written. Nothing here is waited for by the device.

use esker_base::{Error, Result};

use super::{SegmentWriter, SyncMode};
use crate::format::{self, RECORD_ALIGNMENT, RecordType};
use crate::segment;

/// Buffered appends from this length on are written although there is a map: the faults that the first store into
/// each page takes cost more than a system call.
const WRITTEN_BYTES: u64 = 2 << 10;
/// The same where pages are made ready: a large one takes one fault.
const WRITTEN_IF_READY_BYTES: u64 = 16 << 10;

/// For appends of this length on, but those that are written, less is made ready at a time: one in every few has to
/// wait for it anyway.
const MEDIUM_BYTES: u64 = 4 << 10;
/// So much.
const MEDIUM_READY_BYTES: u64 = 64 << 10;
/// What is first made ready for buffered appends. Each time that it is used up it is twice as much.
const LEAST_READY_BYTES: u64 = 16 << 10;

impl SegmentWriter {
    /// Makes a segment that may grow longer, so that buffered appends go on in it. Nothing is waited for:
    /// what they leave behind the old length is durable, with that length, by the next
    /// [`SegmentWriter::sync`], as all that is buffered.
    ///
    /// # Errors
    /// [`InvalidArgument`](esker_base::ErrorKind::InvalidArgument) where it may not grow, or is as long already;
    /// an earlier failure of this writer; whatever the file system says. The segment is as it was then.
    pub fn grow(&mut self, segment_bytes: u64) -> Result<()> {
        if let Some(error) = &self.poison {
            return Err(error.clone());
        }
        let old_bytes = self.options.segment_bytes;
        let is_longer = segment_bytes > old_bytes && segment_bytes.is_multiple_of(RECORD_ALIGNMENT);
        if self.sealed || !self.options.may_grow || old_bytes == 0 || !is_longer {
            let message = format!("the log segment cannot grow to {segment_bytes} bytes");
            return Err(Error::invalid_argument(message).with_file(&self.path));
        }
        if let Err(error) = self.file.allocate(segment_bytes) {
            // A full disk may have given a part of it.
            let _ = self.file.set_len(old_bytes);
            return Err(Error::io("extend the log segment", &self.path, error));
        }
        self.options.segment_bytes = segment_bytes;
        // Not stored by its own pages alone: the length is to be synced as well.
        self.dirty = true;
        if self.window.take().is_some() {
            // Without a map buffered appends are writes.
            self.window = segment::map(&self.file, &self.path, self.options).unwrap_or_default();
        }
        Ok(())
    }

    /// Whether it is longer than its header says. Groups that are synced have no copies behind that length, so that
    /// each of their syncs takes a second one.
    #[must_use]
    #[inline]
    pub fn has_grown(&self) -> bool {
        self.options.segment_bytes > self.first_bytes
    }

    /// Whether a buffered append of so many bytes goes through the map.
    #[inline]
    pub(super) fn copies_into_map(&self, bytes: u64) -> bool {
        let written_from = match self.ready_bytes {
            0 => WRITTEN_BYTES,
            _ => WRITTEN_IF_READY_BYTES,
        };
        self.window.is_some() && bytes < written_from
    }

    /// Copies records into the map.
    #[inline]
    pub(super) fn copy(&mut self, payloads: &[&[u8]]) -> Result<()> {
        for payload in payloads {
            self.copy_record(RecordType::Data, payload)?;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn copy_record(&mut self, record_type: RecordType, payload: &[u8]) -> Result<()> {
        let offset = self.bytes;
        let end = offset + format::record_bytes(payload.len());
        let Some(window) = self.window.as_mut() else {
            return Ok(());
        };
        let number = self.header.number;
        let header = format::encode_record_header(number, offset, record_type, payload);
        let payload_at = offset + header.len() as u64;
        let payload_end = payload_at + payload.len() as u64;
        let padding = (end - payload_end) as usize;
        window
            .copy_at(offset, &header)
            .and_then(|()| window.copy_at(payload_at, payload))
            .and_then(|()| match padding {
                0 => Ok(()),
                _ => window.copy_at(payload_end, &[0; RECORD_ALIGNMENT as usize][..padding]),
            })
            .map_err(|e| Error::io("copy into the log segment", &self.path, e))?;
        self.bytes = end;
        self.prewritten_bytes = self.prewritten_bytes.max(end);
        Ok(())
    }

    /// Comes before an append of so many bytes that is not stored.
    #[inline]
    pub(super) fn make_way(&mut self, bytes: u64, mode: SyncMode) -> Result<()> {
        self.leave_copies(mode)?;
        let end = self.bytes + bytes;
        if mode == SyncMode::Buffered && end > self.prewritten_bytes && self.window.is_some() {
            return self.make_ready(end);
        }
        Ok(())
    }

    /// Has the pages of the records up to `end`, and more behind them, in memory before they come. A store into a
    /// page that is not costs a fault which finds, clears and notes that page alone, and a write takes pages of
    /// its own size; zeros written ahead make large ones at once.
    #[cold]
    fn make_ready(&mut self, end: u64) -> Result<()> {
        debug_assert!(self.assembly.is_empty());
        let is_medium = (MEDIUM_BYTES..WRITTEN_IF_READY_BYTES).contains(&(end - self.bytes));
        let most = match is_medium {
            true => self.options.zero_ahead_bytes.min(MEDIUM_READY_BYTES),
            false => self.options.zero_ahead_bytes,
        };
        // All that was written lies below: what is prewritten, and copies that the records come behind.
        let from = self.prewritten_bytes.max(self.bytes);
        if end - from.min(end) > most || most == 0 {
            return Ok(());
        }
        self.ready_bytes = (2 * self.ready_bytes).max(LEAST_READY_BYTES).min(most);
        let to = (end + self.ready_bytes).next_multiple_of(LEAST_READY_BYTES);
        let to = to.min(self.options.segment_bytes).max(from);
        let mut zeros = std::mem::take(&mut self.assembly);
        zeros.resize((to - from) as usize, 0);
        let outcome = self.write_at(from, &zeros);
        self.keep(zeros);
        if let Some(window) = &mut self.window {
            window.let_go(self.bytes);
        }
        outcome
    }
}
