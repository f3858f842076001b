//! What the version set refuses, and the numbers that it gives out.

use esker_base::ErrorKind;

use super::*;

fn keyspace(id: u32, name: &str) -> KeyspaceEdit {
    KeyspaceEdit {
        id,
        create: Some((name.to_owned(), Vec::new())),
        ..KeyspaceEdit::default()
    }
}

fn edit(keyspaces: Vec<KeyspaceEdit>) -> VersionEdit {
    VersionEdit {
        keyspaces,
        ..VersionEdit::default()
    }
}

#[test]
fn edits_that_are_refused_change_nothing() {
    let fs = empty();
    let set = create(&fs).unwrap();
    set.log_and_apply(flush(&set)).unwrap();
    set.log_and_apply(edit(vec![keyspace(4, "four")])).unwrap();
    set.log_and_apply(VersionEdit {
        oldest_segment: Some(9),
        ..VersionEdit::default()
    })
    .unwrap();
    let twice = flush(&set);
    let dropped = |id| KeyspaceEdit {
        id,
        drop: true,
        ..KeyspaceEdit::default()
    };
    let cases = [
        (
            "a keyspace that is not there",
            edit(vec![KeyspaceEdit {
                id: 9,
                ..KeyspaceEdit::default()
            }]),
        ),
        ("a number that is taken", edit(vec![keyspace(4, "other")])),
        (
            "a number below the largest",
            edit(vec![keyspace(3, "other")]),
        ),
        ("a name that is taken", edit(vec![keyspace(5, "four")])),
        (
            "a name taken in the same edit",
            edit(vec![keyspace(5, "five"), keyspace(6, "five")]),
        ),
        ("no name", edit(vec![keyspace(5, "")])),
        ("too long a name", edit(vec![keyspace(5, &"x".repeat(256))])),
        ("dropping the default keyspace", edit(vec![dropped(0)])),
        ("dropping what is not there", edit(vec![dropped(5)])),
        (
            "dropping with a table",
            edit(vec![KeyspaceEdit {
                removed: vec![1],
                ..dropped(4)
            }]),
        ),
        (
            "a segment that is needed again",
            VersionEdit {
                oldest_segment: Some(8),
                ..VersionEdit::default()
            },
        ),
        (
            "a table in two keyspaces",
            edit(vec![
                twice.keyspaces[0].clone(),
                KeyspaceEdit {
                    id: 4,
                    added: twice.keyspaces[0].added.clone(),
                    ..KeyspaceEdit::default()
                },
            ]),
        ),
    ];
    let (state, bytes) = (set.state(), set.manifest_bytes());
    for (name, edit) in cases {
        let error = set.log_and_apply(edit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
        assert!(Arc::ptr_eq(&set.state(), &state), "{name}");
        assert_eq!(set.manifest_bytes(), bytes, "{name}");
    }
}

#[test]
fn numbers_of_keyspaces_are_never_given_out_again() {
    let fs = empty();
    let set = create(&fs).unwrap();
    set.log_and_apply(edit(vec![keyspace(1, "one")])).unwrap();
    let dropped = KeyspaceEdit {
        id: 1,
        drop: true,
        ..KeyspaceEdit::default()
    };
    set.log_and_apply(edit(vec![dropped])).unwrap();
    assert_eq!(set.next_keyspace_id(), 2);
    let before = set.manifest_number();
    while set.manifest_number() == before {
        set.log_and_apply(flush(&set)).unwrap();
    }
    let set = recover(&fs).unwrap();
    assert_eq!(set.next_keyspace_id(), 2);
    // The name is free again.
    set.log_and_apply(edit(vec![keyspace(2, "one")])).unwrap();
}

#[test]
fn file_numbers_and_sequences_survive_with_the_next_edit() {
    let fs = empty();
    let set = create(&fs).unwrap();
    set.reserve_file_number(40);
    set.reserve_file_number(20);
    // What has such a number is a stranger's file. (The numbers once began with 0 again.)
    set.reserve_file_number(u64::MAX);
    assert_eq!((set.new_file_number(), set.new_file_number()), (41, 42));
    set.set_last_sequence(1000);
    set.set_last_sequence(900);
    assert_eq!(set.state().last_sequence, 0, "not logged yet");
    set.log_and_apply(VersionEdit::default()).unwrap();
    let set = recover(&fs).unwrap();
    assert_eq!((set.new_file_number(), set.last_sequence()), (43, 1000));
    // A table's sequences count, so that none is given out twice.
    let mut edit = flush(&set);
    let meta = TableMeta {
        largest_sequence: 5000,
        ..(*table(50, "a", "b")).clone()
    };
    edit.keyspaces[0].added[0].meta = Arc::new(meta);
    edit.next_file_number = Some(60);
    set.log_and_apply(edit).unwrap();
    let set = recover(&fs).unwrap();
    assert_eq!((set.new_file_number(), set.last_sequence()), (60, 5000));
}

#[test]
fn the_tables_of_one_edit_form_one_new_run_in_each_level() {
    let fs = empty();
    let set = create(&fs).unwrap();
    let added = [(0, "a"), (0, "b"), (1, "a"), (0, "c"), (1, "b")].map(|(level, key)| {
        let meta = table(set.new_file_number(), key, key);
        AddedTable {
            level,
            run: RunPlacement::New,
            meta,
        }
    });
    set.log_and_apply(edit(vec![KeyspaceEdit {
        added: added.to_vec(),
        ..KeyspaceEdit::default()
    }]))
    .unwrap();
    let version = set.current(0).unwrap();
    let counts: Vec<(usize, usize)> = version
        .runs_newest_first()
        .map(|(level, run)| (level, run.tables.len()))
        .collect();
    assert_eq!(counts, [(0, 3), (1, 2)]);
    assert_ne!(version.levels[0].runs[0].id, version.levels[1].runs[0].id);
    assert_eq!(set.current(7), None);
}
