//! The bytes of format version 1, held by files that are never written again (I11).

use super::*;

/// What the golden segments hold: the example of `docs/format/wal.md`.
fn golden(fs: &dyn FileSystem) {
    let header = SegmentHeader {
        number: NUMBER,
        first_sequence: 1000,
        previous: 6,
    };
    let options = SegmentOptions {
        segment_bytes: 8704,
        ..SMALL
    };
    let mut writer = SegmentWriter::create(fs, path(), header, options).unwrap();
    writer.append_one(b"hello", SyncMode::Sync).unwrap();
    writer.sync().unwrap();
    writer.append(&[b"", b"esker"], SyncMode::Buffered).unwrap();
    writer.seal(8).unwrap();
}

#[test]
fn the_golden_segment_is_what_is_written_and_reads_back() {
    let golden_bytes = include_bytes!("../../../../testdata/wal/noted/000007.wal");
    let fs = MemFileSystem::new();
    golden(&fs);
    let bytes = file_bytes(&fs);
    assert!(
        bytes == golden_bytes,
        "the format has changed: {:02x?}",
        &bytes[8192..8400]
    );
    let read = read(&with_bytes(golden_bytes)).unwrap();
    assert_eq!(read.payloads, [&b"hello"[..], b"", b"esker"]);
    assert_eq!(
        (read.end, read.synced_bytes),
        (SegmentEnd::Sealed { next: 8 }, FIRST + 32)
    );
}

/// Written before there were notes: its records begin where the note is now.
#[test]
fn a_segment_without_a_note_reads_back_and_is_written_on() {
    let golden_bytes = include_bytes!("../../../../testdata/wal/000007.wal");
    let fs = with_bytes(golden_bytes);
    let whole = read(&fs).unwrap();
    assert_eq!(whole.payloads, [&b"hello"[..], b"", b"esker"]);
    assert_eq!(
        (whole.end, whole.synced_bytes),
        (SegmentEnd::Sealed { next: 8 }, 4128)
    );
    // Its end record gone, it is one that goes on.
    let mut bytes = golden_bytes.to_vec();
    bytes[0x1078..0x10a0].fill(0);
    let fs = with_bytes(&bytes);
    let mut writer = SegmentWriter::reopen(&fs, path(), HEADER, 0x1078, SMALL).unwrap();
    writer.append_one(b"more", SyncMode::Sync).unwrap();
    writer.sync().unwrap();
    let read = read(&fs).unwrap();
    assert_eq!(read.payloads, [&b"hello"[..], b"", b"esker", b"more"]);
    assert_eq!(
        (read.end, read.synced_bytes),
        (SegmentEnd::Clean, writer.synced_bytes())
    );
}

/// Two groups that were synced, each with its copy: the second example of `docs/format/wal.md`.
#[test]
fn the_golden_segment_with_copies_is_what_is_written_and_reads_back() {
    let golden_bytes = include_bytes!("../../../../testdata/wal/copied/000007.wal");
    let options = SegmentOptions {
        segment_bytes: 24 << 10,
        copied_syncs: true,
        ..SMALL
    };
    let fs = MemFileSystem::new();
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, options).unwrap();
    for payload in ["hello", "esker"] {
        writer
            .append_one(payload.as_bytes(), SyncMode::Sync)
            .unwrap();
        writer.sync().unwrap();
    }
    writer.append_one(b"buffered", SyncMode::Buffered).unwrap();
    assert!(file_bytes(&fs) == golden_bytes, "the format has changed");
    let read = read(&with_bytes(golden_bytes)).unwrap();
    assert_eq!(read.payloads, [&b"hello"[..], b"esker", b"buffered"]);
    assert_eq!((read.end, read.end_offset), (SegmentEnd::Clean, 0x4040));
}

/// One that has grown: the third example of `docs/format/wal.md`.
#[test]
fn the_golden_segment_that_has_grown_is_what_is_written_and_reads_back() {
    let golden_bytes = include_bytes!("../../../../testdata/wal/grown/000007.wal");
    let options = SegmentOptions {
        segment_bytes: 8704,
        may_grow: true,
        ..SMALL
    };
    let fs = MemFileSystem::new();
    let mut writer = SegmentWriter::create(&fs, path(), HEADER, options).unwrap();
    writer.append_one(b"hello", SyncMode::Buffered).unwrap();
    writer.grow(9216).unwrap();
    writer.append_one(&[b'x'; 600], SyncMode::Buffered).unwrap();
    writer.sync().unwrap();
    writer.seal(8).unwrap();
    assert!(file_bytes(&fs) == golden_bytes, "the format has changed");
    let read = read(&with_bytes(golden_bytes)).unwrap();
    assert_eq!(read.payloads, [&b"hello"[..], &[b'x'; 600]]);
    assert_eq!(
        (read.end, read.synced_bytes),
        (SegmentEnd::Sealed { next: 8 }, FIRST + 32 + 624)
    );
}
