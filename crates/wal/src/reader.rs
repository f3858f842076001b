//! Streaming the records of a segment back.
//!
//! Invariants: memory is bounded by the read buffer and the largest record, and a record's stated
//! length is believed only after its header's checksum held and only as far as the file reaches
//! (I10). What is returned is a prefix of what was appended; how it ended is the tail policy's
//! verdict. The callers are db's recovery, the manifest and the `dump` verbs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_base::filename::FileNumber;
use esker_base::{Error, ErrorKind, Result};
use esker_vfs::fs::{FileSystem, RandomAccessFile};

use crate::copies::CopyFindings;
use crate::format::{
    FEATURE_SYNCED_COPIES, FEATURE_SYNCED_NOTE, FIRST_RECORD_OFFSET, HEADER_PAGE_BYTES, HeaderPage,
    NOTE_OFFSET, RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader, RecordType,
    SECOND_NOTE_OFFSET, SyncedRecord, decode_note,
};
use crate::segment::{SegmentHeader, read_header_page};
use crate::tail::{SegmentEnd, Tail};

mod restored;

/// How much is read at once.
const BUFFER_BYTES: u64 = 64 << 10;
/// Types from here on may be skipped by a reader that does not know them.
const FIRST_SKIPPABLE_TYPE: u8 = 128;

/// The reading end of one segment.
#[derive(Debug)]
pub struct SegmentReader {
    file: Arc<dyn RandomAccessFile>,
    path: PathBuf,
    page: HeaderPage,
    header: SegmentHeader,
    file_bytes: u64,
    /// Records end here: the end of the file, or what the header says where the file is longer and cannot
    /// have grown.
    limit: u64,
    /// Everything below was synced, as the note says; 0 where there is none.
    noted_bytes: u64,
    buffer: Vec<u8>,
    /// The offset of the buffer's first byte.
    buffer_offset: u64,
    /// The offset of the record returned last.
    offset: u64,
    /// The offset after the last whole record.
    end_offset: u64,
    synced_bytes: u64,
    /// The record to be returned, which the buffer holds.
    found: Option<(u64, RecordHeader)>,
    outcome: Option<SegmentEnd>,
    /// What was taken from copies, since it does not stand in its place.
    restored: Vec<restored::Restored>,
}

/// What stands at an offset.
enum Found {
    Record(RecordHeader),
    Nothing,
}

impl SegmentReader {
    /// Opens the segment at `path` and verifies its header.
    ///
    /// # Errors
    /// Whatever the file system says; [`ErrorKind::Corruption`] naming file and offset where the
    /// header page is damaged or not that of segment `expected_number`; [`ErrorKind::Unsupported`]
    /// where only a later version can read it.
    pub fn open(fs: &dyn FileSystem, path: &Path, expected_number: FileNumber) -> Result<Self> {
        let page = read_header_page(fs, path, expected_number)?;
        let file = fs
            .open_read(path)
            .map_err(|e| Error::io("open the log segment", path, e))?;
        let file_bytes = file
            .len()
            .map_err(|e| Error::io("measure the log segment", path, e))?;
        file.sequential(true);
        let limit = page.limit(file_bytes);
        let first = page.first_record_offset();
        let noted_bytes = read_note(&*file, path, &page, file_bytes)?;
        Ok(Self {
            file,
            path: path.to_path_buf(),
            page,
            header: SegmentHeader {
                number: page.number,
                first_sequence: page.first_sequence,
                previous: page.previous,
            },
            file_bytes,
            limit,
            noted_bytes,
            buffer: Vec::new(),
            buffer_offset: first,
            offset: first,
            end_offset: first,
            synced_bytes: noted_bytes.max(first),
            found: None,
            outcome: None,
            restored: Vec::new(),
        })
    }

