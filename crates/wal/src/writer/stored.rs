//! Appends that are on stable storage when they return: where they and their copies go.
//!
//! Invariants: a group and its copy share no page and are stored by one write, which changes no byte of
//! the copy before it: until that copy's sync is proven otherwise, it is all that tells damage to its
//! records from a sync that never returned (I4). So within a stretch records go up and copies go down.
//! Where they meet, or where records come that are not stored, the log goes on behind the copies, with a
//! watermark that says where it came from. An end record always fits in front of the copies.

use std::io;
use std::ops::Range;

use esker_base::{Error, Result};

use super::{SegmentWriter, SyncMode};
use crate::copies::{COPIED_BYTES, Copy, PAGE_BYTES, copy_bytes};
use crate::format::{self, END_RECORD_BYTES, RecordType, WATERMARK_RECORD_BYTES};

/// The copies of one stretch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copies {
    /// Where the newest begins.
    low: u64,
    /// Where the oldest ends, and the log may go on.
    top: u64,
}

/// What the file holds from the first record of a stretch to the end of its copies, so that groups can be
/// written as whole pages. Kept of stretches that begin with a page, as all do that follow another.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    offset: u64,
    bytes: Vec<u8>,
}

impl Stretch {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// Takes in a group with its copy, and the zeros between them, that go to `offset` of the stretch that
    /// ends at `top`. Returns the pages that hold them, where the first of these begins, and where in them the
    /// group with its copy is; `None` where it is not only they that are to be written, or the rest of their
    /// pages is not known.
    fn take_in(
        &mut self,
        offset: u64,
        group: &[u8],
        top: u64,
    ) -> Option<(u64, &[u8], Range<usize>)> {
        let page = PAGE_BYTES as usize;
        let end = offset + group.len() as u64;
        if end >= top {
            // The first of its stretch, with zeros behind it, or a group without a copy.
            self.bytes.clear();
            if offset.is_multiple_of(PAGE_BYTES) && top > offset {
                self.offset = offset;
                self.bytes
                    .extend_from_slice(&group[..(top - offset) as usize]);
            }
            return (end == top && !self.bytes.is_empty()).then_some((
                offset,
                &self.bytes,
                0..group.len(),
            ));
        }
        if self.end() != top || self.bytes.is_empty() {
            return None;
        }
        let from = (offset - self.offset) as usize;
        let to = from + group.len();
        self.bytes[from..to].copy_from_slice(group);
        let (first, last) = (from / page * page, to.next_multiple_of(page));
        let at = self.offset + first as u64;
        Some((at, &self.bytes[first..last], from - first..to - first))
    }
}

/// Where a group goes.
struct Placement {
    from: u64,
    has_watermark: bool,
    copies: Option<Copies>,
}

impl SegmentWriter {
    /// Where the next record goes at the latest, what precedes it included.
    pub(super) fn next_offset(&self) -> u64 {
        match self.copies {
            Some(copies) => copies.top + WATERMARK_RECORD_BYTES,
            None if self.is_copied_and_bare() => self.bytes + WATERMARK_RECORD_BYTES,
            None => self.bytes,
        }
    }

    /// Whether no watermark of the last sync stands behind its records, though there is something to
    /// say.
    fn is_copied_and_bare(&self) -> bool {
        let begins = self.bytes == self.first_record_offset;
        self.options.copied_syncs && self.bytes == self.synced_bytes && !begins
    }

    /// Writes records so that they are on stable storage when it returns, where everything before them
    /// is but for the watermark of the last sync. That one is written in front of them, once more where
    /// it stands there: nothing behind it would be found without it.
    pub(super) fn store(&mut self, mark: Option<&[u8]>, payloads: &[&[u8]]) -> Result<()> {
        let synced_bytes = self.synced_bytes;
        let records = mark.iter().chain(payloads);
        let bytes = records.map(|record| format::record_bytes(record.len()));
        let placement = self.place_group(bytes.sum());
        self.assembly_offset = placement.from;
        self.bytes = placement.from;
        if placement.has_watermark {
            let watermark = format::encode_watermark(synced_bytes);
            self.assemble(RecordType::Watermark, &watermark)?;
        }
        if let Some(mark) = mark {
            self.assemble(RecordType::Mark, mark)?;
        }
        for payload in payloads {
            self.assemble(RecordType::Data, payload)?;
        }
        match placement.copies {
            Some(copies) => self.assemble_copy((synced_bytes, placement.from), copies),
            None => self.assemble_zeros(),
        }
        self.copies = placement.copies;
        let assembly = std::mem::take(&mut self.assembly);
        let outcome = self.write_group(&assembly);
        let end = self.assembly_offset + assembly.len() as u64;
        self.keep(assembly);
        outcome.map_err(|e| Error::io("write and sync the log segment", &self.path, e))?;
        self.prewritten_bytes = self.prewritten_bytes.max(end);
        self.stored_bytes = self.bytes;
        Ok(())
    }

