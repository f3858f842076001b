//! Random edits against the naive state, with a reopening after each one.

use super::workload::{Naive, Workload, trimmed};
use super::*;

#[test]
fn random_edits_lead_where_the_model_says_and_come_back() {
    for seed in 0..40 {
        let fs = empty();
        let mut set = create(&fs).unwrap();
        let mut workload = Workload::new(seed, &set);
        let mut numbers = set.state().next_file_number;
        for step in 0..40 {
            let edit = workload.draw(&set);
            let context = || format!("seed {seed}, step {step}: {edit:?}");
            set.log_and_apply(edit.clone())
                .unwrap_or_else(|error| panic!("{error} {}", context()));
            workload.expected = trimmed(workload.expected);
            assert_eq!(Naive::of(&set.state()), workload.expected, "{}", context());
            if step % 3 != 0 {
                set = recover(&fs).unwrap();
                assert_eq!(
                    Naive::of(&set.state()),
                    workload.expected,
                    "after opening, {}",
                    context()
                );
            }
            let read_only = VersionSet::recover_read_only(shared(&fs), directory()).unwrap();
            assert_eq!(read_only.state(), set.state());
            assert_eq!(read_only.live_files(), set.live_files());

            let live = set.live_files();
            let tables = workload.expected.table_numbers();
            assert!(tables.iter().all(|number| live.contains(number)));
            assert!(live.contains(&set.manifest_number()) && set.manifest_bytes() > 4096);
            assert!(
                set.state().next_file_number >= numbers,
                "numbers never go back"
            );
            numbers = set.state().next_file_number;
            assert!(live.iter().all(|&number| number < numbers));
        }
        assert!(set.manifest_number() > 1, "the manifest was never rotated");
    }
}

#[test]
fn opening_after_a_clean_end_writes_and_syncs_nothing() {
    let fs = empty();
    let set = create(&fs).unwrap();
    set.log_and_apply(flush(&set)).unwrap();
    drop(set);
    let trace = esker_vfs::TraceFileSystem::new(shared(&fs));
    let set = recover(&trace).unwrap();
    let changes = trace
        .entries()
        .iter()
        .filter(|entry| entry.operation.kind.changes())
        .count();
    assert_eq!(changes, 0, "{}", trace.log(directory()));
    trace.clear();
    let number = set.manifest_number();
    set.log_and_apply(flush(&set)).unwrap();
    assert_eq!(
        set.manifest_number(),
        number,
        "the edit went to the same file"
    );
    let kinds = trace
        .entries()
        .into_iter()
        .map(|entry| entry.operation.kind);
    let syncs = kinds
        .filter(|kind| *kind == esker_vfs::OperationKind::Sync)
        .count();
    assert_eq!(syncs, 2, "of the edit and of the note that proves it");
}

#[test]
fn ten_thousand_keyspaces_and_as_many_tables() {
    let fs = empty();
    let set = create(&fs).unwrap();
    let mut edit = VersionEdit::default();
    for id in 1..=10_000 {
        let create = Some((format!("keyspace {id}"), vec![7; 10]));
        let meta = table(set.new_file_number(), "a", "z");
        let added = vec![AddedTable {
            level: 1,
            run: RunPlacement::New,
            meta,
        }];
        edit.keyspaces.push(KeyspaceEdit {
            id,
            create,
            added,
            ..KeyspaceEdit::default()
        });
    }
    set.log_and_apply(edit).unwrap();
    // One run of many tables, which a snapshot spreads over several records.
    let added = (0..1500).map(|at| {
        let key = format!("{at:05}");
        let meta = table(set.new_file_number(), &key, &key);
        AddedTable {
            level: 2,
            run: RunPlacement::New,
            meta,
        }
    });
    let keyspaces = vec![KeyspaceEdit {
        added: added.collect(),
        ..KeyspaceEdit::default()
    }];
    set.log_and_apply(VersionEdit {
        keyspaces,
        ..VersionEdit::default()
    })
    .unwrap();
    let before = set.manifest_number();
    while set.manifest_number() == before {
        let keyspaces = (1..2000).map(|id| {
            let flushed_sequence = Some(set.last_sequence());
            KeyspaceEdit {
                id,
                flushed_sequence,
                ..KeyspaceEdit::default()
            }
        });
        let keyspaces = keyspaces.collect();
        set.log_and_apply(VersionEdit {
            keyspaces,
            ..VersionEdit::default()
        })
        .unwrap();
    }
    let state = set.state();
    assert_eq!(
        (state.keyspaces.len(), set.keyspaces().len()),
        (10_001, 10_001)
    );
    assert_eq!(set.next_keyspace_id(), 10_001);
    assert_eq!(state.keyspace_named("keyspace 77").unwrap().meta.id, 77);
    let again = recover(&fs).unwrap();
    assert_eq!(again.state(), state);
    assert_eq!(
        again.current(0).unwrap().levels[2].runs[0].tables.len(),
        1500
    );
}

#[test]
fn a_version_that_a_reader_holds_does_not_change() {
    let fs = empty();
    let set = create(&fs).unwrap();
    set.log_and_apply(flush(&set)).unwrap();
    let (state, version) = (set.state(), set.current(0).unwrap());
    let copies = (Naive::of(&state), version.as_ref().clone());
    set.log_and_apply(flush(&set)).unwrap();
    assert_eq!((Naive::of(&state), version.as_ref().clone()), copies);
    assert_eq!(
        (version.table_count(), set.current(0).unwrap().table_count()),
        (1, 2)
    );
}
