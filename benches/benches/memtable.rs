//! The memtable: insert, get and iterate, for both of its kinds and for friendly and unfriendly
//! keys.
#![allow(clippy::expect_used)] // What fails here fails the measurement.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use esker_base::iterator::InternalIterator;
use esker_base::{Trailer, ValueKind};
use esker_benches::random::{Rng, mix64};
use esker_memtable::{Memtable, MemtableKind};
use std::hint::black_box;
use std::sync::Arc;

const ENTRIES: u64 = 200_000;
const KINDS: [MemtableKind; 2] = [MemtableKind::BTree, MemtableKind::SkipList];

/// How keys look: short and random, or long and alike at first.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Random,
    Url,
}

impl Shape {
    fn key(self, entry: u64) -> Vec<u8> {
        match self {
            Self::Random => mix64(entry).to_be_bytes().repeat(2),
            Self::Url => format!("https://example.org/articles/{:016x}", mix64(entry)).into_bytes(),
        }
    }
}

fn filled(kind: MemtableKind, keys: &[Vec<u8>]) -> Arc<Memtable> {
    let memtable = Memtable::new(kind);
    for (key, sequence) in keys.iter().zip(1..) {
        memtable.insert(key, Trailer::new(sequence, ValueKind::Value), &[7; 100]);
    }
    Arc::new(memtable)
}

fn benches(criterion: &mut Criterion) {
    for shape in [Shape::Random, Shape::Url] {
        let keys: Vec<Vec<u8>> = (0..ENTRIES).map(|entry| shape.key(entry)).collect();
        let mut group = criterion.benchmark_group(format!("memtable/{shape:?}"));
        group
            .sample_size(10)
            .throughput(Throughput::Elements(ENTRIES));
        for kind in KINDS {
            let id = BenchmarkId::new("insert", format!("{kind:?}"));
            group.bench_function(id, |bencher| {
                bencher.iter_batched(|| (), |()| filled(kind, &keys), BatchSize::PerIteration);
            });
            let memtable = filled(kind, &keys);
            let id = BenchmarkId::new("iterate", format!("{kind:?}"));
            group.bench_function(id, |bencher| bencher.iter(|| count(&memtable)));
        }
        group.throughput(Throughput::Elements(1));
        for kind in KINDS {
            let memtable = filled(kind, &keys);
            let mut rng = Rng::new(1, 0);
            group.bench_function(BenchmarkId::new("get", format!("{kind:?}")), |bencher| {
                bencher.iter(|| {
                    let key = &keys[rng.below(ENTRIES) as usize];
                    black_box(memtable.get(key, ENTRIES)).is_some()
                });
            });
        }
        group.finish();
    }
}

fn count(memtable: &Arc<Memtable>) -> u64 {
    let mut iterator = memtable.iter();
    let mut entries = 0;
    iterator.seek_to_first().expect("a memtable does not fail");
    while iterator.valid() {
        entries += u64::from(iterator.value().len() == 100);
        iterator.next().expect("a memtable does not fail");
    }
    entries
}

criterion_group!(memtable, benches);
criterion_main!(memtable);
