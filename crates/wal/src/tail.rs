//! The tail policy: what it means that no whole record stands at some offset (I4).
//!
//! Invariant: records below a synced watermark, or below what the segment's note says was synced,
//! are never silently given up. The scan of what is
//! left of the segment is linear in its length whatever the bytes, with a bounded buffer, because
//! it verifies only record headers and the two fixed-size record types. Called by the reader alone.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use esker_base::coding::u32_at;
use esker_base::filename::FileNumber;
use esker_base::{Error, Result};
use esker_vfs::fs::RandomAccessFile;

use crate::format::{
    END_RECORD_BYTES, FLAG_RECYCLED, HeaderPage, RECORD_ALIGNMENT, RECORD_HEADER_BYTES,
    RecordHeader, SyncedRecord,
};

/// How a segment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentEnd {
    /// Right after the last record; only zeros, or bytes of the file's earlier life, follow. A
    /// writer may go on there.
    Clean,
    /// With an end record: the segment is complete.
    Sealed {
        /// The segment that follows; 0 where none does.
        next: FileNumber,
    },
    /// With something that is no whole record and that was, as far as can be told, never synced.
    /// No writer may go on in this segment.
    Torn,
    /// Records that were synced are not there any more.
    Damaged {
        /// Where the first of them should stand.
        offset: u64,
        /// Everything below this offset had been synced, according to what is left; 0 where
        /// nothing says.
        synced_bytes: u64,
        /// What is wrong, as a sentence.
        reason: String,
    },
}

/// The segment as the scan needs it.
#[derive(Debug)]
pub(crate) struct Tail<'a> {
    pub(crate) file: &'a Arc<dyn RandomAccessFile>,
    pub(crate) path: &'a Path,
    pub(crate) header: &'a HeaderPage,
    /// The length of the file.
    pub(crate) file_bytes: u64,
    /// How far the segment was synced according to its note and its copies; 0 where nothing says.
    pub(crate) proven_bytes: u64,
    /// Where whole copies of synced groups stand.
    pub(crate) copies: Vec<Range<u64>>,
    /// Where no whole record stands.
    pub(crate) offset: u64,
}

/// What a scan found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// The highest watermark, the note included.
    synced_bytes: u64,
    /// Whether the header of any record of this segment stands there.
    has_record: bool,
    /// Whether any byte is not zero, but for whole copies of synced groups.
    has_bytes: bool,
}

impl Tail<'_> {
    /// Decides how the segment ended.
    ///
    /// # Errors
    /// Whatever the file system says when it is read.
    pub(crate) fn judge(&self) -> Result<SegmentEnd> {
        let mut findings = self.scan()?;
        findings.synced_bytes = findings.synced_bytes.max(self.proven_bytes);
        let damaged = |offset, reason| SegmentEnd::Damaged {
            offset,
            synced_bytes: findings.synced_bytes,
            reason,
        };
        if findings.synced_bytes > self.offset {
            let reason = format!(
                "no record stands at byte {}, but everything below byte {} had been synced",
                self.offset, findings.synced_bytes
            );
            return Ok(damaged(self.offset, reason));
        }
        if self.file_bytes < self.header.segment_bytes {
            let reason = format!(
                "the file was cut from {} to {} bytes",
                self.header.segment_bytes, self.file_bytes
            );
            return Ok(damaged(self.offset, reason));
        }
        let recycled = self.header.flags & FLAG_RECYCLED != 0;
        let clean = !findings.has_record && (recycled || !findings.has_bytes);
        Ok(if clean {
            SegmentEnd::Clean
        } else {
            SegmentEnd::Torn
        })
    }

    fn scan(&self) -> Result<Findings> {
        const WINDOW_BYTES: u64 = 64 << 10;
        let mut findings = Findings::default();
        let mut window = Vec::new();
        let mut start = self.offset;
        while start < self.file_bytes {
            // Most of what follows a kill is space that was allocated and never written.
            let data = self
                .file
                .next_data(start)
                .map_err(|e| Error::io("look for data in the log segment", self.path, e))?;
            let Some(data) = data.filter(|&data| data < self.file_bytes) else {
                break;
            };
            start = start.max(data - data % RECORD_ALIGNMENT);
            // A record that begins in this window may reach beyond it by its fixed size at most.
            let end = self.file_bytes.min(start + WINDOW_BYTES + END_RECORD_BYTES);
            window.resize((end - start) as usize, 0);
            self.file
                .read_exact_at(&mut window, start)
                .map_err(|e| Error::io("read the log segment", self.path, e))?;
            let begins = window.len().min(WINDOW_BYTES as usize);
            self.scan_window(&window, start, begins, &mut findings);
            start += WINDOW_BYTES;
        }
        Ok(findings)
    }

    /// Copies of groups that the log holds are no sign of records that did not arrive.
    fn has_bytes_beside_copies(&self, window: &[u8], start: u64) -> bool {
        let mut at = start;
        let end = start + window.len() as u64;
        let is_zero = |from: u64, to: u64| {
            let bytes = window.get((from - start) as usize..(to - start) as usize);
            bytes.unwrap_or_default().iter().all(|&byte| byte == 0)
        };
        for copy in &self.copies {
            let (from, to) = (copy.start.clamp(at, end), copy.end.clamp(at, end));
            if !is_zero(at, from) {
                return true;
            }
            at = to;
        }
        !is_zero(at, end)
    }

    fn scan_window(&self, window: &[u8], start: u64, begins: usize, findings: &mut Findings) {
        // Without an early exit, so that the compiler compares many bytes at once.
        if window.iter().fold(0, |bits, &byte| bits | byte) == 0 {
            return;
        }
        findings.has_bytes |= self.has_bytes_beside_copies(window, start);
        for at in (0..begins).step_by(RECORD_ALIGNMENT as usize) {
            // The type and the reserved zeros after it rule out nearly every place unhashed.
            if !u32_at(window, at + 8).is_some_and(|word| (1..=255).contains(&word)) {
                continue;
            }
            let bytes = window.get(at..).unwrap_or_default();
            let Some(header) = RecordHeader::decode(bytes, self.header.number, start + at as u64)
            else {
                continue;
            };
            findings.has_record = true;
            let payload = RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + header.payload_bytes;
            let synced = bytes
                .get(payload)
                .filter(|_| header.record_bytes() <= END_RECORD_BYTES)
                .filter(|payload| header.verifies(payload))
                .and_then(|payload| SyncedRecord::decode(header.record_type, payload));
            if let Some(record) = synced {
                findings.synced_bytes = findings.synced_bytes.max(record.synced_bytes);
            }
        }
    }
}
