//! Tables: building them, the filter, the search of a cached block, and iteration.
#![allow(clippy::expect_used)] // What fails here fails the measurement.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use esker_base::checksum::key_hash;
use esker_base::iterator::InternalIterator;
use esker_base::{Trailer, ValueKind};
use esker_benches::random::Rng;
use esker_benches::values::Values;
use esker_sstable::{
    BlockCache, BlockLayoutChoice, Compression, FillCache, FilterKind, Table, TableIter,
    TableOptions, TableWriter,
};
use esker_vfs::MemFileSystem;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

const ENTRIES: u64 = 200_000;

fn key(entry: u64) -> [u8; 16] {
    let mut key = [0; 16];
    esker_benches::keys::write_key(entry, &mut key);
    key
}

fn build(fs: &MemFileSystem, path: &Path, options: &TableOptions) -> u64 {
    let values = Values::new(100, 0.5);
    let mut value = Vec::new();
    let mut writer = TableWriter::create(fs, path, 1, options).expect("memory has room");
    for entry in 0..ENTRIES {
        values.write(entry, 1, &mut value);
        let trailer = Trailer::new(entry + 1, ValueKind::Value);
        writer
            .add(&key(2 * entry), trailer, &value)
            .expect("in order");
    }
    writer.finish(0).expect("memory has room").file_bytes
}

fn open(fs: &MemFileSystem, path: &Path) -> Arc<Table> {
    Arc::new(Table::open(fs, path, 1, BlockCache::new(256 << 20)).expect("built above"))
}

fn building(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(ENTRIES));
    for compression in [Compression::None, Compression::Lz4] {
        let options = TableOptions {
            compression,
            ..TableOptions::default()
        };
        let id = BenchmarkId::new("build", format!("{compression:?}"));
        group.bench_function(id, |bencher| {
            bencher.iter(|| build(&MemFileSystem::new(), Path::new("t"), &options));
        });
    }
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let fs = MemFileSystem::new();
    for layout in [BlockLayoutChoice::Slot, BlockLayoutChoice::Restart] {
        let name = format!("{layout:?}");
        let path = Path::new(&name);
        build(
            &fs,
            path,
            &TableOptions {
                layout,
                ..TableOptions::default()
            },
        );
        let table = open(&fs, path);
        let mut rng = Rng::new(1, 0);
        let mut group = criterion.benchmark_group("table");
        group.bench_function(BenchmarkId::new("get, cached", &name), |bencher| {
            bencher.iter(|| {
                let key = key(2 * rng.below(ENTRIES));
                let hit = table.get(&key, key_hash(&key), ENTRIES).expect("sound");
                black_box(hit).is_some()
            });
        });
        group
            .sample_size(10)
            .throughput(Throughput::Elements(ENTRIES));
        group.bench_function(BenchmarkId::new("iterate, cached", &name), |bencher| {
            bencher.iter(|| {
                let mut iterator = TableIter::over(Arc::clone(&table), FillCache::Yes);
                let mut bytes = 0;
                iterator.seek_to_first().expect("sound");
                while iterator.valid() {
                    bytes += iterator.value().len();
                    iterator.next().expect("sound");
                }
                bytes
            });
        });
        group.finish();
    }
}

fn filters(criterion: &mut Criterion) {
    let fs = MemFileSystem::new();
    let mut group = criterion.benchmark_group("filter");
    for filter in [FilterKind::Blocked, FilterKind::Standard] {
        let name = format!("{filter:?}");
        let path = Path::new(&name);
        build(
            &fs,
            path,
            &TableOptions {
                filter,
                ..TableOptions::default()
            },
        );
        let table = open(&fs, path);
        let mut rng = Rng::new(2, 0);
        group.bench_function(BenchmarkId::new("miss", &name), |bencher| {
            bencher.iter(|| {
                let key = key(2 * rng.below(ENTRIES) + 1);
                black_box(table.may_contain(key_hash(&key)))
            });
        });
    }
    group.finish();
}

criterion_group!(table, building, reading, filters);
criterion_main!(table);
