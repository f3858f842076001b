//! What was appended comes back, however it was written.

use super::*;

fn payloads() -> Vec<Vec<u8>> {
    [0, 1, 7, 8, 9, 100, 4096, 65_536, 70_001, 3 << 20]
        .iter()
        .map(|&bytes: &usize| (0..bytes).map(|at| (at * 7 + bytes) as u8).collect())
        .collect()
}

fn options() -> Vec<SegmentOptions> {
    let mut options = Vec::new();
    for segment_bytes in [0, 8 << 20] {
        for mapped in [false, true] {
            for zero_ahead_bytes in [0, 1000, 1 << 20] {
                options.push(SegmentOptions {
                    segment_bytes,
                    mapped,
                    zero_ahead_bytes,
                    copied_syncs: false,
                    may_grow: false,
                });
            }
        }
    }
    options
}

#[test]
fn every_way_of_writing_gives_the_same_records() {
    for options in options() {
        for mode in [SyncMode::Buffered, SyncMode::Sync] {
            let fs = MemFileSystem::new();
            let mut writer = SegmentWriter::create(&fs, path(), HEADER, options).unwrap();
            let (all, mut bytes) = (payloads(), writer.bytes());
            for payload in &all {
                writer.append_one(payload, mode).unwrap();
                bytes += SegmentWriter::record_bytes(payload.len());
                assert_eq!(writer.bytes(), bytes);
            }
            let read = read(&fs).unwrap();
            assert_eq!(read.payloads, all, "{options:?} {mode:?}");
            assert_eq!((read.end, read.end_offset), (SegmentEnd::Clean, bytes));
        }
    }
}

#[test]
fn a_group_is_its_records_and_takes_one_write() {
    let one_by_one = MemFileSystem::new();
    let mut writer = SegmentWriter::create(&one_by_one, path(), HEADER, SMALL).unwrap();
    let group: [&[u8]; 4] = [b"a", b"", b"ccc", b"eight by"];
    for payload in group {
        writer.append_one(payload, SyncMode::Sync).unwrap();
    }
    let trace = esker_vfs::TraceFileSystem::new(std::sync::Arc::new(MemFileSystem::new()));
    let mut writer = SegmentWriter::create(&trace, path(), HEADER, SMALL).unwrap();
    trace.clear();
    writer.append(&group, SyncMode::Sync).unwrap();
    let writes = written(&trace);
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(file_bytes(&trace), file_bytes(&one_by_one));
}

/// Where each write of a trace began, and its length.
pub(crate) fn written(trace: &esker_vfs::TraceFileSystem) -> Vec<(u64, u64)> {
    let entries = trace.entries().into_iter();
    let writes = entries.filter(|entry| entry.operation.kind == esker_vfs::OperationKind::Write);
    writes
        .map(|entry| (entry.operation.offset, entry.operation.bytes))
        .collect()
}

/// A write that waits for the device waits for its own pages alone. The watermark in front of it, which
/// may lie in another page, was never waited for: without it the reader would stop there, and what was
/// acknowledged behind it would be lost with the power.
#[test]
fn a_synced_append_writes_the_watermark_before_it_once_more() {
    for mapped in [false, true] {
        let options = SegmentOptions { mapped, ..SMALL };
        let trace = esker_vfs::TraceFileSystem::new(std::sync::Arc::new(MemFileSystem::new()));
        let mut writer = SegmentWriter::create(&trace, path(), HEADER, options).unwrap();
        writer.append_one(b"x", SyncMode::Sync).unwrap();
        writer.sync().unwrap();
        let synced_bytes = writer.synced_bytes();
        let before = file_bytes(&trace);
        trace.clear();
        writer.append_one(b"y", SyncMode::Sync).unwrap();
        let end = writer.bytes();
        assert_eq!(written(&trace), [(synced_bytes, end - synced_bytes)]);
        let (from, to) = (synced_bytes as usize, (end - 24) as usize);
        assert_eq!(before[from..to], file_bytes(&trace)[from..to]);
        // What follows has nothing more to wait for but its note.
        trace.clear();
        writer.sync().unwrap();
        let entries = trace.entries();
        let is_sync = |kind| kind == esker_vfs::OperationKind::Sync;
        let waits = entries
            .iter()
            .position(|entry| is_sync(entry.operation.kind));
        assert_eq!(
            (waits, entries[0].operation.offset),
            (Some(1), 6144),
            "{entries:?}"
        );
        assert_eq!(writer.synced_bytes(), end);
        // A buffered record is waited for by the sync, as is all that comes behind it.
        writer.append_one(b"buffered", SyncMode::Buffered).unwrap();
        writer.append_one(b"z", SyncMode::Sync).unwrap();
        trace.clear();
        writer.sync().unwrap();
        let entries = trace.entries();
        assert!(
            entries.iter().any(|entry| is_sync(entry.operation.kind)),
            "{entries:?}"
        );
        assert_eq!(
            read(&trace).unwrap().payloads,
            [&b"x"[..], b"y", b"buffered", b"z"]
        );
    }
}

