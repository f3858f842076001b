//! Cuts a merge into key ranges that are merged at the same time.
//!
//! Keys to cut at come from the inputs' own indexes: each table offers a sample of its block
//! boundaries, which weighs as much as the bytes between two of them, and the sorted samples are
//! cut where equal shares of the bytes are reached.
//!
//! Invariant: the ranges are disjoint, ascend and cover every key; the parts' tables, one after the
//! other, are one run. Range tombstones are clipped to the ranges.

use std::sync::Arc;

use esker_base::internal_key::MAX_SEQUENCE;
use esker_base::iterator::InternalIterator;
use esker_base::merging_iterator::MergingIterator;
use esker_base::{Error, ErrorKind, Result, Trailer};
use esker_sstable::{FillCache, LevelIter, TableHandle};
use parking_lot::Mutex;

use crate::executor::{Job, guarded};
use crate::job::{JobStats, Merge, Part, write_part};
use crate::output::Written;
use crate::retention::{JobTombstones, RetentionStats};

/// Samples that each part should be cut from: more make the parts more equal.
const SAMPLES_PER_PART: u64 = 16;

type PartOutput = (Written, RetentionStats);

/// Runs the merge in as many parts as it is worth and as its context allows.
pub(crate) fn run(merge: Merge) -> Result<(Written, JobStats)> {
    let worth = merge.input_bytes / merge.context.target_file_bytes.max(1);
    let parts = worth.clamp(1, merge.context.max_subcompactions.max(1) as u64);
    let cuts = cut_keys(&merge, parts)?;
    let mut stats = JobStats {
        bytes_read: merge.input_bytes,
        parts: cuts.len() + 1,
        ..JobStats::default()
    };
    let mut written = Written::default();
    for (mut part, retention) in run_parts(merge, cuts)? {
        written.tables.append(&mut part.tables);
        written.blocks.append(&mut part.blocks);
        written.values.append(&mut part.values);
        stats.retention.add(&retention);
    }
    Ok((written, stats))
}

/// Runs one part per range between `cuts`, and collects what they made, in key order.
fn run_parts(merge: Merge, mut cuts: Vec<Vec<u8>>) -> Result<Vec<PartOutput>> {
    cuts.insert(0, Vec::new());
    cuts.push(Vec::new());
    let merge = Arc::new(merge);
    let cuts = Arc::new(cuts);
    let slots: Vec<_> = (1..cuts.len())
        .map(|_| Arc::new(Mutex::new(None)))
        .collect();
    let jobs = slots.iter().enumerate().map(|(index, slot)| {
        let (merge, cuts, slot) = (Arc::clone(&merge), Arc::clone(&cuts), Arc::clone(slot));
        let span = tracing::Span::current();
        Box::new(move || {
            let _span = span.entered();
            let output = guarded(|| run_part(&merge, &cuts[index], &cuts[index + 1]));
            *slot.lock() = Some(output);
        }) as Job
    });
    let jobs = jobs.collect();
    merge.context.executor.run_all(jobs);
    let unfinished = || {
        Err(Error::new(
            ErrorKind::Background,
            "a part of a compaction never ran",
        ))
    };
    slots
        .iter()
        .map(|slot| slot.lock().take().unwrap_or_else(unfinished))
        .collect()
}

/// Merges the keys from `start` (empty: from the beginning) to `end`, exclusive (empty: no end).
fn run_part(merge: &Merge, start: &[u8], end: &[u8]) -> Result<PartOutput> {
    let children: Vec<LevelIter> = merge
        .inputs
        .iter()
        .map(|tables| LevelIter::new(Arc::clone(tables), FillCache::No))
        .collect();
    let mut source = MergingIterator::new(children);
    source.seek(start, Trailer::seek(MAX_SEQUENCE))?;
    let part = Part {
        level: merge.level,
        start,
        end,
        rules: &merge.rules,
        tombstones: &JobTombstones {
            all: merge.tombstones.all.clipped(start, end),
            kept: merge.tombstones.kept.clipped(start, end),
        },
        older: merge.older.clone(),
        cut: merge.cut.clone(),
        keeps_large: merge.keeps_large,
        gives_way: true,
    };
    write_part(
        &merge.context,
        &merge.created,
        part,
        source,
        |source: &mut MergingIterator<LevelIter>| source.current_child_mut().stored_record(),
    )
}

/// At most `parts - 1` keys, ascending and distinct, that cut the inputs into about equal shares.
fn cut_keys(merge: &Merge, parts: u64) -> Result<Vec<Vec<u8>>> {
    if parts < 2 {
        return Ok(Vec::new());
    }
    let tables = || merge.inputs.iter().flat_map(|run| run.iter());
    let mut samples = Vec::new();
    for handle in tables() {
        sample(
            handle,
            parts * SAMPLES_PER_PART,
            merge.input_bytes,
            &mut samples,
        )?;
    }
    Ok(equal_shares(samples, parts))
}

/// Adds keys of a table, each with the bytes that come before it and after the one before it.
fn sample(
    handle: &TableHandle,
    wanted: u64,
    total_bytes: u64,
    samples: &mut Vec<(Vec<u8>, u64)>,
) -> Result<()> {
    let bytes = handle.meta().file_bytes;
    let share = u128::from(wanted) * u128::from(bytes) / u128::from(total_bytes.max(1));
    let keys = handle.table()?.block_boundaries(share as usize);
    let each = bytes / (keys.len() as u64 + 1);
    // The table's first key carries no bytes, but a cut between two tables is a good cut.
    samples.push((handle.meta().bounds.smallest.clone(), 0));
    samples.extend(keys.into_iter().map(|key| (key, each)));
    Ok(())
}

/// The keys at which `parts` equal shares of the weight of `samples` end.
fn equal_shares(mut samples: Vec<(Vec<u8>, u64)>, parts: u64) -> Vec<Vec<u8>> {
    samples.sort();
    let total: u64 = samples.iter().map(|(_, bytes)| bytes).sum();
    let mut cuts: Vec<Vec<u8>> = Vec::new();
    let mut seen = 0;
    for (key, bytes) in samples {
        seen += bytes;
        let due = (cuts.len() as u64 + 1) * total / parts;
        let fresh = !key.is_empty() && cuts.last().is_none_or(|last| *last < key);
        if cuts.len() as u64 + 1 < parts && seen > 0 && seen >= due && fresh {
            cuts.push(key);
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_equal_whatever_the_samples_weigh() {
        let samples = |weights: &[u64]| -> Vec<(Vec<u8>, u64)> {
            (b'a'..)
                .zip(weights)
                .map(|(key, bytes)| (vec![key], *bytes))
                .collect()
        };
        let cases: [(&[u64], u64, &str); 6] = [
            (&[], 4, ""),
            (&[1, 1, 1, 1], 2, "b"),
            (&[1, 1, 1, 1], 4, "abc"),
            (&[8, 1, 1, 1, 1], 2, "a"),
            (&[0, 0, 5, 5], 2, "c"),
            (&[1, 1], 9, "ab"),
        ];
        for (weights, parts, expected) in cases {
            let cuts = equal_shares(samples(weights), parts).concat();
            assert_eq!(
                String::from_utf8(cuts).unwrap(),
                expected,
                "{weights:?} in {parts}"
            );
        }
        let same = vec![(b"k".to_vec(), 1); 10];
        assert_eq!(equal_shares(same, 4), [b"k".to_vec()]);
    }
}
