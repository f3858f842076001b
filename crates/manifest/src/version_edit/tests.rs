//! The encoding of edits: round trips, growth, and bytes that are no edit.

use esker_base::ErrorKind;
use esker_base::coding::put_varint;
use esker_base::key_bounds::KeyBounds;
use esker_base::limits::MAX_LEVELS;
use esker_base::table_meta::{TableMeta, ValueRef};
use proptest::prelude::*;

use super::*;
use crate::tagged_fields::{put_field, put_skippable_field, put_varint_field};

fn any_table() -> impl Strategy<Value = TableMeta> {
    let bounds = (
        proptest::collection::vec(any::<u8>(), 1..20),
        any::<bool>(),
        0..3u8,
    );
    let numbers = proptest::array::uniform12(prop_oneof![Just(0u64), 0..300u64, any::<u64>()]);
    (bounds, numbers, 1..u64::MAX).prop_map(|((key, exclusive, longer), numbers, number)| {
        let mut largest = key.clone();
        largest.extend(vec![7; usize::from(longer) + usize::from(exclusive)]);
        let bounds = KeyBounds {
            smallest: key,
            largest,
            largest_is_exclusive: exclusive,
        };
        let sequence = numbers[1] % (1 << 56);
        TableMeta {
            number,
            file_bytes: numbers[0],
            bounds,
            smallest_sequence: sequence / 2,
            largest_sequence: sequence,
            entries: numbers[2],
            tombstones: numbers[2] / 3,
            range_tombstones: numbers[3],
            raw_key_bytes: numbers[4],
            raw_value_bytes: numbers[5],
            expiring_entries: numbers[2] / 2,
            earliest_expiry_millis: numbers[6],
            latest_expiry_millis: numbers[7],
            created_millis: numbers[8],
            checksum: numbers[9],
            ingested_sequence: numbers[10] % (1 << 56),
            value_refs: (0..numbers[0] % 3)
                .map(|step| ValueRef {
                    number: step * 7,
                    records: numbers[1] | 1,
                    bytes: numbers[2],
                })
                .collect(),
        }
    })
}

fn any_keyspace() -> impl Strategy<Value = KeyspaceEdit> {
    let run = prop_oneof![
        any::<u64>().prop_map(RunPlacement::Existing),
        any::<u64>().prop_map(RunPlacement::Created)
    ];
    let added = (0..=MAX_LEVELS, run, any_table()).prop_map(|(level, run, meta)| {
        let meta = Arc::new(meta);
        match level {
            MAX_LEVELS => AddedTable::of_values(meta),
            level => AddedTable { level, run, meta },
        }
    });
    (
        any::<u32>(),
        any::<Option<(String, Vec<u8>)>>(),
        any::<bool>(),
        any::<Option<Vec<u8>>>(),
        any::<Option<u64>>(),
        any::<[Vec<u64>; 2]>(),
        proptest::collection::vec(added, 0..3),
    )
        .prop_map(
            |(id, create, drop, set_options, flushed_sequence, numbers, added)| {
                let [removed, lost_values] = numbers;
                let create = create.filter(|(name, _)| name.len() < 256);
                KeyspaceEdit {
                    id,
                    create,
                    drop,
                    set_options,
                    flushed_sequence,
                    removed,
                    added,
                    lost_values,
                }
            },
        )
}

fn any_edit() -> impl Strategy<Value = VersionEdit> {
    let point = prop_oneof![
        any::<(String, Vec<u8>)>()
            .prop_map(|(name, bytes)| RecoveryPointEdit::Added { name, bytes }),
        any::<String>().prop_map(|name| RecoveryPointEdit::Removed { name }),
    ];
    let cursor = prop_oneof![
        any::<(String, u64)>()
            .prop_map(|(name, acknowledged)| ChangeCursorEdit::Set { name, acknowledged }),
        any::<String>().prop_map(|name| ChangeCursorEdit::Removed { name }),
    ];
    (
        (
            any::<[Option<u64>; 4]>(),
            proptest::collection::vec(cursor, 0..3),
        ),
        any::<[Vec<u64>; 2]>(),
        proptest::collection::vec(any_keyspace(), 0..3),
        any::<(Option<[u8; 16]>, Option<Vec<u8>>, Option<u32>)>(),
        proptest::collection::vec(point, 0..3),
        any::<[bool; 2]>(),
    )
        .prop_map(
            |((numbers, change_cursors), segments, keyspaces, others, recovery_points, flags)| {
                let [added_segments, removed_segments] = segments;
                VersionEdit {
                    next_file_number: numbers[0],
                    last_sequence: numbers[1],
                    oldest_segment: numbers[2],
                    latest_millis: numbers[3],
                    added_segments,
                    removed_segments,
                    keyspaces,
                    database_id: others.0,
                    options: others.1,
                    recovery_points,
                    change_cursors,
                    largest_keyspace: others.2,
                    completes_snapshot: flags[0],
                    is_published: flags[1],
                }
            },
        )
}

