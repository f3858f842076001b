//! A file that lives again as another segment: nothing of its first life is ever read.

use super::*;

/// A full segment 3 under the path of segment 7.
fn old_segment(fs: &dyn FileSystem, segment_bytes: u64) {
    let options = SegmentOptions {
        segment_bytes,
        ..SMALL
    };
    let header = SegmentHeader {
        number: 3,
        ..HEADER
    };
    let mut writer = SegmentWriter::create(fs, path(), header, options).unwrap();
    while writer.remaining_bytes() > 200 {
        writer
            .append_one(b"of the first life", SyncMode::Sync)
            .unwrap();
        writer.sync().unwrap();
    }
    writer.seal(4).unwrap();
}

#[test]
fn records_of_the_first_life_never_come_back() {
    for old_bytes in [12288, 12288 + 4096, 10096] {
        for mapped in [false, true] {
            let fs = MemFileSystem::new();
            old_segment(&fs, old_bytes);
            let options = SegmentOptions {
                mapped,
                zero_ahead_bytes: 512,
                copied_syncs: false,
                ..SMALL
            };
            let mut writer = SegmentWriter::recycle(&fs, path(), HEADER, options).unwrap();
            assert_eq!(file_bytes(&fs).len(), 12288);
            let empty = read(&fs).unwrap();
            assert_eq!(
                (empty.payloads.len(), empty.end, empty.end_offset),
                (0, SegmentEnd::Clean, FIRST)
            );
            // The same payloads, so that record boundaries meet those of the first life.
            for count in 1..20 {
                writer
                    .append_one(b"of the first life", SyncMode::Buffered)
                    .unwrap();
                if count % 3 == 0 {
                    writer.sync().unwrap();
                }
                let read = read(&fs).unwrap();
                assert_eq!((read.payloads.len(), read.end), (count, SegmentEnd::Clean));
                assert_eq!(read.end_offset, writer.bytes());
            }
        }
    }
}

#[test]
fn a_recycled_segment_is_reopened_and_told_from_a_torn_one() {
    let fs = MemFileSystem::new();
    old_segment(&fs, 12288);
    let mut writer = SegmentWriter::recycle(&fs, path(), HEADER, SMALL).unwrap();
    writer
        .append(&[b"a", b"b", b"c"], SyncMode::Buffered)
        .unwrap();
    let offset = read(&fs).unwrap().end_offset;
    let mut writer = SegmentWriter::reopen(&fs, path(), HEADER, offset, SMALL).unwrap();
    writer.append_one(b"d", SyncMode::Sync).unwrap();
    assert_eq!(read(&fs).unwrap().payloads, [b"a", b"b", b"c", b"d"]);
    let mut bytes = file_bytes(&fs);
    bytes[FIRST as usize + 24 + 20] ^= 1;
    let read = read(&with_bytes(&bytes)).unwrap();
    assert_eq!(
        (read.payloads, read.end),
        (vec![b"a".to_vec()], SegmentEnd::Torn)
    );
}

#[test]
fn a_recycled_segment_needs_no_zeros_ahead() {
    let trace = esker_vfs::TraceFileSystem::new(std::sync::Arc::new(MemFileSystem::new()));
    old_segment(&trace, 12288);
    let options = SegmentOptions {
        zero_ahead_bytes: 1024,
        copied_syncs: false,
        ..SMALL
    };
    let mut writer = SegmentWriter::recycle(&trace, path(), HEADER, options).unwrap();
    trace.clear();
    writer.append_one(b"x", SyncMode::Sync).unwrap();
    let bytes: Vec<u64> = trace
        .entries()
        .iter()
        .filter(|entry| entry.operation.kind == esker_vfs::OperationKind::Write)
        .map(|entry| entry.operation.bytes)
        .collect();
    assert_eq!(bytes, [24]);
}

/// A reader that follows a writer finds each record once it is whole, also over bytes of an earlier life
/// that it has read ahead, and gives back what it was told too early.
#[test]
fn a_reader_follows_the_writer_of_a_recycled_segment() {
    let fs = MemFileSystem::new();
    let mut old = SegmentWriter::create(&fs, path(), HEADER, SMALL).unwrap();
    old.append(&[&[3; 900][..], &[4; 900][..]], SyncMode::Buffered)
        .unwrap();
    let mut writer = SegmentWriter::recycle(&fs, path(), HEADER, SMALL).unwrap();
    let mut reader = SegmentReader::open(&fs, path(), NUMBER).unwrap();
    // The records of the earlier life have the same number here, and would verify.
    fs.open_write(path())
        .unwrap()
        .write_at(FIRST, &[9; 2000])
        .unwrap();
    for number in 0..20u8 {
        assert_eq!(reader.next_written().unwrap(), None);
        assert_eq!(reader.outcome(), None);
        writer.append(&[&[number; 40]], SyncMode::Sync).unwrap();
        if number % 3 == 0 {
            writer.sync().unwrap();
        }
        for goes_back in [true, false] {
            let found = reader.next_written().unwrap();
            assert_eq!(found, Some((RecordType::Data, &[number; 40][..])));
            if goes_back {
                reader.step_back();
            }
        }
        assert!(reader.next_written().unwrap().is_none());
    }
    writer.seal(8).unwrap();
    assert_eq!(reader.next_written().unwrap(), None);
    assert_eq!(reader.outcome(), Some(&SegmentEnd::Sealed { next: 8 }));
}
