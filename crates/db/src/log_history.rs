//! The log as a history: archived and live segments read in order, with every hole noticed.
//!
//! Invariants: batches come in the order of their sequence numbers, each whole and once, and only those
//! that count: what a later segment says never happened (writes that failed, the end of a log that a
//! crash tore) is left out. Where a number is missing that was given to a write, the reader answers
//! `Gap` and names it; nothing is skipped silently. Called by restores to a point and by feeds.

use crate::archive::end_of;
use crate::archived_segment::ArchivedSegment;
use crate::log_mark::{Mark, Reasons};
use crate::validate::is_refusal;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::write_batch::BatchView;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_vfs::FileSystem;
use esker_wal::{RecordType, SegmentEnd, SegmentReader};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that holds a part of the log.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    number: FileNumber,
    path: PathBuf,
    /// The last number in it; not known of a live segment.
    last_sequence: Option<SequenceNumber>,
}

impl LogFile {
    pub(crate) fn archived(segment: &ArchivedSegment) -> Self {
        Self {
            number: segment.number(),
            path: segment.path().to_path_buf(),
            last_sequence: Some(segment.last_sequence()),
        }
    }

    pub(crate) fn live(directory: &Path, number: FileNumber) -> Self {
        Self {
            number,
            path: wal_path(directory, number),
            last_sequence: None,
        }
    }
}

/// What comes next in the history.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A batch, the next in order, the bytes of it, and the time from which on it was committed, at most
    /// 100 ms before; `None` where no mark says.
    Batch(BatchView<'a>, &'a [u8], Option<u64>),
    /// What follows was committed at this time or later, with other keyspaces perhaps.
    Mark(&'a Mark),
}

/// A file with the number from which on nothing in it counts.
#[derive(Debug)]
struct Cut {
    file: LogFile,
    at: SequenceNumber,
}

/// What a recovery found: in segments up to `segment` no record from `sequence` on was taken up, nor ever
/// will be. Until this life's first mark says so, nothing on the disk does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct VoidFrom {
    pub(crate) segment: FileNumber,
    pub(crate) sequence: SequenceNumber,
    /// The last number that was given before this life.
    pub(crate) last_given: SequenceNumber,
}

impl VoidFrom {
    /// From which number on nothing in a segment counts.
    pub(crate) fn in_segment(self, number: FileNumber) -> SequenceNumber {
        match number <= self.segment {
            true => self.sequence,
            false => SequenceNumber::MAX,
        }
    }
}

/// Writes that are in no log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing {
    pub(crate) first: SequenceNumber,
    pub(crate) last: SequenceNumber,
    pub(crate) reasons: Reasons,
}

/// A reader of the history from one sequence number on.
#[derive(Debug)]
pub(crate) struct LogHistory {
    fs: Arc<dyn FileSystem>,
    /// What is still to be read, the next one last.
    waiting: Vec<Cut>,
    reading: Option<(SegmentReader, Cut)>,
    /// The number that comes next.
    expected: SequenceNumber,
    /// The last number that may be returned: what stands behind it may not be committed.
    until: SequenceNumber,
    /// The segment that a writer may go on in.
    growing: Option<FileNumber>,
    /// Whether the last file is known to have a first record, so that it is known what it says of those
    /// before it.
    is_whole: bool,
    /// Whether the first number that is wanted may lie within a batch.
    begins_within: bool,
    /// Whether a record was not returned for its being behind `until`.
    is_held_back: bool,
    missing: Option<Missing>,
    payload: Vec<u8>,
    mark: Mark,
    /// The time of the last mark, those before the beginning included.
    millis: Option<u64>,
}

impl LogHistory {
    /// The history of the writes after `base`, as far as `files` hold it.
    ///
    /// # Errors
    /// Where a file cannot be read, or its header page is damaged.
    pub(crate) fn after(
        fs: &Arc<dyn FileSystem>,
        files: impl IntoIterator<Item = LogFile>,
        base: SequenceNumber,
    ) -> Result<Self> {
        let mut by_number: BTreeMap<FileNumber, LogFile> = BTreeMap::new();
        for file in files {
            let known = by_number.remove(&file.number);
            let file = match known {
                Some(known) => fuller(&**fs, known, file)?,
                None => file,
            };
            by_number.insert(file.number, file);
        }
        let is_needed = |file: &LogFile| file.last_sequence.is_none_or(|last| last >= base);
        let mut waiting = Vec::new();
        let mut at = SequenceNumber::MAX;
        let mut is_whole = true;
        for file in by_number.into_values().rev().filter(is_needed) {
            let first = first_number(&**fs, &file)?;
            is_whole &= first.is_some() || !waiting.is_empty();
            waiting.push(Cut { file, at });
            at = at.min(first.unwrap_or(at));
        }
        Ok(Self {
            fs: Arc::clone(fs),
            waiting,
            reading: None,
            expected: base + 1,
            until: SequenceNumber::MAX,
            growing: None,
            is_whole,
            begins_within: false,
            is_held_back: false,
            missing: None,
            payload: Vec::new(),
            mark: Mark::default(),
            millis: None,
        })
    }