    /// Opens what stands under the name of segment `number` and has no header page that verifies, to
    /// salvage its records, which say themselves that they are of that segment: the outcome is
    /// [`Damaged`](SegmentEnd::Damaged) at once, and [`SegmentReader::skip_damage`] finds them.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open_without_header(
        fs: &dyn FileSystem,
        path: &Path,
        number: FileNumber,
    ) -> Result<Self> {
        let file = fs
            .open_read(path)
            .map_err(|e| Error::io("open the log segment", path, e))?;
        let file_bytes = file
            .len()
            .map_err(|e| Error::io("measure the log segment", path, e))?;
        let page = HeaderPage {
            number,
            incompatible_features: FEATURE_SYNCED_NOTE | FEATURE_SYNCED_COPIES,
            ..HeaderPage::default()
        };
        let noted_bytes = read_note(&*file, path, &page, file_bytes)?;
        // The first place where a record may stand lies one step further, with a note or without.
        let before_first = HEADER_PAGE_BYTES as u64 - RECORD_ALIGNMENT;
        Ok(Self {
            file,
            path: path.to_path_buf(),
            page,
            header: SegmentHeader {
                number,
                ..SegmentHeader::default()
            },
            file_bytes,
            limit: file_bytes,
            noted_bytes,
            buffer: Vec::new(),
            buffer_offset: before_first,
            offset: before_first,
            end_offset: before_first,
            synced_bytes: noted_bytes,
            found: None,
            outcome: Some(SegmentEnd::Damaged {
                offset: 0,
                synced_bytes: noted_bytes,
                reason: "the header page is damaged".to_owned(),
            }),
            restored: Vec::new(),
        })
    }

    /// After a [`Damaged`](SegmentEnd::Damaged) outcome: finds the next whole record behind the damage,
    /// with which [`SegmentReader::next`] then goes on. Says how many bytes were passed over, or `None`
    /// where no record follows.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn skip_damage(&mut self) -> Result<Option<u64>> {
        let damaged_at = self.end_offset;
        if !matches!(self.outcome, Some(SegmentEnd::Damaged { .. })) {
            return Ok(None);
        }
        // Payloads that do not verify may be hashed up to this many bytes, so that no file takes
        // longer than a few times its length (I10).
        let mut budget = self.limit.saturating_mul(4);
        let mut at = damaged_at + RECORD_ALIGNMENT;
        while self.fill(at, RECORD_HEADER_BYTES as u64)? {
            let bytes = self.buffer.get((at - self.buffer_offset) as usize..);
            let header = RecordHeader::decode(bytes.unwrap_or_default(), self.page.number, at);
            if let Some(header) = header {
                let Some(left) = budget.checked_sub(header.payload_bytes as u64) else {
                    break;
                };
                budget = left;
                if matches!(self.find(at)?, Found::Record(_)) {
                    self.end_offset = at;
                    self.outcome = None;
                    return Ok(Some(at - damaged_at));
                }
            }
            at += RECORD_ALIGNMENT;
        }
        Ok(None)
    }

    /// What the header says.
    #[must_use]
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The length of a preallocated segment, bytes; 0 for a file that grows.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.page.segment_bytes
    }

    /// Where the record that was returned last begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the last whole record ends: after a [`SegmentEnd::Clean`] outcome, where a writer may
    /// go on.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.end_offset
    }

    /// Everything below was synced, as far as the note and the records read so far say.
    #[must_use]
    pub fn synced_bytes(&self) -> u64 {
        self.synced_bytes
    }

    /// How the segment ended; `None` before [`SegmentReader::next`] has returned `None`.
    #[must_use]
    pub fn outcome(&self) -> Option<&SegmentEnd> {
        self.outcome.as_ref()
    }

    /// The next payload; `None` at the end, whose nature [`SegmentReader::outcome`] then tells.
    ///
    /// # Errors
    /// Whatever the file system says, and [`ErrorKind::Unsupported`] for an intact record of a type
    /// that only a later version knows. Damage is an outcome, not an error.
    #[expect(
        clippy::should_implement_trait,
        reason = "a lending iterator is no Iterator"
    )]
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        while self
            .step(true)?
            .is_some_and(|kind| kind != RecordType::Data)
        {}
        Ok(self.found.map(|(at, header)| self.payload(at, &header)))
    }

    /// As [`SegmentReader::next`], with the marks between the payloads; says which of the two it is.
    ///
    /// # Errors
    /// As [`SegmentReader::next`].
    pub fn next_or_mark(&mut self) -> Result<Option<(RecordType, &[u8])>> {
        let kind = self.step(true)?;
        let payload = self.found.map(|(at, header)| self.payload(at, &header));
        Ok(kind.zip(payload))
    }

    /// As [`SegmentReader::next_or_mark`], of a segment that is still written to: where no whole record
    /// stands yet there is no verdict, and the next call looks again. A record that is found may not be
    /// committed: the caller knows how far they are.
    ///
    /// # Errors
    /// As [`SegmentReader::next`].
    pub fn next_written(&mut self) -> Result<Option<(RecordType, &[u8])>> {
        let kind = self.step(false)?;
        let payload = self.found.map(|(at, header)| self.payload(at, &header));
        Ok(kind.zip(payload))
    }

    /// Goes back before the record that was returned last, which is then returned once more. Without
    /// one, forgets what was read ahead of it all the same.
    pub fn step_back(&mut self) {
        if self.found.take().is_some() {
            self.end_offset = self.offset;
        }
        self.refresh();
    }

    /// Forgets what was read ahead: a writer may have gone on since.
    fn refresh(&mut self) {
        self.buffer.clear();
        self.buffer_offset = self.end_offset;
        // It may have grown as well. Where that cannot be asked now, the next look asks again.
        if let Ok(bytes) = self.file.len() {
            self.file_bytes = self.file_bytes.max(bytes);
            self.limit = self.limit.max(self.page.limit(bytes));
        }
    }

    /// Goes to the next record of the caller's, or the next mark. Where none stands, the verdict is
    /// wanted or not.
    fn step(&mut self, judges: bool) -> Result<Option<RecordType>> {
        self.found = None;
        while self.outcome.is_none() {
            let mut at = self.end_offset;
            let mut found = self.find(at)?;
            if !judges && matches!(found, Found::Nothing) {
                self.refresh();
                found = self.find(at)?;
            }
            if matches!(found, Found::Nothing) && self.page.has_copies() {
                (at, found) = self.find_beyond(at)?;
            }
            let mut from_copies = CopyFindings::default();
            if matches!(found, Found::Nothing) && self.page.has_copies() && judges {
                (at, found) = self.find_in_copies(at, &mut from_copies)?;
            }
            let Found::Record(header) = found else {
                if judges {
                    self.outcome = Some(self.judge(from_copies)?);
                }
                break;
            };
            let end_offset = at + header.record_bytes();
            self.offset = at;
            let callers = [RecordType::Data, RecordType::Mark];
            let kind = callers
                .into_iter()
                .find(|&kind| kind as u8 == header.record_type);
            if kind.is_some() {
                self.end_offset = end_offset;
                self.found = Some((at, header));
                return Ok(kind);
            }
            match SyncedRecord::decode(header.record_type, self.payload(at, &header)) {
                Some(record) => {
                    self.synced_bytes = self.synced_bytes.max(record.synced_bytes);
                    self.outcome = record.end.map(|next| SegmentEnd::Sealed { next });
                }
                None if header.record_type >= FIRST_SKIPPABLE_TYPE => {}
                None => return Err(self.unknown(header.record_type)),
            }
            self.end_offset = end_offset;
        }
        Ok(None)
    }

    fn unknown(&self, record_type: u8) -> Error {
        let message = format!("log record type {record_type} needs a later version of esker");
        Error::new(ErrorKind::Unsupported, message)
            .with_file(&self.path)
            .with_offset(self.offset)
    }

    /// The payload of the record at `at`, which [`SegmentReader::find`] has buffered.
    fn payload(&self, at: u64, header: &RecordHeader) -> &[u8] {
        let start = (at - self.buffer_offset) as usize + RECORD_HEADER_BYTES;
        self.buffer
            .get(start..start + header.payload_bytes)
            .unwrap_or_default()
    }

    /// Buffers and verifies the record at `at`.
    fn find(&mut self, at: u64) -> Result<Found> {
        if !self.fill(at, RECORD_HEADER_BYTES as u64)? {
            return Ok(Found::Nothing);
        }
        let bytes = self
            .buffer
            .get((at - self.buffer_offset) as usize..)
            .unwrap_or_default();
        let Some(header) = RecordHeader::decode(bytes, self.page.number, at) else {
            return Ok(Found::Nothing);
        };
        let bytes = (RECORD_HEADER_BYTES + header.payload_bytes) as u64;
        if !self.fill(at, bytes)? || !header.verifies(self.payload(at, &header)) {
            return Ok(Found::Nothing);
        }
        Ok(Found::Record(header))
    }

    /// Makes the buffer hold `bytes` from `at` on; `false` where the records cannot reach so far.
    fn fill(&mut self, at: u64, bytes: u64) -> Result<bool> {
        let Some(end) = at.checked_add(bytes).filter(|&end| end <= self.limit) else {
            return Ok(false);
        };
        if at >= self.buffer_offset && end <= self.buffer_offset + self.buffer.len() as u64 {
            return Ok(true);
        }
        let read_end = self.limit.min(end.max(at + BUFFER_BYTES));
        if self.buffer.len() as u64 > 2 * BUFFER_BYTES.max(read_end - at) {
            self.buffer = Vec::new();
        }
        self.buffer.resize((read_end - at) as usize, 0);
        self.buffer_offset = at;
        self.file
            .read_exact_at(&mut self.buffer, at)
            .map_err(|e| Error::io("read the log segment", &self.path, e).with_offset(at))?;
        Ok(true)
    }

    fn judge(&self, copies: CopyFindings) -> Result<SegmentEnd> {
        let (file, path, offset) = (&self.file, self.path.as_path(), self.end_offset);
        let (header, file_bytes) = (&self.page, self.file_bytes);
        let proven_bytes = self.noted_bytes.max(copies.synced_bytes);
        Tail {
            file,
            path,
            header,
            file_bytes,
            proven_bytes,
            copies: copies.places,
            offset,
        }
        .judge()
    }
}

/// How far the segment was synced according to its notes; 0 where it has none.
fn read_note(
    file: &dyn RandomAccessFile,
    path: &Path,
    page: &HeaderPage,
    file_bytes: u64,
) -> Result<u64> {
    // A read behind the end is an error even of no bytes.
    if !page.has_note() || file_bytes <= NOTE_OFFSET {
        return Ok(0);
    }
    let mut notes = [0; (FIRST_RECORD_OFFSET - NOTE_OFFSET) as usize];
    let there = file_bytes.saturating_sub(NOTE_OFFSET);
    let there = notes
        .len()
        .min(usize::try_from(there).unwrap_or(usize::MAX));
    file.read_exact_at(&mut notes[..there], NOTE_OFFSET)
        .map_err(|e| Error::io("read the log segment", path, e).with_offset(NOTE_OFFSET))?;
    let said = [NOTE_OFFSET, SECOND_NOTE_OFFSET].map(|offset| {
        let note = notes.get((offset - NOTE_OFFSET) as usize..there);
        note.and_then(|note| decode_note(note, page.number, offset))
    });
    Ok(said.into_iter().flatten().max().unwrap_or(0))
}
