//! The bytes of format version 1, held by a file that is never written again (I11).

use super::*;

/// What the golden segment holds: the example of `docs/format/wal.md`.
fn golden(fs: &dyn FileSystem) {
    let header = SegmentHeader {
        number: NUMBER,
        first_sequence: 1000,
        previous: 6,
    };
    let options = SegmentOptions {
        segment_bytes: 4608,
        mapped: false,
        zero_ahead_bytes: 0,
    };
    let mut writer = SegmentWriter::create(fs, path(), header, options).unwrap();
    writer.append_one(b"hello", SyncMode::Sync).unwrap();
    writer.sync().unwrap();
    writer.append(&[b"", b"esker"], SyncMode::Buffered).unwrap();
    writer.seal(8).unwrap();
}

#[test]
fn the_golden_segment_is_what_is_written_and_reads_back() {
    let golden_bytes = include_bytes!("../../../../testdata/wal/000007.wal");
    let fs = MemFileSystem::new();
    golden(&fs);
    let bytes = file_bytes(&fs);
    assert!(
        bytes == golden_bytes,
        "the format has changed: {:02x?}",
        &bytes[4096..4300]
    );
    let read = read(&with_bytes(golden_bytes)).unwrap();
    assert_eq!(read.payloads, [&b"hello"[..], b"", b"esker"]);
    assert_eq!(
        (read.end, read.synced_bytes),
        (SegmentEnd::Sealed { next: 8 }, 4128)
    );
}
