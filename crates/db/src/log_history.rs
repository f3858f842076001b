//! The log as a history: archived and live segments read in order, with every hole noticed.
//!
//! Invariants: batches come in the order of their sequence numbers, each whole and once, and only those
//! that count: what a later segment says never happened (writes that failed, the end of a log that a
//! crash tore) is left out. Where a number is missing that was given to a write, the reader answers
//! `Gap` and names it; nothing is skipped silently. Called by restores to a point and by feeds.

use crate::archive::{ArchivedSegment, end_of};
use crate::log_mark::{Mark, Reasons};
use esker_base::filename::{FileNumber, wal_path};
use esker_base::write_batch::BatchView;
use esker_base::{Error, ErrorKind, Result, SequenceNumber};
use esker_vfs::FileSystem;
use esker_wal::{RecordType, SegmentEnd, SegmentReader};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
    /// A batch, the next in order, and the time from which on it was committed, at most 100 ms before;
    /// `None` where no mark says.
    Batch(BatchView<'a>, Option<u64>),
    /// What follows was committed at this time or later, with other keyspaces perhaps.
    Mark(&'a Mark),
}

/// A file with the number from which on nothing in it counts.
#[derive(Debug)]
struct Cut {
    file: LogFile,
    at: SequenceNumber,
}

/// A reader of the history from one sequence number on.
#[derive(Debug)]
pub(crate) struct LogHistory<'a> {
    fs: &'a dyn FileSystem,
    /// What is still to be read, the next one last.
    waiting: Vec<Cut>,
    reading: Option<(SegmentReader, Cut)>,
    /// The number that comes next.
    expected: SequenceNumber,
    payload: Vec<u8>,
    mark: Mark,
    /// The time of the last mark, those before the beginning included.
    millis: Option<u64>,
}

impl<'a> LogHistory<'a> {
    /// The history of the writes after `base`, as far as `files` hold it.
    ///
    /// # Errors
    /// Where a file cannot be read, or its header page is damaged.
    pub(crate) fn after(
        fs: &'a dyn FileSystem,
        files: impl IntoIterator<Item = LogFile>,
        base: SequenceNumber,
    ) -> Result<Self> {
        // A segment that a crash left both in the log and in the archive is taken from the archive,
        // where it is known to be whole; of two copies the one that holds more.
        let mut by_number: BTreeMap<FileNumber, LogFile> = BTreeMap::new();
        for file in files {
            let known = by_number.get(&file.number);
            if known.is_none_or(|known| known.last_sequence < file.last_sequence) {
                by_number.insert(file.number, file);
            }
        }
        let is_needed = |file: &LogFile| file.last_sequence.is_none_or(|last| last >= base);
        let mut waiting = Vec::new();
        let mut at = SequenceNumber::MAX;
        for file in by_number.into_values().rev().filter(is_needed) {
            let first = first_number(fs, &file)?;
            waiting.push(Cut { file, at });
            at = at.min(first.unwrap_or(at));
        }
        Ok(Self {
            fs,
            waiting,
            reading: None,
            expected: base + 1,
            payload: Vec::new(),
            mark: Mark::default(),
            millis: None,
        })
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
            let Some((kind, payload)) = reader.next_or_mark()? else {
                check_end(reader, &cut.file)?;
                self.reading = None;
                continue;
            };
            let is_mark = kind == RecordType::Mark;
            if is_mark {
                self.mark = Mark::decode(payload).map_err(|error| error.with_file(path))?;
                let next = self.mark.next;
                if next > cut.at {
                    continue;
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
            let batch = BatchView::parse(&self.payload).map_err(|error| error.with_file(path))?;
            let (first, end) = (batch.sequence(), end_of(&batch));
            if first >= cut.at || end <= self.expected {
                continue;
            }
            if first > self.expected {
                return Err(gap(self.expected, first - 1, Reasons::default()));
            }
            if first < self.expected {
                let sentence = format!("a backup ends within the batch {first} to {}", end - 1);
                return Err(Error::corruption(sentence).with_file(path));
            }
            self.expected = end;
            // Parsed once more: the first view would be borrowed for all turns of the loop.
            let batch = BatchView::parse(&self.payload)?;
            return Ok(Some(Event::Batch(batch, self.millis)));
        }
    }

    /// Whether the numbers before a mark are accounted for.
    fn check_mark(&self) -> Result<()> {
        let (from, next) = (self.mark.unlogged_from, self.mark.next);
        if from > self.expected {
            return Err(gap(self.expected, from - 1, Reasons::default()));
        }
        if next > self.expected && !self.mark.reasons.are_void() {
            return Err(gap(self.expected, next - 1, self.mark.reasons));
        }
        Ok(())
    }

    fn open_next(&mut self) -> Result<bool> {
        let Some(cut) = self.waiting.pop() else {
            return Ok(false);
        };
        let reader = SegmentReader::open(self.fs, &cut.file.path, cut.file.number)?;
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