    /// Writes what is assembled, as whole pages where the rest of them is known.
    fn write_group(&mut self, group: &[u8]) -> io::Result<()> {
        let offset = self.assembly_offset;
        let top = self.copies.map_or(0, |copies| copies.top);
        match self.stretch.take_in(offset, group, top) {
            Some((at, pages, changed)) => self.file.write_synced_within(at, pages, changed),
            None => self.file.write_synced_at(offset, group),
        }
    }

    /// Adds the copy of what is assembled. The first of a stretch also brings the zeros ahead.
    fn assemble_copy(&mut self, place: (u64, u64), copies: Copies) {
        let mut assembly = std::mem::take(&mut self.assembly);
        let group = assembly.clone();
        assembly.resize((copies.low - self.assembly_offset) as usize, 0);
        Copy::encode(self.header.number, copies.low, place, &group, &mut assembly);
        let is_first = self.copies.is_none_or(|before| before.top != copies.top);
        let zeros = self.options.zero_ahead_bytes;
        if is_first && zeros > 0 && copies.top > self.prewritten_bytes {
            let end = (copies.top + zeros).min(self.options.segment_bytes);
            assembly.resize((end.max(copies.top) - self.assembly_offset) as usize, 0);
        }
        self.assembly = assembly;
    }

    fn place_group(&self, record_bytes: u64) -> Placement {
        let synced = self.synced_bytes;
        if !self.options.copied_syncs {
            return Placement {
                from: synced,
                has_watermark: self.bytes > synced,
                copies: None,
            };
        }
        let has_watermark = synced > self.first_record_offset;
        let watermark_bytes = if has_watermark {
            WATERMARK_RECORD_BYTES
        } else {
            0
        };
        let group_bytes = record_bytes + watermark_bytes;
        let bytes = copy_bytes(group_bytes);
        let first_page =
            |from: u64| (from + group_bytes + END_RECORD_BYTES).next_multiple_of(PAGE_BYTES);
        let is_small = group_bytes <= COPIED_BYTES;
        if let Some(Copies { low, top }) = self.copies.filter(|_| is_small)
            && first_page(synced) + bytes <= low
        {
            return Placement {
                from: synced,
                has_watermark,
                copies: Some(Copies {
                    low: low - bytes,
                    top,
                }),
            };
        }
        let from = self.copies.map_or(synced, |copies| copies.top);
        let top = first_page(from) + bytes.next_multiple_of(PAGE_BYTES);
        // Behind the length that the header says, nothing would tell that the file was cut, and the copies
        // with the group.
        let fits = is_small && top <= self.first_bytes;
        Placement {
            from,
            has_watermark,
            copies: fits.then_some(Copies {
                low: top - bytes,
                top,
            }),
        }
    }

    /// Goes on behind the copies, where there are any, with records that are not stored: those would
    /// overwrite them before anything else proves the last sync.
    #[inline]
    pub(super) fn leave_copies(&mut self, mode: SyncMode) -> Result<()> {
        match self.copies.take() {
            None => Ok(()),
            Some(copies) => self.jump(copies.top, mode),
        }
    }

    #[cold]
    fn jump(&mut self, to: u64, mode: SyncMode) -> Result<()> {
        debug_assert_eq!(self.bytes, self.stored_bytes);
        let watermark = format::encode_watermark(self.bytes);
        self.bytes = to;
        if mode == SyncMode::Buffered && self.window.is_some() {
            return self.copy_record(RecordType::Watermark, &watermark);
        }
        self.assemble(RecordType::Watermark, &watermark)
    }
}
