//! What a dropped cursor leaves for the next one: that one sees what is there now, in its own keyspace, range and
//! snapshot, and what was replaced is kept by none.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker::{Db, Keyspace, Options, Snapshot};
use esker_compaction::ManualExecutor;
use esker_testkit::disk::{FileSystem, MemFileSystem};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(disk: &MemFileSystem) -> (Db, Arc<ManualExecutor>) {
    let executor = Arc::new(ManualExecutor::new(1));
    let db = Options::new()
        .file_system(Arc::new(disk.clone()))
        .executor(executor.clone())
        .write_buffer_bytes(64 << 10)
        .open("/db")
        .unwrap();
    (db, executor)
}

/// Both directions from a key, with a cursor each, against the model.
fn check(keyspace: &Keyspace, snapshot: Option<&Snapshot>, model: &Model, from: &[u8]) {
    let cursor = || match snapshot {
        Some(snapshot) => snapshot.cursor_in(keyspace),
        None => keyspace.cursor(),
    };
    let mut forwards = cursor();
    forwards.seek(from).unwrap();
    for (key, value) in model.range(from.to_vec()..) {
        assert!(forwards.valid(), "{key:?} is missing");
        assert_eq!((forwards.key(), forwards.value()), (&key[..], &value[..]));
        forwards.next().unwrap();
    }
    assert!(!forwards.valid(), "{:?} is one too many", forwards.key());
    drop(forwards);
    let mut backwards = cursor();
    backwards.seek_for_prev(from).unwrap();
    let bounds = (Bound::Unbounded, Bound::Included(from.to_vec()));
    for (key, value) in model.range::<Vec<u8>, _>(bounds).rev() {
        assert_eq!((backwards.key(), backwards.value()), (&key[..], &value[..]));
        backwards.prev().unwrap();
    }
    assert!(!backwards.valid());
}

#[test]
fn the_next_cursor_sees_what_was_written_since() {
    let (db, executor) = open(&MemFileSystem::new());
    let mut model = Model::new();
    check(&db, None, &model, b"m");
    for step in 0..400u32 {
        let key = (step.wrapping_mul(0x9e37_79b1) >> 22)
            .to_be_bytes()
            .to_vec();
        match step % 7 {
            5 => {
                db.delete(&key).unwrap();
                model.remove(&key);
            }
            _ => {
                db.put(&key, step.to_string()).unwrap();
                model.insert(key.clone(), step.to_string().into_bytes());
            }
        }
        check(&db, None, &model, &key);
        match step % 50 {
            // The memtable is empty then, and no source of a cursor.
            20 => db.flush().unwrap(),
            30 => {
                let (start, end) = (key.clone(), (step + 300).to_be_bytes().to_vec());
                if start < end {
                    db.delete_range(start.clone()..end.clone()).unwrap();
                    model.retain(|key, _| *key < start || *key >= end);
                }
            }
            40 => db.compact().unwrap(),
            _ => {}
        }
        check(&db, None, &model, &key);
        while executor.step() {}
    }
}

#[test]
fn keyspaces_ranges_and_snapshots_are_kept_apart() {
    let (db, _executor) = open(&MemFileSystem::new());
    let other = db.keyspace("other").unwrap();
    let (mut model, mut others) = (Model::new(), Model::new());
    for key in 0..100u8 {
        db.put([key], b"here").unwrap();
        model.insert(vec![key], b"here".to_vec());
        other.put([key, 0], b"there").unwrap();
        others.insert(vec![key, 0], b"there".to_vec());
    }
    let (snapshot, before) = (db.snapshot(), model.clone());
    db.put([200], b"later").unwrap();
    model.insert(vec![200], b"later".to_vec());
    for round in 0..3 {
        check(&db, None, &model, &[50]);
        check(&db, Some(&snapshot), &before, &[50]);
        check(&other, None, &others, &[50]);
        assert_eq!(db.range([10u8]..[20]).count(), 10);
        assert_eq!(db.prefix([7u8]).count(), 1);
        check(&db, None, &model, &[0]);
        if round == 1 {
            db.flush().unwrap();
        }
    }
    drop(other);
    db.drop_keyspace("other").unwrap();
    let other = db.keyspace("other").unwrap();
    check(&other, None, &Model::new(), &[50]);
    db.close().unwrap();
    assert!(db.cursor().seek_to_first().is_err());
}

#[test]
fn the_files_of_what_was_merged_go_though_a_cursor_read_them() {
    let disk = MemFileSystem::new();
    let (db, executor) = open(&disk);
    let tables = || {
        let names = disk.read_dir(Path::new("/db")).unwrap().into_iter();
        names.filter(|entry| entry.name.ends_with(".sst")).count()
    };
    for _ in 0..3 {
        for key in 0..200u8 {
            db.put([key], [key; 50]).unwrap();
        }
        db.flush().unwrap();
    }
    let mut cursor = db.cursor();
    cursor.seek([100]).unwrap();
    assert_eq!((cursor.key(), tables()), (&[100][..], 3));
    drop(cursor);
    db.compact().unwrap();
    while executor.step() {}
    assert_eq!(tables(), 1);
}

#[test]
fn a_dropped_cursor_keeps_no_database_open() {
    let disk = MemFileSystem::new();
    let (db, executor) = open(&disk);
    db.put("k", "v").unwrap();
    let mut cursor = db.cursor();
    drop(db);
    cursor.seek("k").unwrap();
    assert_eq!(cursor.value(), b"v");
    drop((cursor, executor));
    let (db, _executor) = open(&disk);
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"v"[..]));
}

#[test]
fn readers_beside_a_writer_see_what_was_acknowledged() {
    let db = Options::new()
        .file_system(Arc::new(MemFileSystem::new()))
        .write_buffer_bytes(16 << 10)
        .open("/db")
        .unwrap();
    let acknowledged = AtomicU64::new(0);
    const WRITES: u64 = 5_000;
    let read = || {
        loop {
            let before = acknowledged.load(Ordering::Acquire);
            let mut cursor = db.cursor();
            cursor.seek("count").unwrap();
            let seen = match cursor.valid() {
                true => u64::from_be_bytes(cursor.value().try_into().unwrap()),
                false => 0,
            };
            assert!(seen >= before, "{seen} after {before} was acknowledged");
            if seen == WRITES {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        (0..3).for_each(|_| drop(scope.spawn(read)));
        for number in 1..=WRITES {
            db.put("count", number.to_be_bytes()).unwrap();
            acknowledged.store(number, Ordering::Release);
            if number % 1_000 == 0 {
                db.compact().unwrap();
            }
        }
    });
}
