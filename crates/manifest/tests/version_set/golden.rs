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

#[test]
fn the_golden_manifest_is_what_is_written_and_reads_back() {
    let golden_files: [(&str, &[u8]); 2] = [
        (
            "CURRENT",
            include_bytes!("../../../../testdata/manifest/CURRENT"),
        ),
        (
            "MANIFEST-000001",
            include_bytes!("../../../../testdata/manifest/MANIFEST-000001"),
        ),
    ];
    let fs = empty();
    let set = golden(&fs);
    let stored = empty();
    for (name, bytes) in golden_files {
        let written = bytes_of(&fs, name);
        assert!(written == bytes, "the format of {name} has changed");
        stored
            .create(&directory().join(name))
            .unwrap()
            .write_at(0, bytes)
            .unwrap();
    }
    assert_eq!(recover(&stored).unwrap().state(), set.state());
}
