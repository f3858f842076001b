//! The bytes of a backup's metadata: golden, round trips, and hostile ones.

use super::*;
use esker_base::key_bounds::KeyBounds;
use esker_manifest::KeyspaceEdit;
use proptest::prelude::*;

fn sample() -> BackupInfo {
    let meta = TableMeta {
        number: 9,
        file_bytes: 4096,
        bounds: KeyBounds::inclusive("a", "m"),
        smallest_sequence: 3,
        largest_sequence: 40,
        entries: 20,
        tombstones: 2,
        created_millis: 1_136_214_244_000,
        checksum: 0x0123_4567_89ab_cdef,
        ..TableMeta::default()
    };
    let keyspace = |id, name: &str, added| KeyspaceEdit {
        id,
        create: Some((name.to_owned(), Vec::new())),
        flushed_sequence: Some(42),
        added,
        ..KeyspaceEdit::default()
    };
    let added = vec![AddedTable {
        level: 0,
        run: RunPlacement::Created(10),
        meta: Arc::new(meta),
    }];
    BackupInfo {
        name: "20060102_150405".to_owned(),
        description: "nightly".to_owned(),
        is_recovery_point: false,
        created_millis: 1_136_214_245_000,
        sequence: 42,
        esker_version: "0.1.0".to_owned(),
        new_bytes: 4096,
        restored: None,
        contents: VersionEdit {
            last_sequence: Some(42),
            database_id: Some(*b"0123456789abcdef"),
            keyspaces: vec![keyspace(0, "default", added), keyspace(1, "users", vec![])],
            ..VersionEdit::default()
        },
    }
}

#[test]
fn the_bytes_on_disk_never_change() {
    let golden = include_bytes!("../../../../testdata/backup/v1.backup");
    assert_eq!(sample().encode().unwrap(), golden);
    assert_eq!(BackupInfo::decode(golden).unwrap(), sample());
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let bytes = sample().encode().unwrap();
    for at in 0..bytes.len() {
        assert!(BackupInfo::decode(&bytes[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert!(
                BackupInfo::decode(&damaged).is_err(),
                "bit {bit} of byte {at}"
            );
        }
    }
}

/// The same bytes with a checksum that fits.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&body, 0);
    body.extend_from_slice(&sum.to_le_bytes());
    body
}

#[test]
fn unknown_fields_are_skipped_where_they_say_so() {
    let mut bytes = sample().encode().unwrap();
    bytes.truncate(bytes.len() - CHECKSUM_BYTES);
    let with = |key: u64| {
        let mut bytes = bytes.clone();
        put_field(&mut bytes, key, b"later");
        BackupInfo::decode(&sealed(bytes))
    };
    assert_eq!(with(40 << 1 | SKIPPABLE).unwrap(), sample());
    assert_eq!(with(40 << 1).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(with(NAME << 1).unwrap_err().kind(), ErrorKind::Corruption);
    let mut later = bytes.clone();
    later[8] = 2;
    let error = BackupInfo::decode(&sealed(later)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(
        body in prop::collection::vec(any::<u8>(), 0..200),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let _ = BackupInfo::decode(&body);
        let mut bytes = sample().encode().unwrap();
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        for (at, to) in flips {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        let _ = BackupInfo::decode(&sealed(bytes));
        let mut framed = MAGIC.to_vec();
        framed.extend_from_slice(&1u32.to_le_bytes());
        framed.extend_from_slice(&[0; 12]);
        framed.extend_from_slice(&body);
        let _ = BackupInfo::decode(&sealed(framed));
    }
}