#[test]
fn copies_into_the_map_and_writes_leave_the_same_bytes() {
    let mapped = SegmentOptions {
        mapped: true,
        ..SMALL
    };
    let (a, b) = (MemFileSystem::new(), MemFileSystem::new());
    three_synced_and_two_not(&a, SMALL);
    three_synced_and_two_not(&b, mapped);
    assert_eq!(file_bytes(&a), file_bytes(&b));
}

#[test]
fn long_buffered_records_are_written_between_short_ones_that_are_copied() {
    let payload = |bytes: usize| vec![bytes as u8; bytes];
    let all = [10, 2000, 3000, 100, 5000, 5000, 1].map(payload);
    let mut files = Vec::new();
    for mapped in [false, true] {
        let options = SegmentOptions {
            segment_bytes: 64 << 10,
            mapped,
            ..SMALL
        };
        let trace = esker_vfs::TraceFileSystem::new(std::sync::Arc::new(MemFileSystem::new()));
        let mut writer = SegmentWriter::create(&trace, path(), HEADER, options).unwrap();
        trace.clear();
        let mut long = Vec::new();
        for payload in &all {
            let (at, bytes) = (writer.bytes(), SegmentWriter::record_bytes(payload.len()));
            writer.append_one(payload, SyncMode::Buffered).unwrap();
            if bytes >= 2048 || !mapped {
                long.push((at, bytes));
            }
        }
        assert_eq!(written(&trace), long);
        assert_eq!(read(&trace).unwrap().payloads, all);
        files.push(file_bytes(&trace));
    }
    assert_eq!(files[0], files[1]);
}

/// Pages are made ready in ever larger pieces, and never where something was written.
#[test]
fn pages_are_ready_before_short_records_are_copied_there() {
    let options = SegmentOptions {
        segment_bytes: 256 << 10,
        mapped: true,
        zero_ahead_bytes: 40 << 10,
        copied_syncs: false,
        may_grow: false,
    };
    let trace = esker_vfs::TraceFileSystem::new(std::sync::Arc::new(MemFileSystem::new()));
    let mut writer = SegmentWriter::create(&trace, path(), HEADER, options).unwrap();
    let first = writer.bytes();
    trace.clear();
    while writer.remaining_bytes() > SegmentWriter::record_bytes(100) {
        writer.append_one(&[7; 100], SyncMode::Buffered).unwrap();
    }
    let ready = written(&trace);
    let sizes: Vec<_> = ready.iter().map(|(_, bytes)| *bytes >> 10).collect();
    assert_eq!(sizes, [24, 48, 48, 48, 48, 32]);
    let mut end = first;
    for (at, bytes) in ready {
        assert_eq!(at, end);
        end = at + bytes;
    }
    assert_eq!(end, options.segment_bytes);
}

#[test]
fn whatever_comes_after_what_comes_back() {
    for seed in 0..200 {
        let mut random = esker_vfs::Random::new(seed);
        let options = SegmentOptions {
            segment_bytes: 1 << 20,
            mapped: random.below(4) > 0,
            zero_ahead_bytes: [0, 5000, 64 << 10][random.below(3) as usize],
            copied_syncs: random.below(2) > 0,
            may_grow: false,
        };
        let fs = MemFileSystem::new();
        let mut writer = SegmentWriter::create(&fs, path(), HEADER, options).unwrap();
        let mut all = Vec::new();
        for at in 0..120u64 {
            let most = [30, 30, 300, 9000][random.below(4) as usize];
            let payload = vec![at as u8 | 1; random.below(most) as usize];
            let mode = [SyncMode::Buffered, SyncMode::Sync][usize::from(random.below(4) == 0)];
            if SegmentWriter::record_bytes(payload.len()) > writer.remaining_bytes() {
                break;
            }
            writer.append_one(&payload, mode).unwrap();
            if mode == SyncMode::Sync {
                writer.sync().unwrap();
            }
            all.push(payload);
        }
        let found = read(&fs).unwrap();
        assert!(found.payloads == all, "seed {seed}: {options:?}");
    }
}

#[test]
fn a_synced_append_writes_zeros_ahead_once() {
    let trace = esker_vfs::TraceFileSystem::new(std::sync::Arc::new(MemFileSystem::new()));
    let options = SegmentOptions {
        segment_bytes: 64 << 10,
        mapped: false,
        zero_ahead_bytes: 16 << 10,
        copied_syncs: false,
        may_grow: false,
    };
    let mut writer = SegmentWriter::create(&trace, path(), HEADER, options).unwrap();
    trace.clear();
    for _ in 0..20 {
        writer.append_one(&[1; 1000], SyncMode::Sync).unwrap();
    }
    let writes = written(&trace);
    let long = writes.iter().filter(|write| write.1 > 16 << 10).count();
    assert_eq!((writes.len(), long), (20, 2), "{writes:?}");
    assert_eq!(read(&trace).unwrap().payloads, vec![vec![1; 1000]; 20]);
}

