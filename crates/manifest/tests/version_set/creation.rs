//! When a directory is a database, when it may become one, and when that would bury data.

use esker_base::ErrorKind;
use esker_base::filename::{current_path, manifest_path, table_path, wal_path};
use esker_wal::{SegmentHeader, SegmentOptions, SegmentWriter, SyncMode};

use super::*;

#[test]
fn an_empty_directory_becomes_a_database_once() {
    let fs = empty();
    assert!(!VersionSet::exists(&fs, directory()).unwrap());
    assert!(!VersionSet::exists(&fs, Path::new("/nowhere")).unwrap());
    assert_eq!(recover(&fs).unwrap_err().kind(), ErrorKind::NotFound);
    let id = [7; 16];
    let initial = VersionEdit {
        database_id: Some(id),
        options: Some(b"options".to_vec()),
        ..VersionEdit::default()
    };
    let set = VersionSet::create(shared(&fs), directory(), TINY, initial).unwrap();
    assert!(VersionSet::exists(&fs, directory()).unwrap());
    assert_eq!(create(&fs).unwrap_err().kind(), ErrorKind::InvalidArgument);
    for set in [recover(&fs).unwrap(), set] {
        assert_eq!(
            (set.state().database_id, set.state().options.as_slice()),
            (id, &b"options"[..])
        );
        let keyspaces = set.keyspaces();
        assert_eq!(
            (keyspaces.len(), keyspaces[0].id, &*keyspaces[0].name),
            (1, 0, "default")
        );
        assert_eq!(set.next_keyspace_id(), 1);
    }
}

#[test]
fn the_first_keyspace_may_have_options() {
    let fs = empty();
    let create = Some(("default".to_owned(), b"mine".to_vec()));
    let keyspaces = vec![KeyspaceEdit {
        create,
        ..KeyspaceEdit::default()
    }];
    let initial = VersionEdit {
        keyspaces,
        ..VersionEdit::default()
    };
    let set = VersionSet::create(shared(&fs), directory(), TINY, initial).unwrap();
    assert_eq!(set.keyspaces()[0].options, b"mine");
}

#[test]
fn what_an_interrupted_creation_left_is_written_over() {
    let fs = empty();
    let snapshot = create(&empty()).unwrap().state().snapshot();
    let (number, options) = (1, SegmentOptions::default());
    let header = SegmentHeader {
        number,
        ..SegmentHeader::default()
    };
    let path = manifest_path(directory(), number);
    let mut manifest = SegmentWriter::create(&fs, &path, header, options).unwrap();
    for edit in snapshot {
        let record = edit.encode().unwrap();
        manifest.append_one(&record, SyncMode::Sync).unwrap();
    }
    manifest.sync().unwrap();
    let options = SegmentOptions::default();
    let header = SegmentHeader {
        number: 2,
        ..SegmentHeader::default()
    };
    SegmentWriter::create(&fs, &wal_path(directory(), 2), header, options).unwrap();
    fs.create(&wal_path(directory(), 3)).unwrap();
    assert!(!VersionSet::exists(&fs, directory()).unwrap());
    let set = create(&fs).unwrap();
    assert_eq!(recover(&fs).unwrap().state(), set.state());
}

#[test]
fn data_without_current_is_never_buried() {
    let with_table = empty();
    with_table.create(&table_path(directory(), 9)).unwrap();
    let with_log = empty();
    let header = SegmentHeader {
        number: 2,
        ..SegmentHeader::default()
    };
    let path = wal_path(directory(), 2);
    let options = SegmentOptions::default();
    let mut writer = SegmentWriter::create(&with_log, &path, header, options).unwrap();
    writer.append_one(b"data", SyncMode::Buffered).unwrap();
    let without_data = empty();
    create(&without_data).unwrap();
    let current = current_path(directory());
    without_data.remove_file(&current).unwrap();
    for fs in [with_table, with_log, without_data] {
        let before = manifests(&fs);
        let error = VersionSet::exists(&fs, directory()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert_eq!(error.file(), Some(current_path(directory()).as_path()));
        assert_eq!(create(&fs).unwrap_err().kind(), ErrorKind::Corruption);
        assert_eq!(manifests(&fs), before);
    }
}

#[test]
fn reading_only_writes_nothing_and_takes_no_edits() {
    let fs = empty();
    let set = create(&fs).unwrap();
    set.log_and_apply(flush(&set)).unwrap();
    let trace = esker_vfs::TraceFileSystem::new(shared(&fs));
    let reader = VersionSet::recover_read_only(shared(&trace), directory()).unwrap();
    assert_eq!(reader.state(), set.state());
    let error = reader.log_and_apply(flush(&reader)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert_eq!(reader.manifest_number(), set.manifest_number());
    assert!(
        trace
            .entries()
            .iter()
            .all(|entry| !entry.operation.kind.changes())
    );
}
