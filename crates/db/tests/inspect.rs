//! What `inspect` says of the files of a database, whole and damaged, open and closed.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail.

use esker::inspect::{dump_manifest, dump_table, dump_wal};
use esker::{Db, ErrorKind, WriteBatch};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

type Inspector = fn(&Path, &mut dyn std::io::Write) -> esker::Result<()>;

/// What was printed, and how it ended.
fn dump(inspector: Inspector, path: &Path) -> (String, esker::Result<()>) {
    let mut out = Vec::new();
    let result = inspector(path, &mut out);
    (String::from_utf8(out).unwrap(), result)
}

/// What was printed of a file that is whole.
#[track_caller]
fn whole(inspector: Inspector, path: &Path) -> String {
    let (text, result) = dump(inspector, path);
    result.unwrap();
    text
}

/// The newest file of the database whose name begins or ends so.
fn newest(db: &Db, part: &str) -> PathBuf {
    let entries = fs::read_dir(db.directory()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let of_kind = paths.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(part) || name.ends_with(part)
    });
    of_kind.max().expect("there is such a file")
}

/// A database with every kind of record.
fn filled(directory: &Path) -> Db {
    let db = Db::open(directory).unwrap();
    let users = db.keyspace("users").unwrap();
    let mut batch = WriteBatch::new();
    batch.put("plain\n", vec![b'v'; 100]);
    batch.put_with_ttl("short-lived", "soon gone", Duration::from_secs(3600));
    batch.put_in(&users, b"\xff", "in a keyspace");
    db.write(batch).unwrap();
    db.delete("missing").unwrap();
    db.delete_range("a".."b").unwrap();
    db.delete_range("x"..).unwrap();
    db
}

#[test]
fn a_log_in_use_shows_its_batches() {
    let dir = tempfile::tempdir().unwrap();
    let db = filled(dir.path());
    let text = whole(dump_wal, &newest(&db, ".wal"));
    for expected in [
        "batch of 3, sequence 1 to 3",
        "1 put \"plain\\n\" = \"vvvv",
        "... (100 bytes)",
        "2 put \"short-lived\" = \"soon gone\" until ",
        "3 in keyspace 1 put \"\\xff\" = \"in a keyspace\"",
        "4 delete \"missing\"",
        "5 delete range \"a\" to \"b\"",
        "6 delete range \"x\" to the last key",
        "open at ",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn a_table_shows_its_properties_entries_and_range_tombstones() {
    let dir = tempfile::tempdir().unwrap();
    let db = filled(dir.path());
    // A snapshot keeps what a flush would otherwise forget.
    let snapshot = db.snapshot();
    db.put("plain\n", "newer").unwrap();
    db.flush().unwrap();
    let tables = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let tables = tables.filter(|path| path.extension().is_some_and(|end| end == "sst"));
    let text: String = tables.map(|path| whole(dump_table, &path)).collect();
    for expected in [
        "entries: ",
        "put \"plain\\n\" = \"newer\"",
        "put \"plain\\n\" = \"vvvv",
        "put \"short-lived\" = \"soon gone\" until ",
        "put \"\\xff\" = \"in a keyspace\"",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    drop(snapshot);
}

#[test]
fn a_manifest_shows_keyspaces_and_tables_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let db = filled(dir.path());
    db.flush().unwrap();
    db.compact().unwrap();
    db.drop_keyspace("users").unwrap();
    let text = whole(dump_manifest, &newest(&db, "MANIFEST-"));
    for expected in [
        "keyspace 0 created as \"default\"",
        "keyspace 1 created as \"users\"",
        "keyspace 1 gains table",
        "keyspace 1 dropped",
        "flushed up to sequence",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn what_is_whole_is_printed_before_damage_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    db.put("first", "kept").unwrap();
    db.put("second", "hit").unwrap();
    let original = newest(&db, ".wal");
    // The name must stay, for it is part of what the checksums cover.
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join(original.file_name().unwrap());
    let mut bytes = fs::read(&original).unwrap();
    let at = bytes
        .windows(6)
        .position(|window| window == b"second")
        .unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    // What a copy holds is shown, and that it stands nowhere else.
    let (text, result) = dump(dump_wal, &path);
    result.unwrap();
    assert!(text.contains("put \"second\" = \"hit\""), "{text}");
    assert!(text.contains("taken from copies"), "{text}");
    let copy = bytes.windows(6).position(|window| window == b"second");
    bytes[copy.unwrap()] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (text, result) = dump(dump_wal, &path);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert_eq!(error.file(), Some(path.as_path()));
    assert!(error.offset().is_some());
    assert!(text.contains("put \"first\" = \"kept\""), "{text}");
    assert!(!text.contains("econd"), "{text}");
}

#[test]
fn files_of_another_kind_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let inspectors: [(Inspector, &str, &str); 3] = [
        (dump_wal, "000001.wal", "000001.sst"),
        (dump_table, "000001.sst", "CURRENT"),
        (dump_manifest, "MANIFEST-000001", "000001.wal"),
    ];
    for (inspector, right, wrong) in inspectors {
        fs::write(dir.path().join(wrong), "").unwrap();
        let (text, result) = dump(inspector, &dir.path().join(wrong));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(text, "");
        let missing = dir.path().join("nowhere").join(right);
        let error = dump(inspector, &missing).1.unwrap_err();
        assert_eq!(error.file(), Some(missing.as_path()), "{error}");
        fs::write(dir.path().join(right), "not what its name says").unwrap();
        let error = dump(inspector, &dir.path().join(right)).1.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        fs::remove_file(dir.path().join(right)).unwrap();
    }
}

#[test]
fn marks_are_shown_and_archived_segments_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let db = esker::Options::new().wal_archive(true);
    let db = db.open(dir.path()).unwrap();
    db.keyspace("users").unwrap().put("a", "b").unwrap();
    let text = whole(dump_wal, &newest(&db, ".wal"));
    assert!(text.contains("mark, from sequence 1 on"), "{text}");
    db.wal().clear().unwrap();
    let segment = db.wal().archived().unwrap().remove(0);
    let text = whole(dump_wal, segment.path());
    for expected in [
        "mark, from sequence 1 on",
        "created as \"users\"",
        "there is no other keyspace up to 1",
        "put \"a\" = \"b\"",
        "complete at",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
}
