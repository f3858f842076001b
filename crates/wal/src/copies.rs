//! Copies of synced groups: their bytes, and finding them where the log ends without a proof.
//!
//! Invariant: a copy verifies only in the segment and at the place it was written to, and never as a
//! record, so that what it holds is what was written there, after everything below its `synced` was on
//! stable storage (I4). The writer puts them ahead of the records, the reader looks for them.

use std::ops::Range;
use std::path::Path;

use esker_base::coding::{u32_at, u64_at};
use esker_base::filename::FileNumber;
use esker_base::{Error, Result};
use esker_vfs::fs::RandomAccessFile;

use crate::format::{self, RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader};

/// Copies, and records behind them, begin in pages of their own: one damaged page takes only one of
/// records and copy.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// The largest group of records of which a copy is made, bytes with the watermark before it.
pub(crate) const COPIED_BYTES: u64 = 32 << 10;
/// How far behind the end of the records the last copies may lie, and what follows a jump over them:
/// twice the most that a stretch of records and copies takes (see `writer/stored.rs`).
const SPAN_BYTES: u64 = 4 * (COPIED_BYTES + 2 * PAGE_BYTES);
/// How far behind the end of the records the page may begin in which the log goes on.
const JUMP_BYTES: u64 = SPAN_BYTES / 2;

/// The type in a copy's header: that of no record.
const COPY_TYPE: u8 = 4;
/// Bytes before the copied ones: the header, `synced` and `from`.
pub(crate) const COPY_HEADER_BYTES: usize = RECORD_HEADER_BYTES + 16;

/// What ties the copy at `offset` of segment `number` to that place, and tells it from a record there.
fn place(number: FileNumber, offset: u64) -> u64 {
    !format::place(number, offset)
}

/// Bytes that the copy of a group of `group_bytes` takes.
pub(crate) const fn copy_bytes(group_bytes: u64) -> u64 {
    (COPY_HEADER_BYTES as u64 + group_bytes).next_multiple_of(RECORD_ALIGNMENT)
}

/// A group that was synced together with a copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Where the records before the group end; everything below was on stable storage already.
    pub(crate) synced_bytes: u64,
    /// Where the group stands.
    pub(crate) from: u64,
    /// The group.
    pub(crate) bytes: Vec<u8>,
    /// Where the copy stands.
    pub(crate) place: Range<u64>,
}

impl Copy {
    /// The copy's bytes at `offset` of segment `number`, appended to `out`.
    pub(crate) fn encode(
        number: FileNumber,
        offset: u64,
        (synced_bytes, from): (u64, u64),
        group: &[u8],
        out: &mut Vec<u8>,
    ) {
        let header_at = out.len();
        out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        out.extend_from_slice(&synced_bytes.to_le_bytes());
        out.extend_from_slice(&from.to_le_bytes());
        out.extend_from_slice(group);
        let payload = &out[header_at + RECORD_HEADER_BYTES..];
        let header = format::encode_header_at(place(number, offset), COPY_TYPE, payload);
        out[header_at..header_at + RECORD_HEADER_BYTES].copy_from_slice(&header);
        let end = header_at + copy_bytes(group.len() as u64) as usize;
        out.resize(end, 0);
    }

    /// The copy at the front of `bytes`, which stand at `offset`, if a whole one stands there.
    fn decode(bytes: &[u8], number: FileNumber, offset: u64) -> Option<Self> {
        if u32_at(bytes, 8) != Some(u32::from(COPY_TYPE)) {
            return None;
        }
        let header = RecordHeader::decode_at(bytes, place(number, offset))?;
        let payload = bytes.get(RECORD_HEADER_BYTES..)?;
        let payload = payload.get(..header.payload_bytes)?;
        if !header.verifies(payload) {
            return None;
        }
        let group = payload.get(16..)?;
        Some(Self {
            synced_bytes: u64_at(payload, 0)?,
            from: u64_at(payload, 8)?,
            bytes: group.to_vec(),
            place: offset..offset + copy_bytes(group.len() as u64),
        })
    }

    /// Whether the record that should stand at `offset`, where the log seems to end, is one of the group:
    /// in it, or the first of it behind a jump.
    fn covers(&self, offset: u64) -> bool {
        let end = self.from.saturating_add(self.bytes.len() as u64);
        (self.from..end).contains(&offset) || self.synced_bytes == offset
    }
}

/// What copies say about the end of the log.
#[derive(Debug, Default)]
pub(crate) struct CopyFindings {
    /// A copy of the group in which the next record stands.
    pub(crate) covering: Option<Copy>,
    /// Everything below was synced; 0 where no copy says anything.
    pub(crate) synced_bytes: u64,
    /// Where whole copies stand, in order.
    pub(crate) places: Vec<Range<u64>>,
}

/// Looks for copies behind `offset`, where no whole record stands.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn find(
    file: &dyn RandomAccessFile,
    path: &Path,
    number: FileNumber,
    offset: u64,
    limit: u64,
) -> Result<CopyFindings> {
    if offset >= limit {
        return Ok(CopyFindings::default());
    }
    let end = limit.min(offset.saturating_add(SPAN_BYTES + copy_bytes(COPIED_BYTES)));
    let mut window = vec![0; end.saturating_sub(offset) as usize];
    file.read_exact_at(&mut window, offset)
        .map_err(|e| Error::io("read the log segment", path, e).with_offset(offset))?;
    let mut findings = CopyFindings::default();
    let mut at = 0;
    while let Some(bytes) = window.get(at..).filter(|bytes| !bytes.is_empty()) {
        let Some(copy) = Copy::decode(bytes, number, offset + at as u64) else {
            at += RECORD_ALIGNMENT as usize;
            continue;
        };
        at += (copy.place.end - copy.place.start) as usize;
        findings.synced_bytes = findings.synced_bytes.max(copy.synced_bytes);
        findings.places.push(copy.place.clone());
        if copy.covers(offset) {
            findings.covering = Some(copy);
        }
    }
    Ok(findings)
}

/// The places where the log may go on behind the copies where its records end at `offset`.
pub(crate) fn jumps(offset: u64, limit: u64) -> impl Iterator<Item = u64> {
    let first = (offset + 1).next_multiple_of(PAGE_BYTES);
    let end = limit.min(offset.saturating_add(JUMP_BYTES));
    (first..end).step_by(PAGE_BYTES as usize)
}