proptest! {
    #[test]
    fn edits_round_trip(edit in any_edit()) {
        let bytes = edit.encode().unwrap();
        prop_assert_eq!(VersionEdit::decode(&bytes).unwrap(), edit);
    }

    #[test]
    fn any_bytes_are_an_edit_or_an_error(bytes: Vec<u8>) {
        let _ = VersionEdit::decode(&bytes);
    }

    #[test]
    fn any_mutation_is_an_edit_or_an_error(
        edit in any_edit(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = edit.encode().unwrap();
        bytes.push(0);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(length.index(bytes.len()) + 1);
        let _ = VersionEdit::decode(&bytes);
    }
}

#[test]
fn fields_of_later_versions_are_skipped_or_refused_at_every_depth() {
    // In a record, a keyspace, an added table and a table, by nesting.
    for depth in 0..4 {
        for skippable in [false, true] {
            let mut unknown = Vec::new();
            match skippable {
                true => put_skippable_field(&mut unknown, 1000, b"later"),
                false => put_field(&mut unknown, 1000, b"later"),
            }
            let mut table = Vec::new();
            put_varint_field(&mut table, 1, 7);
            let mut added = Vec::new();
            put_varint_field(&mut added, 1, 0);
            put_varint_field(&mut added, 2, 5);
            let mut keyspace = Vec::new();
            put_varint_field(&mut keyspace, 1, 0);
            let mut record = Vec::new();
            let levels = [&mut record, &mut keyspace, &mut added, &mut table];
            for (at, message) in levels.into_iter().enumerate() {
                if at == depth {
                    message.extend_from_slice(&unknown);
                }
            }
            put_field(&mut added, 4, &table);
            put_field(&mut keyspace, 7, &added);
            put_field(&mut record, 6, &keyspace);
            match VersionEdit::decode(&record) {
                Ok(edit) => assert!(skippable && edit.keyspaces[0].added[0].meta.number == 7),
                Err(error) => assert!(
                    !skippable && error.kind() == ErrorKind::Unsupported,
                    "{depth}: {error}"
                ),
            }
        }
    }
}

#[test]
fn bytes_that_are_no_edit() {
    let field = |number: u64, payload: &[u8]| {
        let mut bytes = Vec::new();
        put_field(&mut bytes, number, payload);
        bytes
    };
    let twice = |bytes: Vec<u8>| [bytes.clone(), bytes].concat();
    let mut beyond = Vec::new();
    put_varint(&mut beyond, 6 << 1);
    put_varint(&mut beyond, 1 << 40);
    let cases = [
        ("a length beyond the end", beyond),
        ("a number cut short", field(1, &[0x80])),
        ("more than a number", field(1, &[1, 1])),
        ("a number twice", twice(field(1, &[1]))),
        ("a flag with a payload", field(12, &[1])),
        ("an id of 15 bytes", field(7, &[0; 15])),
        ("a keyspace without number", field(6, &[])),
        (
            "a keyspace with too large a number",
            field(6, &field(1, &[0xff, 0xff, 0xff, 0xff, 0x7f])),
        ),
        ("a name that is not UTF-8", field(10, &[0xff])),
        (
            "a table without a place",
            field(6, &[field(1, &[0]), field(7, &[])].concat()),
        ),
    ];
    for (name, bytes) in cases {
        let error = VersionEdit::decode(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{name}");
    }
}

#[test]
fn a_run_without_a_number_is_not_written() {
    let meta = Arc::new(TableMeta::default());
    let added = vec![AddedTable {
        level: 0,
        run: RunPlacement::New,
        meta,
    }];
    let keyspaces = vec![KeyspaceEdit {
        added,
        ..KeyspaceEdit::default()
    }];
    let edit = VersionEdit {
        keyspaces,
        ..VersionEdit::default()
    };
    assert_eq!(
        edit.encode().unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}
