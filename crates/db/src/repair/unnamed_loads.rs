//! Bulk loads that are all there and that nothing is known to have named: where they stand among the
//! other writes, and what of the log lies below them.
//!
//! A load that became visible was the newest of its keyspace when it did, and all that came before was in
//! tables; but the number that it was given stood in the manifest alone, and those tables may be gone
//! without a trace: a range delete and all that it hid, merged into nothing. One that a crash cut short
//! lies complete beside a log that was still to be flushed below it. Both are taken for loaded, at the
//! first number that no write in the log has and that is above all that was there when the load began or
//! that tables are known to hold.
//!
//! Invariant: what the log has of such a keyspace up to there, and no table, goes into tables with the
//! load and is never replayed. In a memtable it would come before the load although it is older: readers
//! who take the newest source first would find it, and a merge that sees nothing below the load would
//! take its number, after which a range delete of that memtable hides the load.

use super::{Contents, Part};
use crate::super_version::WriteBuffer;
use esker_base::filename::{FileNumber, wal_path};
use esker_base::table_meta::TableMeta;
use esker_base::write_batch::BatchView;
use esker_base::{ErrorKind, Result, SequenceNumber};
use esker_memtable::{Memtable, MemtableKind};
use esker_vfs::FileSystem;
use esker_wal::{SegmentEnd, SegmentReader};
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

/// Gives each unnamed load its number, and its keyspace what of the log lies below.
pub(crate) fn place(fs: &dyn FileSystem, directory: &Path, contents: &mut Contents) -> Result<()> {
    if contents
        .keyspaces
        .values()
        .all(|p| p.unnamed_loads.is_empty())
    {
        return Ok(());
    }
    let segments = contents.segments.clone();
    let logged = read_stretches(fs, directory, &segments)?;
    let mut last_sequence = contents.last_sequence;
    // By the keyspace: what is logged above the first and below the second number is for its tables.
    let mut wanted = BTreeMap::new();
    for (&id, part) in &mut contents.keyspaces {
        let placed: HashMap<_, _> = std::mem::take(&mut part.unnamed_loads)
            .into_iter()
            .map(|(number, older)| (number, first_free(&logged, older)))
            .collect();
        if let Some(&newest) = placed.values().max() {
            place_tables(part, &placed);
            last_sequence = last_sequence.max(newest);
            // Without a table there is nothing to put it below.
            if !part.tables.is_empty() {
                wanted.insert(id, (part.flushed_sequence, newest));
            }
        }
    }
    contents.last_sequence = last_sequence;
    let mut below: HashMap<_, Arc<WriteBuffer>> = HashMap::new();
    read_log(fs, directory, &segments, |batch| {
        for (sequence, record) in (batch.sequence()..).zip(batch.records()) {
            let Ok(record) = record else { break };
            let Some(&(flushed, newest)) = wanted.get(&record.keyspace) else {
                continue;
            };
            if sequence > flushed && sequence < newest {
                let buffer = below.entry(record.keyspace).or_insert_with(|| {
                    WriteBuffer::new(Arc::new(Memtable::new(MemtableKind::default())))
                });
                buffer.insert(sequence, &record);
            }
        }
    })?;
    for (id, (flushed, newest)) in wanted {
        if let Some(part) = contents.keyspaces.get_mut(&id) {
            part.flushed_sequence = flushed.max(newest);
            part.below_loads = below.remove(&id);
        }
    }
    Ok(())
}

/// The numbers that the log has, as stretches without a gap.
pub(crate) fn read_stretches(
    fs: &dyn FileSystem,
    directory: &Path,
    segments: &[FileNumber],
) -> Result<Vec<RangeInclusive<SequenceNumber>>> {
    let mut logged: Vec<RangeInclusive<SequenceNumber>> = Vec::new();
    read_log(fs, directory, segments, |batch| {
        let (first, last) = (batch.sequence(), last_of(batch));
        match logged.last_mut() {
            Some(stretch) if *stretch.end() + 1 == first => *stretch = *stretch.start()..=last,
            _ => logged.push(first..=last),
        }
    })?;
    Ok(logged)
}

/// The first number above `older` that no batch of the log has.
fn first_free(logged: &[RangeInclusive<SequenceNumber>], older: SequenceNumber) -> SequenceNumber {
    let free = older + 1;
    let stretch = logged.iter().find(|stretch| stretch.contains(&free));
    stretch.map_or(free, |stretch| stretch.end() + 1)
}

fn place_tables(part: &mut Part, placed: &HashMap<FileNumber, SequenceNumber>) {
    for meta in &mut part.tables {
        if let Some(&sequence) = placed.get(&meta.number) {
            let mut moved = TableMeta::clone(meta);
            place_load(&mut moved, sequence);
            *meta = Arc::new(moved);
        }
    }
    for doubt in &mut part.doubts {
        if let Some(&sequence) = placed.get(&doubt.number) {
            doubt.largest_sequence = sequence;
        }
    }
}

/// Says that a table came by a bulk load that became visible at `sequence`.
pub(crate) fn place_load(meta: &mut TableMeta, sequence: SequenceNumber) {
    meta.ingested_sequence = sequence;
    meta.smallest_sequence = sequence;
    meta.largest_sequence = sequence;
}

fn last_of(batch: &BatchView<'_>) -> SequenceNumber {
    batch.sequence() + u64::from(batch.count()) - u64::from(batch.count() > 0)
}

/// Every batch that a salvaging open would read.
fn read_log(
    fs: &dyn FileSystem,
    directory: &Path,
    segments: &[FileNumber],
    mut each: impl FnMut(&BatchView<'_>),
) -> Result<()> {
    let (mut next_segment, mut previous) = (0, 0);
    for &number in segments.iter().filter(|&&number| number != 0) {
        if number < next_segment {
            continue;
        }
        let path = wal_path(directory, number);
        let mut reader = match SegmentReader::open(fs, &path, number) {
            Ok(reader) => reader,
            // Said by whoever found the segments.
            Err(error) if error.kind() == ErrorKind::Corruption => continue,
            Err(error) => return Err(error),
        };
        let mut is_empty = true;
        loop {
            while let Some(payload) = reader.next()? {
                is_empty = false;
                if let Ok(batch) = BatchView::parse(payload)
                    && batch.sequence() > previous
                {
                    previous = last_of(&batch);
                    each(&batch);
                }
            }
            if reader.skip_damage()?.is_none() {
                break;
            }
        }
        match reader.outcome() {
            Some(SegmentEnd::Sealed { next }) => next_segment = *next,
            Some(SegmentEnd::Damaged { .. }) => {}
            // Here the log ends; or the segment was made and never used.
            _ if is_empty => {}
            _ => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_takes_the_first_number_that_no_batch_has() {
        let logged = [3..=7, 9..=12, 20..=20];
        for (older, expected) in [
            (0, 1),
            (1, 2),
            (2, 8),
            (6, 8),
            (7, 8),
            (8, 13),
            (12, 13),
            (19, 21),
        ] {
            assert_eq!(first_free(&logged, older), expected, "above {older}");
        }
        assert_eq!(first_free(&[], 5), 6);
    }
}
