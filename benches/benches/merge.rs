//! Merging sorted runs: the step of every scan and compaction.
#![allow(clippy::expect_used)] // What fails here fails the measurement.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use esker_base::iterator::InternalIterator;
use esker_base::merging_iterator::MergingIterator;
use esker_base::{Trailer, ValueKind};
use esker_benches::random::mix64;
use esker_memtable::{Memtable, MemtableIter, MemtableKind};
use std::sync::Arc;

const ENTRIES: u64 = 100_000;

fn runs(count: u64) -> Vec<Arc<Memtable>> {
    let memtables: Vec<Memtable> = (0..count)
        .map(|_| Memtable::new(MemtableKind::default()))
        .collect();
    for entry in 0..ENTRIES {
        let key = mix64(entry).to_be_bytes().repeat(2);
        let run = &memtables[(mix64(entry ^ 1) % count) as usize];
        run.insert(&key, Trailer::new(entry + 1, ValueKind::Value), &[7; 100]);
    }
    memtables.into_iter().map(Arc::new).collect()
}

fn walk(runs: &[Arc<Memtable>], forward: bool) -> u64 {
    let children: Vec<MemtableIter> = runs.iter().map(Memtable::iter).collect();
    let mut merge = MergingIterator::new(children);
    let mut entries = 0;
    let moved = if forward {
        merge.seek_to_first()
    } else {
        merge.seek_to_last()
    };
    moved.expect("memtables do not fail");
    while merge.valid() {
        entries += 1;
        let moved = if forward { merge.next() } else { merge.prev() };
        moved.expect("memtables do not fail");
    }
    entries
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(ENTRIES));
    for count in [1, 2, 8, 32] {
        let runs = runs(count);
        group.bench_function(BenchmarkId::new("forward", count), |bencher| {
            bencher.iter(|| walk(&runs, true));
        });
        group.bench_function(BenchmarkId::new("backward", count), |bencher| {
            bencher.iter(|| walk(&runs, false));
        });
    }
    group.finish();
}

criterion_group!(merge, benches);
criterion_main!(merge);