    /// For a database that is open: segment `growing` may still be written to, and of what earlier lives
    /// have left nothing from `void` on counts.
    pub(crate) fn following(
        mut self,
        growing: Option<FileNumber>,
        void: VoidFrom,
        begins_within: bool,
    ) -> Self {
        self.growing = growing;
        self.begins_within = begins_within;
        for cut in &mut self.waiting {
            cut.at = cut.at.min(void.in_segment(cut.file.number));
        }
        // Nothing in the files before counts, and they are complete.
        let is_past = |cut: &Cut| {
            let last = cut.file.last_sequence;
            last.is_some_and(|last| last < self.expected)
        };
        while self.waiting.last().is_some_and(is_past) {
            self.waiting.pop();
        }
        self
    }

    /// Goes on with the reader of `other`, which has read up to where this one begins, where that reads
    /// the first file of this one.
    pub(crate) fn take_over(&mut self, other: Self) {
        let Some((mut reader, old)) = other.reading else {
            return;
        };
        let is_same =
            |cut: &Cut| cut.file.number == old.file.number && cut.file.path == old.file.path;
        if other.expected != self.expected
            || reader.outcome().is_some()
            || !self.waiting.iter().any(is_same)
        {
            return;
        }
        while let Some(cut) = self.waiting.pop() {
            if is_same(&cut) {
                reader.step_back();
                self.millis = other.millis;
                self.reading = Some((reader, cut));
                return;
            }
        }
    }

    /// Whether what the files say of each other is complete: the last one has a first record.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Sets the last number that may be returned: that of the last write that readers see.
    pub(crate) fn set_until(&mut self, until: SequenceNumber) {
        self.until = until;
        self.is_held_back = false;
    }

    /// Whether a record stands next that is behind the last number that may be returned.
    pub(crate) fn is_held_back(&self) -> bool {
        self.is_held_back
    }

    /// What is missing, after a `Gap`.
    pub(crate) fn missing(&self) -> Option<Missing> {
        self.missing
    }

    /// The file that is read and where its next record begins.
    pub(crate) fn place(&self) -> Option<(FileNumber, &Path, u64)> {
        let (reader, cut) = self.reading.as_ref()?;
        Some((cut.file.number, &cut.file.path, reader.end_offset()))
    }

    /// With nobody writing and nothing left to be read: whether the file that is read is damaged.
    ///
    /// # Errors
    /// `Corruption` where it is.
    pub(crate) fn judge(&mut self) -> Result<()> {
        let Some((reader, cut)) = &mut self.reading else {
            return Ok(());
        };
        match reader.next_or_mark()? {
            Some(_) => {
                reader.step_back();
                Ok(())
            }
            None => check_end(reader, &cut.file),
        }
    }

    /// Everything before this number has been returned.
    pub(crate) fn next_sequence(&self) -> SequenceNumber {
        self.expected
    }

    /// The next batch or mark; `None` at the end of what there is.
    ///
    /// # Errors
    /// `Gap` where writes are missing, `Corruption` where a file is damaged.
    pub(crate) fn next(&mut self) -> Result<Option<Event<'_>>> {
        loop {
            let Some((reader, cut)) = &mut self.reading else {
                if !self.open_next()? {
                    return Ok(None);
                }
                continue;
            };
            let path = &cut.file.path;
            let grows = self.growing == Some(cut.file.number);
            let offset = reader.end_offset();
            let found = match grows {
                true => reader.next_written()?,
                false => reader.next_or_mark()?,
            };
            let Some((kind, payload)) = found else {
                if grows && reader.outcome().is_none() {
                    return Ok(None);
                }
                check_end(reader, &cut.file)?;
                self.reading = None;
                continue;
            };
            let placed = |error: Error| error.with_file(path).with_offset(offset);
            let is_mark = kind == RecordType::Mark;
            if is_mark {
                self.mark = Mark::decode(payload).map_err(placed)?;
                let next = self.mark.next;
                if next > cut.at {
                    continue;
                }
                if next > self.until.saturating_add(1) {
                    self.is_held_back = true;
                    reader.step_back();
                    return Ok(None);
                }
                self.millis = Some(self.mark.millis);
                if next < self.expected {
                    continue;
                }
                self.check_mark()?;
                self.expected = next;
                return Ok(Some(Event::Mark(&self.mark)));
            }
            self.payload.clear();
            self.payload.extend_from_slice(payload);
            let batch = BatchView::parse(&self.payload).map_err(placed)?;
            let (first, end) = (batch.sequence(), end_of(&batch));
            if first >= cut.at || end <= self.expected {
                continue;
            }
            if end - 1 > self.until {
                self.is_held_back = true;
                reader.step_back();
                return Ok(None);
            }
            if first > self.expected {
                return Err(self.is_missing(first - 1, Reasons::default()));
            }
            if first < self.expected && !self.begins_within {
                let sentence = format!("a backup ends within the batch {first} to {}", end - 1);
                return Err(Error::corruption(sentence).with_file(path));
            }
            self.expected = end;
            self.begins_within = false;
            // Parsed once more: the first view would be borrowed for all turns of the loop.
            let batch = BatchView::parse(&self.payload)?;
            return Ok(Some(Event::Batch(batch, &self.payload, self.millis)));
        }
    }

    /// Whether the numbers before a mark are accounted for.
    fn check_mark(&mut self) -> Result<()> {
        let (from, next) = (self.mark.unlogged_from, self.mark.next);
        if from > self.expected {
            return Err(self.is_missing(from - 1, Reasons::default()));
        }
        if next > self.expected && !self.mark.reasons.are_void() {
            return Err(self.is_missing(next - 1, self.mark.reasons));
        }
        Ok(())
    }

    fn is_missing(&mut self, last: SequenceNumber, reasons: Reasons) -> Error {
        let first = self.expected;
        self.missing = Some(Missing {
            first,
            last,
            reasons,
        });
        gap(first, last, reasons)
    }

    fn open_next(&mut self) -> Result<bool> {
        let Some(cut) = self.waiting.pop() else {
            return Ok(false);
        };
        let reader = SegmentReader::open(&*self.fs, &cut.file.path, cut.file.number)?;
        self.reading = Some((reader, cut));
        Ok(true)
    }
}

