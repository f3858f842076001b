//! What a write costs before it is logged: encoding its record, and reading it back in recovery.
#![allow(clippy::expect_used)] // What fails here fails the measurement.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use esker_base::ValueKind;
use esker_base::write_batch::{BatchEncoder, BatchView};
use std::hint::black_box;

const BATCH: u64 = 100;

fn encode(batch: &mut BatchEncoder, entries: u64) {
    batch.clear();
    for entry in 0..entries {
        let mut key = *b"user000000000000";
        key[8..].copy_from_slice(&entry.to_be_bytes());
        batch.push(0, ValueKind::Value, black_box(&key), black_box(&[7; 100]));
    }
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    let mut batch = BatchEncoder::new();
    group.bench_function("encode a put", |bencher| {
        bencher.iter(|| {
            encode(&mut batch, 1);
            black_box(batch.seal(1).len())
        });
    });
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("encode a batch of 100", |bencher| {
        bencher.iter(|| {
            encode(&mut batch, BATCH);
            black_box(batch.seal(1).len())
        });
    });
    encode(&mut batch, BATCH);
    let bytes = batch.seal(1).to_vec();
    group.bench_function("parse a batch of 100", |bencher| {
        bencher.iter(|| {
            let view = BatchView::parse(black_box(&bytes)).expect("encoded above");
            view.records().fold(0, |sum, record| {
                sum + record.map_or(0, |record| record.key.len())
            })
        });
    });
    group.finish();
}

criterion_group!(record, benches);
criterion_main!(record);
