//! Reads that pay for several sources have them merged, and only then.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use esker::{Db, Options};
use esker_compaction::ManualExecutor;
use esker_testkit::disk::{FileSystem, MemFileSystem};

const KEYS: u32 = 2000;

fn key(index: u32) -> [u8; 4] {
    // Scattered, so that every run spans all keys.
    index.wrapping_mul(0x9e37_79b1).to_be_bytes()
}

fn value(index: u32) -> Vec<u8> {
    [&index.to_le_bytes()[..], &[7; 96]].concat()
}

fn open() -> (Db, Arc<ManualExecutor>) {
    open_on(MemFileSystem::new())
}

fn open_on(disk: MemFileSystem) -> (Db, Arc<ManualExecutor>) {
    let executor = Arc::new(ManualExecutor::new(3));
    let db = Options::new()
        .file_system(Arc::new(disk))
        .executor(executor.clone())
        .write_buffer_bytes(64 << 10)
        .open("/db")
        .unwrap();
    (db, executor)
}

/// Runs, and records that are still in memory.
fn sources(db: &Db) -> (usize, u64) {
    let stats = db.keyspace_stats();
    let runs = stats.levels().iter().map(|level| level.runs).sum();
    (runs, stats.memtable_entries())
}

/// Puts every key, with two flushes in between, and leaves the last third in memory.
fn fill(db: &Db, executor: &ManualExecutor) {
    for index in 0..KEYS {
        db.put(key(index), value(index)).unwrap();
        if index == KEYS / 3 || index == KEYS / 3 * 2 {
            db.flush().unwrap();
        }
    }
    while executor.step() {}
}

fn check_all(db: &Db) {
    for index in 0..KEYS {
        let found = db.get(key(index)).unwrap();
        assert_eq!(found.as_deref(), Some(&value(index)[..]), "{index}");
    }
}

#[test]
fn reads_leave_one_run() {
    let (db, executor) = open();
    fill(&db, &executor);
    let (runs, in_memory) = sources(&db);
    assert!(
        runs > 1 && in_memory > 0,
        "{runs} runs, {in_memory} records"
    );
    for _ in 0..50 {
        check_all(&db);
        while executor.step() {}
        if sources(&db) == (1, 0) {
            break;
        }
    }
    assert_eq!(sources(&db), (1, 0), "{:?}", db.keyspace_stats());
    let written = db.stats().device_bytes_written();
    for _ in 0..10 {
        check_all(&db);
        while executor.step() {}
    }
    assert_eq!(db.stats().device_bytes_written(), written);
    assert!(db.validate().unwrap().is_ok());
}

#[test]
fn seeks_leave_one_run() {
    let (db, executor) = open();
    fill(&db, &executor);
    let mut rounds = 0;
    while sources(&db) != (1, 0) && rounds < 50 {
        for index in 0..KEYS / 10 {
            let mut entries = db.range(key(index)..);
            assert_eq!(&*entries.next().unwrap().unwrap().0, &key(index)[..]);
        }
        while executor.step() {}
        rounds += 1;
    }
    assert_eq!(sources(&db), (1, 0), "{:?}", db.keyspace_stats());
}

#[test]
fn reads_between_writes_have_nothing_merged() {
    let written = [false, true].map(|is_read| {
        let (db, executor) = open();
        fill(&db, &executor);
        for round in 0..5 {
            for index in 0..KEYS {
                db.put(b"one", value(round)).unwrap();
                if is_read {
                    assert!(db.get(key(index)).unwrap().is_some());
                }
            }
            while executor.step() {}
        }
        db.stats().device_bytes_written()
    });
    assert_eq!(written[0], written[1]);
}

/// The story: a memtable that held thousands of records of few keys, but was too small to be worth a run, was never
/// flushed for scans, each of which searched it once for every key: 49,000 scans of ten entries a second, for ever,
/// where one run gave a million.
#[test]
fn scans_past_many_records_of_few_keys_have_them_flushed() {
    for (records, is_flushed) in [(300, true), (3, false)] {
        let executor = Arc::new(ManualExecutor::new(3));
        let db = Options::new()
            .file_system(Arc::new(MemFileSystem::new()))
            .executor(executor.clone())
            .write_buffer_bytes(4 << 20)
            .open("/db")
            .unwrap();
        for record in 0..records {
            db.put("one", value(record)).unwrap();
            db.put("two", value(record + 1)).unwrap();
        }
        let scans = || {
            for _ in 0..200 {
                let entries: Vec<_> = db.range("a"..).map(Result::unwrap).collect();
                let found: Vec<_> = entries.iter().map(|(_, value)| &**value).collect();
                assert_eq!(found, [&value(records - 1)[..], &value(records)[..]]);
            }
            while executor.step() {}
        };
        let memtable = u64::from(2 * records);
        scans();
        assert_eq!(sources(&db), (0, memtable), "they have not paid for it yet");
        for _ in 0..10 {
            scans();
        }
        let expected = if is_flushed { (1, 0) } else { (0, memtable) };
        assert_eq!(sources(&db), expected);
    }
}

/// Their files once stayed until the next write had something flushed.
#[test]
fn tables_that_a_reader_kept_go_with_a_later_read() {
    let disk = MemFileSystem::new();
    let (db, executor) = open_on(disk.clone());
    fill(&db, &executor);
    let mut reader = db.cursor();
    while sources(&db) != (1, 0) {
        reader = db.cursor();
        check_all(&db);
        while executor.step() {}
    }
    let tables = || {
        let entries = disk.read_dir(Path::new("/db")).unwrap();
        let is_table = |name: &str| name.ends_with(".sst");
        entries.iter().filter(|entry| is_table(&entry.name)).count()
    };
    assert!(tables() > 1, "the reader kept nothing");
    drop(reader);
    check_all(&db);
    while executor.step() {}
    assert_eq!(tables(), 1);
}

/// The story: a cursor on a state that was flushed long ago went on counting what it searched there, and had each
/// write behind it flushed into a run of its own.
#[test]
fn scans_of_what_was_flushed_have_nothing_flushed() {
    let executor = Arc::new(ManualExecutor::new(3));
    let options = Options::new().file_system(Arc::new(MemFileSystem::new()));
    let options = options
        .executor(executor.clone())
        .write_buffer_bytes(4 << 20);
    let db = options.open("/db").unwrap();
    for record in 0..300 {
        db.put("one", value(record)).unwrap();
        db.put("two", value(record)).unwrap();
    }
    let mut old = db.cursor();
    db.flush().unwrap();
    while executor.step() {}
    assert_eq!(sources(&db), (1, 0));
    for write in 1..=3 {
        db.put(key(write), value(write)).unwrap();
        for _ in 0..3000 {
            old.seek("a").unwrap();
            while old.valid() {
                old.next().unwrap();
            }
        }
        while executor.step() {}
        assert_eq!(sources(&db), (1, u64::from(write)));
    }
}