/// The writes `first` to `last` are missing.
pub(crate) fn gap(first: SequenceNumber, last: SequenceNumber, reasons: Reasons) -> Error {
    let why = reasons.sentence();
    let sentence = match first == last {
        true => format!("write {first} is in no log that is left: {why}"),
        false => format!("writes {first} to {last} are in no log that is left: {why}"),
    };
    Error::new(ErrorKind::Gap, sentence)
}

/// Which of two copies of a segment is to be read: the one that holds more, since a crash may leave less in
/// the log than was archived, and a copy without what failed may be outlived by it; of equal ones the
/// archived, which is known to be whole.
fn fuller(fs: &dyn FileSystem, one: LogFile, other: LogFile) -> Result<LogFile> {
    let rank = |file: &LogFile| -> Result<_> {
        Ok(match file.last_sequence {
            Some(last) => (last, true),
            None => (last_number(fs, file)?, false),
        })
    };
    Ok(if rank(&other)? > rank(&one)? {
        other
    } else {
        one
    })
}

/// The last number in a file of the log, as its copy in the archive would be named; 0 where nothing in it can
/// be read, or it is not there any more.
fn last_number(fs: &dyn FileSystem, file: &LogFile) -> Result<SequenceNumber> {
    let mut next = None;
    let mut read = || -> Result<()> {
        let mut reader = SegmentReader::open(fs, &file.path, file.number)?;
        while let Some((kind, payload)) = reader.next_or_mark()? {
            if kind == RecordType::Mark {
                next.get_or_insert(Mark::decode(payload)?.next);
            } else {
                next = Some(end_of(&BatchView::parse(payload)?));
            }
        }
        Ok(())
    };
    match read() {
        Err(error) if is_refusal(&error) => return Err(error),
        // There is another copy.
        _ => {}
    }
    Ok(next.map_or(0, |next| next.saturating_sub(1)))
}

/// The number with which a file begins: whatever files before it say of that one and later ones never
/// happened. `None` where it holds nothing.
fn first_number(fs: &dyn FileSystem, file: &LogFile) -> Result<Option<SequenceNumber>> {
    let mut reader = SegmentReader::open(fs, &file.path, file.number)?;
    let named = |error: Error| error.with_file(&file.path);
    Ok(match reader.next_or_mark()? {
        Some((RecordType::Mark, payload)) => {
            Some(Mark::decode(payload).map_err(named)?.unlogged_from)
        }
        Some((_, payload)) => Some(BatchView::parse(payload).map_err(named)?.sequence()),
        None => None,
    })
}

/// How a file may end: an archived one with an end record, a live one as at a recovery.
fn check_end(reader: &SegmentReader, file: &LogFile) -> Result<()> {
    match reader.outcome() {
        Some(SegmentEnd::Damaged { offset, reason, .. }) => {
            let error = Error::corruption(format!("log records are damaged: {reason}"));
            Err(error.with_file(&file.path).with_offset(*offset))
        }
        Some(SegmentEnd::Sealed { .. }) => Ok(()),
        _ if file.last_sequence.is_none() => Ok(()),
        _ => {
            let error = Error::corruption("an archived log segment is cut short");
            Err(error.with_file(&file.path).with_offset(reader.end_offset()))
        }
    }
}
