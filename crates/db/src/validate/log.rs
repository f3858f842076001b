//! The records of the log: every segment that the manifest names, the one that takes records included.
//!
//! Invariant: writers are held up for no longer than it takes to read a counter. A segment that is
//! given up meanwhile is no finding.

use super::{Issue, Shared};
use crate::engine::Engine;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::write_batch::BatchView;
use esker_base::{Error, Result, SequenceNumber};
use esker_wal::{SegmentEnd, SegmentReader};

const ADVICE: &str = "empty the log now (Wal::clear, esker wal-clear), if the database is open for \
    writing: what the log holds then goes from memory into tables; otherwise restore a backup, or \
    open with RecoveryPolicy::DiscardAfterDamage to keep what comes before";

/// Reads every segment.
pub(super) fn verify(engine: &Engine, shared: &Shared<'_>) {
    let (current, current_end) = {
        // Held for a moment: which segment takes records, and how far it is filled, go together.
        let writer = engine.commit_queue.lock();
        (writer.log.current_number(), writer.log.current_end())
    };
    let mut numbers: Vec<_> = engine.versions.state().segments.iter().copied().collect();
    numbers.sort_unstable();
    let mut chain = Chain::default();
    for number in numbers {
        // Segments that came after the look above are not read: their end moves.
        let end = match current {
            Some(current) if number > current => break,
            Some(current) if number == current => Some(current_end),
            _ => None,
        };
        if shared.is_cancelled() {
            return;
        }
        let before = chain;
        let mut result = read(engine, number, end, &mut chain, shared);
        if result.is_err() {
            // The first write of this life may have closed the log of the last one meanwhile.
            chain = before;
            result = read(engine, number, end, &mut chain, shared);
        }
        let is_live = || engine.versions.state().segments.contains(&number);
        if let Err(error) = result
            && is_live()
        {
            shared.failed(error, |error| Issue::with_advice(error, ADVICE));
        }
    }
}

/// How the segments follow each other.
#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    last_sequence: SequenceNumber,
    /// The segment that goes on. Those before it were given up by an earlier recovery, and may
    /// repeat sequence numbers.
    next: FileNumber,
}

/// Reads one segment, up to `end` where it still takes records.
fn read(
    engine: &Engine,
    number: FileNumber,
    end: Option<u64>,
    chain: &mut Chain,
    shared: &Shared<'_>,
) -> Result<()> {
    let path = wal_path(&engine.directory, number);
    let mut reader = SegmentReader::open(&*engine.fs, &path, number)?;
    if number < chain.next {
        return Ok(());
    }
    while end.is_none_or(|end| reader.end_offset() < end) {
        let offset = reader.end_offset();
        let Some(payload) = reader.next()? else { break };
        let placed = |error: Error| error.with_file(&path).with_offset(offset);
        check_batch(payload, &mut chain.last_sequence).map_err(placed)?;
        if !shared.advance(reader.end_offset() - offset) {
            return Ok(());
        }
    }
    let damaged = |offset: u64, reason: String| {
        let error = Error::corruption(reason);
        Err(error.with_file(&path).with_offset(offset))
    };
    match (end, reader.outcome()) {
        (_, Some(SegmentEnd::Damaged { offset, reason, .. })) => {
            damaged(*offset, format!("synced log records are damaged: {reason}"))
        }
        (Some(end), _) if reader.end_offset() < end => {
            let sentence = format!("records up to byte {end} were written, and cannot be read");
            damaged(reader.end_offset(), sentence)
        }
        (_, Some(SegmentEnd::Sealed { next })) => {
            chain.next = *next;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A record of the log is a batch, and comes after those before it.
fn check_batch(payload: &[u8], last_sequence: &mut SequenceNumber) -> Result<()> {
    let batch = BatchView::parse(payload)?;
    if batch.sequence() <= *last_sequence {
        let sentence = "a log record repeats sequence numbers of an earlier one";
        return Err(Error::corruption(sentence));
    }
    let mut records = 0;
    for record in batch.records() {
        record?;
        records += 1;
    }
    if records != u64::from(batch.count()) {
        let sentence = "a write batch holds another number of records than it says";
        return Err(Error::corruption(sentence));
    }
    *last_sequence = batch.sequence() + records.saturating_sub(1);
    Ok(())
}
