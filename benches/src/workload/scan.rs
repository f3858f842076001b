//! Scans: whole, both ways; short ones behind a seek; and the walk over everything.
//!
//! Invariant: a scan that ended by itself has passed every live key of its part.

use super::Job;
use crate::checks::ScanChecks;
use crate::distribution::KeyChooser;
use crate::engine::{Direction, Engine, EngineResult, Scanner};
use crate::expectations::{ABSENT, UNKNOWN};
use crate::keys::KeyBuffer;
use crate::phase::Worker;
use crate::values::Values;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// The indexes that this worker scans: all of them where it is alone.
fn part<E: Engine>(worker: &Worker<'_, E>, job: &Job<'_>) -> Range<u64> {
    worker.part_of(job.key_bound.load(Ordering::Relaxed))
}

/// How many entries this worker may read.
fn limit<E: Engine>(worker: &Worker<'_, E>) -> u64 {
    if worker.shared.config.reads.is_some() {
        worker.quota
    } else {
        u64::MAX
    }
}

/// Scans this worker's part upwards.
pub(super) fn forward<E: Engine>(worker: &mut Worker<'_, E>, job: &Job<'_>) -> EngineResult<()> {
    let (part, limit) = (part(worker, job), limit(worker));
    whole(worker, part, Direction::Forward, limit, |_, _, _| {})
}

/// Scans this worker's part downwards.
pub(super) fn backward<E: Engine>(worker: &mut Worker<'_, E>, job: &Job<'_>) -> EngineResult<()> {
    let (part, limit) = (part(worker, job), limit(worker));
    whole(worker, part, Direction::Backward, limit, |_, _, _| {})
}

/// Scans `part`, or everything where the worker is alone; each entry is an operation.
fn whole<E: Engine>(
    worker: &mut Worker<'_, E>,
    part: Range<u64>,
    direction: Direction,
    limit: u64,
    mut see: impl FnMut(&Worker<'_, E>, &[u8], &[u8]),
) -> EngineResult<()> {
    let keys = worker.shared.config.keys;
    let (first, last) = (worker.index == 0, worker.index + 1 == worker.count);
    let key_of = |index: u64| KeyBuffer::new(keys).set(index).to_vec();
    // The key where the part begins in the direction of the scan, and the one at which it has
    // been left; the outermost parts have no such bound, so that strangers are found.
    let (from, beyond, mut scan) = match direction {
        Direction::Forward => (
            (!first).then(|| key_of(part.start)),
            (!last).then(|| key_of(part.end)),
            ScanChecks::forward(keys, part.start),
        ),
        Direction::Backward => (
            (!last).then(|| key_of(part.end.saturating_sub(1))),
            (!first && part.start > 0).then(|| key_of(part.start - 1)),
            ScanChecks::backward(keys, part.end),
        ),
    };
    if part.is_empty() && !last {
        return Ok(());
    }
    let mut at_its_end = true;
    worker.recorder.wait_for_slot();
    let mut scanner = worker.shared.engine.scanner()?;
    let lent = scanner.scan(from.as_deref(), direction, limit, |key, value| {
        let left = beyond.as_deref().is_some_and(|beyond| match direction {
            Direction::Forward => key >= beyond,
            Direction::Backward => key <= beyond,
        });
        if left {
            return false;
        }
        see(worker, key, value);
        scan.entry(&mut worker.checks, key, value);
        at_its_end = worker.recorder.lap();
        worker.recorder.wait_for_slot();
        at_its_end
    })?;
    if at_its_end && lent < limit {
        match direction {
            Direction::Forward => scan.end(&mut worker.checks, part.end),
            Direction::Backward => scan.end(&mut worker.checks, part.start),
        }
    }
    let (entries, bytes) = scan.totals();
    worker.tally.entries += entries;
    worker.tally.found += entries;
    worker.tally.user_bytes_read += bytes;
    Ok(())
}

/// One short scan forwards from key `index`, with a fresh view.
#[inline]
pub(super) fn short<E: Engine>(
    worker: &mut Worker<'_, E>,
    key: &mut KeyBuffer,
    index: u64,
    entries: u64,
    bound: u64,
) -> EngineResult<()> {
    let mut scan = ScanChecks::short(worker.shared.config.keys, index);
    let checks = &mut worker.checks;
    let mut scanner = worker.shared.engine.scanner()?;
    let lent = scanner.scan(
        Some(key.set(index)),
        Direction::Forward,
        entries,
        |key, value| {
            scan.entry(checks, key, value);
            true
        },
    )?;
    if lent < entries {
        scan.end(checks, bound);
    }
    let (entries, bytes) = scan.totals();
    worker.tally.entries += entries;
    worker.tally.user_bytes_read += bytes;
    match lent {
        0 => worker.tally.missed += 1,
        _ => worker.tally.found += 1,
    }
    Ok(())
}

/// Seeks to random keys and reads on.
pub(super) fn seek_random<E: Engine>(
    worker: &mut Worker<'_, E>,
    job: &Job<'_>,
    chooser: &KeyChooser,
) -> EngineResult<()> {
    let config = worker.shared.config;
    let mut key = KeyBuffer::new(config.keys);
    let bound = job.key_bound.load(Ordering::Relaxed);
    worker.repeat(|worker, _| {
        let index = chooser.index(&mut worker.rng, config.num);
        short(worker, &mut key, index, 1 + config.seek_nexts, bound)
    })
}

/// Walks this worker's part upwards and downwards and asks for each of its keys, comparing every
/// byte. Of a database that was there before the run, the first walk learns what is in it.
pub(super) fn verify<E: Engine>(worker: &mut Worker<'_, E>, job: &Job<'_>) -> EngineResult<()> {
    worker.checks.compare_all_whole();
    let part = part(worker, job);
    let keys = worker.shared.config.keys;
    let mut learned = Vec::new();
    whole(
        worker,
        part.clone(),
        Direction::Forward,
        u64::MAX,
        |worker, key, value| {
            if let Some(index) = keys.parse(key)
                && worker.checks.before(index) == UNKNOWN
                && let Some(generation) = Values::generation(value)
            {
                learned.push((index, generation));
            }
        },
    )?;
    if !learned.is_empty() {
        for index in part.clone() {
            if worker.checks.before(index) == UNKNOWN {
                worker.shared.expectations.set(index, ABSENT);
            }
        }
        for (index, generation) in learned {
            worker.shared.expectations.set(index, generation);
        }
    }
    whole(
        worker,
        part.clone(),
        Direction::Backward,
        u64::MAX,
        |_, _, _| {},
    )?;
    let mut reader = super::point::Reader::new(worker);
    for index in part {
        worker.recorder.wait_for_slot();
        reader.get(worker, index)?;
        if !worker.recorder.lap() {
            break;
        }
    }
    Ok(())
}
