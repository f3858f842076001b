//! The bytes of format version 1, held by files that are never written again (I11).

use esker_manifest::RecoveryPointEdit;

use super::*;

/// What the golden MANIFEST holds: the example of `docs/format/manifest.md`.
fn golden(fs: &MemFileSystem) -> VersionSet {
    let initial = VersionEdit {
        database_id: Some(*b"0123456789abcdef"),
        options: Some(b"options".to_vec()),
        ..VersionEdit::default()
    };
    let set = VersionSet::create(shared(fs), directory(), TINY, initial).unwrap();
    let meta = Arc::new(TableMeta {
        number: set.new_file_number(),
        file_bytes: 300,
        bounds: KeyBounds::half_open("apple", "pear"),
        smallest_sequence: 1,
        largest_sequence: 9,
        entries: 8,
        tombstones: 1,
        range_tombstones: 1,
        raw_key_bytes: 40,
        raw_value_bytes: 200,
        expiring_entries: 2,
        earliest_expiry_millis: 1_700_000_000_000,
        latest_expiry_millis: 1_700_000_000_001,
        created_millis: 1_600_000_000_000,
        ingested_sequence: 0,
        value_refs: Vec::new(),
        checksum: 0x0123_4567_89ab_cdef,
    });
    let added = vec![AddedTable {
        level: 0,
        run: RunPlacement::New,
        meta,
    }];
    let segment = set.new_file_number();
    set.log_and_apply(VersionEdit {
        added_segments: vec![segment],
        keyspaces: vec![KeyspaceEdit {
            added,
            flushed_sequence: Some(9),
            ..KeyspaceEdit::default()
        }],
        recovery_points: vec![RecoveryPointEdit::Added {
            name: "noon".to_owned(),
            bytes: b"12:00".to_vec(),
        }],
        ..VersionEdit::default()
    })
    .unwrap();
    set
}

fn bytes_of(fs: &MemFileSystem, name: &str) -> Vec<u8> {
    let file = fs.open_read(&directory().join(name)).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A directory with these bytes as its MANIFEST.
fn stored(manifest: &[u8]) -> MemFileSystem {
    let fs = empty();
    let current = include_bytes!("../../../../testdata/manifest/CURRENT");
    for (name, bytes) in [("CURRENT", &current[..]), ("MANIFEST-000001", manifest)] {
        let path = directory().join(name);
        fs.create(&path).unwrap().write_at(0, bytes).unwrap();
    }
    fs
}

#[test]
fn the_golden_manifest_is_what_is_written_and_reads_back() {
    let fs = empty();
    let set = golden(&fs);
    let bytes = include_bytes!("../../../../testdata/manifest/two_notes/MANIFEST-000001");
    let stored = stored(bytes);
    for name in ["CURRENT", "MANIFEST-000001"] {
        let is_same = bytes_of(&fs, name) == bytes_of(&stored, name);
        assert!(is_same, "the format of {name} has changed");
    }
    assert_eq!(recover(&stored).unwrap().state(), set.state());
}

/// Written before log segments had a synced note, and when they had one.
#[test]
fn a_manifest_with_fewer_notes_reads_back_and_is_written_on() {
    let without = include_bytes!("../../../../testdata/manifest/MANIFEST-000001");
    let noted = include_bytes!("../../../../testdata/manifest/noted/MANIFEST-000001");
    for bytes in [&without[..], noted] {
        let stored = stored(bytes);
        let set = recover(&stored).unwrap();
        assert_eq!(set.state(), golden(&empty()).state());
        set.log_and_apply(flush(&set)).unwrap();
        assert_eq!(set.manifest_number(), 1);
        assert_eq!(recover(&stored).unwrap().state(), set.state());
    }
}
