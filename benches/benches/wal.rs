//! Appending to the log: by a copy into a mapped segment, by a write, and with a sync.
#![allow(clippy::expect_used)] // What fails here fails the measurement.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use esker_vfs::OsFileSystem;
use esker_wal::{SegmentHeader, SegmentOptions, SegmentWriter, SyncMode};
use std::path::Path;
use tempfile::TempDir;

const SEGMENT_BYTES: u64 = 32 << 20;
const PAYLOAD: [u8; 130] = [7; 130];

/// A segment that is begun anew, in the blocks of the one before, when it is full.
struct Log {
    fs: OsFileSystem,
    directory: TempDir,
    options: SegmentOptions,
    number: u64,
    writer: SegmentWriter,
}

impl Log {
    fn new(mapped: bool) -> Self {
        let options = SegmentOptions {
            segment_bytes: SEGMENT_BYTES,
            mapped,
            zero_ahead_bytes: if mapped { 0 } else { 1 << 20 },
            copied_syncs: true,
            may_grow: true,
        };
        let fs = OsFileSystem::new();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("log");
        let writer = SegmentWriter::create(&fs, &path, header(1), options).expect("created");
        Self {
            fs,
            directory,
            options,
            number: 1,
            writer,
        }
    }

    fn append(&mut self, mode: SyncMode) {
        if self.writer.remaining_bytes() < SegmentWriter::record_bytes(PAYLOAD.len()) {
            self.number += 1;
            let path = self.directory.path().join("log");
            let header = header(self.number);
            self.writer = recycle(&self.fs, &path, header, self.options);
        }
        self.writer.append_one(&PAYLOAD, mode).expect("appended");
    }
}

fn header(number: u64) -> SegmentHeader {
    SegmentHeader {
        number,
        first_sequence: number,
        previous: number - 1,
    }
}

fn recycle(
    fs: &OsFileSystem,
    path: &Path,
    header: SegmentHeader,
    options: SegmentOptions,
) -> SegmentWriter {
    SegmentWriter::recycle(fs, path, header, options).expect("recycled")
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal");
    for (name, mapped) in [("mapped", true), ("written", false)] {
        let mut log = Log::new(mapped);
        group.bench_function(BenchmarkId::new("append, buffered", name), |bencher| {
            bencher.iter(|| log.append(SyncMode::Buffered));
        });
    }
    let mut log = Log::new(false);
    group.sample_size(20);
    group.bench_function("append and sync", |bencher| {
        bencher.iter(|| {
            log.append(SyncMode::Sync);
            log.writer.sync().expect("synced");
        });
    });
    group.finish();
}

criterion_group!(wal, benches);
criterion_main!(wal);