#[test]
fn a_sync_notes_what_it_covered_and_an_idle_one_does_nothing() {
    let fs = MemFileSystem::new();
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, SMALL).unwrap();
    assert_eq!(writer.synced_bytes(), FIRST, "the header page is synced");
    writer.sync().unwrap();
    assert_eq!(writer.bytes(), FIRST);
    writer.append_one(b"x", SyncMode::Sync).unwrap();
    writer.sync().unwrap();
    writer.sync().unwrap();
    let (synced_bytes, bytes) = (writer.synced_bytes(), writer.bytes());
    assert_eq!((synced_bytes, bytes), (FIRST + 24, FIRST + 56));
    assert_eq!(read(&fs).unwrap().synced_bytes, synced_bytes);
}

#[test]
fn a_sealed_segment_names_its_successor_and_takes_nothing_more() {
    for synced_after in [false, true] {
        let fs = MemFileSystem::new();
        let mut writer = SegmentWriter::create(&fs, path(), HEADER, SMALL).unwrap();
        writer.append_one(b"x", SyncMode::Buffered).unwrap();
        writer.seal(8).unwrap();
        assert!(writer.append_one(b"y", SyncMode::Buffered).is_err() && writer.seal(9).is_err());
        assert!(!writer.is_poisoned());
        if synced_after {
            writer.sync().unwrap();
        }
        let read = read(&fs).unwrap();
        assert_eq!(
            (read.payloads.len(), read.end),
            (1, SegmentEnd::Sealed { next: 8 })
        );
    }
}

#[test]
fn a_writer_goes_on_after_a_clean_end() {
    for mapped in [false, true] {
        for segment_bytes in [0, 12288] {
            let options = SegmentOptions {
                segment_bytes,
                mapped,
                zero_ahead_bytes: 100,
                copied_syncs: false,
                may_grow: false,
            };
            let fs = MemFileSystem::new();
            three_synced_and_two_not(&fs, options);
            let before = read(&fs).unwrap();
            assert_eq!(before.end, SegmentEnd::Clean);
            let offset = before.end_offset;
            let mut writer = SegmentWriter::reopen(
                &fs,
                path(),
                HEADER,
                offset,
                SegmentOptions { mapped, ..options },
            )
            .unwrap();
            assert_eq!((writer.bytes(), writer.synced_bytes()), (offset, 0));
            writer.append_one(b"sixth", SyncMode::Sync).unwrap();
            writer.sync().unwrap();
            let after = read(&fs).unwrap();
            assert_eq!(after.payloads.len(), 6);
            assert_eq!(
                (&after.payloads[..5], &after.payloads[5][..]),
                (&before.payloads[..], &b"sixth"[..])
            );
        }
    }
}

#[test]
fn a_segment_is_filled_to_its_end_and_no_further() {
    for mapped in [false, true] {
        let fs = MemFileSystem::new();
        let options = SegmentOptions { mapped, ..SMALL };
        let mut writer = SegmentWriter::create(&fs, path(), HEADER, options).unwrap();
        let mut count = 0;
        while writer.remaining_bytes() >= SegmentWriter::record_bytes(3) {
            writer.append_one(b"abc", SyncMode::Buffered).unwrap();
            writer.sync().unwrap();
            count += 1;
        }
        let error = writer.append_one(b"abc", SyncMode::Buffered).unwrap_err();
        assert_eq!(error.kind(), esker_base::ErrorKind::InvalidArgument);
        writer.seal(8).unwrap();
        writer.sync().unwrap();
        assert!(writer.bytes() <= 12288 && !writer.is_poisoned());
        let read = read(&fs).unwrap();
        assert_eq!(
            (read.payloads.len(), read.end),
            (count, SegmentEnd::Sealed { next: 8 })
        );
        assert_eq!(file_bytes(&fs).len(), 12288);
    }
}

#[test]
fn lengths_that_hold_no_record_are_refused() {
    let fs = MemFileSystem::new();
    for segment_bytes in [1, 4096, 8192, 12287] {
        let options = SegmentOptions {
            segment_bytes,
            ..SMALL
        };
        assert!(SegmentWriter::create(&fs, path(), HEADER, options).is_err());
    }
    let smallest = SegmentOptions::segment_bytes_for(5);
    let options = SegmentOptions {
        segment_bytes: smallest,
        ..SMALL
    };
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, options).unwrap();
    writer.append_one(b"12345", SyncMode::Buffered).unwrap();
    assert_eq!(writer.remaining_bytes(), 0);
}
