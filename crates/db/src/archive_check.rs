//! Reading one file of the archive from end to end, to learn whether it is what was written.
//!
//! Invariants: every record is decoded; its checksum, its place in the order, the marks and the end
//! record are compared with each other and with the file's name. Writes that are missing between two
//! records of a file are damage, unless a mark accounts for them; those that are missing between two
//! files, with no mark that says why, are holes in the history.
//! Called by `Wal::verify_archived` and by validation.

use crate::archive::end_of;
use crate::archived_segment::ArchivedSegment;
use crate::log_mark::Mark;
use esker_base::write_batch::BatchView;
use esker_base::{Error, Result, SequenceNumber};
use esker_vfs::FileSystem;
use esker_wal::{RecordType, SegmentEnd, SegmentReader};

/// Writes that stand in no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) first: SequenceNumber,
    pub(crate) last: SequenceNumber,
    /// Where in the file it is noticed.
    pub(crate) offset: u64,
}

/// How files follow each other.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// The number that comes next; not known before the first file.
    expected: Option<SequenceNumber>,
    /// What is missing so far.
    pub(crate) holes: Vec<Hole>,
}

impl Chain {
    /// Whatever comes next follows nothing.
    pub(crate) fn begin_anew(&mut self) {
        self.expected = None;
    }

    fn skip_to(&mut self, next: SequenceNumber, offset: u64) {
        if let Some(first) = self.expected.filter(|expected| *expected < next) {
            let last = next - 1;
            self.holes.push(Hole {
                first,
                last,
                offset,
            });
        }
    }

    /// What a mark says to be missing is known, and no finding.
    fn follow(&mut self, mark: &Mark, offset: u64) {
        self.skip_to(mark.unlogged_from, offset);
        self.expected = Some(mark.next);
    }
}

/// Reads `segment`, which comes after what `chain` has seen. Tells `advance` how many bytes more were
/// read, and stops where it says no.
pub(crate) fn read(
    fs: &dyn FileSystem,
    segment: &ArchivedSegment,
    chain: &mut Chain,
    advance: &mut dyn FnMut(u64) -> bool,
) -> Result<()> {
    let placed = |error: Error, offset| error.with_file(segment.path()).with_offset(offset);
    let mut reader = SegmentReader::open(fs, segment.path(), segment.number())?;
    let (mut first, mut next, mut is_first) = (None, None, true);
    loop {
        let offset = reader.end_offset();
        let Some((kind, payload)) = reader.next_or_mark()? else {
            break;
        };
        if kind == RecordType::Mark {
            let mark = Mark::decode(payload).map_err(|error| placed(error, offset))?;
            chain.follow(&mark, offset);
            first.get_or_insert(mark.next);
            next.get_or_insert(mark.next);
        } else {
            let (sequence, end) = decode(payload).map_err(|error| placed(error, offset))?;
            if is_first {
                chain.skip_to(sequence, offset);
            } else if chain.expected.is_some_and(|expected| expected != sequence) {
                let sentence = "an archived log record is not the one that comes next";
                return Err(placed(Error::corruption(sentence), offset));
            }
            chain.expected = Some(end);
            first.get_or_insert(sequence);
            next = Some(end);
        }
        is_first = false;
        if !advance(reader.end_offset() - offset) {
            return Ok(());
        }
    }
    check_end(&reader, segment)?;
    let (first, last) = (first.unwrap_or(0), next.unwrap_or(0).saturating_sub(1));
    if (first, last) != (segment.first_sequence(), segment.last_sequence()) {
        let sentence = format!(
            "an archived log segment holds the writes {first} to {last}, which is not what its name says"
        );
        return Err(Error::corruption(sentence).with_file(segment.path()));
    }
    Ok(())
}

/// The numbers of a batch: its first, and the one after its last. Every record of it is looked at.
fn decode(payload: &[u8]) -> Result<(SequenceNumber, SequenceNumber)> {
    let batch = BatchView::parse(payload)?;
    for record in batch.records() {
        record?;
    }
    Ok((batch.sequence(), end_of(&batch)))
}

fn check_end(reader: &SegmentReader, segment: &ArchivedSegment) -> Result<()> {
    let damaged = |sentence: String, offset| {
        let error = Error::corruption(sentence);
        Err(error.with_file(segment.path()).with_offset(offset))
    };
    match reader.outcome() {
        Some(SegmentEnd::Sealed { .. }) => Ok(()),
        Some(SegmentEnd::Damaged { offset, reason, .. }) => damaged(
            format!("archived log records are damaged: {reason}"),
            *offset,
        ),
        _ => damaged(
            "an archived log segment is cut short".into(),
            reader.end_offset(),
        ),
    }
}
